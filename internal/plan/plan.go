// Package plan turns a manifest and facts into an ordered graph of steps.
//
// It does no I/O and is deterministic: the plan printed is the plan run. Every
// node has a key that hashes all that can change its effect, and the list of
// what it read, which decides how much of it can be baked.
package plan

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/amiagent/amiagent/internal/decode"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/lock"
	"github.com/amiagent/amiagent/internal/manifest"
	"github.com/amiagent/amiagent/internal/render"
	"github.com/amiagent/amiagent/internal/step"
)

// Node is one step with its place in the order.
type Node struct {
	ID    step.ID
	Kind  *step.Kind
	Entry *manifest.Entry
	Body  step.Step
	// Key hashes kind, name, the body as rendered (secrets as placeholders) and
	// the keys of the steps it watches.
	Key string
	// Secret is what Bind adds to the key when the body holds secrets: a MAC
	// of their values under a key that never leaves the machine.
	Secret  string
	Needs   []*Node // must have succeeded before: explicit, from the body, or watched
	Watches []*Node // a change of these makes this step act again
	// Waits says that the node runs software of the manifest's own, and so
	// needs everything of a lower level to have succeeded.
	Waits   bool
	Level   step.Level
	Depth   int // below others of the same level
	Reads   []render.Read
	Secrets []string // references, sorted
	Missing []string // references that could not be read; Body holds placeholders then

	body   []byte // hash of the rendered body, and of what it is locked to
	locked []step.Resolution
}

// StampKey is the key under which the step remembers success.
func (n *Node) StampKey() string { return n.Key + n.Secret }

// Probe is one entry of the section `ready`, rendered.
type Probe struct {
	Name string
	Body *yaml.Node
	At   diag.At
}

// Skip is an entry that this machine does not match.
type Skip struct {
	ID  step.ID
	Why string
	Pos diag.Pos
}

// Plan is the steps of one machine, in the order of the run.
type Plan struct {
	Name    string
	Nodes   []*Node
	Probes  []Probe
	Skipped []Skip

	scope   *render.Scope
	refused diag.List
}

// Options are what a plan is made from, beside the manifest.
type Options struct {
	Kinds []step.Kind
	Facts *facts.Facts                // nil: validate as far as that goes without facts
	Env   func(string) (string, bool) // for the template function env
	Lock  lock.Resolver               // what inputs are locked to; nil: nothing is locked. See Plan.Refused
}

type builder struct {
	opt   Options
	m     *manifest.Manifest
	list  *diag.List
	plan  *Plan
	kinds map[string]*step.Kind
	order map[string]int
	nodes map[step.ID]*Node
	every map[step.ID]bool // all entries of the manifest, skipped ones included
}

// Build makes the plan. Every fault goes to list; when there is one the plan must not be run.
func Build(m *manifest.Manifest, opt Options, list *diag.List) *Plan {
	b := &builder{opt: opt, m: m, list: list, plan: &Plan{Name: m.Name},
		kinds: map[string]*step.Kind{}, order: map[string]int{}, nodes: map[step.ID]*Node{}, every: map[step.ID]bool{}}
	for i := range opt.Kinds {
		b.kinds[opt.Kinds[i].Name], b.order[opt.Kinds[i].Name] = &opt.Kinds[i], i
	}
	if opt.Facts != nil {
		b.plan.scope = render.New(opt.Facts, opt.Env)
	} else {
		b.opt.Lock = nil // what still holds template text is in no lock
	}
	b.vars()
	for _, e := range m.Entries {
		b.entry(e)
	}
	for _, n := range b.plan.Nodes {
		b.edges(n)
	}
	if b.sort() {
		for _, n := range b.plan.Nodes {
			n.Key = key(n)
		}
	}
	return b.plan
}

func (b *builder) vars() {
	for _, name := range slices.Sorted(maps.Keys(b.m.Vars)) {
		v := b.m.Vars[name]
		at := decode.At(b.list, v.File, v.Node, "vars."+name)
		if b.plan.scope == nil {
			render.Validate(v.Node, at)
			continue
		}
		b.plan.scope.SetVar(name, v.Node, at)
	}
}

// entry decodes one entry, unless this machine does not match it.
func (b *builder) entry(e *manifest.Entry) {
	id := step.ID{Kind: e.Section, Name: e.Name}
	b.every[id] = true
	if e.Broken {
		return
	}
	var reads []render.Read
	if e.When != nil && b.opt.Facts != nil {
		ok, names, why := e.When.Match(b.opt.Facts)
		for _, name := range names {
			f, known := b.opt.Facts.Lookup(name)
			if !known {
				f.Stage = facts.Launch
			}
			reads = append(reads, render.Read{What: "fact " + name, Stage: f.Stage, Pos: e.Pos})
		}
		if !ok && b.opt.Facts.Tags.Doubtful() && slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, facts.TagPrefix) }) {
			e.WhenAt(b.list).Err(diag.WithHint(fmt.Errorf("cannot tell whether it is for this machine: %s", why), "%s", b.opt.Facts.Tags.Hint))
		}
		if !ok {
			b.plan.Skipped = append(b.plan.Skipped, Skip{ID: id, Why: why, Pos: e.Pos})
			return
		}
	}
	at := e.At(b.list)
	if e.Section == manifest.ProbeSection {
		b.plan.Probes = append(b.plan.Probes, Probe{Name: e.Name, Body: b.render(e.Body, at, nil, &reads), At: at})
		for _, r := range reads {
			if ref, ok := strings.CutPrefix(r.What, "secret "); ok {
				at.Err(diag.WithHint(fmt.Errorf("a probe cannot hold the secret %s: probes are told in the status and the log", ref), "let an exec probe read it from a file of the manifest's"))
			}
		}
		return
	}
	k := b.kinds[e.Section]
	n := &Node{ID: id, Kind: k, Entry: e, Body: k.New(), Reads: reads}
	n.decode(b.render(e.Body, at, decode.Literals(n.Body), &n.Reads), at, func() { n.resolve(b.opt.Lock, &b.plan.refused) })
	for _, r := range n.Reads {
		if ref, ok := strings.CutPrefix(r.What, "secret "); ok && !slices.Contains(n.Secrets, ref) {
			n.Secrets = append(n.Secrets, ref)
		}
	}
	slices.Sort(n.Secrets)
	n.confine(at)
	n.addresses(at)
	b.nodes[id] = n
	b.plan.Nodes = append(b.plan.Nodes, n)
}

// decode makes the body; hold then locks its inputs.
func (n *Node) decode(body *yaml.Node, at diag.At, hold func()) {
	decode.Into(body, n.Body, at)
	if named, ok := n.Body.(step.Named); ok {
		named.SetName(n.ID.Name)
	}
	hold()
	n.Body.Validate(at)
	h := sha256.New()
	canonical(h, body)
	for _, r := range n.locked {
		field(h, fmt.Sprintf("locked %q %d %q", r.Digest, r.Size, r.Version)) // not what comes along: it moves no file of this step's own
	}
	n.body = h.Sum(nil)
}

// confine faults a body that would leave a secret where others may read it.
func (n *Node) confine(at diag.At) {
	x, ok := n.Body.(step.Exposer)
	if !ok || len(n.Secrets) == 0 {
		return
	}
	if field, exposed := x.Exposed(); exposed {
		at.Field(field).Err(diag.WithHint(fmt.Errorf("everybody on the machine may read what would hold the secret %s", n.Secrets[0]), "keep secrets in a file with mode: \"0600\" and the owner who needs it"))
	}
}

// addresses faults a secret in an address to fetch from: addresses are logged,
// kept in the store's records, and asked for before secrets are read.
func (n *Node) addresses(at diag.At) {
	f, ok := n.Body.(step.Fetcher)
	if !ok || len(n.Secrets) == 0 {
		return
	}
	for _, req := range f.Fetches() {
		for _, address := range append([]string{req.Source}, req.Mirrors...) {
			if strings.Contains(address, "«") {
				at.Field("source").Err(diag.WithHint(fmt.Errorf("an address cannot hold the secret %s", n.Secrets[0]), "give the instance's role access to the bytes instead"))
				return
			}
		}
	}
}

func (b *builder) render(body *yaml.Node, at diag.At, literal []string, reads *[]render.Read) *yaml.Node {
	if b.plan.scope == nil {
		render.Validate(body, at, literal...)
		return body
	}
	out, r := b.plan.scope.Node(body, at, literal...)
	*reads = append(*reads, r...)
	return out
}

// edges finds what a node needs: its `needs`, what its body knows, what it watches.
func (b *builder) edges(n *Node) {
	for _, text := range n.Entry.Needs {
		at := n.Entry.NeedsAt(b.list)
		var id step.ID
		if err := id.UnmarshalText([]byte(text)); err != nil {
			at.Err(err)
			continue
		}
		b.edge(n, id, at)
	}
	if x, ok := n.Body.(step.Needer); ok {
		for _, id := range x.Needs() {
			if other := b.nodes[id]; other != nil && other != n {
				n.need(other)
			}
		}
	}
	if x, ok := n.Body.(step.Watcher); ok {
		for _, id := range x.Watches() {
			if other := b.edge(n, id, n.Entry.At(b.list)); other != nil {
				n.Watches = append(n.Watches, other)
			}
		}
	}
	if x, ok := n.Body.(step.Runner); ok {
		n.Waits = x.Runs() && n.Entry.Needs == nil
	}
}

func (b *builder) edge(n *Node, id step.ID, at diag.At) *Node {
	other := b.nodes[id]
	switch {
	case other == n:
		at.Errorf("%s needs itself", id)
		return nil
	case other != nil:
		n.need(other)
	case !b.every[id]:
		err := fmt.Errorf("needs %s, which is not in the manifest", id)
		var all []string
		for known := range b.every {
			all = append(all, known.String())
		}
		if near := decode.Nearest(id.String(), all); near != "" {
			err = diag.WithHint(err, "did you mean %s?", near)
		}
		at.Err(err)
	}
	return other
}

func (n *Node) need(other *Node) {
	if !slices.Contains(n.Needs, other) {
		n.Needs = append(n.Needs, other)
	}
}

// sort computes levels and depths and orders the nodes; false when they go in a circle.
func (b *builder) sort() bool {
	const (
		fresh = iota
		open
		done
	)
	state := map[*Node]int{}
	var path []*Node
	var visit func(*Node) bool
	visit = func(n *Node) bool {
		switch state[n] {
		case done:
			return true
		case open:
			circle := append(slices.Clone(path[slices.Index(path, n):]), n)
			names := make([]string, len(circle))
			for i, c := range circle {
				names[i] = c.ID.String()
			}
			n.Entry.NeedsAt(b.list).Errorf("steps need one another in a circle: %s", strings.Join(names, " → "))
			return false
		}
		state[n] = open
		path = append(path, n)
		n.Level = n.Kind.Level
		for _, d := range n.Needs {
			if !visit(d) {
				return false
			}
			n.Level = max(n.Level, d.Level)
		}
		for _, d := range n.Needs {
			if d.Level == n.Level {
				n.Depth = max(n.Depth, d.Depth+1)
			}
		}
		path = path[:len(path)-1]
		state[n] = done
		return true
	}
	for _, n := range b.plan.Nodes {
		if !visit(n) {
			return false
		}
	}
	slices.SortStableFunc(b.plan.Nodes, func(x, y *Node) int {
		return cmp.Or(cmp.Compare(x.Level, y.Level), cmp.Compare(x.Depth, y.Depth),
			cmp.Compare(b.order[x.ID.Kind], b.order[y.ID.Kind]), cmp.Compare(x.Entry.Order, y.Entry.Order))
	})
	return true
}

// key hashes kind, name, body and the keys of what is watched. Nodes are keyed
// in order, so the watched ones have theirs.
func key(n *Node) string {
	h := sha256.New()
	field(h, n.ID.Kind)
	field(h, n.ID.Name)
	field(h, string(n.body))
	for _, w := range n.Watches {
		field(h, w.Key)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func field(h hash.Hash, s string) { fmt.Fprintf(h, "%d:%s", len(s), s) }

// canonical hashes what a node says, not how it is written: key order, style
// and comments do not count.
func canonical(h hash.Hash, n *yaml.Node) {
	switch n.Kind {
	case yaml.AliasNode:
		canonical(h, n.Alias)
	case yaml.MappingNode:
		pairs := map[string]*yaml.Node{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			pairs[n.Content[i].Value] = n.Content[i+1]
		}
		field(h, fmt.Sprintf("map %d", len(pairs)))
		for _, k := range slices.Sorted(maps.Keys(pairs)) {
			field(h, k)
			canonical(h, pairs[k])
		}
	case yaml.SequenceNode:
		field(h, fmt.Sprintf("list %d", len(n.Content)))
		for _, c := range n.Content {
			canonical(h, c)
		}
	default:
		field(h, n.Value)
	}
}

// Secrets are all references that the plan's bodies hold, sorted.
func (p *Plan) Secrets() []string {
	all := map[string]bool{}
	for _, n := range p.Nodes {
		for _, ref := range n.Secrets {
			all[ref] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// Bind renders the bodies that hold secrets again, with their values. A node
// with a secret that values lack keeps its placeholders and lists it in
// Missing. salt is a key that never leaves the machine. Bind is called once.
func (p *Plan) Bind(values map[string]string, salt []byte) error {
	if len(p.Secrets()) == 0 {
		return nil
	}
	if p.scope == nil {
		return errors.New("cannot bind secrets: the plan was made without facts")
	}
	p.scope.SetSecrets(values)
	var list diag.List
	for _, n := range p.Nodes {
		for _, ref := range n.Secrets {
			if _, ok := values[ref]; !ok {
				n.Missing = append(n.Missing, ref)
			}
		}
		mac := hmac.New(sha256.New, salt)
		if len(n.Secrets) > 0 && len(n.Missing) == 0 {
			at := n.Entry.At(&list)
			n.Body = n.Kind.New()
			body, _ := p.scope.Node(n.Entry.Body, at, decode.Literals(n.Body)...)
			n.decode(body, at, func() { n.hold(at) })
			field(mac, string(n.body))
		}
		for _, w := range n.Watches {
			field(mac, w.Secret)
		}
		if len(n.Secrets) > 0 || slices.ContainsFunc(n.Watches, func(w *Node) bool { return w.Secret != "" }) {
			n.Secret = "+" + hex.EncodeToString(mac.Sum(nil)[:16])
		}
	}
	return conceal(list.Err(), values)
}

// conceal takes secret values out of faults, which quote what is wrong.
func conceal(err error, values map[string]string) error {
	var faults *diag.Error
	if !errors.As(err, &faults) {
		return err
	}
	for i, p := range faults.Problems {
		for ref, v := range values {
			if v != "" {
				p.Message = strings.ReplaceAll(p.Message, v, render.Placeholder(ref))
			}
		}
		faults.Problems[i] = p
	}
	return faults
}
