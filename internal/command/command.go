// Package command is amiagent's command line: flags, subcommands, exit codes.
// It decides nothing about machines; it hands over to package agent.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/amiagent/amiagent/agent"
	"github.com/amiagent/amiagent/internal/channel"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/fetch"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/layers"
	"github.com/amiagent/amiagent/internal/lock"
	"github.com/amiagent/amiagent/internal/report"
	"github.com/amiagent/amiagent/internal/sign"
)

// The exit codes, for scripts. They never change their meaning.
const (
	ExitOK       = 0
	ExitFailed   = 1 // it was tried and did not succeed
	ExitUsage    = 2 // the command line or a document is faulty; nothing was tried
	ExitDrift    = 3 // the machine is not as wanted (plan)
	ExitNotReady = 4 // the machine is not ready (status, wait)
	ExitDeadline = 5 // it took too long
	ExitRefused  = 6 // not what was asked for, or not what the lock or a trusted key allows
)

// exit is an error that only sets the exit code: what there is to say is said.
type exit struct{ code int }

func (e exit) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// usage is a mistake in the command line.
type usage struct{ error }

func (u usage) Unwrap() error { return u.error }

// code is the exit code of an error.
func code(err error) int {
	var ex exit
	var use usage
	var faults *diag.Error
	switch {
	case err == nil, errors.Is(err, agent.ErrDisabled):
		return ExitOK
	case errors.As(err, &ex):
		return ex.code
	case errors.Is(err, lock.ErrRefused), errors.Is(err, sign.ErrRefused), pinRefused(err): // may be faults too
		return ExitRefused
	case errors.As(err, &use), errors.As(err, &faults), errors.Is(err, layers.ErrNone), errors.Is(err, layers.ErrAddress):
		return ExitUsage
	case errors.Is(err, agent.ErrDeadline):
		return ExitDeadline
	case errors.Is(err, fetch.ErrDigest), errors.Is(err, fetch.ErrSize), errors.Is(err, layers.ErrDigest), errors.Is(err, channel.ErrRefused):
		return ExitRefused
	}
	return ExitFailed
}

// app is what the subcommands share.
type app struct {
	version string
	env     func(string) (string, bool)
	stdout  io.Writer
	stderr  io.Writer
	redact  *report.Redactor // knows every secret that this command has read

	root     string
	noChroot bool
	output   string
	verbose  bool
}

// Run runs one command line and gives its exit code. args are without the
// program's name; env are NAME=value pairs.
func Run(ctx context.Context, version string, args, env []string, stdout, stderr io.Writer) int {
	a := &app{version: version, env: lookup(env), stdout: stdout, stderr: stderr, redact: &report.Redactor{}}
	root := a.command()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var ex exit
	if err != nil && !errors.As(err, &ex) && !errors.Is(err, agent.ErrDisabled) {
		a.complain(err)
	}
	return code(err)
}

// Root is the command tree, for man pages and completions.
func Root(version string) *cobra.Command {
	return (&app{version: version, env: lookup(nil), stdout: io.Discard, stderr: io.Discard, redact: &report.Redactor{}}).command()
}

func lookup(env []string) func(string) (string, bool) {
	vars := map[string]string{}
	for _, e := range env {
		if k, v, ok := strings.Cut(e, "="); ok {
			vars[k] = v
		}
	}
	return func(name string) (string, bool) {
		v, ok := vars[name]
		return v, ok
	}
}

// complain prints an error and what to try, without secrets: an error may quote
// what a program said.
func (a *app) complain(err error) {
	var faults *diag.Error
	text := "amiagent: " + err.Error()
	if errors.As(err, &faults) {
		text = faults.Error()
	} else if hint := diag.Hint(err); hint != "" {
		text += "\n    hint: " + hint
	}
	fmt.Fprintln(a.stderr, a.redact.Clean(text))
}

func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "amiagent",
		Short: "Provision this machine from a manifest, and say when it is ready",
		Long: "amiagent is the agent that lightly baked machine images carry: at launch it reads what the machine is,\n" +
			"reads its manifest, fetches, converges, proves, and says ready.",
		Version:       a.version,
		SilenceUsage:  true,
		SilenceErrors: true,
		// Reached with an argument only by a word that is no subcommand.
		Args: func(c *cobra.Command, args []string) error {
			return misused(c, cobra.NoArgs(c, args))
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetVersionTemplate("amiagent {{.Version}}\n")
	root.SetFlagErrorFunc(misused)
	f := root.PersistentFlags()
	f.StringVar(&a.root, "root", "/", "the `folder` that is the machine's /")
	f.BoolVar(&a.noChroot, "no-chroot", false, "with --root, run this system's programs and tell them the folder in AMIAGENT_ROOT; a plain user's only way")
	f.StringVarP(&a.output, "output", "o", "text", "print as `text` or json")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "log everything")
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if a.output != "text" && a.output != "json" {
			return usage{fmt.Errorf("unknown output %q, known are text and json", a.output)}
		}
		return nil
	}
	add(root,
		a.runCommand(), a.applyCommand(), a.planCommand(), a.validateCommand(), a.factsCommand(),
		a.statusCommand(), a.analyzeCommand(), a.waitCommand(), a.reloadCommand(), a.drainCommand(), a.healthCommand(), a.versionCommand(),
		a.channelCommand(), a.lockCommand(), a.signCommand(), a.verifyCommand(), a.pinCommand(),
	)
	return root
}

// add adds commands; a wrong number of arguments is a mistake in the command line.
func add(parent *cobra.Command, commands ...*cobra.Command) {
	for _, c := range commands {
		if c.Args == nil {
			c.Args = cobra.NoArgs
		}
		args := c.Args
		c.Args = func(c *cobra.Command, as []string) error {
			return misused(c, args(c, as))
		}
		parent.AddCommand(c)
	}
}

// misused makes a mistake in the command line of an error of cobra's; nil stays nil.
func misused(c *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	return usage{diag.WithHint(err, "`%s --help` tells how it is used", c.CommandPath())}
}

func (a *app) json() bool { return a.output == "json" }

func (a *app) getenv(name string) string {
	v, _ := a.env(name)
	return v
}

// hostOptions: a plain user cannot chroot into a root, so programs run outside it and are told where it is.
func (a *app) hostOptions() host.Options {
	o := host.Options{}
	if a.root != "/" && (a.noChroot || os.Geteuid() != 0) {
		o.Programs = host.Outside
	}
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"} {
		if v, ok := a.env(name); ok {
			o.Env = append(o.Env, name+"="+v)
		}
	}
	return o
}

// host is the machine, for commands that only look.
func (a *app) host() (*host.Host, error) { return host.New(a.root, a.hostOptions()) }
