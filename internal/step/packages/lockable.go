package packages

import (
	"fmt"
	"maps"
	"slices"

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
	p.Version, p.with = to.Version, to.With
	return nil
}

// along are the wants that a lock adds to those of the manifest, so that what
// packages need comes in its locked version too. What is no member keeps
// whatever version it has until a transaction is due.
func along(members []step.Member) []pkgmgr.Want {
	versions := map[string]string{}
	for _, m := range members {
		if p, ok := m.Step.(*Package); ok {
			maps.Copy(versions, p.with)
		}
	}
	for _, m := range members {
		delete(versions, m.ID.Name)
	}
	var all []pkgmgr.Want
	for _, name := range slices.Sorted(maps.Keys(versions)) {
		all = append(all, pkgmgr.Want{Name: name, Version: versions[name]})
	}
	return all
}
