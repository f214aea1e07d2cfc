// Package render fills templates with what is known of a machine.
//
// Templates are Go templates with a small set of functions; they run on the
// string values of a decoded document, never on its text, so a value cannot
// break out of its place. Everything that a template reads is recorded, with
// its position: that is how a plan knows what a step depends on. A thing that
// is not there is a fault that names it; nothing renders to "<no value>".
package render

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"text/template"
	"text/template/parse"

	"go.yaml.in/yaml/v3"

	"github.com/amiagent/amiagent/internal/decode"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
)

// Read is one thing that a template used.
type Read struct {
	What  string // "tag Role", "fact region", "secret ssm:/db", "env HOME"
	Stage facts.Stage
	Pos   diag.Pos
}

// Scope is what templates may see. Make it with New; it may be used by one goroutine at a time.
type Scope struct {
	facts   *facts.Facts
	vars    map[string]any
	varRead map[string][]Read // what each variable was made from
	env     func(string) (string, bool)
	secrets map[string]string // nil: not fetched yet, placeholders stand in

	reads  []Read
	wanted map[string]bool // secrets asked for
	pos    diag.Pos
}

// New makes a scope over facts. env gives environment variables; nil gives none.
func New(f *facts.Facts, env func(string) (string, bool)) *Scope {
	if env == nil {
		env = func(string) (string, bool) { return "", false }
	}
	return &Scope{facts: f, env: env, vars: map[string]any{}, varRead: map[string][]Read{}, wanted: map[string]bool{}}
}

// fields are the names that templates see at the dot, beside .Vars, and the facts behind them.
var fields = map[string]string{
	"Arch":         facts.Arch,
	"OS":           facts.OSID,
	"OSVersion":    facts.OSVersion,
	"Kernel":       facts.Kernel,
	"Region":       facts.Region,
	"Zone":         facts.Zone,
	"Account":      facts.Account,
	"InstanceID":   facts.InstanceID,
	"InstanceType": facts.InstanceType,
	"ImageID":      facts.ImageID,
	"Hostname":     facts.Hostname,
}

// SetVar renders a variable's node and makes it .Vars.name. Variables see facts, not each other.
func (s *Scope) SetVar(name string, n *yaml.Node, at diag.At) {
	out, reads := s.Node(n, at)
	var v any
	decode.Into(out, &v, at)
	s.vars[name], s.varRead[name] = v, reads
}

// SetSecrets gives the values that `secret` stands for. From then on no placeholder is rendered.
func (s *Scope) SetSecrets(values map[string]string) { s.secrets = values }

// Secrets are the references that templates have asked for so far, sorted.
func (s *Scope) Secrets() []string { return slices.Sorted(maps.Keys(s.wanted)) }

// Node gives a copy of n with every string rendered, and what was read. Faults
// go to at, at the place of the string. Strings below keys in literal are left as they are.
func (s *Scope) Node(n *yaml.Node, at diag.At, literal ...string) (*yaml.Node, []Read) {
	s.reads = nil
	out := s.node(n, at, literal)
	return out, s.reads
}

func (s *Scope) node(n *yaml.Node, at diag.At, literal []string) *yaml.Node {
	c := *n
	switch n.Kind {
	case yaml.AliasNode:
		return s.node(n.Alias, at, literal)
	case yaml.MappingNode:
		c.Content = slices.Clone(n.Content)
		for i := 0; i+1 < len(c.Content); i += 2 {
			if key := n.Content[i].Value; !slices.Contains(literal, key) {
				c.Content[i+1] = s.node(n.Content[i+1], at.Field(key), nil)
			}
		}
	case yaml.SequenceNode:
		c.Content = slices.Clone(n.Content)
		for i, x := range c.Content {
			c.Content[i] = s.node(x, at.Index(i), nil)
		}
	case yaml.ScalarNode:
		if !decode.IsTemplate(n) {
			break
		}
		s.pos = at.Pos()
		text, err := s.text(n.Value)
		if err != nil {
			at.Err(err)
			break
		}
		// No tag and no style: `count: "{{ .Vars.n }}"` may fill a number.
		c.Value, c.Tag, c.Style = text, "", 0
	}
	return &c
}

// String renders one string, as a layer's address, and tells what it read.
func (s *Scope) String(text string, pos diag.Pos) (string, []Read, error) {
	if !strings.Contains(text, "{{") {
		return text, nil, nil
	}
	s.reads, s.pos = nil, pos
	out, err := s.text(text)
	return out, s.reads, err
}

func (s *Scope) text(text string) (string, error) {
	t, err := s.parse(text)
	if err != nil {
		return "", err
	}
	for _, name := range rootFields(t.Root, false) {
		s.readField(name)
	}
	var b strings.Builder
	if err := t.Execute(&limited{w: &b, left: MaxOutput}, s.dot()); err != nil {
		return "", explain(err)
	}
	return b.String(), nil
}

// MaxOutput bounds what one string may render to, in bytes.
const MaxOutput = 4 << 20

type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, fmt.Errorf("the template makes more than %d bytes", MaxOutput)
	}
	return l.w.Write(p)
}

func (s *Scope) parse(text string) (*template.Template, error) {
	t, err := template.New("").Option("missingkey=error").Funcs(s.functions()).Parse(text)
	if err != nil {
		return nil, explain(err)
	}
	return t, nil
}

// Validate checks the templates below n as far as that goes without facts: they parse, and name known things.
func Validate(n *yaml.Node, at diag.At, literal ...string) {
	s := New(facts.New(), nil)
	s.validate(n, at, literal)
}

func (s *Scope) validate(n *yaml.Node, at diag.At, literal []string) {
	switch n.Kind {
	case yaml.AliasNode:
		s.validate(n.Alias, at, literal)
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if key := n.Content[i].Value; !slices.Contains(literal, key) {
				s.validate(n.Content[i+1], at.Field(key), nil)
			}
		}
	case yaml.SequenceNode:
		for i, x := range n.Content {
			s.validate(x, at.Index(i), nil)
		}
	case yaml.ScalarNode:
		if err := s.check(n); err != nil {
			at.Err(err)
		}
	}
}

func (s *Scope) check(n *yaml.Node) error {
	if !decode.IsTemplate(n) {
		return nil
	}
	t, err := s.parse(n.Value)
	if err != nil {
		return err
	}
	known := append(slices.Collect(maps.Keys(fields)), "Vars")
	for _, name := range rootFields(t.Root, true) {
		first, _, _ := strings.Cut(name, ".")
		if slices.Contains(known, first) {
			continue
		}
		err := fmt.Errorf("unknown name .%s", first)
		if near := decode.Nearest(first, known); near != "" {
			return fmt.Errorf("%w, did you mean .%s?", err, near)
		}
		slices.Sort(known)
		return diag.WithHint(err, "known are .%s; tags are {{ tag \"Name\" }}, other facts {{ fact \"name\" }}", strings.Join(known, " ."))
	}
	return nil
}

func (s *Scope) dot() map[string]any {
	dot := map[string]any{"Vars": s.vars}
	for name, fact := range fields {
		if f, ok := s.facts.Lookup(fact); ok {
			dot[name] = f.Value
		}
	}
	return dot
}

func (s *Scope) readField(name string) {
	first, rest, _ := strings.Cut(name, ".")
	if first == "Vars" {
		v, _, _ := strings.Cut(rest, ".")
		for k, reads := range s.varRead {
			if v == "" || v == k {
				s.reads = append(s.reads, reads...)
			}
		}
		return
	}
	if fact, ok := fields[first]; ok {
		s.readFact(fact)
	}
}

func (s *Scope) readFact(name string) (facts.Fact, bool) {
	f, ok := s.facts.Lookup(name)
	stage := f.Stage
	if !ok {
		stage = facts.Launch
	}
	s.reads = append(s.reads, Read{What: "fact " + name, Stage: stage, Pos: s.pos})
	return f, ok
}

// rootFields lists the dotted names that a template may read from the dot.
// Inside range and with the dot is another: names there are left out if only
// sure ones are wanted, and else listed too, so that none is missed.
func rootFields(n parse.Node, sure bool) []string {
	var out []string
	var walk func(parse.Node)
	list := func(l *parse.ListNode) {
		if l != nil {
			for _, c := range l.Nodes {
				walk(c)
			}
		}
	}
	branch := func(b *parse.BranchNode) { walk(b.Pipe); list(b.List); list(b.ElseList) }
	rebind := func(b *parse.BranchNode) {
		walk(b.Pipe)
		if !sure {
			list(b.List)
		}
		list(b.ElseList)
	}
	walk = func(n parse.Node) {
		switch n := n.(type) {
		case *parse.ListNode:
			list(n)
		case *parse.ActionNode:
			walk(n.Pipe)
		case *parse.IfNode:
			branch(&n.BranchNode)
		case *parse.RangeNode:
			rebind(&n.BranchNode)
		case *parse.WithNode:
			rebind(&n.BranchNode)
		case *parse.TemplateNode:
			if n.Pipe != nil {
				walk(n.Pipe)
			}
		case *parse.PipeNode:
			for _, c := range n.Cmds {
				for _, a := range c.Args {
					walk(a)
				}
			}
		case *parse.ChainNode:
			walk(n.Node)
		case *parse.FieldNode:
			out = append(out, strings.Join(n.Ident, "."))
		case *parse.VariableNode:
			if n.Ident[0] == "$" && len(n.Ident) > 1 {
				out = append(out, strings.Join(n.Ident[1:], "."))
			}
		}
	}
	walk(n)
	return out
}

// fault is an error of a function of ours: its text stands alone.
type fault struct{ error }

func (f fault) Unwrap() error { return f.error }

var (
	noEntry = regexp.MustCompile(`map has no entry for key "(\w+)"`)
	noFunc  = regexp.MustCompile(`function "(\w+)" not defined`)
	noVar   = regexp.MustCompile(`at <\$?\.Vars\.`)
	prefix  = regexp.MustCompile(`^template: :\d+(:\d+)?: (executing "" at )?`)
)

// explain turns an error of text/template into one sentence.
func explain(err error) error {
	var f fault
	if errors.As(err, &f) {
		return f.error
	}
	text := err.Error()
	if m := noEntry.FindStringSubmatch(text); m != nil {
		if fact, ok := fields[m[1]]; ok && !noVar.MatchString(text) {
			return diag.WithHint(fmt.Errorf("the fact %s is not known on this machine", fact), "off EC2, give it with --fact %s=VALUE", fact)
		}
		return diag.WithHint(fmt.Errorf("there is no variable %q", m[1]), "add it under vars:")
	}
	err = errors.New("template: " + prefix.ReplaceAllString(text, ""))
	if m := noFunc.FindStringSubmatch(text); m != nil {
		if near := decode.Nearest(m[1], functionNames()); near != "" {
			return diag.WithHint(err, "did you mean %s?", near)
		}
		return diag.WithHint(err, "a text stands in quotes: {{ tag %q }}", m[1])
	}
	return err
}
