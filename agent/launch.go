package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/amiagent/amiagent/internal/converge"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/fetch"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/journal"
	"github.com/amiagent/amiagent/internal/layers"
	"github.com/amiagent/amiagent/internal/logging"
	"github.com/amiagent/amiagent/internal/plan"
	"github.com/amiagent/amiagent/internal/probe"
	"github.com/amiagent/amiagent/internal/report"
	"github.com/amiagent/amiagent/internal/step"
)

// launch is one convergence under way: what the phases hand to one another.
type launch struct {
	*Agent
	rec     *report.Recorder
	journal *journal.Journal // nil for a dry run
	dry     bool             // change nothing, the agent's own state included

	facts  *facts.Facts
	kept   []layers.Document // of the last good launch, the lock included
	lock   *held             // nil: nothing is locked
	docs   []layers.Document
	choice *choice  // of the lock, where there is a channel
	moved  []string // digests of layers read at the version that the lock names
	plan   *plan.Plan
	probes []probe.Probe
	store  *fetch.Store
	failed map[step.ID]error // of the phase fetch
	result converge.Result
}

func (a *Agent) newLaunch(command string) *launch {
	rec := report.NewRecorder(report.Report{Agent: a.opt.Version, Command: command}, a.redact)
	return &launch{Agent: a, rec: rec, failed: map[step.ID]error{}}
}

// Apply converges once, in the foreground, and gives the report. The error is
// nil only when every step and probe is as wanted; it is then also in the report.
func (a *Agent) Apply(ctx context.Context) (report.Report, error) {
	l, err := a.attempt(ctx, a.opt.Command)
	rep := l.report(err)
	l.end(&rep, err)
	return rep, err
}

// whole runs the phases up to READY.
func (l *launch) whole(ctx context.Context) error {
	if err := l.open(); err != nil {
		return l.phase(ctx, report.Identify, func(context.Context) error { return err })
	}
	release, err := l.exclusive()
	if err != nil {
		return l.phase(ctx, report.Identify, func(context.Context) error { return err })
	}
	defer release()
	if l.journal, err = journal.Open(l.host, journalDir); err != nil {
		l.rec.Note(err.Error()) // the story is lost, the truth is not
	}
	l.write(journal.Event{What: journal.RunBegin, Text: l.opt.Command})
	return l.phases(ctx)
}

func (l *launch) phases(ctx context.Context) error {
	l.greetSystemd(ctx)
	for _, p := range []struct {
		phase report.Phase
		do    func(context.Context) error
	}{
		{report.Identify, l.identify},
		{report.Resolve, l.resolve},
		{report.Fetch, l.fetch},
		{report.Converge, l.converge},
		{report.Prove, l.prove},
	} {
		if p.phase == report.Fetch {
			bounded, cancel := l.trial(ctx)
			defer cancel()
			ctx = bounded
		}
		if err := l.phase(ctx, p.phase, p.do); err != nil {
			return err
		}
	}
	return l.keep(ctx)
}

// greetSystemd connects to systemd while metadata is read, for the steps,
// probes and the drain unit that ask it later. What fails here is tried again
// by the first of them, which has a use for the error.
func (l *launch) greetSystemd(ctx context.Context) {
	if l.host.Live() {
		go func() { _, _ = l.host.Systemd(ctx) }()
	}
}

// phase runs one phase and tells everybody.
func (l *launch) phase(ctx context.Context, p report.Phase, do func(context.Context) error) error {
	if l.opt.Watcher != nil {
		l.opt.Watcher.Phase(p)
	}
	l.update(func(s *report.Status) { s.Phase, s.Step = p, "" })
	began := time.Now()
	end := l.rec.Begin(p)
	err := do(ctx)
	if err != nil && ctx.Err() != nil && !errors.Is(err, context.Cause(ctx)) {
		cause := context.Cause(ctx)
		during := strings.TrimPrefix(strings.TrimSuffix(err.Error(), ": "+cause.Error()), ErrFailed.Error()+": ")
		err = fmt.Errorf("%w (%s)", cause, during)
	}
	if errors.Is(err, ErrReboot) { // no failure: the launch goes on after it
		_ = end(nil)
		return err
	}
	_ = end(err)
	took := time.Since(began)
	if err != nil {
		l.log.Error("phase failed", zap.String(logging.Phase, string(p)), zap.Duration(logging.Took, took), zap.String(logging.Error, l.redact.Clean(err.Error())))
		l.write(journal.Event{What: journal.PhaseDone, Step: string(p), Outcome: string(report.Failed), Text: err.Error(), Took: took})
		return err
	}
	l.log.Debug("phase done", zap.String(logging.Phase, string(p)), zap.Duration(logging.Took, took))
	l.write(journal.Event{What: journal.PhaseDone, Step: string(p), Outcome: string(report.OK), Took: took})
	return nil
}

// write appends to the journal. That it cannot is noted once; it stops nothing.
func (l *launch) write(e journal.Event) {
	if l.journal == nil {
		return
	}
	e.Run, e.Text = l.rec.ID(), l.redact.Clean(e.Text)
	if err := l.journal.Append(e); err != nil {
		l.rec.Note(err.Error())
	}
}

// options are what a converge of this launch needs.
func (l *launch) options() converge.Options {
	return converge.Options{
		Host: l.host, Facts: l.facts, Store: l.store, Stamps: l.stamps,
		Instance: l.facts.Instance(), Boot: l.facts.Get(facts.BootID),
		Parallel: l.cfg.Parallel, Failed: l.failed,
		Begin: l.begin, End: l.ended, Status: l.line,
	}
}

func (l *launch) begin(id step.ID) {
	l.log.Info("step begins", zap.String(logging.Step, id.String()), zap.String(logging.Kind, id.Kind))
	l.write(journal.Event{What: journal.StepBegin, Step: id.String()})
	l.update(func(s *report.Status) { s.Step = id.String() })
	if l.opt.Watcher != nil {
		l.opt.Watcher.Begin(id.String())
	}
}

func (l *launch) line(id step.ID, line string) {
	line = l.redact.Clean(line)
	l.update(func(s *report.Status) { s.Step, s.Reason = id.String(), line })
	if l.opt.Watcher != nil {
		l.opt.Watcher.Line(id.String(), line)
	}
}

func (l *launch) ended(s report.Step) {
	kind, _, _ := cutID(s.ID)
	fields := []zap.Field{zap.String(logging.Step, s.ID), zap.String(logging.Kind, kind),
		zap.String(logging.Outcome, string(s.Outcome)), zap.Duration(logging.Took, s.Check+s.Apply)}
	switch s.Outcome {
	case report.Failed, report.Ignored:
		l.log.Error("step failed", append(fields, zap.String(logging.Error, l.redact.Clean(s.Error)))...)
	case report.OK, report.Skipped:
		l.log.Debug("step ends", fields...)
	default:
		l.log.Info("step ends", append(fields, zap.String("drift", l.redact.Clean(s.Drift)), zap.String("reason", l.redact.Clean(s.Reason)))...)
	}
	if s.Outcome != report.OK {
		text := s.Drift
		for _, t := range []string{s.Error, s.Reason} {
			if t != "" {
				text = t
			}
		}
		l.write(journal.Event{What: journal.StepEnd, Step: s.ID, Key: s.Key, Outcome: string(s.Outcome), Text: text, Took: s.Apply})
	}
	l.rec.Step(s)
	l.update(func(st *report.Status) {
		st.Done++
		if st.Step == s.ID {
			st.Step, st.Reason = "", ""
		}
	})
	if l.opt.Watcher != nil {
		l.opt.Watcher.End(s)
	}
}

// converge makes every step true.
func (l *launch) converge(ctx context.Context) error {
	l.result = converge.Run(ctx, l.plan, l.options())
	for _, s := range l.result.Steps {
		if s.Outcome == report.Skipped {
			l.rec.Step(s)
		}
	}
	switch {
	case l.result.Reboot:
		return ErrReboot
	case l.result.Failed():
		return failure(l.result)
	}
	return nil
}

// failure is the error of a run: the first step that failed by itself.
func failure(r converge.Result) error {
	i := slices.IndexFunc(r.Steps, func(s report.Step) bool { return s.Outcome == report.Failed })
	if i < 0 {
		i = slices.IndexFunc(r.Steps, func(s report.Step) bool { return s.Outcome == report.Blocked })
	}
	s := r.Steps[i]
	text := s.Error
	if text == "" {
		text = s.Reason
	}
	err := fmt.Errorf("%w: %s: %s", ErrFailed, s.ID, text)
	if s.Hint != "" {
		err = diag.WithHint(err, "%s", s.Hint)
	}
	return err
}

// prove asks the probes until they hold.
func (l *launch) prove(ctx context.Context) error {
	if len(l.probes) == 0 {
		return nil
	}
	tell := func(ps []report.Probe) {
		l.rec.Probes(ps)
		l.update(func(s *report.Status) { s.Probes = slices.Clone(ps) })
	}
	results, err := probe.Prove(ctx, l.probeEnv(), l.probes, tell)
	tell(results)
	if err != nil {
		return diag.WithHint(fmt.Errorf("%w: %w", ErrFailed, err), "see what the service says: `amiagent status`, `journalctl -b`")
	}
	return nil
}

func (a *Agent) probeEnv() probe.Env {
	env := probe.Env{Host: a.host}
	if a.host.Live() {
		env.UnitState = func(ctx context.Context, unit string) (string, error) {
			sd, err := a.host.Systemd(ctx)
			if err != nil {
				return "", err
			}
			us, err := sd.Units(ctx, []string{unit})
			if err != nil {
				return "", err
			}
			return us[unit].Active, nil
		}
	}
	return env
}

// keep remembers what this launch converged on, for a boot without the world outside.
func (l *launch) keep(ctx context.Context) error {
	if err := layers.Keep(ctx, l.host, l.facts.Instance(), l.toKeep()); err != nil {
		return host.Explain(err)
	}
	if err := l.keepFacts(ctx); err != nil {
		return err
	}
	return l.proveChoice(ctx)
}

// report closes the report. It is not kept yet: READY does not wait for that.
func (l *launch) report(err error) report.Report {
	rep := l.rec.End()
	if l.store != nil {
		_ = l.store.Close() // what it cannot remove the next run sweeps
	}
	if err != nil && rep.Cause == nil && !errors.Is(err, ErrReboot) {
		rep.Outcome = report.Failed
		rep.Cause = &report.Failure{Error: l.redact.Clean(err.Error()), Hint: l.redact.Clean(diag.Hint(err))}
	}
	return rep
}

// end keeps the report and closes the journal. What could not be kept is noted in the report.
func (l *launch) end(rep *report.Report, err error) {
	if errors.Is(err, ErrBusy) {
		return // the report of this one would push out that of the other
	}
	if serr := report.Save(l.host, ReportsDir, *rep); serr != nil {
		rep.Notes = append(rep.Notes, serr.Error())
	}
	text := ""
	if err != nil {
		text = err.Error()
	}
	l.write(journal.Event{What: journal.RunEnd, Outcome: string(rep.Outcome), Text: text})
	if l.journal != nil {
		_ = l.journal.Close()
		l.journal = nil
	}
}

func cutID(id string) (kind, name string, ok bool) {
	var x step.ID
	ok = x.UnmarshalText([]byte(id)) == nil
	return x.Kind, x.Name, ok
}
