package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/identify"
	"github.com/amiagent/amiagent/internal/lock"
	"github.com/amiagent/amiagent/internal/lock/offered"
	"github.com/amiagent/amiagent/internal/pin"
	"github.com/amiagent/amiagent/internal/pin/families"
	"github.com/amiagent/amiagent/internal/pkgmgr"
	"github.com/amiagent/amiagent/internal/repodata"
)

// packages finds the release and the versions of one target's packages.
func (k *locking) packages(ctx context.Context, target string, w *targetWants, t *lock.Target) error {
	old := k.old(target)
	stale := w.release != nil && k.fresh("pin", old.Pin != nil)
	for name := range w.packages {
		_, had := old.Packages[name]
		stale = stale || k.fresh("packages."+name, had)
	}
	if !stale {
		t.Pin, t.Transaction = old.Pin, old.Transaction
		if len(w.packages) > 0 {
			t.Packages = maps.Clone(old.Packages)
			maps.DeleteFunc(t.Packages, func(name string, _ lock.Package) bool { _, ok := w.packages[name]; return !ok })
		}
		return nil
	}
	opt, err := k.repositories(ctx, target, w, t)
	if err == nil && len(w.packages) > 0 {
		err = k.choose(ctx, opt, w, t)
	}
	if err != nil {
		return diag.WithHint(fmt.Errorf("cannot lock the packages for %s: %w", target, err), "%s", diag.Hint(err))
	}
	return nil
}

// repositories says which repositories the target's packages come from, and
// notes the release that holds them.
func (k *locking) repositories(ctx context.Context, target string, w *targetWants, t *lock.Target) (offered.Options, error) {
	opt := offered.Options{Facts: w.facts, Files: w.offers}
	own, err := identify.Identify(ctx, identify.Options{Host: k.host})
	if err != nil {
		return opt, err
	}
	settings, err := k.newLaunch("lock").web()
	if err != nil {
		return opt, err
	}
	if opt.Client, err = repodata.New(settings); err != nil {
		return opt, err
	}
	sameOS := own.Get(facts.OSID) == w.facts.Get(facts.OSID) && own.Get(facts.OSVersion) == w.facts.Get(facts.OSVersion)
	if !sameOS {
		if len(w.offers) == 0 || w.release != nil {
			return opt, diag.WithHint(fmt.Errorf("the repositories of %s are not known here: this is %s", target, lock.TargetOf(own)),
				"lock on such a machine, or name the tree of its image by --root; another architecture of the same OS can be locked here")
		}
		k.note(fmt.Sprintf("for %s, packages are taken from the manifest's repositories alone: the OS's own are not known here", target))
		return opt, nil
	}
	opt.Host = k.host
	if w.release == nil {
		return opt, nil
	}
	hold := families.Settings{Web: settings}
	if w.holder != nil {
		hold.By, hold.Repositories = w.holder.Holds()
	}
	p, err := families.Open(k.host, w.facts, hold)
	if err != nil {
		return opt, err
	}
	return opt, k.release(ctx, p, *w.release, &opt, t)
}

// release resolves what the manifest pins, and where its repositories are then.
func (k *locking) release(ctx context.Context, p *pin.Pin, word string, opt *offered.Options, t *lock.Target) error {
	release, err := p.Meant(ctx, first(word, pin.Image))
	if err != nil {
		return err
	}
	name, repos, err := p.Resolve(ctx, release)
	if err != nil {
		return err
	}
	t.Pin = &lock.Pin{Release: name, Repositories: map[string]lock.Repository{}}
	opt.Bases = map[string]string{}
	if name != pin.Latest {
		opt.Release = name
	}
	for _, r := range repos {
		if r.Floating != "" {
			k.note(fmt.Sprintf("the release does not hold the repository %s: %s", r.ID, r.Floating))
			continue
		}
		t.Pin.Repositories[r.ID] = lock.Repository{URL: r.Base, Metadata: r.Digest}
		opt.Bases[r.ID] = r.Base
	}
	return nil
}

func (k *locking) choose(ctx context.Context, opt offered.Options, w *targetWants, t *lock.Target) error {
	repos, err := offered.Read(ctx, opt)
	if err != nil {
		return err
	}
	t.Packages = map[string]lock.Package{}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(w.packages)) {
		p, err := repos.Choose(name, w.packages[name])
		if err != nil {
			errs = append(errs, diag.WithHint(fmt.Errorf("%s: %w", name, err), "%s", diag.Hint(err)))
			continue
		}
		t.Packages[name] = p
	}
	if len(errs) == 0 && k.opt.From.Transaction {
		return k.transaction(ctx, w, t)
	}
	return errors.Join(errs...)
}

// transaction asks the machine's package manager what would come along. What
// that is depends on what is installed already.
func (k *locking) transaction(ctx context.Context, w *targetWants, t *lock.Target) error {
	own, err := identify.Identify(ctx, identify.Options{Host: k.host})
	if err != nil {
		return err
	}
	if target := lock.TargetOf(w.facts); target != lock.TargetOf(own) {
		return diag.WithHint(fmt.Errorf("the whole transaction for %s cannot be told on %s: only its own package manager solves it", target, lock.TargetOf(own)),
			"run it on such a machine, fresh from its image, or without --transaction")
	}
	m, err := pkgmgr.New(k.host, own.Get(facts.PackageFamily))
	if err != nil {
		return err
	}
	var wants []pkgmgr.Want
	for _, name := range slices.Sorted(maps.Keys(t.Packages)) {
		wants = append(wants, pkgmgr.Want{Name: name, Version: t.Packages[name].Version})
	}
	all, err := m.Simulate(ctx, wants)
	if err != nil {
		return err
	}
	t.Transaction = map[string]lock.Package{}
	for _, p := range all {
		t.Transaction[p.Name] = lock.Package{Version: p.Version, Repository: p.Repository}
	}
	return nil
}
