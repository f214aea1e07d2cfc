package steptest

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/step"
)

// note is a toy kind: a file with a text. Its field `how` is the fault in it
// that the suite must find.
type note struct {
	Text string `yaml:"text"`
	How  string `yaml:"how"`

	name string
}

func (n *note) SetName(name string) { n.name = name }

func (n *note) Validate(at diag.At) {
	if n.Text == "" {
		at.Field("text").Errorf("must be given")
	}
}

func (n *note) Check(ctx context.Context, env step.Env) (step.Drift, error) {
	if n.How == "check writes" {
		_ = env.Host.SetMeta("/notes", 0o755, host.Keep, host.Keep)
	}
	if n.How == "check stamps" {
		_ = env.Stamp("seen")
	}
	if n.How == "never content" {
		return "is not good enough", nil
	}
	b, err := env.Host.ReadFile(n.name)
	switch {
	case err != nil:
		return "is missing", nil
	case !strings.HasPrefix(string(b), n.Text) && n.How == "tells":
		return step.Drift("should say " + n.Text), nil
	case !strings.HasPrefix(string(b), n.Text) && n.How != "sees only absence":
		return "text differs", nil
	}
	return "", nil
}

func (n *note) Apply(ctx context.Context, env step.Env) error {
	text := n.Text
	switch n.How {
	case "appends":
		b, _ := env.Host.ReadFile(n.name)
		text = string(b) + text
	case "is deaf":
		ctx = context.WithoutCancel(ctx)
		time.Sleep(5 * time.Millisecond)
	case "fails late":
		_ = env.Host.MkdirAll("/half/done")
		return fmt.Errorf("cannot write %s: out of ink", n.name)
	case "marks before it is done":
		if err := env.Host.WriteFile(ctx, host.File{Path: n.name, Data: strings.NewReader(text), Mode: 0o644, UID: host.Keep, GID: host.Keep}); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		return env.Host.MkdirAll("/second/part")
	case "leaves scraps":
		f, _ := os.CreateTemp(env.Host.Root()+"/notes", host.Tmp+"*")
		f.Close()
		if err := ctx.Err(); err != nil {
			return err
		}
		os.Remove(f.Name())
	case "runs a program":
		if _, err := env.Host.Run(ctx, host.Cmd{Argv: []string{"scribe", n.name, text}, Line: env.Output}); err != nil {
			return err
		}
		return nil
	case "writes in place":
		full, _ := env.Host.Path(n.name)
		f, err := os.OpenFile(full, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
		if err != nil {
			return err
		}
		defer f.Close()
		for _, c := range []byte(text) {
			if _, err := f.Write([]byte{c}); err != nil {
				return err
			}
			time.Sleep(time.Millisecond)
		}
		return nil
	}
	return env.Host.WriteFile(ctx, host.File{Path: n.name, Data: strings.NewReader(text), Mode: 0o644, UID: host.Keep, GID: host.Keep})
}

var notes = step.Kind{
	Name: "notes", Doc: "Notes on the machine.", Level: step.LevelFiles,
	New:     func() step.Step { return &note{} },
	Example: "amiagent: 1\nnotes:\n  /notes/a: {text: \"{{ .Arch }}\", needs: [users.app]}\n",
}

func noteCase(how string) Case {
	return Case{
		Name: "note", Entry: "/notes/a", Body: "text: hello there\nhow: " + how + "\n",
		Setup:    func(t *testing.T, m *Machine) { m.Mkdir("/notes", 0o755) },
		Programs: map[string]string{"scribe": `echo "writing $1"; printf %s "$2" >"$AMIAGENT_ROOT$1.new" && mv "$AMIAGENT_ROOT$1.new" "$AMIAGENT_ROOT$1"`},
		Drift:    "is missing",
		Want:     `/notes/a 0644 "hello there"`,
		Breaks: []Break{
			{"removed", func(m *Machine) { m.Remove("/notes/a") }, "is missing"},
			{"edited", func(m *Machine) { m.Write("/notes/a", 0o644, "bye") }, "text differs"},
		},
	}
}

func TestGoodKindPasses(t *testing.T) {
	program := noteCase("runs a program")
	program.Name = "by a program"
	refused := noteCase("''")
	refused.Name, refused.Setup, refused.Error = "refused", nil, "no such file"
	there := noteCase("''")
	there.Name, there.None = "there already", true
	there.Setup = func(t *testing.T, m *Machine) { m.Write("/notes/a", 0o644, "hello there") }
	Run(t, notes, []Case{noteCase("''"), program, refused, there})
}

func TestBadKindsAreCaught(t *testing.T) {
	for how, want := range map[string]string{
		"check writes":      "the step's Check wrote:\n/notes/ 0755",
		"check stamps":      "the step's Check wrote:\n(stamps)",
		"never content":     `first Check finds "is not good enough", want "is missing"`,
		"appends":           "a second Apply changed:\n/notes/a 0644 \"hello therehello there\"",
		"sees only absence": "edited: Check does not see it",
		"fails late":        "cannot write /notes/a: out of ink",
		"leaves scraps":     "Apply left unfinished files",
		"tells":             `the secret "hello" is in "should say hello there"`,
		"marks before it is done": "the next Apply does not end as an undisturbed one, differing are:\n" +
			"/second gone\n/second/part gone",
	} {
		t.Run(how, func(t *testing.T) {
			c := noteCase(how)
			c.Secret, c.Want = "hello", ""
			c.Breaks[1].Drift = ""
			var said []string
			for _, p := range (suite{t: t, test: "TestBadKindsAreCaught/" + how, kind: notes, c: c}).proofs() {
				if p.name == "killed Apply" {
					continue // this test is no Run, and cannot be started again
				}
				if err := p.holds(); err != nil {
					said = append(said, err.Error())
				}
			}
			if all := strings.Join(said, "\n"); !strings.Contains(all, want) {
				t.Errorf("the suite says:\n%s\nwant:\n%s", all, want)
			}
		})
	}
}

// A torn file that passes Check shows only when the process dies in Apply:
// nothing looks at the context there.
func TestKilledApplyLeavesATornFile(t *testing.T) {
	c := noteCase("writes in place")
	c.Breaks = nil
	if os.Getenv(envCase) != "" {
		Run(t, notes, []Case{c})
		return
	}
	s := suite{t: t, test: t.Name(), kind: notes, c: c}
	var m *Machine
	torn := false
	// On a busy machine a kill may come too early or too late: try until one hits.
	for try := 0; !torn && try < 50; try++ {
		m = s.machine()
		if err := s.killedAfter(m, time.Duration(1+try%10)*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		b, _ := os.ReadFile(m.Path("/notes/a"))
		torn = len(b) > 0 && string(b) != "hello there"
	}
	if !torn {
		t.Error("no process was killed within Apply")
	}
	x, err := s.subject()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.finishes(x, m, map[string]string{"/notes": "/notes/ 0755", "/notes/a": `/notes/a 0644 "hello there"`}); err != nil {
		t.Error(err)
	}
}

func TestRefusalMustLeaveNothing(t *testing.T) {
	c := noteCase("fails late")
	c.Error = "out of ink"
	err := suite{t: t, kind: notes, c: c}.refused()
	if err == nil || !strings.Contains(err.Error(), "the failed Apply changed:\n/half/ 0755\n/half/done/ 0755") {
		t.Error(err)
	}
	c.Hint = "buy ink"
	if err := (suite{t: t, kind: notes, c: c}).refused(); err == nil || !strings.Contains(err.Error(), `the hint is "", want "buy ink" in it`) {
		t.Error(err)
	}
}

func TestFaultsAreComparedExactly(t *testing.T) {
	Faults(t, notes, []Fault{
		{Name: "none", Body: "text: x"},
		{Name: "all of them", Entry: "/notes/b", Body: `
texd: x
how: [1]
`, Want: `
			manifest.yaml:1:1: notes./notes/b.texd: unknown key, did you mean "text"?
			manifest.yaml:1:1: notes./notes/b.text: must be given
			manifest.yaml:2:6: notes./notes/b.how: must be a string, is a list`},
	})
}

func TestExampleMustBeAManifest(t *testing.T) {
	for text, want := range map[string]string{
		"amiagent: 1\nnotes:\n  a: {texd: x}":     `example.yaml:3:7: notes.a.texd: unknown key, did you mean "text"?`,
		"notes: {a: {text: x}}":                   "needs the keys amiagent and notes",
		"amiagent: 1\nnotes: {}":                  "section notes is empty",
		"amiagent: 1\nnotes: {a: {text: x}":       "not YAML",
		"amiagent: 1\nnotes: {a: {}}\nnotes: {}":  "given twice",
		"amiagent: 1\nfiles: {/a: {content: xy}}": "needs the keys amiagent and notes",
	} {
		k := notes
		k.Example = text
		if err := example(k); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// A kind with a Group is asked through it, one member at a time.
type chorus struct{}

func (chorus) Check(ctx context.Context, env step.Env, ms []step.Member) ([]step.Drift, error) {
	var all []step.Drift
	for _, m := range ms {
		d, err := m.Step.Check(ctx, m.Env)
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, nil
}

func (chorus) Apply(ctx context.Context, env step.Env, ms []step.Member) error {
	errs := step.MemberErrors{}
	for _, m := range ms {
		if err := m.Step.Apply(ctx, m.Env); err != nil {
			errs[m.ID] = err
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return errs
}

func TestGroups(t *testing.T) {
	k := notes
	k.Group = chorus{}
	refused := noteCase("fails late")
	refused.Name, refused.Error, refused.Setup = "refused", "out of ink", func(t *testing.T, m *Machine) { m.Mkdir("/half/done", 0) }
	Run(t, k, []Case{noteCase("''"), refused})
}
