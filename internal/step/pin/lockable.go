package pin

import (
	"fmt"
	"slices"

	"github.com/amiagent/amiagent/internal/pin"
	"github.com/amiagent/amiagent/internal/step"
)

// Inputs implements step.Lockable: the release, unless nothing is held by one.
func (p *Pin) Inputs() []step.Input {
	if p.Release == "" {
		return nil
	}
	return []step.Input{{Kind: step.Release, Want: p.Release}}
}

// Lock implements step.Lockable. A word of the manifest takes the release that
// it meant when the lock was made.
func (p *Pin) Lock(_ step.Input, to step.Resolution) error {
	if words := []string{pin.Latest, pin.Image, pin.Now}; !slices.Contains(words, p.Release) && p.Release != to.Version {
		return fmt.Errorf("the manifest says release %s, the lock has %s", p.Release, to.Version)
	}
	p.Release = to.Version
	return nil
}

// Holds implements step.Holder.
func (p *Pin) Holds() (by string, repositories map[string]string) { return p.By, p.Repositories }
