package facts

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/amiagent/amiagent/internal/decode"
	"github.com/amiagent/amiagent/internal/diag"
)

// Condition is the `when` of a manifest: which machines an entry is for. Every
// key that is given must match, and a key matches when one of its patterns does.
// The empty Condition matches every machine.
type Condition struct {
	Arch         Globs            `yaml:"arch"` // amd64, arm64, 386
	OS           Globs            `yaml:"os"`   // an os-release ID, or ID:VERSION, where 22 stands for 22.04 too
	Region       Globs            `yaml:"region"`
	Zone         Globs            `yaml:"zone"`
	Account      Globs            `yaml:"account"`
	InstanceType Globs            `yaml:"instance-type"`
	LifeCycle    Globs            `yaml:"life-cycle"` // on-demand, spot, scheduled
	Image        Globs            `yaml:"image"`      // ami-..., or the name that bake left in the image
	Tags         map[string]Globs `yaml:"tags"`
	Facts        map[string]Globs `yaml:"facts"` // any fact by its name
}

// Globs are patterns of which one must match: in YAML a string or a list of
// strings. The syntax is that of path.Match, but * and ? match a slash too.
type Globs []string

// DecodeNode reads a string or a list of strings.
func (g *Globs) DecodeNode(n *yaml.Node, at diag.At) {
	if n.Kind == yaml.ScalarNode {
		*g = Globs{n.Value}
		g.validate(at)
		return
	}
	decode.Into(n, (*[]string)(g), at)
	if n.Kind == yaml.SequenceNode && len(*g) == 0 {
		at.Errorf("is an empty list, which no machine matches")
	}
	for i := range *g {
		(*g)[i : i+1].validate(at.Index(i))
	}
}

func (g Globs) validate(at diag.At) {
	if _, err := path.Match(g[0], ""); err != nil && !strings.Contains(g[0], "{{") {
		at.Errorf("%q is not a pattern", g[0])
	}
}

func (g Globs) match(value string) bool {
	return slices.ContainsFunc(g, func(pattern string) bool { return glob(pattern, value) })
}

// glob is path.Match on one path element: tag values hold slashes, and `*`
// must mean "any value" for them too.
func glob(pattern, value string) bool {
	const slash = "\x00"
	ok, err := path.Match(strings.ReplaceAll(pattern, "/", slash), strings.ReplaceAll(value, "/", slash))
	return ok && err == nil
}

func (g Globs) String() string { return strings.Join(g, " or ") }

// clause is one key of a condition.
type clause struct {
	label string // as a person calls the fact
	names []string
	want  Globs
	match func(values []string) bool // nil: the first value matches a pattern
}

// clauses lists what a condition asks, facts that are known at bake first.
func (c *Condition) clauses() []clause {
	all := []clause{
		{label: "arch", names: []string{Arch}, want: c.Arch},
		{label: "os", names: []string{OSID, OSVersion}, want: c.OS, match: c.matchOS},
	}
	all = append(all, clause{label: "image", names: c.imageFacts(), want: c.Image, match: func(values []string) bool {
		return slices.ContainsFunc(values, c.Image.match)
	}})
	for _, name := range slices.Sorted(maps.Keys(c.Facts)) {
		all = append(all, clause{label: "fact " + name, names: []string{name}, want: c.Facts[name]})
	}
	all = append(all,
		clause{label: "region", names: []string{Region}, want: c.Region},
		clause{label: "zone", names: []string{Zone}, want: c.Zone},
		clause{label: "account", names: []string{Account}, want: c.Account},
		clause{label: "instance type", names: []string{InstanceType}, want: c.InstanceType},
		clause{label: "life cycle", names: []string{LifeCycle}, want: c.LifeCycle},
	)
	for _, key := range slices.Sorted(maps.Keys(c.Tags)) {
		all = append(all, clause{label: "tag " + key, names: []string{TagPrefix + key}, want: c.Tags[key]})
	}
	all = slices.DeleteFunc(all, func(cl clause) bool { return cl.want == nil })
	rank := func(cl clause) int {
		if slices.ContainsFunc(cl.names, func(n string) bool { return StageOf(n) == Launch }) {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(all, func(a, b clause) int { return rank(a) - rank(b) })
	return all
}

// imageFacts names the facts that the image patterns speak of.
func (c *Condition) imageFacts() []string {
	var names []string
	for _, p := range c.Image {
		name := ImageName
		if strings.HasPrefix(p, "ami-") {
			name = ImageID
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// matchOS takes os-release's ID and VERSION_ID.
func (c *Condition) matchOS(values []string) bool {
	return slices.ContainsFunc(c.OS, func(pattern string) bool {
		id, version, versioned := strings.Cut(pattern, ":")
		return glob(id, values[0]) && (!versioned || glob(version, values[1]) || glob(version+".*", values[1]))
	})
}

// Match tells whether the condition holds for a machine. reads are the facts
// it rests on, in the order in which they were looked at: those known at bake
// come first, and nothing is read after the first that does not match, so that
// a condition may be decided at bake although it speaks of tags. A fact that is
// not known matches nothing. why says, for a condition that does not hold, what does not match.
func (c *Condition) Match(f *Facts) (ok bool, reads []string, why string) {
	if c == nil {
		return true, nil, ""
	}
	for _, cl := range c.clauses() {
		var values []string
		known, secret := false, false
		for _, name := range cl.names {
			fact, ok := f.Lookup(name)
			known, secret = known || ok, secret || fact.Secret
			reads = append(reads, name)
			values = append(values, fact.Value)
		}
		holds := known
		switch {
		case !known:
		case cl.match != nil:
			holds = cl.match(values)
		default:
			holds = cl.want.match(values[0])
		}
		switch {
		case holds:
			continue
		case !known && strings.HasPrefix(cl.names[0], TagPrefix) && f.Tags.Unreadable():
			return false, reads, fmt.Sprintf("%s is not readable (tags are %s), want %s", cl.label, f.Tags.State, cl.want)
		case !known:
			return false, reads, fmt.Sprintf("%s is not set, want %s", cl.label, cl.want)
		case secret:
			return false, reads, fmt.Sprintf("%s does not match", cl.label)
		}
		is := strings.TrimSpace(strings.Join(values, " "))
		if is == "" {
			is = `""`
		}
		return false, reads, fmt.Sprintf("%s is %s, want %s", cl.label, is, cl.want)
	}
	return true, reads, ""
}
