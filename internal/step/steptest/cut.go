package steptest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/amiagent/amiagent/internal/step"
)

const (
	counted = 12 // how many of the first looks at the context are cut points
	timed   = 4  // cuts at random moments besides: they reach into running programs
	killed  = 2  // processes killed at random moments
	// prompt bounds how long Apply may go on after a cancel: a program has
	// some seconds between SIGTERM and SIGKILL.
	prompt = 8 * time.Second
)

// cutContext is cancelled when it is looked at for the n-th time. What an
// Apply looks at is what it can react to, so these are all its cut points, in order.
type cutContext struct {
	context.Context
	cancel context.CancelFunc
	left   *atomic.Int64
}

func cutAt(parent context.Context, n int) cutContext {
	ctx, cancel := context.WithCancel(parent)
	left := &atomic.Int64{}
	left.Store(int64(n))
	return cutContext{ctx, cancel, left}
}

func (c cutContext) look() {
	if c.left.Add(-1) == 0 {
		c.cancel()
	}
}

func (c cutContext) Err() error            { c.look(); return c.Context.Err() }
func (c cutContext) Done() <-chan struct{} { c.look(); return c.Context.Done() }

// cut tells whether it was looked at often enough.
func (c cutContext) cut() bool { return c.left.Load() <= 0 }

// cancelled proves that a cancelled Apply returns soon, leaves nothing
// unfinished, and that the next run of the agent ends with the same tree.
func (s suite) cancelled() error {
	x, err := s.subject()
	if err != nil {
		return err
	}
	m := s.machine()
	began := time.Now()
	if err := s.do(x, m); err != nil {
		return err
	}
	whole, right := time.Since(began), m.Tree()

	for n := 1; n <= counted; n++ {
		ctx := cutAt(s.t.Context(), n)
		err := s.cutApply(x, ctx, right)
		ctx.cancel()
		if err != nil {
			return fmt.Errorf("cut at look %d: %w", n, err)
		}
		if !ctx.cut() {
			break
		}
	}
	for range timed {
		after := rand.N(whole + 1)
		ctx, cancel := context.WithTimeout(s.t.Context(), after)
		err := s.cutApply(x, ctx, right)
		cancel()
		if err != nil {
			return fmt.Errorf("cut after %s: %w", after, err)
		}
	}
	return nil
}

func (s suite) cutApply(x *subject, ctx context.Context, right map[string]string) error {
	m := s.machine()
	done := make(chan error, 1)
	go func() { done <- x.apply(ctx, m) }()
	var err error
	select {
	case err = <-done:
	case <-time.After(prompt + 2*time.Second):
		return errors.New("the step's Apply does not return")
	}
	m.quiet()
	if left := m.leftovers(); len(left) > 0 {
		return fmt.Errorf("the step's Apply left unfinished files (its error: %v): %s", err, strings.Join(left, ", "))
	}
	if err != nil {
		if err := s.discreet(m, err.Error()); err != nil {
			return err
		}
	}
	return s.finishes(x, m, right)
}

// finishes is the next run of the agent on a machine where an Apply was cut off.
func (s suite) finishes(x *subject, m *Machine, right map[string]string) error {
	drift, err := s.look(x, m)
	if err != nil {
		return fmt.Errorf("the step's Check: %w", err)
	}
	if drift != "" {
		if err := s.do(x, m); err != nil {
			return err
		}
		if err := s.settled(x, m); err != nil {
			return err
		}
	}
	tree := m.Tree()
	for _, name := range m.leftovers() {
		delete(tree, name) // a killed process cannot tidy up
	}
	if diff := Changes(right, tree); diff != "" {
		return fmt.Errorf("the next Apply does not end as an undisturbed one, differing are:\n%s", diff)
	}
	return nil
}

// The child process is told by its environment which Apply to do, and where.
const (
	envCase = "AMIAGENT_STEPTEST_CASE"
	envBase = "AMIAGENT_STEPTEST_BASE"
	begun   = "steptest: begun"
)

// crashing does the Apply of one case, when this process was started to be killed in it.
func crashing(t *testing.T, kind step.Kind, cases []Case) bool {
	want := os.Getenv(envCase)
	if want == "" {
		return false
	}
	for _, c := range cases {
		if want != t.Name()+"/"+c.Name {
			continue
		}
		s := suite{t: t, kind: kind, c: c}
		x, err := s.subject()
		if err != nil {
			t.Fatal(err)
		}
		m := openMachine(t, os.Getenv(envBase), c.options())
		fmt.Println(begun)
		if err := x.apply(t.Context(), m); err != nil {
			t.Log(err)
		}
	}
	return true
}

// killed proves that after SIGKILL at a random moment of Apply the next run of
// the agent ends with the same tree. The programs that Apply had started end
// before that run, as they would at a reboot or when systemd stops the agent's unit.
func (s suite) killed() error {
	x, err := s.subject()
	if err != nil {
		return err
	}
	m := s.machine()
	began := time.Now()
	if err := s.do(x, m); err != nil {
		return err
	}
	whole, right := time.Since(began), m.Tree()
	for range killed {
		m := s.machine()
		after := rand.N(whole + 1)
		if err := s.killedAfter(m, after); err != nil {
			return err
		}
		if err := s.finishes(x, m, right); err != nil {
			return fmt.Errorf("killed after %s: %w", after, err)
		}
	}
	return nil
}

func (s suite) killedAfter(m *Machine, after time.Duration) error {
	cmd := exec.Command(os.Args[0], "-test.run="+exactly(s.test), "-test.count=1")
	cmd.Env = append(os.Environ(), envCase+"="+s.test+"/"+s.c.Name, envBase+"="+m.Base)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	// The process and all that it starts inherit the pipe's other end: the
	// pipe ends when the last of them does.
	alive, held, err := os.Pipe()
	if err != nil {
		return err
	}
	defer alive.Close()
	cmd.ExtraFiles = []*os.File{held}
	err = cmd.Start()
	held.Close()
	if err != nil {
		return err
	}
	var said []string
	reached := false
	for lines := bufio.NewScanner(out); !reached && lines.Scan(); {
		said = append(said, lines.Text())
		reached = lines.Text() == begun
	}
	time.Sleep(after)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	_ = alive.SetReadDeadline(time.Now().Add(prompt))
	_, _ = alive.Read(make([]byte, 1))
	if !reached {
		return fmt.Errorf("the process to be killed did not get as far as Apply: %s", strings.Join(said, "\n"))
	}
	return nil
}

// exactly is the pattern for -test.run that selects this test alone.
func exactly(test string) string {
	parts := strings.Split(test, "/")
	for i, p := range parts {
		parts[i] = "^" + regexp.QuoteMeta(p) + "$"
	}
	return strings.Join(parts, "/")
}
