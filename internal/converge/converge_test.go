package converge_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/amiagent/amiagent/internal/converge"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/manifest"
	"github.com/amiagent/amiagent/internal/plan"
	"github.com/amiagent/amiagent/internal/report"
	"github.com/amiagent/amiagent/internal/stamps"
	"github.com/amiagent/amiagent/internal/step"
)

// world is the machine of these stories: names that are as wanted, and what happened.
type world struct {
	mu    sync.Mutex
	right map[string]bool
	log   []string
	busy  int
	most  int // steps applying at once, at most
	tries map[string]int
}

func (w *world) say(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, fmt.Sprintf(format, args...))
}

// thing does what the word `does` says when it is applied.
type thing struct {
	Does  string    `yaml:"does"`
	Watch []step.ID `yaml:"watch"`
	Run   bool      `yaml:"run"`
	Text  string    `yaml:"text"`
	w     *world
	name  string
}

func (t *thing) SetName(n string)   { t.name = n }
func (t *thing) Validate(diag.At)   {}
func (t *thing) Watches() []step.ID { return t.Watch }
func (t *thing) Runs() bool         { return t.Run }
func (t *thing) Prefetch(_ context.Context, env step.Env) error {
	t.w.say("prefetch %s", t.name)
	if t.Does == "prefetch-fail" {
		return errors.New("no such package")
	}
	return nil
}

func (t *thing) Check(ctx context.Context, env step.Env) (step.Drift, error) {
	if t.Does == "check-fail" {
		return "", errors.New("cannot look")
	}
	t.w.mu.Lock()
	defer t.w.mu.Unlock()
	if !t.w.right[t.name] {
		return "is missing", nil
	}
	if len(t.Watch) > 0 && !env.Stamped(env.Key) {
		return "has not seen the change", nil
	}
	return "", nil
}

func (t *thing) Apply(ctx context.Context, env step.Env) error {
	t.w.say("apply %s", t.name)
	return t.do(ctx, env)
}

func (t *thing) do(ctx context.Context, env step.Env) error {
	t.w.mu.Lock()
	t.w.busy++
	t.w.most = max(t.w.most, t.w.busy)
	t.w.tries[t.name]++
	try := t.w.tries[t.name]
	t.w.mu.Unlock()
	time.Sleep(2 * time.Millisecond)
	defer func() {
		t.w.mu.Lock()
		t.w.busy--
		t.w.mu.Unlock()
	}()
	switch t.Does {
	case "fail":
		return diag.WithHint(errors.New("it broke"), "mend it")
	case "differ":
		return nil
	case "defer":
		return step.Defer("comes after READY")
	case "reboot":
		return step.ErrReboot
	case "hang":
		<-ctx.Done()
		return ctx.Err()
	case "third time":
		if try < 3 {
			return errors.New("not yet")
		}
	case "talk":
		for i := range 30 {
			env.Output(fmt.Sprint("line ", i))
		}
	}
	t.w.mu.Lock()
	t.w.right[t.name] = true
	t.w.mu.Unlock()
	if len(t.Watch) > 0 {
		return env.Stamp(env.Key)
	}
	return nil
}

// crowd is the group of the kind "pkg".
type crowd struct{ w *world }

func (c crowd) Check(ctx context.Context, env step.Env, ms []step.Member) ([]step.Drift, error) {
	var ds []step.Drift
	for _, m := range ms {
		d, err := m.Step.Check(ctx, m.Env)
		if err != nil {
			return nil, err
		}
		ds = append(ds, d)
	}
	return ds, nil
}

func (c crowd) Apply(ctx context.Context, env step.Env, ms []step.Member) error {
	var names []string
	errs := step.MemberErrors{}
	for _, m := range ms {
		names = append(names, m.ID.Name)
		if err := m.Step.(*thing).do(ctx, m.Env); err != nil {
			errs[m.ID] = err
		}
	}
	c.w.say("transaction %s", strings.Join(names, " "))
	if len(errs) > 0 {
		return errs
	}
	return nil
}

func (c crowd) Prefetch(_ context.Context, env step.Env, ms []step.Member) error {
	errs := step.MemberErrors{}
	for _, m := range ms {
		c.w.say("prefetch %s", m.ID.Name)
		if m.Step.(*thing).Does == "prefetch-fail" {
			errs[m.ID] = errors.New("no such package")
		}
	}
	if len(errs) > 0 {
		return errs
	}
	return nil
}

type story struct {
	w     *world
	kinds []step.Kind
	opt   converge.Options
}

func newStory(t *testing.T) *story {
	t.Helper()
	w := &world{right: map[string]bool{}, tries: map[string]int{}}
	k := func(name string, l step.Level) step.Kind {
		return step.Kind{Name: name, Level: l, New: func() step.Step { return &thing{w: w} }}
	}
	pkg, cmd, user := k("pkg", step.LevelPackages), k("cmd", step.LevelCommands), k("user", step.LevelUsers)
	pkg.Group, cmd.Serial, user.Lock = crowd{w}, true, "users"
	h, err := host.New(t.TempDir(), host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	st, err := stamps.Open(h, "/stamps")
	if err != nil {
		t.Fatal(err)
	}
	return &story{w: w, kinds: []step.Kind{k("repo", step.LevelRepositories), pkg, user, k("file", step.LevelFiles), cmd, k("unit", step.LevelUnits)},
		opt: converge.Options{Host: h, Facts: facts.New(), Stamps: st}}
}

func (s *story) plan(t *testing.T, text string) *plan.Plan {
	t.Helper()
	var list diag.List
	m := manifest.Parse("m.yaml", []byte("amiagent: 1\n"+text), []string{"repo", "pkg", "user", "file", "cmd", "unit"}, &list)
	f := facts.New()
	f.Set(facts.Arch, "amd64", facts.Bake, "")
	p := plan.Build(manifest.Merge(m), plan.Options{Kinds: s.kinds, Facts: f}, &list)
	if err := list.Err(); err != nil {
		t.Fatal(err)
	}
	return p
}

func (s *story) run(t *testing.T, text string) string {
	t.Helper()
	s.w.log = nil
	return tell(converge.Run(t.Context(), s.plan(t, text), s.opt))
}

// tell is a result in one line: name:outcome, and why where it is told.
func tell(r converge.Result) string {
	var parts []string
	for _, s := range r.Steps {
		_, name, _ := strings.Cut(s.ID, ".")
		text := name + ":" + string(s.Outcome)
		for _, why := range []string{s.Error, s.Reason} {
			if why != "" {
				text += "(" + why + ")"
			}
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, " ")
}

func TestStories(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"all is done, in order", "file: {a: {}, b: {needs: [file.c]}, c: {}}", "a:changed c:changed b:changed"},
		{"a failed step blocks those that need it, the others go on",
			"file: {a: {does: fail}, b: {needs: [file.a]}, c: {needs: [file.b]}, d: {}}",
			"a:failed(it broke) d:changed b:blocked(needs file.a, which failed) c:blocked(needs file.b, which was blocked)"},
		{"applied but still differs is a failure", "file: {a: {does: differ}}", "a:failed(applied but still differs: is missing)"},
		{"what cannot be looked at has failed", "file: {a: {does: check-fail}, b: {}}", "a:failed(cannot check: cannot look) b:changed"},
		{"on-failure continue", "file: {a: {does: fail, on-failure: continue}, b: {needs: [file.a]}}\ncmd: {r: {run: true}}",
			"a:continued(it broke) b:blocked(needs file.a, which failed) r:blocked(runs only after all before it, and file.b was blocked)"},
		{"software runs although something failed that may fail", "file: {a: {does: fail, on-failure: continue}}\ncmd: {r: {run: true}}",
			"a:continued(it broke) r:changed"},
		{"no software runs on a half-made machine", "file: {a: {does: fail}, b: {}}\nunit: {u: {run: true}, v: {run: true, needs: [file.b]}, w: {}}",
			"a:failed(it broke) b:changed u:blocked(runs only after all before it, and file.a failed) v:changed w:changed"},
		{"commands go one by one, and stop at a failure", "cmd: {c: {run: true}, b: {run: true, does: fail}, a: {run: true}}",
			"c:changed b:failed(it broke) a:blocked(runs only after all before it, and cmd.b failed)"},
		{"retry until it works", "file: {a: {does: third time, on-failure: retry}}", "a:changed"},
		{"without retry it is tried once", "file: {a: {does: third time}}", "a:failed(not yet)"},
		{"what comes after READY is left out of it, with what needs it", "unit: {a: {does: defer}, b: {needs: [unit.a]}, c: {}}",
			"a:deferred(comes after READY) c:changed b:deferred(needs unit.a, which is proved after READY)"},
		{"a reboot stops the rest", "cmd: {a: {does: reboot}, b: {}}\nunit: {u: {}}",
			"a:reboot(asks for a reboot) b:blocked(the machine reboots first) u:blocked(the machine reboots first)"},
		{"one transaction, and one member fails alone", "pkg: {a: {}, b: {does: fail}, c: {}}\nfile: {f: {needs: [pkg.b]}}",
			"a:changed b:failed(it broke) c:changed f:blocked(needs pkg.b, which failed)"},
		{"what this machine does not match is told", "file: {a: {when: {arch: arm64}}}", "a:skipped(arch is amd64, want arm64)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := newStory(t).run(t, c.text); got != c.want {
				t.Errorf("\ngot  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestASecondRunChangesNothing(t *testing.T) {
	s := newStory(t)
	text := "pkg: {p: {}, q: {}}\nfile: {a: {}, b: {needs: [file.a]}}\nunit: {u: {watch: [file.a]}}"
	s.run(t, text)
	if got := s.run(t, text); got != "p:ok q:ok a:ok b:ok u:ok" || len(s.w.log) > 0 {
		t.Error(got, s.w.log)
	}
}

func TestAGroupIsOneTransactionOfWhatDrifts(t *testing.T) {
	s := newStory(t)
	s.w.right["b"] = true
	s.run(t, "pkg: {a: {}, b: {}, c: {}, late: {needs: [file.f]}}\nfile: {f: {}}")
	want := []string{"transaction a c", "apply f", "transaction late"}
	if !slices.Equal(s.w.log, want) {
		t.Errorf("log %q, want %q", s.w.log, want)
	}
}

func TestAWatcherActsAgainWhenWhatItWatchesWasRepaired(t *testing.T) {
	s := newStory(t)
	text := "file: {f: {}}\nunit: {u: {watch: [file.f]}}"
	s.run(t, text)
	delete(s.w.right, "f") // edited by hand
	if got := s.run(t, text); got != "f:changed u:changed" {
		t.Error(got)
	}
	if got := s.run(t, text); got != "f:ok u:ok" {
		t.Error(got)
	}
}

// The agent dies after the file was written and before the service was
// restarted: the next run finds no drift in the file, and restarts all the same.
func TestACrashBetweenAFileAndItsRestartLosesNoRestart(t *testing.T) {
	s := newStory(t)
	text := "file: {f: {}}\nunit: {u: {watch: [file.f]}}"
	s.run(t, text)
	delete(s.w.right, "f")
	crashed := s.opt
	crashed.Only = func(id step.ID) bool { return id.Kind == "file" } // all that the crash let happen
	converge.Run(t.Context(), s.plan(t, text), crashed)
	if !s.w.right["f"] {
		t.Fatal("the file was not written")
	}
	if got := s.run(t, text); got != "f:ok u:changed" {
		t.Error(got)
	}
}

func TestIndependentStepsRunAtOnceUnlessALockForbids(t *testing.T) {
	s := newStory(t)
	s.run(t, "file: {a: {}, b: {}, c: {}, d: {}}")
	if s.w.most < 2 {
		t.Error("independent steps ran one by one")
	}
	s = newStory(t)
	s.run(t, "user: {a: {}, b: {}, c: {}, d: {}}")
	if s.w.most != 1 {
		t.Errorf("%d steps held one lock", s.w.most)
	}
	s = newStory(t)
	s.opt.Parallel = 1
	s.run(t, "file: {a: {}, b: {}, c: {needs: [file.a]}, d: {}}")
	if s.w.most != 1 {
		t.Errorf("%d steps at once, allowed is 1", s.w.most)
	}
}

func TestTheDeadlineEndsTheRunAndNamesItself(t *testing.T) {
	s := newStory(t)
	deadline := errors.New("the deadline of 50ms has passed")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, deadline)
	defer cancel()
	p := s.plan(t, "file: {a: {does: hang}, b: {needs: [file.a]}}\nunit: {u: {}}")
	got := tell(converge.Run(ctx, p, s.opt))
	want := "a:failed(the deadline of 50ms has passed) b:blocked(the deadline of 50ms has passed) u:blocked(the deadline of 50ms has passed)"
	if got != want {
		t.Errorf("\ngot  %s\nwant %s", got, want)
	}
}

func TestADryRunAppliesNothing(t *testing.T) {
	s := newStory(t)
	s.w.right["b"] = true
	s.opt.DryRun = true
	got := s.run(t, "file: {a: {}, b: {}, c: {needs: [file.a]}}\ncmd: {r: {run: true}}")
	if got != "a:drift b:ok c:drift r:drift" || len(s.w.log) > 0 {
		t.Error(got, s.w.log)
	}
}

func TestFailuresOfEarlierPhasesCount(t *testing.T) {
	s := newStory(t)
	s.opt.Failed = map[step.ID]error{{Kind: "file", Name: "a"}: errors.New("404")}
	if got := s.run(t, "file: {a: {}, b: {needs: [file.a]}, c: {}}"); got != "a:failed(404) c:changed b:blocked(needs file.a, which failed)" {
		t.Error(got)
	}
}

func TestWhatAStepSaysIsKeptWithinLimits(t *testing.T) {
	s := newStory(t)
	r := converge.Run(t.Context(), s.plan(t, "file: {a: {does: talk}}"), s.opt)
	if out := r.Steps[0].Output; len(out) != 20 || out[19] != "line 29" {
		t.Errorf("%q", out)
	}
	if st := r.Steps[0]; st.Drift != "is missing" || st.Attempts != 1 || st.Apply == 0 || st.Started.IsZero() {
		t.Errorf("%+v", st)
	}
}

func TestEveryStepIsToldOnce(t *testing.T) {
	s := newStory(t)
	var mu sync.Mutex
	var told []string
	s.opt.Begin = func(id step.ID) { mu.Lock(); told = append(told, "begin "+id.Name); mu.Unlock() }
	s.opt.End = func(st report.Step) { mu.Lock(); told = append(told, st.ID+" "+string(st.Outcome)); mu.Unlock() }
	s.w.right["b"] = true
	s.run(t, "file: {a: {}, b: {}}")
	slices.Sort(told)
	if want := []string{"begin a", "file.a changed", "file.b ok"}; !slices.Equal(told, want) {
		t.Errorf("%q", told)
	}
}

func TestASecretThatCannotBeReadLeavesAConvergedStepAlone(t *testing.T) {
	s := newStory(t)
	text := "file: {a: {text: '{{ secret \"ssm:/pw\" }}'}, b: {}}"
	with := func(values map[string]string) string {
		p := s.plan(t, text)
		if err := p.Bind(values, []byte("salt")); err != nil {
			t.Fatal(err)
		}
		return tell(converge.Run(t.Context(), p, s.opt))
	}
	if got := with(nil); got != "a:failed(cannot read the secret ssm:/pw) b:changed" {
		t.Error(got)
	}
	if got := with(map[string]string{"ssm:/pw": "x"}); got != "a:changed b:ok" {
		t.Error(got)
	}
	if got := with(nil); got != "a:unverified(the secret ssm:/pw cannot be read now; left as it was last converged) b:ok" {
		t.Error(got)
	}
	text = strings.Replace(text, "text: '", "text: 'new ", 1)
	if got := with(nil); got != "a:failed(cannot read the secret ssm:/pw) b:ok" {
		t.Errorf("a changed step passes as converged: %s", got)
	}
}

func TestPrefetchComesBeforeTheFirstChange(t *testing.T) {
	s := newStory(t)
	s.w.right["have"] = true
	p := s.plan(t, "pkg: {a: {}, have: {}, b: {does: prefetch-fail}}")
	failed, late := converge.Prefetch(t.Context(), p, s.opt)
	if !slices.Equal(s.w.log, []string{"prefetch a", "prefetch b"}) || len(late) != 0 {
		t.Errorf("log %q late %v", s.w.log, late)
	}
	if len(failed) != 1 || failed[step.ID{Kind: "pkg", Name: "b"}] == nil {
		t.Errorf("failed: %v", failed)
	}
}

func TestPrefetchWaitsForARepositoryThatIsNotThereYet(t *testing.T) {
	s := newStory(t)
	text := "repo: {r: {}}\npkg: {a: {}}"
	_, late := converge.Prefetch(t.Context(), s.plan(t, text), s.opt)
	if late[step.ID{Kind: "pkg", Name: "a"}] != "repo.r" {
		t.Errorf("late %v, log %q", late, s.w.log)
	}
	s.w.right["r"] = true
	s.w.log = nil
	_, late = converge.Prefetch(t.Context(), s.plan(t, text), s.opt)
	if len(late) != 0 || !slices.Contains(s.w.log, "prefetch a") {
		t.Errorf("late %v, log %q", late, s.w.log)
	}
}

func TestNothingIsLeftRunningAfterARun(t *testing.T) {
	s := newStory(t)
	before := runtime.NumGoroutine()
	for range 20 {
		s.run(t, "file: {a: {does: fail}, b: {needs: [file.a]}}\npkg: {p: {}, q: {}}")
	}
	time.Sleep(20 * time.Millisecond)
	if after := runtime.NumGoroutine(); after > before+2 {
		t.Errorf("%d goroutines before, %d after", before, after)
	}
}
