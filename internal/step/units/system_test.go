//go:build system

package units

import (
	"os"
	"path/filepath"
	"testing"

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
