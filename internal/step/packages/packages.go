// Package packages makes the distribution's packages be there, at a version,
// or not be there. The work is done by package pkgmgr.
//
// All packages that a run wants are one transaction, so that the manager
// resolves them together, and so that one can take the place of another. Packages that are
// as wanted cost a look at the package database and nothing else: no
// metadata is read, no repository is asked. A version already installed that
// matches is never moved; what the repositories have newer is a matter for
// the kind pin.
package packages

import (
	"context"
	_ "embed"
	"errors"
	"fmt"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/pkgmgr"
	"github.com/amiagent/amiagent/internal/step"
)

//go:embed example.yaml
var example string

// Kind is the manifest's section "packages".
func Kind() step.Kind {
	return step.Kind{
		Name:    "packages",
		Doc:     "Packages of the distribution (apt, dnf, yum), changed in one transaction.",
		Level:   step.LevelPackages,
		New:     func() step.Step { return &Package{State: present} },
		Group:   group{},
		Lock:    "packages",
		Example: example,
	}
}

const (
	present = "present"
	absent  = "absent"
)

// Package is one package.
type Package struct {
	name string
	with map[string]string // versions of what comes along, where they are locked

	// Version is exact or a glob, and may leave out epoch and release; "" takes
	// what the repositories have, and any that is installed.
	Version string `yaml:"version"`
	// State is present or absent. Configuration files of an absent package stay.
	State string `yaml:"state"`
}

// SetName gives the package its name.
func (p *Package) SetName(name string) { p.name = name }

// Validate records faults of the body by field name.
func (p *Package) Validate(at diag.At) {
	if step.StaticText(p.name) {
		if err := pkgmgr.CheckName(p.name); err != nil {
			at.Errorf("%q cannot name a package: %v", p.name, err)
		}
	}
	if step.StaticText(p.Version) {
		if err := pkgmgr.CheckVersion(p.Version); err != nil {
			at.Field("version").Err(err)
		}
	}
	if step.StaticText(p.State) && p.State != present && p.State != absent {
		at.Field("state").Errorf("must be present or absent, is %q", p.State)
	}
	if p.State == absent && p.Version != "" {
		at.Field("version").Errorf("an absent package has no version")
	}
}

func (p *Package) want() pkgmgr.Want {
	return pkgmgr.Want{Name: p.name, Version: p.Version, Absent: p.State == absent}
}

// Check looks for this package alone; the agent asks the group.
func (p *Package) Check(ctx context.Context, env step.Env) (step.Drift, error) {
	drifts, err := group{}.Check(ctx, env, []step.Member{{ID: env.ID, Env: env, Step: p}})
	if err != nil {
		return "", err
	}
	return drifts[0], nil
}

// Apply changes this package alone; the agent asks the group.
func (p *Package) Apply(ctx context.Context, env step.Env) error {
	err := group{}.Apply(ctx, env, []step.Member{{ID: env.ID, Env: env, Step: p}})
	var one step.MemberErrors
	if errors.As(err, &one) {
		return one[env.ID]
	}
	return err
}

// group is all packages of a run.
type group struct{}

func wants(members []step.Member) ([]pkgmgr.Want, error) {
	all := make([]pkgmgr.Want, len(members))
	for i, m := range members {
		p, ok := m.Step.(*Package)
		if !ok {
			return nil, fmt.Errorf("%s is no package", m.ID)
		}
		all[i] = p.want()
	}
	return all, nil
}

func open(env step.Env, members []step.Member) (*pkgmgr.Manager, []pkgmgr.Want, error) {
	m, err := step.Memo(env.Shared, pkgmgr.MemoKey, func() (*pkgmgr.Manager, error) {
		return pkgmgr.New(env.Host, env.Facts.Get(facts.PackageFamily))
	})
	if err != nil {
		return nil, nil, err
	}
	all, err := wants(members)
	return m, all, err
}

// Check reads the package database, once for all.
func (group) Check(ctx context.Context, env step.Env, members []step.Member) ([]step.Drift, error) {
	m, all, err := open(env, members)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(all))
	for i, w := range all {
		names[i] = w.Name
	}
	db, err := m.Installed(ctx, names)
	if err != nil {
		return nil, err
	}
	drifts := make([]step.Drift, len(all))
	for i, w := range all {
		drifts[i] = step.Drift(db.Drift(w))
	}
	return drifts, nil
}

// Prefetch downloads what the transaction will need. What no repository has is
// passed over: its repository may only be made by this run.
func (group) Prefetch(ctx context.Context, env step.Env, members []step.Member) error {
	m, all, err := open(env, members)
	if err != nil {
		return err
	}
	return m.Download(ctx, append(all, along(members)...), pkgmgr.Talk{Output: env.Output, Status: env.Status})
}

// Apply is the transaction.
func (group) Apply(ctx context.Context, env step.Env, members []step.Member) error {
	m, all, err := open(env, members)
	if err != nil {
		return err
	}
	with := along(members)
	err = m.Change(ctx, append(all, with...), pkgmgr.Talk{Output: env.Output, Status: env.Status})
	var failed pkgmgr.Failures
	if !errors.As(err, &failed) {
		return err
	}
	for _, w := range with {
		if failed[w.Name] != nil { // what the lock does not have may have come in its place
			return failed[w.Name]
		}
	}
	each := step.MemberErrors{}
	for i, w := range all {
		if failed[w.Name] != nil {
			each[members[i].ID] = failed[w.Name]
		}
	}
	return each
}
