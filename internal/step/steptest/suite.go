// Package steptest is the one suite that tests every kind, and a scratch
// machine for the tests that a kind has besides.
//
// A case is a body in YAML, a machine before, and what differs on the machine
// after. From that, Run proves what the agent relies on: Check writes nothing,
// Check–Apply–Check ends without drift, Apply twice equals Apply once, and an
// Apply that was cancelled or killed at any point is finished by the next one,
// with the same tree. Nothing is mocked: the machine is a scratch tree, and its
// programs are real shell scripts.
package steptest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/decode"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/step"
)

// Case is one story of a kind: a machine, a body, and what becomes of the machine.
type Case struct {
	Name  string
	Entry string // the entry's name in the manifest; default "example"
	Body  string // YAML of the entry's body

	// The machine before. Setup is called for every scratch machine of the
	// case; in the process that is killed it is not called again.
	Setup    func(t *testing.T, m *Machine)
	Facts    *facts.Facts
	Fetched  map[string]Item
	Programs map[string]string // on PATH, as FakePrograms; a script finds the machine's "/" in $AMIAGENT_ROOT
	Live     bool

	// Drift is part of what the first Check says; "" means any drift. None
	// says that there is nothing to do.
	Drift string
	None  bool
	// Want is what Apply changes, as Changes prints it; "" is not compared.
	Want string
	// Deferred is part of the reason for which Apply leaves the rest for after READY.
	Deferred string
	// Error is part of the error of Check or of Apply, Hint part of its hint.
	// The machine must then be as before.
	Error, Hint string
	// Secret must be in no drift, error or output.
	Secret string
	// Breaks are mutations of the machine that Check must catch and Apply repair.
	Breaks []Break
}

// Break is one thing that somebody does to a converged machine.
type Break struct {
	Name  string
	Do    func(m *Machine)
	Drift string // part of what Check says then
}

// Run proves every case, and that the kind's example is a manifest.
func Run(t *testing.T, kind step.Kind, cases []Case) {
	if crashing(t, kind, cases) {
		return
	}
	t.Run("example", func(t *testing.T) {
		if err := example(kind); err != nil {
			t.Error(err)
		}
	})
	for _, c := range cases {
		test := t.Name()
		t.Run(c.Name, func(t *testing.T) {
			s := suite{t: t, test: test, kind: kind, c: c}
			for _, p := range s.proofs() {
				if err := p.holds(); err != nil {
					t.Errorf("%s: %v", p.name, err)
				}
			}
		})
	}
}

// suite proves one case. Its proofs return errors, so that the suite itself can be tested.
type suite struct {
	t    *testing.T
	test string // name of the test that called Run
	kind step.Kind
	c    Case
}

type proof struct {
	name  string
	holds func() error
}

func (s suite) proofs() []proof {
	switch {
	case s.c.Error != "":
		return []proof{{"is refused", s.refused}}
	case s.c.None:
		return []proof{{"nothing to do", s.nothing}}
	}
	return []proof{
		{"converges", s.converges},
		{"cancelled Apply", s.cancelled},
		{"killed Apply", s.killed},
		{"repairs", s.repairs},
	}
}

func (c Case) entry() string {
	if c.Entry == "" {
		return "example"
	}
	return c.Entry
}

func (c Case) options() Options {
	return Options{Facts: c.Facts, Fetched: c.Fetched, Programs: c.Programs, Live: c.Live}
}

// machine is the case's machine before.
func (s suite) machine() *Machine {
	m := NewMachine(s.t, s.c.options())
	if s.c.Setup != nil {
		s.c.Setup(s.t, m)
	}
	return m
}

// subject is a step as the agent holds it.
type subject struct {
	kind step.Kind
	id   step.ID
	key  string
	step step.Step
}

// Decode builds a step from its YAML as a rendered manifest does, strictly.
func Decode(kind step.Kind, entry, body string) (step.Step, error) {
	var list diag.List
	st := kind.New()
	n := decode.Parse("manifest.yaml", []byte(body), &list)
	if n != nil {
		at := decode.At(&list, "manifest.yaml", n, kind.Name+"."+entry)
		decode.Into(n, st, at)
		if named, ok := st.(step.Named); ok {
			named.SetName(entry)
		}
		st.Validate(at)
	}
	return st, list.Err()
}

func (s suite) subject() (*subject, error) {
	st, err := Decode(s.kind, s.c.entry(), s.c.Body)
	if err != nil {
		return nil, fmt.Errorf("the body has faults: %w", err)
	}
	sum := sha256.Sum256([]byte(s.kind.Name + "\x00" + s.c.entry() + "\x00" + s.c.Body))
	return &subject{s.kind, step.ID{Kind: s.kind.Name, Name: s.c.entry()}, fmt.Sprintf("%x", sum[:16]), st}, nil
}

// check looks as a new run of the agent does: nothing is memoised.
func (x *subject) check(ctx context.Context, m *Machine) (step.Drift, error) {
	m.NextRun()
	env := m.Env(x.id, x.key)
	if x.kind.Group == nil {
		return x.step.Check(ctx, env)
	}
	drifts, err := x.kind.Group.Check(ctx, env, []step.Member{{ID: x.id, Env: env, Step: x.step}})
	if err != nil {
		return "", err
	}
	if len(drifts) != 1 {
		return "", fmt.Errorf("the group's Check gave %d drifts for one member", len(drifts))
	}
	return drifts[0], nil
}

func (x *subject) apply(ctx context.Context, m *Machine) error {
	m.NextRun()
	env := m.Env(x.id, x.key)
	if x.kind.Group == nil {
		return x.step.Apply(ctx, env)
	}
	err := x.kind.Group.Apply(ctx, env, []step.Member{{ID: x.id, Env: env, Step: x.step}})
	var one step.MemberErrors
	if errors.As(err, &one) {
		return one[x.id]
	}
	return err
}

// look is check, and proves that it wrote nothing.
func (s suite) look(x *subject, m *Machine) (step.Drift, error) {
	before := m.prints()
	drift, err := x.check(s.t.Context(), m)
	if wrote := Changes(before, m.prints()); wrote != "" {
		return drift, fmt.Errorf("the step's Check wrote:\n%s", wrote)
	}
	if err != nil {
		return drift, err
	}
	return drift, s.discreet(m, string(drift))
}

// discreet proves that no secret is in a text or in the output so far.
func (s suite) discreet(m *Machine, text string) error {
	if s.c.Secret != "" && strings.Contains(text+strings.Join(m.Output(), "\n"), s.c.Secret) {
		return fmt.Errorf("the secret %q is in %q or in the output", s.c.Secret, text)
	}
	return nil
}

// settled proves that a Check now finds nothing, and writes nothing.
func (s suite) settled(x *subject, m *Machine) error {
	drift, err := s.look(x, m)
	if err != nil {
		return fmt.Errorf("the step's Check after Apply: %w", err)
	}
	if drift != "" && s.c.Deferred == "" {
		return fmt.Errorf("the step's Check after Apply finds: %s", drift)
	}
	return nil
}

// do applies, and expects success or the wanted deferral.
func (s suite) do(x *subject, m *Machine) error {
	err := x.apply(s.t.Context(), m)
	reason, deferred := step.Deferred(err)
	switch {
	case deferred && s.c.Deferred != "" && strings.Contains(reason, s.c.Deferred):
		return nil
	case err != nil:
		return fmt.Errorf("the step's Apply: %w", err)
	case s.c.Deferred != "":
		return fmt.Errorf("the step's Apply deferred nothing, want %q", s.c.Deferred)
	}
	return s.discreet(m, "")
}

// first proves that a new machine has the wanted drift.
func (s suite) first(x *subject, m *Machine) error {
	drift, err := s.look(x, m)
	switch {
	case err != nil:
		return fmt.Errorf("first Check: %w", err)
	case drift == "":
		return errors.New("first Check finds nothing to do")
	case !strings.Contains(string(drift), s.c.Drift):
		return fmt.Errorf("first Check finds %q, want %q in it", drift, s.c.Drift)
	}
	return nil
}

func (s suite) converges() error {
	x, err := s.subject()
	if err != nil {
		return err
	}
	m := s.machine()
	before := m.Tree()
	if err := s.first(x, m); err != nil {
		return err
	}
	if err := s.do(x, m); err != nil {
		return err
	}
	if err := s.settled(x, m); err != nil {
		return err
	}
	once := m.Tree()
	if want, got := trim(s.c.Want), Changes(before, once); want != "" && want != got {
		return fmt.Errorf("the step's Apply changed:\n%s\nwant:\n%s", got, want)
	}
	if err := s.do(x, m); err != nil {
		return fmt.Errorf("second %w", err)
	}
	if diff := Changes(once, m.Tree()); diff != "" {
		return fmt.Errorf("a second Apply changed:\n%s", diff)
	}
	return s.settled(x, m)
}

func (s suite) nothing() error {
	x, err := s.subject()
	if err != nil {
		return err
	}
	drift, err := s.look(x, s.machine())
	if err == nil && drift != "" {
		return fmt.Errorf("the step's Check finds: %s", drift)
	}
	return err
}

// refused proves that Check or Apply fails as wanted, and leaves the tree as it was.
func (s suite) refused() error {
	x, err := s.subject()
	if err != nil {
		return err
	}
	m := s.machine()
	before := m.Tree()
	drift, err := s.look(x, m)
	if err == nil && drift == "" {
		return errors.New("the step's Check finds nothing to do")
	}
	if err == nil {
		err = x.apply(s.t.Context(), m)
	}
	switch {
	case err == nil:
		return fmt.Errorf("the step's Apply succeeded, want an error with %q", s.c.Error)
	case !strings.Contains(err.Error(), s.c.Error):
		return fmt.Errorf("the error is %q, want %q in it", err, s.c.Error)
	case !strings.Contains(diag.Hint(err), s.c.Hint):
		return fmt.Errorf("the hint is %q, want %q in it", diag.Hint(err), s.c.Hint)
	}
	if diff := Changes(before, m.Tree()); diff != "" {
		return fmt.Errorf("the failed Apply changed:\n%s", diff)
	}
	return s.discreet(m, err.Error()+diag.Hint(err))
}

// repairs proves that each Break is caught and put right.
func (s suite) repairs() error {
	if len(s.c.Breaks) == 0 {
		return nil
	}
	x, err := s.subject()
	if err != nil {
		return err
	}
	m := s.machine()
	if err := s.do(x, m); err != nil {
		return err
	}
	right := m.Tree()
	for _, b := range s.c.Breaks {
		b.Do(m)
		drift, err := s.look(x, m)
		switch {
		case err != nil:
			return fmt.Errorf("%s: Check: %w", b.Name, err)
		case drift == "":
			return fmt.Errorf("%s: Check does not see it", b.Name)
		case !strings.Contains(string(drift), b.Drift):
			return fmt.Errorf("%s: Check finds %q, want %q in it", b.Name, drift, b.Drift)
		}
		if err := s.do(x, m); err != nil {
			return fmt.Errorf("%s: %w", b.Name, err)
		}
		if err := s.settled(x, m); err != nil {
			return fmt.Errorf("%s: %w", b.Name, err)
		}
		if diff := Changes(right, m.Tree()); diff != "" {
			return fmt.Errorf("%s: after the repair differs:\n%s", b.Name, diff)
		}
	}
	return nil
}

// trim takes a text as it stands in a test's source: without the lines' indentation.
func trim(s string) string {
	var lines []string
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}
