package plan_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/fetch"
	"github.com/amiagent/amiagent/internal/manifest"
	"github.com/amiagent/amiagent/internal/plan"
	"github.com/amiagent/amiagent/internal/step"
)

// thing is a kind for tests: it can do all that a plan may ask of a body.
type thing struct {
	Text  string    `yaml:"text"`
	Raw   string    `yaml:"raw,literal"`
	Port  int       `yaml:"port"`
	Under []step.ID `yaml:"under"` // known from the body
	Watch []step.ID `yaml:"watch"`
	Run   bool      `yaml:"run"`
	Open  bool      `yaml:"open"` // everybody may read it
	From  string    `yaml:"from"`
	name  string
}

func (t *thing) SetName(n string) { t.name = n }
func (t *thing) Validate(at diag.At) {
	if t.Text == "bad" {
		at.Field("text").Errorf("must not be bad")
	}
}
func (t *thing) Needs() []step.ID   { return t.Under }
func (t *thing) Watches() []step.ID { return t.Watch }
func (t *thing) Fetches() []fetch.Request {
	if t.From == "" {
		return nil
	}
	return []fetch.Request{{Source: t.From}}
}
func (t *thing) Exposed() (string, bool)                             { return "open", t.Open }
func (t *thing) Runs() bool                                          { return t.Run }
func (t *thing) Check(context.Context, step.Env) (step.Drift, error) { return "", nil }
func (t *thing) Apply(context.Context, step.Env) error               { return nil }

func kinds() []step.Kind {
	k := func(name string, l step.Level) step.Kind {
		return step.Kind{Name: name, Level: l, New: func() step.Step { return &thing{} }}
	}
	return []step.Kind{k("low", step.LevelPackages), k("mid", step.LevelFiles), k("high", step.LevelUnits)}
}

func machine() *facts.Facts {
	f := facts.New()
	f.Set(facts.Arch, "amd64", facts.Bake, "kernel")
	f.Set(facts.Region, "eu-west-1", facts.Launch, "imds")
	f.Set("tags.Role", "web", facts.Launch, "imds")
	return f
}

func build(t *testing.T, text string, f *facts.Facts) (*plan.Plan, string) {
	t.Helper()
	var list diag.List
	m := manifest.Parse("m.yaml", []byte("amiagent: 1\n"+text), []string{"low", "mid", "high", "ready"}, &list)
	p := plan.Build(manifest.Merge(m), plan.Options{Kinds: kinds(), Facts: f}, &list)
	if err := list.Err(); err != nil {
		return p, err.Error()
	}
	return p, ""
}

// outline lists a plan's nodes in order, each with what it needs.
func outline(p *plan.Plan) string {
	var lines []string
	for _, n := range p.Nodes {
		s := n.ID.String()
		for _, d := range n.Needs {
			s += " <" + d.ID.String()
		}
		if n.Waits {
			s += " waits"
		}
		lines = append(lines, s)
	}
	return strings.Join(lines, "; ")
}

func TestOrder(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"by level, then as written", "high: {a: {}}\nmid: {z: {}, b: {}}\nlow: {c: {}}\n",
			"low.c; mid.z; mid.b; high.a"},
		{"a need lifts a step to the level of what it needs", "low: {a: {needs: [mid.b]}, c: {}}\nmid: {b: {}}\n",
			"low.c; mid.b; low.a <mid.b"},
		{"needs within a level", "mid: {a: {needs: [mid.b]}, b: {needs: [mid.c]}, c: {}}\n",
			"mid.c; mid.b <mid.c; mid.a <mid.b"},
		{"what a body knows is needed if it is there", "mid: {a: {under: [mid.b, mid.none]}, b: {}}\n",
			"mid.b; mid.a <mid.b"},
		{"what is watched is needed", "high: {u: {watch: [mid.f]}}\nmid: {f: {}}\n",
			"mid.f; high.u <mid.f"},
		{"software waits for everything, unless it says what it needs", "high: {u: {run: true}, v: {run: true, needs: [mid.f]}}\nmid: {f: {}}\n",
			"mid.f; high.u waits; high.v <mid.f"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, faults := build(t, c.text, machine())
			if got := outline(p); faults != "" || got != c.want {
				t.Errorf("%s\ngot  %s\nwant %s", faults, got, c.want)
			}
		})
	}
}

func TestFaults(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"a circle", "mid: {a: {needs: [mid.b]}, b: {needs: [mid.a]}}\n",
			"m.yaml:2:18: mid.a.needs: steps need one another in a circle: mid.a → mid.b → mid.a"},
		{"itself", "mid: {a: {needs: [mid.a]}}\n", "m.yaml:2:18: mid.a.needs: mid.a needs itself"},
		{"an unknown step", "mid: {alpha: {needs: [mid.alhpa1]}, alpha1: {}}\n",
			"m.yaml:2:22: mid.alpha.needs: needs mid.alhpa1, which is not in the manifest\n    hint: did you mean mid.alpha1?"},
		{"no step's name", "mid: {a: {needs: [b]}}\n",
			`m.yaml:2:18: mid.a.needs: "b" names no step, write kind.name, as files./etc/motd`},
		{"an unknown step to watch", "mid: {a: {watch: [low.gone]}}\n",
			"m.yaml:2:10: mid.a: needs low.gone, which is not in the manifest"},
		{"all of a body's", "mid: {a: {text: bad, prot: 1}, b: {port: x}}\n",
			"m.yaml:2:17: mid.a.text: must not be bad\nm.yaml:2:22: mid.a.prot: unknown key, did you mean \"port\"?\nm.yaml:2:42: mid.b.port: must be a number, is \"x\""},
		{"what is no mapping, once, and it can be needed", "mid: {a: bad, b: {needs: [mid.a], watch: [mid.c]}, c: [x]}\n",
			"m.yaml:2:10: mid.a: must be a mapping, is \"bad\"\nm.yaml:2:55: mid.c: must be a mapping, is a list"},
		{"a missing tag", "mid: {a: {text: '{{ tag \"Nope\" }}'}}\n",
			"m.yaml:2:17: mid.a.text: the instance has no tag \"Nope\"\n    hint: tag the instance, or give a default: {{ tag \"Nope\" \"VALUE\" }}"},
		{"a missing tag in a variable", "vars: {v: '{{ tag \"Nope\" }}'}\n",
			"m.yaml:2:11: vars.v: the instance has no tag \"Nope\"\n    hint: tag the instance, or give a default: {{ tag \"Nope\" \"VALUE\" }}"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, got := build(t, c.text, machine()); got != c.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, c.want)
			}
		})
	}
}

func TestValidationNeedsNoFacts(t *testing.T) {
	p, faults := build(t, "vars: {v: '{{ tag \"X\" }}'}\nmid: {a: {text: '{{ .Vars.v }} {{ tag \"Y\" }}', port: '{{ .Vars.n }}', when: {arch: arm64}}}\n", nil)
	if faults != "" || len(p.Nodes) != 1 {
		t.Error(faults, outline(p))
	}
	_, faults = build(t, "mid: {a: {text: '{{ tga \"Y\" }}'}, b: {text: bad}}\n", nil)
	want := "m.yaml:2:17: mid.a.text: template: function \"tga\" not defined\n    hint: did you mean tag?\nm.yaml:2:45: mid.b.text: must not be bad"
	if faults != want {
		t.Errorf("got:\n%s\nwant:\n%s", faults, want)
	}
}

func TestWhenLeavesOutWhatIsForOthers(t *testing.T) {
	p, faults := build(t, "mid:\n  a: {when: {tags: {Role: db}}}\n  b: {when: {tags: {Role: web}}, needs: [mid.a]}\n  c: {}\n", machine())
	if got := outline(p); faults != "" || got != "mid.b; mid.c" {
		t.Errorf("%s: %s", faults, got)
	}
	if len(p.Skipped) != 1 || p.Skipped[0].ID.String() != "mid.a" || !strings.Contains(p.Skipped[0].Why, "Role") {
		t.Errorf("skipped: %+v", p.Skipped)
	}
	reads := fmt.Sprint(p.Nodes[0].Reads)
	if !strings.Contains(reads, "tags.Role") {
		t.Errorf("reads of b: %s", reads)
	}
}

// Skipping an entry because its tag could not be read would be a guess.
func TestWhenIsAFaultWhereTagsCouldNotBeRead(t *testing.T) {
	f := facts.New()
	f.Set(facts.Arch, "amd64", facts.Bake, "kernel")
	f.Tags = facts.Tags{State: facts.TagsThrottled, Hint: "try later"}
	p, faults := build(t, "mid:\n  a: {when: {tags: {Role: db}}}\n  b: {when: {arch: arm64}}\n", f)
	if !strings.HasPrefix(faults, "m.yaml:3:3: mid.a.when: cannot tell whether it is for this machine: ") || strings.Contains(faults, "mid.b") || len(p.Skipped) != 2 {
		t.Errorf("%s %+v", faults, p.Skipped)
	}
}

func key(t *testing.T, text, id string) string {
	t.Helper()
	p, faults := build(t, text, machine())
	for _, n := range p.Nodes {
		if n.ID.String() == id {
			return n.Key
		}
	}
	t.Fatalf("no %s: %s", id, faults)
	return ""
}

func TestAKeyHashesWhatCanChangeTheEffectAndNothingElse(t *testing.T) {
	base := key(t, "mid: {a: {text: x, port: 1}}\n", "mid.a")
	for name, text := range map[string]string{
		"order and style of keys":                 "mid:\n  a:\n    port: 1\n    # a comment\n    text: \"x\"\n",
		"a template of the same text":             "vars: {v: x}\nmid: {a: {text: '{{ .Vars.v }}', port: 1}}\n",
		"what decides whether and when, not what": "mid: {a: {text: x, port: 1, on-failure: continue, needs: [mid.b]}, b: {}}\n",
	} {
		if got := key(t, text, "mid.a"); got != base {
			t.Errorf("%s changes the key", name)
		}
	}
	for name, text := range map[string]string{
		"a value":          "mid: {a: {text: y, port: 1}}\n",
		"a further field":  "mid: {a: {text: x, port: 1, run: true}}\n",
		"a watched step":   "mid: {a: {text: x, port: 1, watch: [mid.b]}, b: {}}\n",
		"a value moved on": "mid: {a: {text: '', raw: x, port: 1}}\n",
	} {
		if got := key(t, text, "mid.a"); got == base {
			t.Errorf("%s does not change the key", name)
		}
	}
	watching := func(text string) string {
		return key(t, "mid: {a: {watch: [mid.b]}, b: {text: "+text+"}}\n", "mid.a")
	}
	if watching("one") == watching("two") {
		t.Error("a change of the watched step does not change the watcher's key")
	}
}

func TestThePlanIsDeterministic(t *testing.T) {
	text := "vars: {x: 1, y: 2}\nlow: {a: {}, b: {}, c: {needs: [mid.e]}}\nmid: {d: {text: '{{ .Vars.x }}'}, e: {}}\nhigh: {f: {watch: [mid.d, low.a]}}\n"
	first, _ := build(t, text, machine())
	for range 20 {
		again, _ := build(t, text, machine())
		if outline(first) != outline(again) || first.Nodes[3].Key != again.Nodes[3].Key {
			t.Fatal("two plans of one manifest differ")
		}
	}
}

func TestSecretsAreBoundLateAndNeverShown(t *testing.T) {
	text := "mid: {a: {text: 'pw={{ secret \"ssm:/pw\" }}'}, b: {}, c: {text: '{{ secret \"ssm:/other\" }}'}}\nhigh: {u: {watch: [mid.a]}}\n"
	bound := func(values map[string]string) (*plan.Plan, map[string]*plan.Node) {
		p, faults := build(t, text, machine())
		if faults != "" {
			t.Fatal(faults)
		}
		if got := fmt.Sprint(p.Secrets()); got != "[ssm:/other ssm:/pw]" {
			t.Fatal(got)
		}
		if err := p.Bind(values, []byte("salt")); err != nil {
			t.Fatal(err)
		}
		by := map[string]*plan.Node{}
		for _, n := range p.Nodes {
			by[n.ID.String()] = n
		}
		return p, by
	}
	_, one := bound(map[string]string{"ssm:/pw": "hunter2", "ssm:/other": "x"})
	if got := one["mid.a"].Body.(*thing).Text; got != "pw=hunter2" {
		t.Errorf("body is %q", got)
	}
	_, two := bound(map[string]string{"ssm:/pw": "hunter3"})
	if one["mid.a"].Key != two["mid.a"].Key {
		t.Error("the key shows that the secret is another")
	}
	for _, id := range []string{"mid.a", "high.u"} {
		if one[id].StampKey() == two[id].StampKey() {
			t.Errorf("a rotated secret does not change what %s remembers", id)
		}
		if strings.Contains(one[id].StampKey(), "hunter") {
			t.Error("the stamp holds the secret")
		}
	}
	if one["mid.b"].StampKey() != one["mid.b"].Key || one["mid.b"].StampKey() != two["mid.b"].StampKey() {
		t.Error("a step without secrets is bound to one")
	}
	if c := two["mid.c"]; len(c.Missing) != 1 || c.Body.(*thing).Text != "«ssm:/other»" {
		t.Errorf("a secret that cannot be read: %+v", c)
	}
}

func TestAFaultThroughASecretDoesNotQuoteIt(t *testing.T) {
	var list diag.List
	m := manifest.Parse("m.yaml", []byte("amiagent: 1\nmid: {b: {port: '{{ if secret \"ssm:/pw\" | hasPrefix \"«\" }}1{{ else }}{{ secret \"ssm:/pw\" }}{{ end }}'}}\n"), []string{"mid"}, &list)
	p := plan.Build(manifest.Merge(m), plan.Options{Kinds: kinds(), Facts: machine()}, &list)
	if list.Len() > 0 {
		t.Fatal(list.Err())
	}
	err := p.Bind(map[string]string{"ssm:/pw": "hunter2"}, nil)
	if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), `is "«ssm:/pw»"`) {
		t.Errorf("error: %v", err)
	}
}

func TestASecretWhereEverybodyMayReadIsAFault(t *testing.T) {
	_, got := build(t, "mid: {a: {text: '{{ secret \"ssm:/pw\" }}', open: true}, b: {text: x, open: true}, c: {text: '{{ secret \"ssm:/pw\" }}'}}\n", machine())
	want := "m.yaml:2:49: mid.a.open: everybody on the machine may read what would hold the secret ssm:/pw\n    hint: keep secrets in a file with mode: \"0600\" and the owner who needs it"
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestASecretInAnAddressOrAProbeIsAFault(t *testing.T) {
	_, got := build(t, "mid: {a: {from: 'https://x/?token={{ secret \"ssm:/t\" }}'}}\nready: {http: {url: 'http://x/{{ secret \"ssm:/t\" }}'}}\n", machine())
	for _, want := range []string{
		"mid.a.source: an address cannot hold the secret ssm:/t\n    hint: give the instance's role access to the bytes instead",
		"ready.http: a probe cannot hold the secret ssm:/t: probes are told in the status and the log",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

func TestProbesAreRenderedAndKeptApart(t *testing.T) {
	p, faults := build(t, "ready: {http: {url: 'http://{{ tag \"Role\" }}/'}, tcp: {when: {arch: arm64}}}\n", machine())
	if faults != "" || len(p.Probes) != 1 || p.Probes[0].Name != "http" || p.Probes[0].Body.Content[1].Value != "http://web/" {
		t.Errorf("%s %+v", faults, p.Probes)
	}
}
