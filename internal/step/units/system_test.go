//go:build system

package units

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/amiagent/amiagent/internal/decode"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/nspawntest"
)

func TestInABootedSystem(t *testing.T) {
	tree := nspawntest.Tree(t)
	nspawntest.Inside(t.Context(), t, tree, nspawntest.Options{})
	t.Run("a queued unit starts once the agent is up", func(t *testing.T) {
		if _, err := os.Stat(filepath.Join(tree, "late-oneshot")); err != nil {
			t.Error(err)
		}
	})
}

// Units of the real world have no faults: those of a Debian system.
func TestDebiansUnitsHaveNoFaults(t *testing.T) {
	dir := filepath.Join(nspawntest.Tree(t), "usr/lib/systemd/system")
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	judged := 0
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil || len(b) == 0 || own[filepath.Ext(e.Name())] == "" {
			continue // folders, links to /dev/null, types that a manifest cannot name
		}
		u := &Unit{Content: string(b)}
		u.SetName(e.Name())
		var list diag.List
		u.Validate(decode.At(&list, e.Name(), decode.Parse(e.Name(), []byte("content: x"), &list), ""))
		if err := list.Err(); err != nil {
			t.Error(err)
		}
		judged++
	}
	if judged < 50 {
		t.Errorf("only %d units were judged", judged)
	}
}
