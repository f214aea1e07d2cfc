package lock

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/amiagent/amiagent/internal/decode"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/step"
)

// ErrRefused marks what a lock does not allow. The program's exit code is 6.
var ErrRefused = errors.New("refused by the lock")

// Refused is the error of everything in list, each at its place in the
// manifest, marked by ErrRefused; nil when there is nothing.
func Refused(list *diag.List) error {
	var faults *diag.Error
	if !errors.As(list.Err(), &faults) {
		return nil
	}
	return &refused{faults}
}

type refused struct{ faults *diag.Error }

func (r *refused) Error() string   { return r.faults.Error() }
func (r *refused) Unwrap() []error { return []error{ErrRefused, r.faults} }

// Resolver gives what the inputs of one machine's steps are locked to.
type Resolver func(step.ID, step.Input) (step.Resolution, error)

// For is the Resolver of one target. A target that the lock lacks is an error marked by ErrRefused.
func (l *Lock) For(target string) (Resolver, error) {
	t, ok := l.Targets[target]
	if !ok {
		return nil, diag.WithHint(fmt.Errorf("%w: this machine is %s, the lock is for %s", ErrRefused, target, strings.Join(slices.Sorted(maps.Keys(l.Targets)), ", ")),
			"`amiagent lock --target %s` adds it", target)
	}
	return func(id step.ID, in step.Input) (step.Resolution, error) { return t.resolve(target, id, in) }, nil
}

func (t Target) resolve(target string, id step.ID, in step.Input) (step.Resolution, error) {
	switch in.Kind {
	case step.Package:
		p, ok := t.Packages[in.Name]
		if !ok {
			return step.Resolution{}, lacks(fmt.Errorf("the manifest wants the package %s, the lock has no version of it for %s", in.Name, target), id,
				decode.Nearest(in.Name, slices.Collect(maps.Keys(t.Packages))))
		}
		return step.Resolution{Version: p.Version, With: t.along()}, nil
	case step.Release:
		if t.Pin == nil {
			return step.Resolution{}, lacks(fmt.Errorf("the manifest pins the release, the lock has none for %s", target), id, "")
		}
		return step.Resolution{Version: t.Pin.Release}, nil
	}
	sources := t.Artifacts[id.String()]
	a, ok := sources[in.Name]
	if !ok {
		has := "nothing"
		if len(sources) > 0 {
			has = strings.Join(slices.Sorted(maps.Keys(sources)), ", ")
		}
		return step.Resolution{}, lacks(fmt.Errorf("the manifest fetches %s, the lock has %s for %s", in.Name, has, target), id, "")
	}
	return a.Resolution(), nil
}

// along is what comes with the packages; nil unless the whole transaction is locked.
func (t Target) along() map[string]string {
	if len(t.Transaction) == 0 {
		return nil
	}
	with := map[string]string{}
	for name, p := range t.Transaction {
		if _, own := t.Packages[name]; !own {
			with[name] = p.Version
		}
	}
	return with
}

// Resolution is the artifact as a step takes it.
func (a Artifact) Resolution() step.Resolution {
	r := step.Resolution{Digest: a.Digest, Size: a.Size, Version: a.Version}
	if a.Commit != "" {
		r.Digest = "git:" + a.Commit
	}
	return r
}

// Hint is what to run for the lock to have another resolution of a step.
func Hint(id step.ID) string { return fmt.Sprintf("`amiagent lock --update %s` if that is meant", id) }

func lacks(err error, id step.ID, near string) error {
	hint := Hint(id)
	if near != "" {
		hint = fmt.Sprintf("the lock has %s; ", near) + hint
	}
	return diag.WithHint(err, "%s", hint)
}

// Found is one layer as a machine has read it.
type Found struct {
	Source, Digest string
	// Varies tells that what it is depends on facts of the launch: its address
	// does, or it is user data.
	Varies bool
}

// Layers holds the layers of a machine against the lock: all of them, in
// order, must be those of one of the manifests for its target. With floating,
// layers that vary with the launch may be others, if the lock does not have
// their address; notes name them. What a floating layer fetches and installs
// must still be in the lock. The error is marked by ErrRefused and names both sides.
func (l *Lock) Layers(target string, found []Found, floating bool) (role string, notes []string, err error) {
	var near string
	best := -1
	for _, role := range slices.Sorted(maps.Keys(l.Manifests)) {
		m := l.Manifests[role]
		if m.Target != target {
			continue
		}
		if equal(m.Layers, found, func(Found) bool { return false }, func(Layer) bool { return false }) {
			return role, nil, nil
		}
		if n := common(m.Layers, found); n > best {
			best, near = n, role
		}
	}
	if best < 0 {
		return "", nil, diag.WithHint(fmt.Errorf("%w: it has no manifest for %s", ErrRefused, target), "`amiagent lock --target %s` adds it", target)
	}
	if floating {
		for _, role := range slices.Sorted(maps.Keys(l.Manifests)) {
			m := l.Manifests[role]
			elsewhere := func(l Layer) bool { // another role's: here its address is a floating layer's
				return l.Varies && !slices.ContainsFunc(found, func(f Found) bool { return f.Source == l.Source || f.Digest == l.Digest })
			}
			if m.Target == target && equal(m.Layers, found, l.floats, elsewhere) {
				for _, f := range found {
					if l.floats(f) {
						notes = append(notes, fmt.Sprintf("the layer %s floats: the lock does not have it", f.Source))
					}
				}
				return role, notes, nil
			}
		}
	}
	return "", nil, l.differ(near, found)
}

// equal compares in order, without what the two functions leave out.
func equal(locked []Layer, found []Found, skip func(Found) bool, skipLocked func(Layer) bool) bool {
	found = slices.DeleteFunc(slices.Clone(found), skip)
	locked = slices.DeleteFunc(slices.Clone(locked), skipLocked)
	return slices.EqualFunc(locked, found, func(l Layer, f Found) bool { return l.Digest == f.Digest })
}

// floats tells that a layer varies and that the lock was not made for it.
func (l *Lock) floats(f Found) bool {
	if !f.Varies {
		return false
	}
	for _, m := range l.Manifests {
		for _, locked := range m.Layers {
			if locked.Source == f.Source || locked.Digest == f.Digest {
				return false
			}
		}
	}
	return true
}

func common(locked []Layer, found []Found) int {
	n := 0
	for _, l := range locked {
		if slices.ContainsFunc(found, func(f Found) bool { return f.Digest == l.Digest || f.Source == l.Source }) {
			n++
		}
	}
	return n
}

// differ names the first difference to a role's layers.
func (l *Lock) differ(role string, found []Found) error {
	layers := l.Manifests[role].Layers
	for i, f := range found {
		if slices.ContainsFunc(layers, func(l Layer) bool { return l.Digest == f.Digest }) {
			continue
		}
		j := slices.IndexFunc(layers, func(l Layer) bool { return l.Source == f.Source })
		missing := func(l Layer) bool {
			return !slices.ContainsFunc(found, func(f Found) bool { return f.Digest == l.Digest })
		}
		if j < 0 && !f.Varies && i < len(layers) && len(layers) == len(found) && missing(layers[i]) {
			j = i // the same place: a file that is called otherwise at the desk
		}
		if j >= 0 {
			return diag.WithHint(fmt.Errorf("%w: the layer %s is %s, the lock has %s with %s", ErrRefused, f.Source, f.Digest, layers[j].Source, layers[j].Digest),
				"look at the change; `amiagent lock --update %s` if it is meant", layers[j].Source)
		}
		err := fmt.Errorf("%w: the layer %s (%s) is not in it, it has %s", ErrRefused, f.Source, f.Digest, sources(layers))
		if f.Varies {
			return diag.WithHint(err, "it depends on facts of the launch: lock it for such a machine (`amiagent lock --facts FILE`), or say floating: allow under lock: in agent.yaml")
		}
		return diag.WithHint(err, "name it when the lock is made: `amiagent lock MANIFEST...`")
	}
	for _, locked := range layers {
		if !slices.ContainsFunc(found, func(f Found) bool { return f.Digest == locked.Digest }) {
			return diag.WithHint(fmt.Errorf("%w: the lock has the layer %s, this machine has only %s", ErrRefused, locked.Source, foundSources(found)),
				"a layer that is optional may be missing here: see its source, or lock without it")
		}
	}
	return diag.WithHint(fmt.Errorf("%w: the layers come in the order %s, the lock has %s", ErrRefused, foundSources(found), sources(layers)),
		"order decides which entry wins; name them in the order of agent.yaml when the lock is made")
}

func sources(layers []Layer) string {
	names := make([]string, len(layers))
	for i, l := range layers {
		names[i] = l.Source
	}
	return strings.Join(names, ", ")
}

func foundSources(found []Found) string {
	if len(found) == 0 {
		return "none"
	}
	names := make([]string, len(found))
	for i, f := range found {
		names[i] = f.Source
	}
	return strings.Join(names, ", ")
}
