//go:build system

package pkgmgr

import (
	"testing"

	"github.com/amiagent/amiagent/internal/nspawntest"
)

func TestSystemUnitsAreHeldOff(t *testing.T) {
	nspawntest.Inside(t.Context(), t, nspawntest.Tree(t), nspawntest.Options{})
}
