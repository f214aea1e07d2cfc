// Package manifest reads what a machine should be: layers of YAML, merged.
//
// It knows the frame (version, name, vars, the keys that every entry has) and
// which section names exist, but no kind: the body of an entry stays a node,
// with its position, until a plan decodes it. Layers merge by whole entries:
// a later layer's entry replaces an earlier one of the same section and name.
package manifest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/amiagent/amiagent/internal/decode"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
)

// Version is the version of the manifest format that this agent reads.
const Version = 1

// MaxBytes bounds one layer. Root parses it.
const MaxBytes = 4 << 20

// ProbeSection is the section of the readiness probes. Its entries have no common keys but `when`.
const ProbeSection = "ready"

// PinSection is the section that has one body instead of named entries: a
// machine has one set of package repositories to hold. It is the entry pin.release.
const (
	PinSection = "pin"
	pinEntry   = "release"
)

// OnFailure is what a failed step does to the launch.
type OnFailure string

const (
	Fail     OnFailure = "fail"     // the launch fails; the default
	Continue OnFailure = "continue" // reported, and the launch goes on
	Retry    OnFailure = "retry"    // tried again with growing pauses, then as fail
)

// UnmarshalText reads the word.
func (o *OnFailure) UnmarshalText(b []byte) error {
	*o = OnFailure(b)
	return oneOf(string(b), string(Fail), string(Continue), string(Retry))
}

// BakeLevel is how much of something may happen in the image build.
type BakeLevel string

const (
	BakeNone    BakeLevel = "none"    // nothing
	BakeFetch   BakeLevel = "fetch"   // bytes are in the image
	BakeInstall BakeLevel = "install" // applied, but nothing of the manifest's own is run
	BakeAll     BakeLevel = "all"     // applied whole
)

// UnmarshalText reads the word.
func (l *BakeLevel) UnmarshalText(b []byte) error {
	*l = BakeLevel(b)
	return oneOf(string(b), string(BakeNone), string(BakeFetch), string(BakeInstall), string(BakeAll))
}

func oneOf(s string, words ...string) error {
	if slices.Contains(words, s) {
		return nil
	}
	return fmt.Errorf("must be one of %s, is %q", strings.Join(words, ", "), s)
}

// Bake is the dial: a level for the whole manifest, and for single kinds.
type Bake struct {
	All   BakeLevel
	Kinds map[string]BakeLevel
}

// DecodeNode accepts a level, or a mapping of kinds to levels with "default" for the rest.
func (b *Bake) DecodeNode(n *yaml.Node, at diag.At) {
	if n.Kind == yaml.ScalarNode {
		decode.Into(n, &b.All, at)
		return
	}
	decode.Into(n, &b.Kinds, at)
	b.All = b.Kinds["default"]
	delete(b.Kinds, "default")
}

// Common are the keys that every entry has beside its body.
type Common struct {
	When      *facts.Condition `yaml:"when"`
	Needs     []string         `yaml:"needs"` // kind.name
	OnFailure OnFailure        `yaml:"on-failure"`
	Bake      BakeLevel        `yaml:"bake"`
}

// CommonKeys are the names of the keys in Common.
var CommonKeys = []string{"when", "needs", "on-failure", "bake"}

// Entry is one thing of a manifest.
type Entry struct {
	Section, Name string
	Common
	Body *yaml.Node // a mapping without the common keys; never nil
	// Broken tells that the entry is no mapping, which is reported: its name
	// counts, its body does not.
	Broken bool
	Pos    diag.Pos // of the entry's name
	Order  int      // place among all entries, layer by layer

	common *yaml.Node // the mapping of the common keys
}

// ID is section.name.
func (e *Entry) ID() string { return e.Section + "." + e.Name }

// At stands at the entry's body, for its validators.
func (e *Entry) At(list *diag.List) diag.At {
	if e.Section == PinSection { // the name is not in the document
		return decode.At(list, e.Pos.File, e.Body, e.Section)
	}
	return decode.At(list, e.Pos.File, e.Body, e.ID())
}

// NeedsAt stands at the entry's `needs`.
func (e *Entry) NeedsAt(list *diag.List) diag.At {
	if e.Needs == nil { // from the body, as restart-on
		return diag.NewAt(list, fixed{e.Pos}, e.ID()+".needs")
	}
	return decode.At(list, e.Pos.File, e.common, e.ID()).Field("needs")
}

// WhenAt stands at the entry's `when`.
func (e *Entry) WhenAt(list *diag.List) diag.At {
	return diag.NewAt(list, fixed{e.Pos}, e.ID()+".when")
}

type fixed struct{ pos diag.Pos }

func (f fixed) Pos() diag.Pos          { return f.pos }
func (f fixed) Part(string) diag.Place { return f }

// Var is one variable: a value, and where it stands.
type Var struct {
	Node *yaml.Node
	File string
}

// Manifest is one layer, or several merged.
type Manifest struct {
	Name    string
	Vars    map[string]Var
	Bake    Bake
	Entries []*Entry // in order of writing
}

// Parse reads one layer. sections are the known section names. All faults go
// to list; the manifest holds what could be read, and is nil when nothing could.
func Parse(file string, data []byte, sections []string, list *diag.List) *Manifest {
	if len(data) > MaxBytes {
		list.Add(diag.Problem{Pos: diag.Pos{File: file}, Message: fmt.Sprintf("the document has %d bytes, more than the %d allowed", len(data), MaxBytes)})
		return nil
	}
	root := decode.Parse(file, data, list)
	if root == nil {
		return nil
	}
	at := decode.At(list, file, root, "")
	m := &Manifest{Vars: map[string]Var{}}
	keys, values := decode.Pairs(root, at)
	version(keys, values, at)
	for i, k := range keys {
		here := at.Field(k.Value)
		switch {
		case k.Value == "amiagent":
		case k.Value == "name":
			decode.Into(values[i], &m.Name, here)
		case k.Value == "bake":
			decode.Into(values[i], &m.Bake, here)
		case k.Value == "vars":
			names, nodes := decode.Pairs(values[i], here)
			for j, n := range names {
				m.Vars[n.Value] = Var{Node: nodes[j], File: file}
			}
		case slices.Contains(sections, k.Value) && k.Value == PinSection:
			m.entry(file, k.Value, pinEntry, k, values[i], here)
		case slices.Contains(sections, k.Value):
			m.section(file, k.Value, values[i], here)
		default:
			decode.UnknownKey(at, k, append([]string{"amiagent", "name", "bake", "vars"}, sections...))
		}
	}
	return m
}

func version(keys, values []*yaml.Node, at diag.At) {
	i := slices.IndexFunc(keys, func(k *yaml.Node) bool { return k.Value == "amiagent" })
	if i < 0 {
		at.Err(diag.WithHint(fmt.Errorf("no manifest version"), "begin the file with the line: amiagent: %d", Version))
		return
	}
	var v int
	here := at.Field("amiagent")
	decode.Into(values[i], &v, here)
	if v != Version && v != 0 {
		here.Err(diag.WithHint(fmt.Errorf("manifest version %d is not known, this agent reads version %d", v, Version),
			"give the image a newer agent, or write the manifest for version %d", Version))
	}
}

func (m *Manifest) section(file, section string, n *yaml.Node, at diag.At) {
	names, bodies := decode.Pairs(n, at)
	for i, name := range names {
		m.entry(file, section, name.Value, name, bodies[i], at.Field(name.Value))
	}
}

// entry adds one entry, whose name stands at key.
func (m *Manifest) entry(file, section, name string, key, body *yaml.Node, at diag.At) {
	e := &Entry{Section: section, Name: name, Order: len(m.Entries),
		Pos: diag.Pos{File: file, Line: key.Line, Col: key.Column}}
	e.split(body, at)
	m.Entries = append(m.Entries, e)
}

// split parts an entry's node into the common keys and the body.
func (e *Entry) split(n *yaml.Node, at diag.At) {
	common := &yaml.Node{Kind: yaml.MappingNode, Line: n.Line, Column: n.Column}
	e.common, e.Broken = common, !mapping(n)
	e.Body = &yaml.Node{Kind: yaml.MappingNode, Line: n.Line, Column: n.Column}
	keys, values := decode.Pairs(n, at)
	for i, k := range keys {
		into := e.Body
		if slices.Contains(CommonKeys, k.Value) {
			into = common
		}
		into.Content = append(into.Content, k, values[i])
	}
	decode.Into(common, &e.Common, at)
}

// mapping tells whether n is one; nothing at all is an empty one.
func mapping(n *yaml.Node) bool {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n.Kind == yaml.MappingNode || n.Tag == "!!null"
}

// Merge lays later manifests over earlier ones. Entries keep the order in
// which their names were first written.
func Merge(layers ...*Manifest) *Manifest {
	out := &Manifest{Vars: map[string]Var{}, Bake: Bake{Kinds: map[string]BakeLevel{}}}
	at := map[string]int{}
	for _, l := range layers {
		out.Name = cmp.Or(l.Name, out.Name)
		out.Bake.All = cmp.Or(l.Bake.All, out.Bake.All)
		for k, v := range l.Bake.Kinds {
			out.Bake.Kinds[k] = v
		}
		for k, v := range l.Vars {
			out.Vars[k] = v
		}
		for _, e := range l.Entries {
			if i, ok := at[e.ID()]; ok {
				replaced := *e
				replaced.Order = i
				out.Entries[i] = &replaced
				continue
			}
			added := *e
			added.Order = len(out.Entries)
			at[e.ID()] = added.Order
			out.Entries = append(out.Entries, &added)
		}
	}
	return out
}

// BakeOf is how much of an entry may be baked: its own word, else its kind's, else the whole's, else def.
func (m *Manifest) BakeOf(e *Entry, def BakeLevel) BakeLevel {
	return cmp.Or(e.Bake, m.Bake.Kinds[e.Section], m.Bake.All, def)
}
