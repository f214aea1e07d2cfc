package agent

import (
	"context"

	"go.uber.org/zap"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/report"
	"github.com/amiagent/amiagent/internal/sink"
)

// publish begins to keep the status file current.
func (a *Agent) publish(first report.Status) (err error) {
	a.status, err = report.Publish(a.host, first, report.PublisherOptions{
		Redact: a.redact,
		Failed: func(err error) { a.log.Error("cannot publish the status", zap.Error(err)) },
	})
	return err
}

// update changes the status; without a publisher it does nothing.
func (a *Agent) update(change func(*report.Status)) {
	if a.status != nil {
		a.status.Update(change)
	}
}

func (a *Agent) state() report.State {
	if a.status == nil {
		return ""
	}
	return a.status.Status().State
}

// publishState turns to a state with its reason.
func (a *Agent) publishState(state report.State, reason, hint string) {
	a.update(func(s *report.Status) { s.State, s.Step, s.Reason, s.Hint = state, "", reason, hint })
}

// publishReady turns to READY.
func (a *Agent) publishReady(rep report.Report) {
	a.update(func(s *report.Status) {
		s.State, s.Phase, s.Step, s.Reason, s.Hint = report.Ready, report.Watch, "", "", ""
		s.Launch, s.Instance, s.Boot, s.Notes = rep.ID, rep.Instance, rep.Boot, rep.Notes
	})
}

// publishReload tells how a reload went. It leaves the state to the probes.
func (a *Agent) publishReload(rep report.Report, err error) {
	a.update(func(s *report.Status) {
		s.Phase, s.Step, s.Reason, s.Hint = report.Watch, "", "", ""
		s.Launch, s.Notes = rep.ID, rep.Notes
		if err != nil {
			s.Reason, s.Hint = "the last reload failed: "+err.Error(), diag.Hint(err)
		}
	})
}

// failed turns to the end of a launch that failed.
func (a *Agent) failed(ctx context.Context, rep report.Report, err error) {
	a.update(func(s *report.Status) {
		s.State, s.Launch, s.Instance, s.Boot, s.Notes = report.DidFail, rep.ID, rep.Instance, rep.Boot, rep.Notes
		s.Step, s.Reason, s.Hint = "", err.Error(), diag.Hint(err)
		if rep.Cause != nil && rep.Cause.Step != "" {
			s.Step, s.Reason = rep.Cause.Step, rep.Cause.Error // err names the step again
		}
	})
	a.log.Error("the launch failed", zap.String("error", a.redact.Clean(err.Error())), zap.String("hint", a.redact.Clean(diag.Hint(err))))
	a.send(ctx, sink.Failed, &rep)
}

// FailEarly tells of an agent that could not even be made, as by a faulty
// agent.yaml: in the status, which the health responder reads, and to the sinks.
func FailEarly(ctx context.Context, opt Options, err error) {
	h, herr := host.New(opt.Root, opt.Host)
	if herr != nil {
		return // no machine to tell it on
	}
	if opt.Redact == nil {
		opt.Redact = &report.Redactor{}
	}
	rec := report.NewRecorder(report.Report{Agent: opt.Version, Command: opt.Command}, opt.Redact)
	_ = rec.Begin(report.Identify)(err)
	rep := rec.End()
	a := &Agent{opt: opt, host: h, log: opt.Log, redact: opt.Redact}
	if perr := a.publish(report.Status{Agent: opt.Version, State: report.Launching, Phase: report.Identify}); perr != nil {
		a.log.Error("cannot publish the status", zap.Error(perr))
	} else {
		defer func() { _ = a.status.Close() }()
	}
	a.failed(ctx, rep, err)
	if serr := report.Save(h, ReportsDir, rep); serr != nil {
		a.log.Error("cannot save the report", zap.Error(serr))
	}
}

// stopping tells that the agent leaves. An instance that is ready stays so in
// the status file: the agent may be restarted, and a load balancer must not
// notice. If nobody restarts it the status grows stale, and says so by itself.
func (a *Agent) stopping(ctx context.Context) {
	if st := a.state(); st == report.Launching || st == report.Rebooting {
		a.publishState(report.Stopping, "the agent was stopped", "")
	}
	a.send(context.WithoutCancel(ctx), sink.Stopping, nil)
}

// send tells all sinks of the status, and of the report if there is one.
func (a *Agent) send(ctx context.Context, kind sink.Kind, rep *report.Report) {
	a.notify(ctx, sink.Event{Kind: kind, Report: rep})
}

func (a *Agent) notify(ctx context.Context, e sink.Event) {
	if a.status != nil {
		e.Status = a.status.Status()
	}
	if err := sink.NewTee(a.opt.Sinks...).Send(ctx, e); err != nil {
		a.log.Warn("cannot tell everybody", zap.String("error", a.redact.Clean(err.Error())))
	}
}
