// Package commands runs programs of the manifest's own, as rarely as it can.
//
// The machine says whether a command is still to be run where it can: by the
// file that the command creates, or by a program that looks (unless). Where it
// cannot, a stamp remembers that the command has run, for its content, for the
// instance or for the boot. A stamp is written after success only, so a command
// that was cut off is run again: it must bear that.
package commands

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/amiagent/amiagent/internal/decode"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/step"
)

//go:embed example.yaml
var example string

// Kind is the manifest's section "commands". Commands run one by one, in the manifest's order.
func Kind() step.Kind {
	return step.Kind{
		Name:    "commands",
		Doc:     "Programs to run, each until it has done its work.",
		Level:   step.LevelCommands,
		New:     func() step.Step { return &Command{Timeout: 5 * time.Minute} },
		Serial:  true,
		Example: example,
	}
}

// RebootCode is the exit code by which a command asks for a reboot and to be
// run again after it, as in AWS Systems Manager
// (https://docs.aws.amazon.com/systems-manager/latest/userguide/send-commands-reboot.html).
const RebootCode = 194

// Command is one program to run. A code other than 0 is a failure, but for RebootCode.
type Command struct {
	name string

	// Run is the argument list. No shell is between.
	Run Argv `yaml:"run"`
	// Creates is a path: the command is run while nothing is there.
	Creates string `yaml:"creates"`
	// Unless is an argument list: the command is run while this program fails.
	// It is run at every look at the machine, and must only look itself. With
	// Creates, either of the two is enough for nothing to do.
	Unless Argv `yaml:"unless"`
	// OnChange names steps: when one of them was changed, the command is run
	// again, whatever Creates and Unless say.
	OnChange []step.ID `yaml:"on-change"`
	// Once says how often a command runs that has neither Creates nor Unless:
	// once for its content (the default: what the entry says and what its
	// templates rendered to), once for an instance, at each boot, or always,
	// which is once in each convergence.
	Once string `yaml:"once"`
	// User runs it as this user, with its groups and home; default: the agent's, root.
	User string `yaml:"user"`
	// Env is added to a small environment: PATH, HOME, USER, LOGNAME, LANG.
	Env map[string]string `yaml:"env"`
	// Cwd is the working folder; default "/".
	Cwd string `yaml:"cwd"`
	// Timeout ends Run, and each time Unless. The default is 5 minutes.
	Timeout time.Duration `yaml:"timeout"`
}

// Argv is an argument list. A plain string is refused: it would need a shell to cut it.
type Argv []string

// DecodeNode implements decode.NodeDecoder.
func (a *Argv) DecodeNode(n *yaml.Node, at diag.At) {
	if n.Kind == yaml.ScalarNode {
		at.Err(diag.WithHint(errors.New("must be a list: the program and its arguments"),
			"write [prog, arg], or [sh, -c, \"a line for the shell\"] where a shell is needed"))
		*a = Argv{n.Value} // so that nobody says besides that a program is missing
		return
	}
	decode.Into(n, (*[]string)(a), at)
}

// SetName gives the command its name.
func (c *Command) SetName(name string) { c.name = name }

// How often a command runs.
const (
	content  = "content"
	instance = "instance"
	boot     = "boot"
	always   = "always"
)

// Validate records faults of the body by field name.
func (c *Command) Validate(at diag.At) {
	if len(c.Run) == 0 || c.Run[0] == "" {
		at.Field("run").Errorf("must name a program")
	}
	if c.Unless != nil && (len(c.Unless) == 0 || c.Unless[0] == "") {
		at.Field("unless").Errorf("must name a program")
	}
	for name, p := range map[string]string{"creates": c.Creates, "cwd": c.Cwd} {
		if p != "" && step.StaticText(p) && !path.IsAbs(p) {
			at.Field(name).Errorf("must be an absolute path, is %q", p)
		}
	}
	if c.Once != "" && step.StaticText(c.Once) {
		if known := []string{content, instance, boot, always}; !slices.Contains(known, c.Once) {
			at.Field("once").Errorf("must be one of %s, is %q", strings.Join(known, ", "), c.Once)
		} else if c.guarded() {
			at.Field("once").Errorf("creates and unless say already when to run")
		}
	}
	if c.Once == always && len(c.OnChange) > 0 {
		at.Field("on-change").Errorf("a command that always runs needs no change")
	}
	if c.Timeout <= 0 {
		at.Field("timeout").Errorf("must be more than nothing, is %s", c.Timeout)
	}
	for k := range c.Env {
		if k == "" || strings.ContainsAny(k, "=\x00") {
			at.Field("env").Field(k).Errorf("%q cannot name a variable", k)
		}
	}
}

// guarded tells whether the machine shows that the command is done.
func (c *Command) guarded() bool { return c.Creates != "" || c.Unless != nil }

// Runs implements step.Runner.
func (c *Command) Runs() bool { return true }

// Watches implements step.Watcher.
func (c *Command) Watches() []step.ID { return c.OnChange }

// Needs implements step.Needer: the user.
func (c *Command) Needs() []step.ID {
	if c.User == "" {
		return nil
	}
	return []step.ID{{Kind: "users", Name: c.User}}
}

// stamp is what is remembered after a success.
func (c *Command) stamp(env step.Env) string {
	switch c.Once {
	case instance:
		return "instance " + env.Instance
	case boot:
		return "boot " + env.Instance + " " + env.Boot
	}
	return "content " + env.Key
}

// Check implements step.Step.
func (c *Command) Check(ctx context.Context, env step.Env) (step.Drift, error) {
	ran := c.ranNow(env)
	switch {
	case c.Once == always && ran:
		return "", nil
	case c.Once == always:
		return "runs in every convergence", nil
	case !c.guarded() && env.Stamped(c.stamp(env)):
		return "", nil
	case len(c.OnChange) > 0 && !env.Stamped(c.stamp(env)):
		return step.Drift("has not run since the last change of " + list(c.OnChange)), nil
	case c.guarded():
		why, err := c.undone(ctx, env)
		if why != "" && ran {
			why = "has run, but " + why
		}
		return step.Drift(why), err
	case c.Once == instance:
		return "has not run on this instance", nil
	case c.Once == boot:
		return "has not run since this boot", nil
	}
	return "has not run with this content", nil
}

func list(ids []step.ID) string {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = id.String()
	}
	return strings.Join(names, ", ")
}

// undone asks the machine, and says why the command is to be run.
func (c *Command) undone(ctx context.Context, env step.Env) (string, error) {
	why := ""
	if c.Creates != "" {
		if env.Host.Exists(c.Creates) {
			return "", nil
		}
		why = c.Creates + " is missing"
	}
	if c.Unless == nil {
		return why, nil
	}
	_, err := env.Host.Run(ctx, c.program(c.Unless))
	var exit *host.ExitError
	switch {
	case err == nil:
		return "", nil
	case why != "" && ctx.Err() == nil:
		return why, nil
	case errors.As(err, &exit):
		return fmt.Sprintf("%s exits with %d", c.Unless[0], exit.Code), nil
	case errors.Is(err, host.ErrNoProgram), errors.Is(err, host.ErrNoUser):
		return err.Error(), nil // what brings them may still be to come
	}
	return "", fmt.Errorf("cannot ask whether %s is to be run: %w", c.name, err)
}

func (c *Command) program(argv Argv) host.Cmd {
	var env []string
	for _, k := range slices.Sorted(maps.Keys(c.Env)) {
		env = append(env, k+"="+c.Env[k])
	}
	return host.Cmd{Argv: argv, Dir: c.Cwd, Env: env, User: c.User, Timeout: c.Timeout, OneStream: true}
}

// Apply implements step.Step. A code of RebootCode is step.ErrReboot and no success.
func (c *Command) Apply(ctx context.Context, env step.Env) error {
	if c.Cwd != "" {
		if st, err := env.Host.Stat(c.Cwd); err != nil || !st.IsDir() {
			return diag.WithHint(fmt.Errorf("cannot run %s: there is no folder %s", c.name, c.Cwd),
				"cwd must be there before: add it under files with `directory: true`")
		}
	}
	cmd := c.program(c.Run)
	cmd.Line = env.Output
	res, err := env.Host.Run(ctx, cmd)
	if err == nil {
		c.markRan(env)
		if c.Once == always || c.guarded() && len(c.OnChange) == 0 {
			return nil
		}
		return env.Stamp(c.stamp(env))
	}
	var exit *host.ExitError
	switch {
	case errors.As(err, &exit) && res.Code == RebootCode:
		return fmt.Errorf("%s exited with %d: %w", c.Run[0], res.Code, step.ErrReboot)
	case errors.As(err, &exit) && res.Code >= 0:
		err = diag.WithHint(err, "the last lines of its output are in the report: `amiagent analyze`")
	case errors.As(err, &exit):
		err = diag.WithHint(err, "see the kernel log: it may have crashed, or been killed for want of memory")
	case errors.Is(err, host.ErrTimeout):
		err = diag.WithHint(err, "if it needs longer, give it a longer timeout; background work belongs in a unit")
	case errors.Is(err, host.ErrNoProgram):
		err = diag.WithHint(err, "what brings the program must come before: a package, an artifact, a file with mode 0755")
	case errors.Is(err, host.ErrNoUser):
		err = diag.WithHint(err, "add it under users, or the package that brings it")
	}
	return fmt.Errorf("cannot run %s: %w", c.name, err)
}

// ranNow tells whether the command has succeeded in this run of the agent.
func (c *Command) ranNow(env step.Env) bool {
	ran, _ := step.Memo(env.Shared, c.memo(env), func() (bool, error) { return false, nil })
	return ran
}

func (c *Command) markRan(env step.Env) {
	env.Shared.Forget(c.memo(env))
	_, _ = step.Memo(env.Shared, c.memo(env), func() (bool, error) { return true, nil })
}

func (c *Command) memo(env step.Env) string { return "ran " + env.ID.String() }
