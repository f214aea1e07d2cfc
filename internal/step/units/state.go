package units

import (
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/step"
)

// A stamp with the step's key says: no process of this unit runs by older
// inputs than the key's. That holds once a start or restart succeeded, and also
// once it is queued in systemd behind the agent: the queue outlives the agent,
// and dies only with all processes. A stopped unit needs no stamp to be true to
// it, so restarts that fall due while it is stopped are not made up for.

// ranID is the stamp that holds the boot in which a oneshot last ran. systemd
// itself forgets that of units that nothing refers to.
func ranID(id step.ID) step.ID { return step.ID{Kind: id.Kind, Name: id.Name + " ran"} }

// due is what systemd should be asked to do with the unit, and why; "" when it
// is as it should be.
func (u *Unit) due(ctx context.Context, s *host.Systemd, env step.Env, now host.Unit) (host.Verb, step.Drift, error) {
	switch u.State {
	case stopped:
		if now.Active == "inactive" || now.Active == "failed" {
			if now.Job != "start" && now.Job != "restart" {
				return "", "", nil
			}
		}
		return host.Stop, step.Drift("is " + now.Active + ", want stopped"), nil
	case started:
		return u.startDue(ctx, s, env, now)
	}
	return "", "", nil
}

func (u *Unit) startDue(ctx context.Context, s *host.Systemd, env step.Env, now host.Unit) (host.Verb, step.Drift, error) {
	stale := u.rereads() && !env.Stamped(env.Key)
	switch {
	case now.Load == "not-found":
		return host.Start, "systemd knows no such unit", nil
	case now.Active == "active" || now.Active == "reloading":
		switch {
		case stale:
			return u.again(), "has not been restarted since what it reads changed", nil
		case now.Job == "restart" || now.Job == "try-restart":
			return host.Restart, "waits to be restarted", nil
		case now.Job == "stop":
			return host.Start, "is about to stop, want started", nil
		}
		return "", "", nil
	case now.Sub == "auto-restart":
		p, err := s.Properties(ctx, u.name)
		if err != nil {
			return "", "", err
		}
		return host.Restart, step.Drift("keeps failing: " + howEnded(p)), nil
	case now.Active == "activating" && stale:
		return host.Restart, "began to start before what it reads changed", nil
	case now.Active == "activating":
		return host.Start, "is still starting", nil
	case now.Active == "failed":
		p, err := s.Properties(ctx, u.name)
		if err != nil {
			return "", "", err
		}
		return host.Start, step.Drift("has failed: " + howEnded(p)), nil
	case now.Job != "":
		return host.Start, "waits to start", nil
	case now.Active != "inactive":
		return host.Start, step.Drift("is " + now.Active + ", want started"), nil
	}
	p, err := s.Properties(ctx, u.name)
	if err != nil {
		return "", "", err
	}
	if !endsByItself(u.name, p) {
		if why := unmet(p); why != "" {
			return host.Start, step.Drift("is inactive: " + why), nil
		}
		return host.Start, "is inactive, want started", nil
	}
	ran := ranWell(p) || env.Stamps.Has(ranID(env.ID), env.Boot)
	switch {
	case !ran:
		return host.Start, "has not run in this boot", nil
	case stale:
		return host.Start, "has not run since what it reads changed", nil
	}
	return "", "", nil
}

// again is how the unit takes notice of a change.
func (u *Unit) again() host.Verb {
	if u.Reload {
		return host.ReloadOrRestart
	}
	return host.Restart
}

// endsByItself tells whether "inactive" is how the unit looks after success.
func endsByItself(name string, p host.Properties) bool {
	return path.Ext(name) == ".service" && p.String("Type") == "oneshot" && !p.Bool("RemainAfterExit")
}

// ranWell tells whether systemd saw the unit run to a good end in this boot.
func ranWell(p host.Properties) bool {
	return p.String("Result") == "success" && p.Int("ExecMainExitTimestampMonotonic") > 0
}

// unmet says which Condition= or Assert= kept the unit from starting; "" for none.
func unmet(p host.Properties) string {
	if p.Int("ConditionTimestampMonotonic") == 0 || p.Bool("ConditionResult") {
		return ""
	}
	var failed []string
	list, _ := p["Conditions"].([][]any) // a(sbbsi): name, trigger, negate, parameter, state
	for _, c := range list {
		if len(c) != 5 {
			continue
		}
		name, _ := c[0].(string)
		parameter, _ := c[3].(string)
		if state, _ := c[4].(int32); state < 0 {
			failed = append(failed, name+"="+parameter)
		}
	}
	if len(failed) == 0 {
		return "a condition of its unit file is not met"
	}
	return "a condition of its unit file is not met, " + strings.Join(failed, ", ")
}

// exitMeanings are exit codes by which systemd says that it could not run the
// program at all (systemd.exec(5), "process exit codes").
var exitMeanings = map[int64]string{
	200: "its WorkingDirectory= cannot be entered",
	203: "its program cannot be run",
	208: "its standard input cannot be set up",
	209: "its standard output cannot be set up",
	216: "its Group= does not exist",
	217: "its User= does not exist",
	218: "its capabilities cannot be set up",
	226: "its mount namespace cannot be set up",
	233: "its RuntimeDirectory= cannot be made",
	238: "its StateDirectory= cannot be made",
}

// howEnded says how a unit that is not running came to its end.
func howEnded(p host.Properties) string {
	code, status := p.Int("ExecMainCode"), p.Int("ExecMainStatus")
	result := p.String("Result")
	switch {
	case result == "timeout":
		return "it was not up within the time that its unit allows"
	case result == "start-limit-hit":
		return "it was started too often in a short time"
	case result == "protocol":
		return "it ended before it said that it is ready"
	case result == "oom-kill":
		return "the kernel ended it for want of memory"
	case result == "resources":
		return "systemd lacked something to start it with"
	case code == 1 && exitMeanings[status] != "": // CLD_EXITED
		return fmt.Sprintf("%s (status %d)", exitMeanings[status], status)
	case code == 1 && (status != 0 || result == "success"):
		return fmt.Sprintf("it exited with %d", status)
	case code == 2 || code == 3: // CLD_KILLED, CLD_DUMPED
		return fmt.Sprintf("it was ended by signal %d", status)
	case result != "" && result != "success":
		return "its result is " + result
	}
	return "it does not stay up"
}
