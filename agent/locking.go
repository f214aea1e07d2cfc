package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/amiagent/amiagent/internal/config"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/fetch"
	"github.com/amiagent/amiagent/internal/fetch/source/file"
	"github.com/amiagent/amiagent/internal/fetch/source/git"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/layers"
	"github.com/amiagent/amiagent/internal/lock"
	"github.com/amiagent/amiagent/internal/plan"
	"github.com/amiagent/amiagent/internal/step"
)

// LockOptions say what a lock is made for.
type LockOptions struct {
	// Manifest is the layers, in order; nil: those of agent.yaml.
	Manifest []LockLayer
	Roles    []LockRole
	// Dir is a folder outside the root for what is needed in between, as by git.
	Dir string
	// From is recorded in the lock as it is.
	From lock.From
	// Old is what is known: an object of S3 whose version is still the same is not read again.
	Old *lock.Lock
	// Only are the names, as lock.Update takes them, that are looked at afresh;
	// of the others the old lock's serve. nil: all are looked at.
	Only []string
}

// LockLayer is one layer: a document, or an address to read it from.
type LockLayer struct {
	Document *layers.Document
	Address  string // a template over facts
}

// LockRole is one sort of machine.
type LockRole struct {
	Name  string
	Facts *facts.Facts
}

// Lock finds out what everything that moves is now, for every role. It changes
// nothing on the machine. Notes are for people. All that cannot be resolved is in the error.
func (a *Agent) Lock(ctx context.Context, opt LockOptions) (*lock.Lock, []string, error) {
	k, err := a.newLocking(opt)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = k.store.Close() }()
	var errs []error
	for _, role := range opt.Roles {
		if err := k.role(ctx, role); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		var faults *diag.Error
		if len(errs) > 1 && errors.As(err, &faults) {
			return nil, k.notes, errs[0] // the faults of one role are most often those of all
		}
		return nil, k.notes, err
	}
	return k.out, k.notes, k.resolve(ctx)
}

// locking is a lock under way.
type locking struct {
	*Agent
	opt   LockOptions
	store *fetch.Store
	out   *lock.Lock
	wants map[string]*targetWants
	notes []string
}

// targetWants is what the roles of one target want.
type targetWants struct {
	facts    *facts.Facts // of its first role
	bytes    map[string]map[string]fetch.Request
	packages map[string]string // version or glob
	release  *string
	holder   step.Holder // of the release
	offers   []step.RepositoryFile
}

func (a *Agent) newLocking(opt LockOptions) (*locking, error) {
	// Locking is work at a desk: programs run there, whatever the root is of.
	desk, err := host.New("/", a.opt.Host)
	if err != nil {
		return nil, err
	}
	l := a.newLaunch("lock")
	l.facts = facts.New()
	if r := first(opt.Roles[0].Facts.Get(facts.Region), a.getenv("AWS_REGION"), a.getenv("AWS_DEFAULT_REGION")); r != "" {
		l.facts.Set(facts.Region, r, facts.Launch, "environment")
	}
	k := &locking{Agent: a, opt: opt, wants: map[string]*targetWants{},
		out: &lock.Lock{Format: lock.Format, From: opt.From, Manifests: map[string]lock.Manifest{}, Targets: map[string]lock.Target{}}}
	k.store = fetch.New(desk, fetch.Options{
		Dir: opt.Dir,
		Sources: fetch.Sources{
			fetch.KindS3:    fetch.Lazy(l.s3),
			fetch.KindHTTPS: fetch.Lazy(l.https),
			fetch.KindGit:   git.New(desk),
			fetch.KindFile:  file.New(a.host),
		},
	})
	return k, nil
}

const wantFacts = "give what templates read: --facts FILE, captured or by hand, or --fact NAME=VALUE"

// unknown tells that templates may fault for lack of facts that every launch has.
func (r LockRole) unknown() bool {
	return !slices.ContainsFunc(r.Facts.Names(), func(name string) bool { return r.Facts.Values[name].Stage == facts.Launch })
}

// role reads one role's layers and gathers what they name.
func (k *locking) role(ctx context.Context, role LockRole) error {
	l := k.newLaunch("lock")
	l.dry, l.facts, l.store = true, role.Facts, k.store
	docs, err := k.layers(ctx, l)
	if err != nil {
		hint := diag.Hint(err)
		if role.unknown() {
			hint = wantFacts
		}
		return diag.WithHint(fmt.Errorf("cannot lock %s: %w", role.Name, err), "%s", hint)
	}
	var list diag.List
	m := k.parse(docs, &list)
	p := plan.Build(m, plan.Options{Kinds: k.kinds, Facts: role.Facts, Env: k.Agent.opt.Env}, &list)
	decodeProbes(p)
	if list.Len() > 0 && role.unknown() {
		list.Add(diag.Problem{Message: fmt.Sprintf("nothing of a launch is known for %s", role.Name), Hint: wantFacts})
	}
	if err := list.Err(); err != nil {
		return err
	}
	if role.unknown() {
		for _, skip := range p.Skipped {
			k.note(fmt.Sprintf("%s is not locked for %s, of which no launch is known: %s", skip.ID, role.Name, skip.Why))
		}
	}
	target := lock.TargetOf(role.Facts)
	if _, _, _, err := lock.SplitTarget(target); err != nil {
		return diag.WithHint(fmt.Errorf("cannot lock %s: its facts name no OS and no architecture", role.Name), "it needs os.id, os.version and arch")
	}
	found := found(docs)
	locked := lock.Manifest{Target: target, Layers: make([]lock.Layer, len(docs))}
	for i, d := range docs {
		locked.Layers[i] = lock.Layer{Source: found[i].Source, Digest: found[i].Digest, Varies: d.Varies}
		if d.Origin != d.Source && d.Origin != found[i].Source {
			locked.Layers[i].Origin = d.Origin
		}
	}
	locked.Digest = lock.Digest(locked.Layers)
	k.out.Manifests[role.Name] = locked
	return k.gather(target, role, p)
}

// layers are the documents of one role.
func (k *locking) layers(ctx context.Context, l *launch) ([]layers.Document, error) {
	opt, err := l.documents("layer")
	if err != nil {
		return nil, err
	}
	if k.opt.Manifest == nil {
		refs := slices.DeleteFunc(slices.Clone(k.cfg.Layers), func(r config.Layer) bool { return r.Source == config.UserData })
		if len(refs) < len(k.cfg.Layers) {
			k.note("user data is not in the lock: a manifest in it floats")
		}
		docs, _, err := layers.Resolve(ctx, refs, opt)
		return docs, err
	}
	var docs []layers.Document
	for _, layer := range k.opt.Manifest {
		if layer.Document != nil {
			docs = append(docs, *layer.Document)
			continue
		}
		more, _, err := layers.Resolve(ctx, []config.Layer{{Source: layer.Address}}, opt)
		if err != nil {
			return nil, err
		}
		docs = append(docs, more...)
	}
	return docs, nil
}

func (k *locking) note(text string) {
	if !slices.Contains(k.notes, text) {
		k.notes = append(k.notes, text)
	}
}

// gather notes what a role's plan names.
func (k *locking) gather(target string, role LockRole, p *plan.Plan) error {
	w := k.wants[target]
	if w == nil {
		w = &targetWants{facts: role.Facts, bytes: map[string]map[string]fetch.Request{}, packages: map[string]string{}}
		k.wants[target] = w
	}
	for _, in := range p.Inputs() {
		switch in.Kind {
		case step.Bytes:
			if w.bytes[in.ID.String()] == nil {
				w.bytes[in.ID.String()] = map[string]fetch.Request{}
			}
			w.bytes[in.ID.String()][in.Name] = in.Request
		case step.Package:
			have, ok := w.packages[in.Name]
			if ok && have != in.Want && have != "" && in.Want != "" {
				return diag.WithHint(fmt.Errorf("cannot lock the package %s for %s: one role wants version %s, another %s", in.Name, target, have, in.Want),
					"make a lock for each, and choose by a template in agent.yaml: lock: /etc/amiagent/{{ tag \"Role\" }}.lock")
			}
			w.packages[in.Name] = first(have, in.Want)
		case step.Release:
			if w.release != nil && *w.release != in.Want {
				return fmt.Errorf("cannot lock the release for %s: one role pins %s, another %s", target, *w.release, in.Want)
			}
			w.release = &in.Want
		}
	}
	for _, n := range p.Nodes {
		if x, ok := n.Body.(step.Holder); ok {
			w.holder = x
		}
		if x, ok := n.Body.(step.Offerer); ok {
			if f, ok := x.Offers(role.Facts); ok && !slices.Contains(w.offers, f) {
				w.offers = append(w.offers, f)
			}
		}
	}
	return nil
}

// resolve finds out what everything gathered is.
func (k *locking) resolve(ctx context.Context) error {
	var errs []error
	var mu sync.Mutex
	slots := make(chan struct{}, k.cfg.Parallel)
	var wg sync.WaitGroup
	for target, w := range k.wants {
		t := lock.Target{Artifacts: map[string]map[string]lock.Artifact{}}
		k.out.Targets[target] = t
		for id, sources := range w.bytes {
			found := map[string]lock.Artifact{} // guarded by mu
			t.Artifacts[id] = found
			for name, req := range sources {
				slots <- struct{}{}
				wg.Go(func() {
					defer func() { <-slots }()
					a, err := k.bytes(ctx, target, id, name, req)
					mu.Lock()
					defer mu.Unlock()
					if err != nil {
						errs = append(errs, diag.WithHint(fmt.Errorf("cannot lock %s for %s: %w", id, target, err), "%s", diag.Hint(err)))
						return
					}
					found[name] = a
				})
			}
		}
	}
	wg.Wait()
	for _, target := range slices.Sorted(maps.Keys(k.wants)) {
		t := k.out.Targets[target]
		if err := k.packages(ctx, target, k.wants[target], &t); err != nil {
			errs = append(errs, err)
		}
		k.out.Targets[target] = t
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

// fresh tells whether something is to be looked at, or the old lock's entry serves.
func (k *locking) fresh(name string, had bool) bool {
	return k.opt.Only == nil || !had || lock.Known(k.opt.Only, name)
}

func (k *locking) old(target string) lock.Target {
	if k.opt.Old == nil {
		return lock.Target{}
	}
	return k.opt.Old.Targets[target]
}

// bytes finds out what one address has.
func (k *locking) bytes(ctx context.Context, target, id, name string, req fetch.Request) (lock.Artifact, error) {
	old, had := k.old(target).Artifacts[id][name]
	if !k.fresh(id, had) {
		return old, nil
	}
	r, err := k.store.Resolve(ctx, req, fetch.Resolved{Digest: old.Digest, Size: old.Size, Version: old.Version})
	if err != nil {
		return lock.Artifact{}, err
	}
	a := lock.Artifact{Digest: r.Digest, Size: r.Size, Version: r.Version}
	if commit, ok := strings.CutPrefix(r.Digest, "git:"); ok {
		a = lock.Artifact{Commit: commit}
	}
	return a, nil
}
