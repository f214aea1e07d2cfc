package lock

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Change is one difference between two locks.
type Change struct {
	Where string `json:"where,omitempty"` // the target, or the role of a layer
	Name  string `json:"name"`            // as Update takes it: packages.nginx, artifacts.app, pin, a layer's source
	Old   string `json:"old,omitempty"`
	New   string `json:"new,omitempty"`
	Text  string `json:"text"` // one line for a reviewer
}

// Diff tells what differs in b from a, sorted: layers, then for each target the
// pin, packages and artifacts. How the locks were made does not count.
func Diff(a, b *Lock) []Change {
	var d differ
	for _, role := range keys(a.Manifests, b.Manifests) {
		d.where = role
		d.manifest(a.Manifests, b.Manifests, role)
	}
	for _, target := range keys(a.Targets, b.Targets) {
		d.where = target
		old, had := a.Targets[target]
		fresh, has := b.Targets[target]
		switch {
		case !had:
			d.add("target", "", target, "the target %s is new", target)
		case !has:
			d.add("target", target, "", "the target %s is gone", target)
		}
		if had && has {
			d.target(old, fresh)
		}
	}
	for i, c := range d.changes {
		d.changes[i].Text = c.Where + ": " + c.Text
	}
	return d.changes
}

// keys are those of both maps, sorted.
func keys[V any](a, b map[string]V) []string {
	all := slices.AppendSeq(slices.Collect(maps.Keys(a)), maps.Keys(b))
	slices.Sort(all)
	return slices.Compact(all)
}

type differ struct {
	where   string
	changes []Change
}

func (d *differ) add(name, old, fresh, format string, args ...any) {
	d.changes = append(d.changes, Change{Where: d.where, Name: name, Old: old, New: fresh, Text: fmt.Sprintf(format, args...)})
}

// layer adds a change of a layer: one line, however many roles have the layer.
func (d *differ) layer(source, old, fresh, format string, args ...any) {
	for i, c := range d.changes {
		if c.Name == source && c.Old == old && c.New == fresh {
			d.changes[i].Where += ", " + d.where
			return
		}
	}
	d.add(source, old, fresh, format, args...)
}

func (d *differ) manifest(a, b map[string]Manifest, role string) {
	old, had := a[role]
	fresh, has := b[role]
	switch {
	case !had:
		d.add("manifest", "", role, "the manifest is new, with %d layers", len(fresh.Layers))
		return
	case !has:
		d.add("manifest", role, "", "the manifest is gone")
		return
	}
	if old.Target != fresh.Target {
		d.add("manifest", old.Target, fresh.Target, "the manifest was for %s, is for %s", old.Target, fresh.Target)
	}
	was, is := bySource(old.Layers), bySource(fresh.Layers)
	moved := false
	for _, source := range keys(was, is) {
		o, n := was[source], is[source]
		switch {
		case o.Digest == n.Digest:
			continue
		case o.Digest == "":
			d.layer(source, "", n.Digest, "the layer %s is new: %s", source, short(n.Digest))
		case n.Digest == "":
			d.layer(source, o.Digest, "", "the layer %s is gone", source)
		default:
			d.layer(source, o.Digest, n.Digest, "the layer %s was edited: %s → %s", source, short(o.Digest), short(n.Digest))
		}
		moved = true
	}
	if !moved && old.Digest != fresh.Digest {
		d.add("manifest", old.Digest, fresh.Digest, "the layers are in another order: %s → %s", sources(old.Layers), sources(fresh.Layers))
	}
}

func bySource(layers []Layer) map[string]Layer {
	m := map[string]Layer{}
	for _, l := range layers {
		m[l.Source] = l
	}
	return m
}

func (d *differ) target(old, fresh Target) {
	d.pin(old.Pin, fresh.Pin)
	d.packages("packages.", "", old.Packages, fresh.Packages)
	d.packages("transaction.", "for others, ", old.Transaction, fresh.Transaction)
	for _, step := range keys(old.Artifacts, fresh.Artifacts) {
		was, is := old.Artifacts[step], fresh.Artifacts[step]
		for _, source := range keys(was, is) {
			o, had := was[source]
			n, has := is[source]
			d.artifact(step, source, o, n, had, has)
		}
	}
}

func (d *differ) pin(old, fresh *Pin) {
	switch {
	case old == nil && fresh == nil:
		return
	case old == nil:
		d.add("pin", "", fresh.Release, "the release is pinned to %s", fresh.Release)
		return
	case fresh == nil:
		d.add("pin", old.Release, "", "the release is no longer pinned, was %s", old.Release)
		return
	case old.Release != fresh.Release:
		d.add("pin", old.Release, fresh.Release, "the release %s → %s", old.Release, fresh.Release)
		return // with all its repositories
	}
	for _, id := range keys(old.Repositories, fresh.Repositories) {
		o, had := old.Repositories[id]
		n, has := fresh.Repositories[id]
		switch {
		case !had:
			d.add("pin", "", n.URL, "the repository %s is new: %s", id, n.URL)
		case !has:
			d.add("pin", o.URL, "", "the repository %s is gone, was %s", id, o.URL)
		case o.URL != n.URL:
			d.add("pin", o.URL, n.URL, "the repository %s is elsewhere: %s → %s", id, o.URL, n.URL)
		case o.Metadata != n.Metadata:
			d.add("pin", o.Metadata, n.Metadata, "the repository %s has other packages: metadata %s → %s", id, short(o.Metadata), short(n.Metadata))
		}
	}
}

func (d *differ) packages(prefix, note string, was, is map[string]Package) {
	for _, name := range keys(was, is) {
		o, n := was[name], is[name]
		switch {
		case o.Version == "":
			d.add(prefix+name, "", n.Version, "%sthe package %s is new: %s", note, name, n.Version)
		case n.Version == "":
			d.add(prefix+name, o.Version, "", "%sthe package %s is gone, was %s", note, name, o.Version)
		case o.Version != n.Version:
			d.add(prefix+name, o.Version, n.Version, "%sthe package %s %s → %s", note, name, o.Version, n.Version)
		case o.Repository != n.Repository:
			d.add(prefix+name, o.Repository, n.Repository, "%sthe package %s %s comes from %s, was from %s", note, name, n.Version, cmp.Or(n.Repository, "an unnamed repository"), cmp.Or(o.Repository, "an unnamed repository"))
		}
	}
}

func (d *differ) artifact(step, source string, o, n Artifact, had, has bool) {
	switch {
	case !had:
		d.add(step, "", n.id(), "%s is new: %s, %s", step, source, n.words())
	case !has:
		d.add(step, o.id(), "", "%s no longer fetches %s", step, source)
	case o == n:
	case o.Commit != n.Commit && o.Commit != "" && n.Commit != "":
		d.add(step, o.Commit, n.Commit, "%s: the git ref moved, %s: commit %s → %s", step, source, short(o.Commit), short(n.Commit))
	case o.id() != n.id() && o.Version != n.Version:
		d.add(step, o.id(), n.id(), "%s: the object was replaced, %s: version %s → %s, %s → %s", step, source,
			cmp.Or(o.Version, "none"), cmp.Or(n.Version, "none"), o.words(), n.words())
	case o.id() != n.id():
		d.add(step, o.id(), n.id(), "%s: the bytes changed, %s: %s → %s", step, source, o.words(), n.words())
	case o.Version != n.Version:
		d.add(step, o.Version, n.Version, "%s: the same bytes were put again, %s: version %s → %s", step, source, cmp.Or(o.Version, "none"), cmp.Or(n.Version, "none"))
	default:
		d.add(step, fmt.Sprint(o.Size), fmt.Sprint(n.Size), "%s: the size was %d bytes, is %d, %s", step, o.Size, n.Size, source)
	}
}

func (a Artifact) id() string { return cmp.Or(a.Digest, a.Commit) }

// words is an artifact for a reviewer: a short digest and the size.
func (a Artifact) words() string {
	if a.Commit != "" {
		return "commit " + short(a.Commit)
	}
	return fmt.Sprintf("%s (%s)", short(a.Digest), size(a.Size))
}

// short is what a person compares of a digest or a commit.
func short(digest string) string {
	algorithm, digits, ok := strings.Cut(digest, ":")
	if !ok {
		return digest[:min(len(digest), 12)]
	}
	return algorithm + ":" + digits[:min(len(digits), 12)]
}

func size(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1e4:
		return fmt.Sprintf("%.0f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d bytes", n)
}
