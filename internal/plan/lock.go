package plan

import (
	"fmt"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/lock"
	"github.com/amiagent/amiagent/internal/step"
)

// Input is one thing that a step names and does not hold, with its step.
type Input struct {
	step.Input
	ID step.ID
}

// Inputs are what the plan's steps name, in order: what a lock must hold.
func (p *Plan) Inputs() []Input {
	var all []Input
	for _, n := range p.Nodes {
		if x, ok := n.Body.(step.Lockable); ok {
			for _, in := range x.Inputs() {
				all = append(all, Input{in, n.ID})
			}
		}
	}
	return all
}

// Refused is everything that the lock does not allow, each at its place in the
// manifest, marked by lock.ErrRefused. Such a plan must not be run.
func (p *Plan) Refused() error { return lock.Refused(&p.refused) }

// Locked tells that a lock holds this step's inputs.
func (n *Node) Locked() bool { return len(n.locked) > 0 }

// resolve asks the lock for the step's inputs, once: a body that is rendered
// again with its secrets names the same things by other words.
func (n *Node) resolve(resolve lock.Resolver, refused *diag.List) {
	x, ok := n.Body.(step.Lockable)
	if resolve == nil || !ok {
		return
	}
	for _, in := range x.Inputs() {
		r, err := resolve(n.ID, in)
		if err == nil {
			if err = x.Lock(in, r); err != nil {
				err = diag.WithHint(of(in, err), "%s", lock.Hint(n.ID))
			}
		}
		if err != nil {
			n.Entry.At(refused).Err(err)
		}
		n.locked = append(n.locked, r)
	}
}

// hold gives the body, rendered again, what it was locked to.
func (n *Node) hold(at diag.At) {
	x, ok := n.Body.(step.Lockable)
	if !ok || len(n.locked) == 0 {
		return
	}
	for i, in := range x.Inputs() {
		if err := x.Lock(in, n.locked[i]); err != nil {
			at.Err(of(in, err))
		}
	}
}

// of names the input where the step's own name does not.
func of(in step.Input, err error) error {
	if in.Kind != step.Bytes {
		return err
	}
	return fmt.Errorf("%s: %w", in.Name, err)
}
