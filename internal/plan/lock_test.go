package plan_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/lock"
	"github.com/amiagent/amiagent/internal/manifest"
	"github.com/amiagent/amiagent/internal/plan"
	"github.com/amiagent/amiagent/internal/step"
)

// mover is a kind with one input, at a source.
type mover struct {
	Source string    `yaml:"source"`
	Digest string    `yaml:"digest"`
	Watch  []step.ID `yaml:"watch"`
	judged string    // the digest that Validate has seen
}

func (m *mover) Validate(diag.At)                                    { m.judged = m.Digest }
func (m *mover) Check(context.Context, step.Env) (step.Drift, error) { return "", nil }
func (m *mover) Apply(context.Context, step.Env) error               { return nil }
func (m *mover) Watches() []step.ID                                  { return m.Watch }
func (m *mover) Inputs() []step.Input {
	if m.Source == "" {
		return nil
	}
	host, _, _ := strings.Cut(m.Source, "?")
	return []step.Input{{Kind: step.Bytes, Name: host, Want: m.Digest}}
}
func (m *mover) Lock(_ step.Input, to step.Resolution) error {
	if m.Digest != "" && m.Digest != to.Digest {
		return fmt.Errorf("the manifest says %s, the lock has %s", m.Digest, to.Digest)
	}
	m.Digest = to.Digest
	return nil
}

func locked(t *testing.T, text string, resolve lock.Resolver) (*plan.Plan, string) {
	t.Helper()
	var list diag.List
	m := manifest.Parse("m.yaml", []byte("amiagent: 1\n"+text), []string{"things"}, &list)
	kinds := []step.Kind{{Name: "things", Level: step.LevelFiles, New: func() step.Step { return &mover{} }}}
	p := plan.Build(manifest.Merge(m), plan.Options{Kinds: kinds, Facts: machine(), Lock: resolve}, &list)
	if err := list.Err(); err != nil {
		return p, err.Error()
	}
	return p, ""
}

// has is a lock with these sources; any step may have them.
func has(digests map[string]string) lock.Resolver {
	return func(_ step.ID, in step.Input) (step.Resolution, error) {
		d, ok := digests[in.Name]
		if !ok {
			return step.Resolution{}, fmt.Errorf("the lock lacks %s", in.Name)
		}
		return step.Resolution{Digest: d}, nil
	}
}

func body(p *plan.Plan, i int) *mover { return p.Nodes[i].Body.(*mover) }

func TestALockHoldsEveryInputBeforeTheBodyIsJudged(t *testing.T) {
	p, faults := locked(t, `things: {a: {source: "x/{{ .Region }}"}, b: {}, c: {source: y, when: {arch: arm64}}}`,
		has(map[string]string{"x/eu-west-1": "one"}))
	if faults != "" || p.Refused() != nil {
		t.Fatal(faults, p.Refused())
	}
	if a := body(p, 0); a.Digest != "one" || a.judged != "one" || !p.Nodes[0].Locked() {
		t.Errorf("%+v", a)
	}
	if p.Nodes[1].Locked() {
		t.Error("a step without inputs is locked")
	}
	if in := p.Inputs(); len(in) != 1 || in[0].ID.Name != "a" || in[0].Name != "x/eu-west-1" {
		t.Errorf("inputs are %v: those of a skipped entry are none", in)
	}
}

func TestEverythingTheLockDoesNotAllowIsRefusedAtItsPlace(t *testing.T) {
	p, faults := locked(t, "things:\n  a: {source: gone}\n  b: {source: x, digest: two}\n  c: {source: x}\n", has(map[string]string{"x": "one"}))
	err := p.Refused()
	if faults != "" || !errors.Is(err, lock.ErrRefused) {
		t.Fatalf("faults %q, refused %v", faults, err)
	}
	want := "m.yaml:3:6: things.a: the lock lacks gone\n" +
		"m.yaml:4:6: things.b: x: the manifest says two, the lock has one\n    hint: `amiagent lock --update things.b` if that is meant"
	if err.Error() != want {
		t.Errorf("got\n%s\nwant\n%s", err, want)
	}
}

func TestAMovedInputIsAnotherKey(t *testing.T) {
	const text = "things: {a: {source: x}, b: {watch: [things.a]}, c: {}}"
	keys := func(resolve lock.Resolver) []string {
		p, _ := locked(t, text, resolve)
		var all []string
		for _, id := range []string{"a", "b", "c"} {
			for _, n := range p.Nodes {
				if n.ID.Name == id {
					all = append(all, n.Key)
				}
			}
		}
		return all
	}
	none, one, two := keys(nil), keys(has(map[string]string{"x": "one"})), keys(has(map[string]string{"x": "two"}))
	for i, name := range []string{"a", "b, which watches it"} {
		if one[i] == two[i] || none[i] == one[i] {
			t.Errorf("the key of %s does not tell the lock", name)
		}
	}
	if none[2] != one[2] || one[2] != two[2] {
		t.Error("the key of a step without inputs depends on the lock")
	}
	if again := keys(has(map[string]string{"x": "one"})); again[0] != one[0] {
		t.Error("the same lock gives another key")
	}
}

// A source may hold a secret. The lock is asked by the name without it, once.
func TestASecretInASourceDoesNotLoseTheLock(t *testing.T) {
	asked := 0
	resolve := has(map[string]string{"https://h/x": "one"})
	p, faults := locked(t, `things: {a: {source: 'https://h/x?token={{ secret "ssm:/t" }}'}}`, func(id step.ID, in step.Input) (step.Resolution, error) {
		asked++
		return resolve(id, in)
	})
	if faults != "" || p.Refused() != nil {
		t.Fatal(faults, p.Refused())
	}
	if err := p.Bind(map[string]string{"ssm:/t": "hush"}, []byte("salt")); err != nil {
		t.Fatal(err)
	}
	if a := body(p, 0); a.Source != "https://h/x?token=hush" || a.Digest != "one" || a.judged != "one" || asked != 1 {
		t.Errorf("%+v, the lock was asked %d times", a, asked)
	}
}

func TestWithoutFactsNothingIsLocked(t *testing.T) {
	var list diag.List
	m := manifest.Parse("m.yaml", []byte("amiagent: 1\nthings: {a: {source: x}}"), []string{"things"}, &list)
	kinds := []step.Kind{{Name: "things", Level: step.LevelFiles, New: func() step.Step { return &mover{} }}}
	p := plan.Build(manifest.Merge(m), plan.Options{Kinds: kinds, Lock: has(nil)}, &list)
	if p.Refused() != nil || list.Err() != nil {
		t.Error(p.Refused(), list.Err())
	}
}
