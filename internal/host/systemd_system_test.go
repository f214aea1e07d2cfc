//go:build system

package host

import (
	"testing"

	"github.com/amiagent/amiagent/internal/nspawntest"
)

func TestSystemdInABootedSystem(t *testing.T) {
	nspawntest.Inside(t.Context(), t, nspawntest.Tree(t), nspawntest.Options{})
}
