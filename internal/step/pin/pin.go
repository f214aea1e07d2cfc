// Package pin holds the machine's package repositories at a release, before
// any package is installed. The work is done by the package of the same name
// below internal.
//
// Whether the release is in force is what the package manager itself says, not
// what a file has in it. A release is validated before it is written: one that
// does not exist leaves the machine as it was. Packages already installed are
// not moved; that is `amiagent pin advance`, and an operator's decision.
package pin

import (
	"context"
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/pin"
	"github.com/amiagent/amiagent/internal/pin/families"
	"github.com/amiagent/amiagent/internal/pkgmgr"
	"github.com/amiagent/amiagent/internal/step"
)

//go:embed example.yaml
var example string

// Kind is the manifest's section "pin", which has one body.
func Kind() step.Kind {
	return step.Kind{
		Name:    "pin",
		Doc:     "The release at which the distribution's package repositories are held.",
		Level:   step.LevelPin,
		New:     func() step.Step { return &Pin{Floating: report} },
		Lock:    "packages",
		Example: example,
	}
}

const (
	allow  = "allow"
	report = "report"
	refuse = "refuse"
)

// Pin is how the machine's repositories should be held.
type Pin struct {
	// Release is a release of the OS, or image, latest or now.
	Release string `yaml:"release"`
	// Floating is what becomes of repositories that the release does not hold:
	// allow, report them, or refuse them.
	Floating string `yaml:"floating"`
	// By chooses among the ways that an OS has.
	By string `yaml:"by"`
	// Repositories are held by address, by their id. For apt: by the host of the
	// source, an address on its snapshot server with @SNAPSHOTID@ in it.
	Repositories map[string]string `yaml:"repositories"`
	// HoldOff are systemd units that are stopped and masked while packages are changed.
	HoldOff []string `yaml:"hold-off"`
}

// Validate records faults of the body by field name.
func (p *Pin) Validate(at diag.At) {
	if p.Release == "" && len(p.Repositories) == 0 && len(p.HoldOff) == 0 {
		at.Errorf("says nothing: give a release")
	}
	if step.StaticText(p.Release) && (strings.ContainsFunc(p.Release, isOdd) || strings.HasPrefix(p.Release, "-")) {
		at.Field("release").Errorf("must be a release, image, latest or now, is %q", p.Release)
	}
	if step.StaticText(p.Floating) && !slices.Contains([]string{allow, report, refuse}, p.Floating) {
		at.Field("floating").Errorf("must be allow, report or refuse, is %q", p.Floating)
	}
	if ways := families.Ways(); p.By != "" && step.StaticText(p.By) && ways[p.By] == "" {
		at.Field("by").Errorf("must be one of %s, is %q", strings.Join(slices.Sorted(maps.Keys(ways)), ", "), p.By)
	}
	for _, id := range slices.Sorted(maps.Keys(p.Repositories)) {
		here := at.Field("repositories").Field(id)
		if strings.ContainsFunc(id, isOdd) {
			here.Errorf("%q is no id of a repository", id)
		}
		if a := p.Repositories[id]; step.StaticText(a) && !isAddress(a) {
			here.Errorf("must be an address as https://example.com/repo/, is %q", a)
		}
	}
	for i, u := range p.HoldOff {
		if step.StaticText(u) && !isUnit(u) {
			at.Field("hold-off").Index(i).Errorf("must be a unit as apt-daily.timer, is %q", u)
		}
	}
}

// isOdd is a character that no release and no id has.
func isOdd(r rune) bool {
	return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:-", r)
}

func isAddress(s string) bool {
	return (strings.HasPrefix(s, "https://") || strings.HasPrefix(s, "http://")) && !strings.ContainsAny(s, " \t\r\n\"';")
}

func isUnit(s string) bool {
	_, kind, ok := strings.Cut(s, ".")
	return ok && !strings.ContainsAny(s, "/ \t\n") && slices.ContainsFunc([]string{"timer", "service", "path", "socket"}, func(k string) bool {
		return kind == k || strings.HasSuffix(kind, "."+k)
	})
}

// open gives the machine's pin, by the package manager that the run shares.
// That manager is told what to hold off, which is remembered for this run alone.
func (p *Pin) open(env step.Env) (*pin.Pin, error) {
	m, err := step.Memo(env.Shared, pkgmgr.MemoKey, func() (*pkgmgr.Manager, error) {
		return pkgmgr.New(env.Host, env.Facts.Get(facts.PackageFamily))
	})
	if err != nil {
		return nil, err
	}
	m.HoldOff(p.HoldOff)
	return families.Open(env.Host, env.Facts, families.Settings{By: p.By, Repositories: p.Repositories, Manager: m})
}

// Check asks the package manager which release is in force. It reads no repository.
func (p *Pin) Check(ctx context.Context, env step.Env) (step.Drift, error) {
	mine, err := p.open(env)
	if err != nil {
		return "", err
	}
	if env.Host.Live() {
		left, err := pkgmgr.HeldOff(env.Host)
		if err != nil {
			return "", err
		}
		if len(left) > 0 {
			return step.Drift("still held off by a run that was cut off: " + strings.Join(left, ", ")), nil
		}
	}
	if drift, err := p.drift(ctx, mine); err != nil || drift != "" {
		return drift, err
	}
	if drift, err := mine.Unfrozen(); err != nil || drift != "" {
		return step.Drift(drift), err
	}
	if p.Floating != refuse {
		return "", nil
	}
	st, err := mine.State(ctx)
	if err == nil && len(st.Floating) > 0 {
		return step.Drift("repositories float: " + list(st.Floating)), nil
	}
	return "", err
}

// drift compares the release that is meant with the one in force.
func (p *Pin) drift(ctx context.Context, mine *pin.Pin) (step.Drift, error) {
	if p.Release == "" {
		return "", nil
	}
	want, err := mine.Meant(ctx, p.Release)
	if err != nil {
		return "", err
	}
	have, err := mine.Spoken(ctx)
	if err != nil {
		return "", err
	}
	switch {
	case have == want, want == pin.Now && have != pin.Latest && have != "":
		return "", nil
	case want == pin.Now:
		return "no release is held", nil
	}
	return step.Drift(fmt.Sprintf("release is %q, want %q", have, want)), nil
}

// Apply validates the release, then writes it.
func (p *Pin) Apply(ctx context.Context, env step.Env) error {
	mine, err := p.open(env)
	if err != nil {
		return err
	}
	if env.Host.Live() {
		if err := pkgmgr.GiveBack(ctx, env.Host); err != nil {
			return err
		}
	}
	if p.Release == "" {
		return mine.Freeze(ctx)
	}
	_, err = mine.Set(ctx, p.Release, func(repos []pin.Repository) error { return p.accept(repos, env.Output) })
	if err != nil {
		return err
	}
	return mine.Freeze(ctx)
}

// accept judges the repositories that float, before anything is written.
func (p *Pin) accept(repos []pin.Repository, output func(string)) error {
	floating := slices.DeleteFunc(slices.Clone(repos), func(r pin.Repository) bool {
		_, frozen := p.Repositories[r.ID]
		return r.Floating == "" || frozen
	})
	switch {
	case len(floating) == 0 || p.Floating == allow:
	case p.Floating == refuse:
		return diag.WithHint(fmt.Errorf("%w: repositories float: %s", pin.ErrRefused, list(floating)),
			"hold them by address under `repositories`, turn them off, or say `floating: report`")
	case output != nil:
		for _, r := range floating {
			output(fmt.Sprintf("repository %s floats: %s", r.ID, r.Floating))
		}
	}
	return nil
}

func list(repos []pin.Repository) string {
	var all []string
	for _, r := range repos {
		all = append(all, fmt.Sprintf("%s (%s)", r.ID, r.Floating))
	}
	return strings.Join(all, ", ")
}
