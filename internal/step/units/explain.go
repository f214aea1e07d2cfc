package units

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/step"
)

const (
	journalLines = 10
	journalTime  = 3 * time.Second
)

// explain makes one sentence of why a unit is not up: systemd's reason, how its
// program ended, and the last line that it logged. More of its journal goes to
// the step's output. cause is the job's own error, nil for a job that ended well.
func (u *Unit) explain(ctx context.Context, s *host.Systemd, env step.Env, verb host.Verb, cause error) error {
	p, err := s.Properties(ctx, u.name)
	if err != nil {
		return errors.Join(cause, err)
	}
	hint := fmt.Sprintf("systemctl status %s; journalctl -u %s", u.name, u.name)
	why := howEnded(p)
	job := (*host.JobError)(nil)
	switch {
	case errors.As(cause, &job) && job.Result == "dependency":
		why = "a unit that it needs failed"
		if failed := failedNeeds(ctx, s, p); len(failed) > 0 {
			why += ": " + strings.Join(failed, ", ")
			hint = fmt.Sprintf("systemctl status %s; journalctl -u %s", strings.Join(failed, " "), failed[0])
		}
		return diag.WithHint(fmt.Errorf("cannot %s %s: %s", verb, u.name, why), "%s", hint)
	case errors.As(cause, &job) && job.Result != "failed":
		return diag.WithHint(cause, "%s", hint)
	case unmet(p) != "":
		why = unmet(p)
	case p.String("ActiveState") == "inactive" && p.String("Result") == "success" && p.Int("ExecMainCode") == 1:
		why = "it ended by itself, with success"
		hint = "write Type=oneshot for work that ends, and RemainAfterExit=yes if it is to count as up; " + hint
	}
	lines := u.journal(ctx, env, p)
	if env.Output != nil {
		for _, line := range lines {
			env.Output(u.name + ": " + line)
		}
	}
	if len(lines) > 0 {
		why += fmt.Sprintf("; it last logged %q", lines[len(lines)-1])
	}
	return diag.WithHint(fmt.Errorf("cannot %s %s: %s", verb, u.name, why), "%s", hint)
}

// failedNeeds are the units without which this one cannot be, and that have failed.
func failedNeeds(ctx context.Context, s *host.Systemd, p host.Properties) []string {
	var needs []string
	for _, by := range []string{"Requires", "BindsTo", "Requisite"} {
		names, _ := p[by].([]string)
		needs = append(needs, names...)
	}
	now, err := s.Units(ctx, needs)
	if err != nil {
		return nil // the sentence is shorter without
	}
	var failed []string
	for name, u := range now {
		if u.Active == "failed" || u.Load == "not-found" {
			failed = append(failed, name)
		}
	}
	slices.Sort(failed)
	return failed
}

// journal is what the unit's processes logged last, of this start where systemd
// tells starts apart, oldest first. Without journalctl, or when it takes long, there is nothing to tell.
func (u *Unit) journal(ctx context.Context, env step.Env, p host.Properties) []string {
	match := "_SYSTEMD_UNIT=" + u.name
	if id, _ := p["InvocationID"].([]byte); len(id) > 0 { // systemd 232 and later
		match = fmt.Sprintf("_SYSTEMD_INVOCATION_ID=%x", id)
	}
	res, err := env.Host.Run(ctx, host.Cmd{
		Argv:    []string{"journalctl", "--no-pager", "--quiet", "-b", "-o", "cat", "-n", fmt.Sprint(journalLines), match},
		Timeout: journalTime,
	})
	if err != nil {
		return nil
	}
	var lines []string
	for line := range strings.Lines(string(res.Stdout)) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}
