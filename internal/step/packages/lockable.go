package packages

import (
	"fmt"

	"github.com/amiagent/amiagent/internal/pkgmgr"
	"github.com/amiagent/amiagent/internal/step"
)

// Inputs implements step.Lockable: the package's version, unless it is to be absent.
func (p *Package) Inputs() []step.Input {
	if p.State == absent {
		return nil
	}
	return []step.Input{{Kind: step.Package, Name: p.name, Want: p.Version}}
}

// Lock implements step.Lockable.
func (p *Package) Lock(_ step.Input, to step.Resolution) error {
	if !pkgmgr.Match(p.Version, to.Version) {
		return fmt.Errorf("the manifest says version %s, the lock has %s", p.Version, to.Version)
	}
	p.Version = to.Version
	return nil
}
