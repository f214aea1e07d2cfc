package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/report"
	"github.com/amiagent/amiagent/internal/sink"
)

// reboot reboots the machine to go on afterwards, within the budget.
func (a *Agent) reboot(ctx context.Context, rep report.Report) error {
	n, err := a.spendReboot(ctx)
	if err == nil && n > a.cfg.Reboots {
		err = diag.WithHint(fmt.Errorf("%w: the launch asks for reboot number %d, allowed are %d", ErrFailed, n, a.cfg.Reboots),
			"a command that exits with 194 wants a reboot and to be run again; raise reboots: in /etc/amiagent/agent.yaml if it needs more")
	}
	if err == nil {
		a.publishState(report.Rebooting, fmt.Sprintf("reboot %d of at most %d", n, a.cfg.Reboots), "")
		a.send(ctx, sink.Reboot, &rep)
		var sd *host.Systemd
		if sd, err = a.host.Systemd(ctx); err == nil {
			err = sd.Reboot(ctx)
		}
		if ctx.Err() != nil { // the order to stop can be here before the answer
			err = nil
		}
	}
	if err != nil {
		rep.Outcome = report.Failed
		rep.Cause = &report.Failure{Phase: report.Converge, Error: err.Error(), Hint: diag.Hint(err)}
		_ = report.Save(a.host, ReportsDir, rep)
		a.failed(ctx, rep, err)
		return err
	}
	<-ctx.Done()
	return ErrReboot
}

// rebootsFile counts the reboots of an instance's launch; READY removes it.
const rebootsFile = StateDir + "/reboots.json"

func (a *Agent) spendReboot(ctx context.Context) (int, error) {
	n := 0
	if b, err := a.host.ReadLimited(rebootsFile, 64); err == nil {
		_ = json.Unmarshal(b, &n)
	}
	n++
	b, _ := json.Marshal(n)
	err := a.host.WriteFile(ctx, host.File{Path: rebootsFile, Data: bytes.NewReader(b), Mode: 0o600, UID: host.Keep, GID: host.Keep})
	if err != nil {
		return n, fmt.Errorf("cannot count reboots: %w", err)
	}
	return n, nil
}
