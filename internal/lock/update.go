package lock

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/amiagent/amiagent/internal/decode"
	"github.com/amiagent/amiagent/internal/diag"
)

// Words that Update takes beside the names of steps and layers.
const (
	wordManifest    = "manifest"
	wordPin         = "pin"
	wordTransaction = "transaction"
)

// Update is l with what names says taken from fresh, and all else as it is. A
// name is a step (packages.nginx, or nginx where only one kind has it), a kind
// (packages), a layer's source, "manifest" for all layers, or "pin". When a
// layer moves, what the manifest newly names comes in and what it no longer
// names goes; when a package moves, the whole transaction does. A name that
// neither lock knows is an error.
func (l *Lock) Update(fresh *Lock, names []string) (*Lock, error) {
	p := picker{names: names}
	all := append(l.names(), fresh.names()...)
	for _, name := range names {
		if !slices.ContainsFunc(all, func(known string) bool { return matches(name, known) }) {
			return nil, diag.WithHint(fmt.Errorf("cannot update %q: neither the lock nor the manifest has it", name), "%s", hintNames(name, all))
		}
	}
	out := &Lock{Format: Format, From: fresh.From}
	layered := slices.ContainsFunc(append(l.layers(), fresh.layers()...), p.layer)
	out.Manifests = merge(l.Manifests, fresh.Manifests, layered, func(string, Manifest, Manifest) bool { return false })
	if layered {
		for role, m := range out.Manifests {
			if now, ok := fresh.Manifests[role]; ok {
				out.Manifests[role] = p.manifest(m, now)
			}
		}
	}
	out.Targets = merge(l.Targets, fresh.Targets, layered, func(string, Target, Target) bool { return false })
	for name, t := range out.Targets {
		if now, ok := fresh.Targets[name]; ok {
			out.Targets[name] = p.target(t, now, layered)
		}
	}
	return out, nil
}

// Known tells whether Update with these names would take something of the name.
func Known(names []string, name string) bool {
	return picker{names: names}.picks(name)
}

type picker struct{ names []string }

func (p picker) picks(name string) bool {
	return slices.ContainsFunc(p.names, func(n string) bool { return matches(n, name) })
}

func (p picker) layer(source string) bool {
	return p.picks(source) || slices.Contains(p.names, wordManifest)
}

// matches: a whole name, its kind, or its name within the kind.
func matches(asked, name string) bool {
	if asked == name {
		return true
	}
	kind, rest, ok := strings.Cut(name, ".")
	return ok && (asked == kind || asked == rest) && !strings.ContainsAny(kind, "/:")
}

func (p picker) manifest(old, fresh Manifest) Manifest {
	m := Manifest{Target: fresh.Target}
	was := bySource(old.Layers)
	for _, layer := range fresh.Layers {
		if o, had := was[layer.Source]; had && !p.layer(layer.Source) {
			layer = o
		}
		m.Layers = append(m.Layers, layer)
	}
	m.Digest = Digest(m.Layers)
	return m
}

func (p picker) target(old, fresh Target, layered bool) Target {
	out := Target{Pin: old.Pin, Transaction: old.Transaction}
	if p.picks(wordPin) || layered && (old.Pin == nil || fresh.Pin == nil) {
		out.Pin = fresh.Pin
	}
	moved := p.picks(wordTransaction)
	out.Packages = merge(old.Packages, fresh.Packages, layered, func(name string, o, n Package) bool {
		picked := p.picks("packages." + name)
		moved = moved || picked && o != n
		return picked
	})
	if moved || layered {
		out.Transaction = fresh.Transaction
	}
	out.Artifacts = map[string]map[string]Artifact{}
	for _, step := range keys(old.Artifacts, fresh.Artifacts) {
		picked := p.picks(step)
		m := merge(old.Artifacts[step], fresh.Artifacts[step], layered || picked, func(string, Artifact, Artifact) bool { return picked })
		if len(m) > 0 {
			out.Artifacts[step] = m
		}
	}
	return out
}

// merge is old with the picked values of fresh; with whole, also with the
// names that only fresh has, and without those that only old has.
func merge[V any](old, fresh map[string]V, whole bool, picked func(name string, o, n V) bool) map[string]V {
	out := map[string]V{}
	for _, name := range keys(old, fresh) {
		o, had := old[name]
		n, has := fresh[name]
		picked := picked(name, o, n)
		switch {
		case had && has && picked, has && !had && (whole || picked):
			out[name] = n
		case had && has, had && !whole && !picked:
			out[name] = o
		}
	}
	return out
}

func (l *Lock) layers() []string {
	var all []string
	for _, m := range l.Manifests {
		for _, layer := range m.Layers {
			all = append(all, layer.Source)
		}
	}
	return all
}

// names are all that Update may be asked for.
func (l *Lock) names() []string {
	all := append(l.layers(), wordManifest)
	for _, t := range l.Targets {
		if t.Pin != nil {
			all = append(all, wordPin)
		}
		if len(t.Transaction) > 0 {
			all = append(all, wordTransaction)
		}
		for name := range t.Packages {
			all = append(all, "packages."+name)
		}
		all = slices.AppendSeq(all, maps.Keys(t.Artifacts))
	}
	return all
}

func hintNames(name string, all []string) string {
	if near := decode.Nearest(name, all); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	slices.Sort(all)
	return "known are " + strings.Join(slices.Compact(all), ", ")
}
