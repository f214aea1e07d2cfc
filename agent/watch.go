package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/amiagent/amiagent/internal/converge"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/layers"
	"github.com/amiagent/amiagent/internal/logging"
	"github.com/amiagent/amiagent/internal/probe"
	"github.com/amiagent/amiagent/internal/report"
	"github.com/amiagent/amiagent/internal/sink"
	"github.com/amiagent/amiagent/internal/step"
)

const (
	// disabledFile makes the agent do nothing, as amiagent=off on the kernel's command line does.
	disabledFile = "/etc/amiagent/disabled"
	// readyFile says that this boot has reached READY: /run does not outlive it.
	readyFile = "/run/amiagent/ready.json"
	// afterReady is how long steps that were put off are given to come true.
	afterReady = 60 * time.Second
)

// Run is the daemon's life: launch, READY, watch, until ctx ends. The error is
// nil when ctx ended it, ErrDisabled, ErrReboot, or why the launch failed.
func (a *Agent) Run(ctx context.Context) error {
	first := report.Status{Agent: a.opt.Version, State: report.Launching, Phase: report.Identify}
	why := a.disabled()
	var resumed *launch
	if why != "" {
		first.State, first.Phase, first.Reason = report.Disabled, "", why
	} else if resumed = a.resume(); resumed != nil {
		first.State, first.Phase = report.Ready, report.Watch
		first.Instance, first.Boot = resumed.facts.Instance(), resumed.facts.Get(facts.BootID)
		a.inherit(&first)
	}
	if err := a.publish(first); err != nil {
		return err
	}
	defer func() { _ = a.status.Close() }()
	switch {
	case why != "":
		return fmt.Errorf("%w: %s", ErrDisabled, why)
	case resumed != nil:
		a.log.Info("resuming: this boot has reached READY before")
		a.follow(resumed.facts)
		a.send(ctx, sink.Ready, nil)
		return a.watch(ctx, resumed)
	}
	a.send(ctx, sink.Began, nil)
	a.hurry()
	l, err := a.attempt(ctx, "run")
	rep := l.report(err)
	switch {
	case errors.Is(err, ErrReboot):
		l.end(&rep, err)
		return a.reboot(ctx, rep)
	case ctx.Err() != nil:
		l.end(&rep, err)
		a.stopping(ctx)
		return nil
	case err != nil:
		l.end(&rep, err)
		a.failed(ctx, rep, err)
		return err
	}
	if err := a.markReady(ctx, rep); err != nil {
		a.log.Warn("cannot remember READY: a restart of the agent will launch again", zap.Error(err))
	}
	if err := a.host.Remove(rebootsFile); err != nil {
		a.log.Warn("cannot forget the reboots of this launch", zap.Error(err))
	}
	a.publishReady(rep)
	a.send(ctx, sink.Ready, &rep)
	l.end(&rep, nil)
	a.log.Info("ready", zap.Duration(logging.Took, rep.Took()), zap.String("report", rep.ID))
	l.armDrain(ctx)
	l.proveDeferred(ctx)
	return a.watch(ctx, l)
}

func (a *Agent) disabled() string {
	if a.host.Exists(disabledFile) {
		return disabledFile + " exists"
	}
	if a.host.Live() {
		if b, err := a.host.ReadLimited("/proc/cmdline", 1<<16); err == nil && slices.Contains(fields(b), "amiagent=off") {
			return "amiagent=off is on the kernel command line"
		}
	}
	return ""
}

func fields(b []byte) []string {
	var out []string
	for f := range bytes.FieldsSeq(b) {
		out = append(out, string(f))
	}
	return out
}

// ready is the mark of a boot that has reached READY.
type ready struct {
	Boot   string    `json:"boot"`
	Launch string    `json:"launch"`
	At     time.Time `json:"at"`
}

func (a *Agent) markReady(ctx context.Context, rep report.Report) error {
	b, err := json.Marshal(ready{rep.Boot, rep.ID, time.Now().UTC()})
	if err == nil {
		err = a.host.MkdirAll("/run/amiagent")
	}
	if err == nil {
		err = a.host.WriteFile(ctx, host.File{Path: readyFile, Data: bytes.NewReader(b), Mode: 0o644, UID: host.Keep, GID: host.Keep})
	}
	return err
}

// resume makes a launch that only watches, when this boot has been READY
// before: the agent was restarted, the machine was not. It asks nobody outside.
func (a *Agent) resume() *launch {
	b, err := a.host.ReadLimited(readyFile, 1<<12)
	if err != nil {
		return nil
	}
	var mark ready
	boot, _ := a.host.ReadLimited("/proc/sys/kernel/random/boot_id", 128)
	if json.Unmarshal(b, &mark) != nil || a.host.Live() && mark.Boot != string(bytes.TrimSpace(boot)) {
		return nil
	}
	l := a.newLaunch("resume")
	known, err := a.keptFacts()
	if err != nil || known == nil {
		return nil
	}
	l.facts = known
	l.facts.Set(facts.BootID, mark.Boot, facts.Launch, "kernel") // kept facts are of no boot
	if l.kept, err = layers.Kept(a.host, known.Instance()); err != nil {
		return nil
	}
	if l.docs, l.lock = l.lastGood(); l.lock == nil {
		l.docs = l.kept
	}
	if len(l.docs) == 0 || l.open() != nil || l.makePlan() != nil {
		return nil
	}
	return l
}

// watch is the life after READY.
func (a *Agent) watch(ctx context.Context, l *launch) error {
	for {
		probes := l.probes
		standing := a.standing(probes)
		a.turned(ctx, standing) // a reload may have turned them
		env := a.probeEnv()
		l = nil // the plan is not needed until the next convergence
		a.rest()
		watching, stop := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			probe.Watch(watching, env, probes, standing, func(ps []report.Probe) { a.turned(ctx, ps) })
		}()
		next, why := a.wait(ctx)
		stop()
		<-done
		switch next {
		case "reload":
			l = a.reconverge(ctx)
			if l == nil {
				l = &launch{Agent: a, probes: probes}
			}
		case "drain":
			a.log.Info("draining", zap.String("reason", why))
			a.publishState(report.Draining, why, "") // `amiagent drain` waits for this
			a.send(ctx, sink.Draining, nil)
			select {
			case <-ctx.Done():
				a.stopping(ctx)
				return nil
			case <-a.undo:
			}
			a.log.Info("back in service, as far as the probes hold")
			a.publishState(report.NotReady, "coming back into service", "")
			l = &launch{Agent: a, probes: probes}
		default:
			a.stopping(ctx)
			return nil
		}
	}
}

func (a *Agent) wait(ctx context.Context) (next, why string) {
	select {
	case <-ctx.Done():
		return "stop", ""
	case <-a.reload:
		return "reload", ""
	case why = <-a.drain:
		select {
		case <-a.undo: // of an earlier drain, if any
		default:
		}
		return "drain", why
	}
}

// turned publishes what the probes say now.
func (a *Agent) turned(ctx context.Context, ps []report.Probe) {
	if a.state() == report.Draining { // whatever the probes say
		return
	}
	bad := slices.IndexFunc(ps, func(p report.Probe) bool { return !p.OK })
	was, is := a.state(), report.Ready
	reason := ""
	if bad >= 0 {
		is, reason = report.NotReady, "probe "+ps[bad].Name+": "+ps[bad].Error
	}
	a.update(func(s *report.Status) {
		s.Probes, s.State = slices.Clone(ps), is
		if is != report.Ready || was != is { // else it may tell of a reload that failed
			s.Reason = reason
		}
	})
	if was == is {
		return
	}
	if is == report.Ready {
		a.log.Info("ready again")
		a.send(ctx, sink.Ready, nil)
		return
	}
	a.log.Warn("not ready", zap.String("reason", a.redact.Clean(reason)))
	a.send(ctx, sink.NotReady, nil)
}

// reconverge brings the machine to what its layers say now, without leaving
// service: a machine whose reload fails stays as ready as its probes say.
func (a *Agent) reconverge(ctx context.Context) *launch {
	a.notify(ctx, sink.Event{Kind: sink.Began, Reload: true})
	a.hurry()
	l, err := a.attempt(ctx, "reload")
	rep := l.report(err)
	l.end(&rep, err)
	switch {
	case errors.Is(err, ErrReboot):
		a.log.Warn("a step asks for a reboot; a reload never reboots: reboot when it suits you")
	case err != nil:
		a.log.Error("reload failed", zap.String(logging.Error, a.redact.Clean(err.Error())), zap.String("hint", a.redact.Clean(diag.Hint(err))))
	default:
		a.log.Info("reloaded", zap.Duration(logging.Took, rep.Took()), zap.String("outcome", string(rep.Outcome)))
	}
	a.publishReload(rep, err)
	kind := sink.Ready
	if err != nil {
		kind = sink.Failed
	}
	a.notify(ctx, sink.Event{Kind: kind, Reload: true, Report: &rep})
	if err != nil {
		return nil
	}
	l.armDrain(ctx)
	l.proveDeferred(ctx)
	return l
}

// proveDeferred checks, after READY, what READY could not wait for, until all is
// as wanted or patience ends, and adds the outcome to the report.
func (l *launch) proveDeferred(ctx context.Context) {
	put := map[string]bool{}
	for _, s := range l.result.Steps {
		if s.Outcome == report.Deferred {
			put[s.ID] = true
		}
	}
	if len(put) == 0 {
		return
	}
	ctx, cancel := context.WithTimeoutCause(ctx, afterReady, fmt.Errorf("not as wanted %s after READY", afterReady))
	defer cancel()
	opt := l.options()
	opt.Only = func(id step.ID) bool { return put[id.String()] }
	opt.End = nil
	var res converge.Result
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		res = converge.Run(ctx, l.plan, opt)
		again := slices.ContainsFunc(res.Steps, func(s report.Step) bool {
			return put[s.ID] && s.Outcome != report.OK && s.Outcome != report.Changed
		})
		if !again || ctx.Err() != nil {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	for _, s := range res.Steps {
		if !put[s.ID] {
			continue
		}
		s.Reason = "proved after READY"
		if s.Outcome != report.OK && s.Outcome != report.Changed {
			s.Reason = "not as wanted after READY"
			l.rec.Note(fmt.Sprintf("%s was put off until after READY and is not as wanted: %s%s", s.ID, s.Drift, s.Error))
			l.log.Error("a step put off until after READY is not as wanted", zap.String(logging.Step, s.ID))
		} else {
			s.Outcome = report.Changed
			l.log.Info("proved after READY", zap.String(logging.Step, s.ID))
		}
		l.rec.Step(s)
	}
	if err := report.Save(l.host, ReportsDir, l.rec.Report()); err != nil {
		l.log.Warn("cannot save the report", zap.Error(err))
	}
}
