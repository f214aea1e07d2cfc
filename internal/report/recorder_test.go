package report_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/report"
)

// told records a launch from one line: "a:ok b:failed c:blocked>b". After a
// slash stands the order of the account when it differs from the plan's.
func told(t *testing.T, story string) *report.Recorder {
	t.Helper()
	r := report.NewRecorder(report.Report{Command: "run"}, nil)
	end := r.Begin(report.Converge)
	plan, account, _ := strings.Cut(story, " / ")
	var steps []report.Step
	byID := map[string]report.Step{}
	for _, word := range strings.Fields(plan) {
		what, needs, _ := strings.Cut(word, ">")
		id, outcome, _ := strings.Cut(what, ":")
		s := report.Step{ID: id, Outcome: report.Outcome(outcome)}
		if needs != "" {
			s.Needs = strings.Split(needs, ",")
		}
		if s.Outcome == report.Failed || s.Outcome == report.Ignored {
			s.Error = id + " broke"
		}
		byID[id] = s
		steps = append(steps, report.Step{ID: id, Needs: s.Needs})
	}
	r.Plan(steps)
	order := strings.Fields(account)
	if len(order) == 0 {
		for _, s := range steps {
			order = append(order, s.ID)
		}
	}
	for _, id := range order {
		if s := byID[id]; s.Outcome != "" {
			r.Step(s)
		}
	}
	end(nil)
	return r
}

func TestTheOutcomeAndTheRootCause(t *testing.T) {
	for story, want := range map[string]string{
		"":                                 "ok",
		"a:ok b:skipped":                   "ok",
		"a:ok b:changed":                   "changed",
		"a:deferred b:ok":                  "changed",
		"a:continued b:ok":                 "changed",
		"a:changed b:reboot c:":            "reboot",
		"a:ok b:failed c:blocked>b":        "failed b",
		"a:failed b:failed":                "failed a",
		"a:failed b:failed / b a":          "failed a", // the plan's order, not that of the clock
		"b:failed>a a:failed":              "failed a", // whatever the order, a is what b needs
		"c:failed>b b:blocked>a a:failed":  "failed a", // through a blocked one
		"a:failed>b b:failed>a c:failed":   "failed c", // a circle explains itself; the rest does not
		"a:continued b:failed>a":           "failed b",
		"a:failed>ghost":                   "failed a",
		"a:changed b:failed c:reboot d:ok": "failed b",
	} {
		rep := told(t, story).End()
		got := string(rep.Outcome)
		if rep.Cause != nil {
			got += " " + rep.Cause.Step
			if want := rep.Cause.Step + " broke"; rep.Cause.Error != want || rep.Cause.Phase != report.Converge {
				t.Errorf("%s: cause is %+v", story, rep.Cause)
			}
		}
		if got != want {
			t.Errorf("%s: %s, want %s", story, got, want)
		}
	}
}

func TestAFailedStepExplainsTheFailedPhase(t *testing.T) {
	r := report.NewRecorder(report.Report{}, nil)
	end := r.Begin(report.Fetch)
	r.Step(report.Step{ID: "artifacts.app", Outcome: report.Failed, Error: "digest does not match"})
	if err := end(errors.New("1 step failed")); err == nil || err.Error() != "1 step failed" {
		t.Errorf("the error did not pass: %v", err)
	}
	rep := r.End()
	if c := rep.Cause; c == nil || c.Step != "artifacts.app" || c.Phase != report.Fetch || c.Error != "digest does not match" {
		t.Errorf("cause is %+v", rep.Cause)
	}
}

func TestTheFirstFailedPhaseIsTheCauseWhereNoStepIs(t *testing.T) {
	r := report.NewRecorder(report.Report{}, nil)
	cannot := diag.WithHint(errors.New("cannot read layer"), "check the bucket")
	_ = r.Begin(report.Resolve)(cannot)
	_ = r.Begin(report.Watch)(errors.New("stopped"))
	want := report.Failure{Phase: report.Resolve, Error: "cannot read layer", Hint: "check the bucket"}
	rep := r.End()
	if rep.Outcome != report.Failed || rep.Cause == nil || *rep.Cause != want {
		t.Errorf("%s, cause %+v", rep.Outcome, rep.Cause)
	}
}

func TestStepsThatNeverCameAreNotTried(t *testing.T) {
	rep := told(t, "a:ok b: c:").End()
	if n := rep.Counts(); n[report.Blocked] != 2 || n[report.OK] != 1 {
		t.Errorf("counts are %v", n)
	}
	if got := rep.Steps[1].Reason; got != "the launch ended before its turn" {
		t.Errorf("reason is %q", got)
	}
}

func TestWhatThePlanSaidStays(t *testing.T) {
	r := report.NewRecorder(report.Report{}, nil)
	r.Plan([]report.Step{{ID: "b", Pos: "m.yaml:3", Key: "k", Needs: []string{"a"}}, {ID: "a"}})
	r.Step(report.Step{ID: "a", Outcome: report.OK})
	r.Step(report.Step{ID: "b", Outcome: report.Deferred, Reason: "ordered after the agent"})
	r.Step(report.Step{ID: "b", Outcome: report.Changed, Drift: "is inactive"})
	rep := r.End()
	b := rep.Steps[0]
	if b.ID != "b" || b.Pos != "m.yaml:3" || b.Key != "k" || !slices.Equal(b.Needs, []string{"a"}) {
		t.Errorf("step is %+v", b)
	}
	if b.Outcome != report.Changed || b.Reason != "" || len(rep.Steps) != 2 {
		t.Errorf("told again, the step is %+v", b)
	}
}

func TestPhasesLastAsLongAsTheyLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := report.NewRecorder(report.Report{}, nil)
		end := r.Begin(report.Identify)
		time.Sleep(10 * time.Millisecond)
		_ = end(nil)
		end2 := r.Begin(report.Fetch)
		time.Sleep(30 * time.Millisecond)
		if rep := r.Report(); rep.Phases[1].Took != 30*time.Millisecond || rep.Took() != 40*time.Millisecond {
			t.Errorf("under way: %v of %v", rep.Phases[1].Took, rep.Took())
		}
		_ = end2(nil)
		_ = end2(errors.New("late")) // ending twice changes nothing
		time.Sleep(5 * time.Millisecond)
		rep := r.End()
		if rep.Phases[0].Took != 10*time.Millisecond || rep.Phases[1].Took != 30*time.Millisecond || rep.Took() != 45*time.Millisecond {
			t.Errorf("ended: %+v", rep.Phases)
		}
		if rep.Cause != nil {
			t.Errorf("cause is %+v", rep.Cause)
		}
	})
}

func TestOnlyTheLastOutputIsKeptAndItIsHarmless(t *testing.T) {
	r := report.NewRecorder(report.Report{}, nil)
	for i := range 50 {
		r.Output("commands.x", fmt.Sprintf("line %d", i))
	}
	r.Output("commands.x", "\x1b[31mred\x1b[0m\x07 and\ttabs\x1b]0;title\xff")
	r.Output("commands.x", "  \r")
	r.Output("commands.x", strings.Repeat("é", 1000))
	r.Step(report.Step{ID: "commands.x", Outcome: report.Failed, Error: "exit 1", Output: []string{"the end"}})
	out := r.End().Steps[0].Output
	if len(out) != 20 || out[0] != "line 33" || out[19] != "the end" {
		t.Fatalf("%d lines: %q", len(out), out)
	}
	if out[17] != "red and tabs0;title\uFFFD" {
		t.Errorf("got %q", out[17])
	}
	if n := len(out[18]); n > 410 || !strings.HasSuffix(out[18], "é…") {
		t.Errorf("%d bytes, ends in %q", n, out[18][n-6:])
	}
}

func TestNoSecretReachesTheReport(t *testing.T) {
	red := &report.Redactor{}
	red.Add("hunter2hunter2")
	r := report.NewRecorder(report.Report{Agent: "1"}, red)
	const s = "has hunter2hunter2 in it"
	end := r.Begin(report.Resolve)
	r.Output("a.b", s)
	r.Step(report.Step{ID: "a.b", Outcome: report.Failed, Error: s, Hint: s, Drift: s, Reason: s, Output: []string{s}})
	r.Note(s)
	r.Layer(report.Layer{Source: s})
	r.Probes([]report.Probe{{Name: "http", Error: s}})
	_ = end(diag.WithHint(errors.New(s), s))
	var b bytes.Buffer
	if err := report.JSON(&b, r.End()); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "hunter2") || strings.Count(b.String(), report.Redacted) < 9 {
		t.Errorf("the report says\n%s", b.String())
	}
}

func TestIDsSortByTime(t *testing.T) {
	now := time.Now()
	var ids []string
	for i := range 10 {
		ids = append(ids, report.NewID(now.Add(time.Duration(i)*time.Hour)))
	}
	if !slices.IsSorted(ids) {
		t.Errorf("%q", ids)
	}
	if first := report.NewID(now); first == report.NewID(now) {
		t.Error("two launches have one id")
	}
}

func TestStepsAreToldConcurrently(t *testing.T) {
	r := report.NewRecorder(report.Report{}, nil)
	var wg sync.WaitGroup
	for i := range 8 {
		id := fmt.Sprint("files.", i)
		wg.Go(func() {
			for range 50 {
				r.Output(id, "line")
				r.Fetched(1)
				r.Note("same")
				_ = r.Report()
			}
			r.Step(report.Step{ID: id, Outcome: report.Changed})
		})
	}
	wg.Wait()
	rep := r.End()
	if len(rep.Steps) != 8 || rep.Fetched != 400 || len(rep.Notes) != 1 {
		t.Errorf("%d steps, %d bytes, notes %q", len(rep.Steps), rep.Fetched, rep.Notes)
	}
}
