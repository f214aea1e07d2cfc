package units

import (
	"context"
	"slices"

	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/step"
)

// switches are what enables and masks units: systemd on a running machine, the
// links themselves in a tree.
type switches struct {
	state                         func(ctx context.Context, unit string) (string, error)
	enable, disable, mask, unmask func(ctx context.Context, unit string) error
}

// switchesOf gives the switches of the machine; s is nil for a tree.
func switchesOf(h *host.Host, s *host.Systemd) switches {
	if s != nil {
		return switches{s.UnitFileState, s.EnableUnit, s.DisableUnit, s.MaskUnit, s.UnmaskUnit}
	}
	plain := func(do func(string) error) func(context.Context, string) error {
		return func(ctx context.Context, unit string) error {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			return do(unit)
		}
	}
	return switches{
		func(_ context.Context, unit string) (string, error) { return h.TreeUnitState(unit) },
		plain(h.TreeEnable), plain(h.TreeDisable), plain(h.TreeMask), plain(h.TreeUnmask),
	}
}

// enabledStates are the states that mean "it is started with the machine":
// "indirect" units are enabled through another, "generated" ones by a
// generator, "alias" names a unit that is enabled for itself (systemctl(1), is-enabled).
var enabledStates = []string{"enabled", "indirect", "generated", "alias"}

// undisableable are the states in which disabling changes nothing.
var undisableable = []string{"disabled", "static", "masked", "masked-runtime", "indirect", "generated", "alias", "transient", "linked", ""}

func isMasked(state string) bool { return state == "masked" || state == "masked-runtime" }

// fileSwitch is what to do about enablement and mask, and why; nil when they are right.
func (u *Unit) fileSwitch(ctx context.Context, sw switches) (func(context.Context, string) error, step.Drift, error) {
	if u.Enabled == nil && u.Masked == nil {
		return nil, "", nil
	}
	state, err := sw.state(ctx, u.name)
	if err != nil {
		return nil, "", err
	}
	switch {
	case u.Masked != nil && *u.Masked && !isMasked(state):
		return sw.mask, "is not masked", nil
	case u.Masked != nil && !*u.Masked && isMasked(state):
		return sw.unmask, "is masked", nil
	case u.Enabled != nil && *u.Enabled && !slices.Contains(enabledStates, state):
		if state == "" {
			state = "without a file"
		}
		return sw.enable, step.Drift("is " + state + ", want enabled"), nil
	case u.Enabled != nil && !*u.Enabled && !slices.Contains(undisableable, state):
		return sw.disable, step.Drift("is " + state + ", want disabled"), nil
	}
	return nil, "", nil
}

// install brings enablement and mask about, and tells whether it changed
// anything. Unmasking may uncover that the unit is to be enabled too.
func (u *Unit) install(ctx context.Context, sw switches) (changed bool, err error) {
	for range 2 {
		do, _, err := u.fileSwitch(ctx, sw)
		if err != nil || do == nil {
			return changed, err
		}
		if err := do(ctx, u.name); err != nil {
			return changed, err
		}
		changed = true
	}
	return changed, nil
}
