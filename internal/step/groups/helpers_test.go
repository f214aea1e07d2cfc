package groups

import (
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/step/steptest"
)

// emptyPath is the machine's tree, where no program is to be found.
func emptyPath(t *testing.T, m *steptest.Machine) *host.Host {
	h, err := host.New(m.Root(), host.Options{Programs: host.Outside, Path: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func wantHint(t *testing.T, err error, text, hint string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) || !strings.Contains(diag.Hint(err), hint) {
		t.Errorf("got %v (hint: %s)\nwant %s (hint: %s)", err, diag.Hint(err), text, hint)
	}
}
