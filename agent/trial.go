package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/amiagent/amiagent/internal/channel"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/report"
)

// onTrial tells whether this launch is the first with a candidate, and the
// stable lock is to be used if it fails.
func (l *launch) onTrial() bool { return l.choice != nil && l.choice.Stable != "" && !l.choice.Proved }

// trial bounds a launch with a candidate to half of the time there is, so that
// one that hangs leaves time for the stable lock.
func (l *launch) trial(ctx context.Context) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if !l.onTrial() || !ok {
		return ctx, func() {}
	}
	half := time.Until(end) / 2
	why := fmt.Errorf("%w: the launch with the candidate lock took longer than %s, half of the deadline", ErrDeadline, half.Round(time.Second))
	return context.WithTimeoutCause(ctx, half, why)
}

// late is the end of a launch that took too long.
func (a *Agent) late() error {
	return diag.WithHint(fmt.Errorf("%w: the launch took longer than %s", ErrDeadline, a.cfg.Deadline),
		"see which step took the time; if it needs that long, raise deadline: in /etc/amiagent/agent.yaml")
}

// attempt launches, within the deadline; where a candidate fails and its channel says so, again with
// the stable lock. The report of the failed launch is kept beside the other,
// which names it.
func (a *Agent) attempt(ctx context.Context, command string) (*launch, error) {
	l := a.newLaunch(command)
	bounded, cancel := context.WithTimeoutCause(ctx, a.cfg.Deadline, a.late())
	defer cancel()
	err := l.whole(bounded)
	if err == nil || bounded.Err() != nil || !l.onTrial() || errors.Is(err, ErrReboot) || errors.Is(err, ErrBusy) {
		return l, err
	}
	failed := l.report(err)
	if ferr := l.fallBack(bounded, failed); ferr != nil {
		l.rec.Note(fmt.Sprintf("cannot fall back to the stable lock: %v", ferr))
		return l, err
	}
	l.end(&failed, err)
	a.log.Warn("the candidate lock failed, launching with the stable one", zap.String("report", failed.ID))
	next := a.newLaunch(command)
	return next, next.whole(bounded)
}

// fallBack makes the stable lock this instance's choice.
func (l *launch) fallBack(ctx context.Context, failed report.Report) error {
	c := *l.choice
	c.Channel.Failed = &report.Trial{Lock: c.Channel.Lock, Report: failed.ID}
	if f := failed.Cause; f != nil {
		c.Channel.Failed.Phase, c.Channel.Failed.Step, c.Channel.Failed.Error = f.Phase, f.Step, f.Error
	}
	c.Channel.Role, c.Channel.Lock = string(channel.Stable), c.Stable
	c.Channel.Why += ", and on-candidate-failure is " + string(channel.FallBack)
	c.Address, c.Stable, c.StableAddress = c.StableAddress, "", ""
	if err := l.writeChoice(ctx, &c); err != nil {
		return err
	}
	return l.advanced()
}

// proveChoice remembers that the lock of this launch works here.
func (l *launch) proveChoice(ctx context.Context) error {
	if l.choice == nil || l.choice.Proved {
		return nil
	}
	l.choice.Proved = true
	return l.writeChoice(ctx, l.choice)
}
