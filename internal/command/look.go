package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/amiagent/amiagent/agent"
	"github.com/amiagent/amiagent/internal/config"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/health"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/report"
	"github.com/amiagent/amiagent/internal/terminal"
)

func (a *app) factsCommand() *cobra.Command {
	var m machine
	var capture string
	c := &cobra.Command{
		Use:   "facts",
		Short: "Print what this machine is, and where each fact is from",
		Long: "Print each fact with its stage (known at bake, or at launch only) and its source.\n" +
			"--capture saves them, without secrets, for `amiagent plan --facts FILE` anywhere.",
	}
	m.flags(c)
	c.Flags().StringVar(&capture, "capture", "", "save the facts to a `file`")
	c.RunE = func(c *cobra.Command, _ []string) error {
		ag, err := a.agent("facts", &m, nil, nil)
		if err != nil {
			return err
		}
		f, err := ag.Facts(c.Context())
		if err != nil {
			return err
		}
		if capture != "" {
			if err := save(capture, f.Capture); err != nil {
				return err
			}
			fmt.Fprintf(a.stderr, "facts saved in %s\n", capture)
			return nil
		}
		if a.json() {
			return f.Capture(a.stdout)
		}
		return f.WriteText(a.stdout)
	}
	return c
}

// save writes a file of the user's, outside any root.
func save(name string, write func(io.Writer) error) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err == nil {
		err = errors.Join(write(f), f.Close())
	}
	if err != nil {
		return fmt.Errorf("cannot save to %s: %w", name, err)
	}
	return nil
}

func (a *app) statusCommand() *cobra.Command {
	var wait bool
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "status",
		Short: "Print what the agent is doing; exit code 0 when ready, 4 when not",
	}
	c.Flags().BoolVar(&wait, "wait", false, "wait until the launch has ended, well or not")
	c.Flags().DurationVar(&timeout, "timeout", 0, "with --wait, how long at most; 0 is for ever")
	c.RunE = func(c *cobra.Command, _ []string) error {
		h, err := a.host()
		if err != nil {
			return err
		}
		var s report.Status
		if wait {
			s, err = await(c.Context(), h, timeout)
		} else {
			s, err = report.LoadStatus(h, report.StatusPath)
		}
		if err != nil {
			if errors.Is(err, report.ErrNoStatus) {
				err = diag.WithHint(err, "the agent has not run since the boot: `systemctl status amiagent`")
				a.complain(err)
				return exit{ExitNotReady}
			}
			return err
		}
		if a.json() {
			err = printJSON(a.stdout, s)
		} else {
			err = report.StatusText(a.stdout, s, time.Now(), terminal.Width(a.stdout))
		}
		if err != nil {
			return err
		}
		if !s.Ready() || !s.Fresh(time.Now()) {
			return exit{ExitNotReady}
		}
		return nil
	}
	return c
}

func (a *app) analyzeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "analyze [REPORT]",
		Short: "Print how a launch went: its timeline, what changed, what failed",
		Long:  "Print the report of the last launch, or of the one whose id or file is given.",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			h, err := a.host()
			if err != nil {
				return err
			}
			rep, err := findReport(h, args)
			if err != nil {
				return err
			}
			return a.printReport(rep)
		},
	}
}

func findReport(h *host.Host, args []string) (report.Report, error) {
	if len(args) == 0 {
		return report.Latest(h, agent.ReportsDir)
	}
	if strings.ContainsRune(args[0], '/') || strings.HasSuffix(args[0], ".json") {
		b, err := readLimited(args[0], 16<<20)
		if err != nil {
			return report.Report{}, usage{fmt.Errorf("cannot read the report: %w", err)}
		}
		return report.Parse(b)
	}
	return report.Load(h, agent.ReportsDir, args[0])
}

// poll is how often a waiting command looks at the status file.
const poll = 100 * time.Millisecond

// await waits for the end of the launch.
func await(ctx context.Context, h *host.Host, timeout time.Duration) (report.Status, error) {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, fmt.Errorf("%w: the launch has not ended within %s", agent.ErrDeadline, timeout))
		defer cancel()
	}
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		s, err := report.LoadStatus(h, report.StatusPath)
		if err != nil && !errors.Is(err, report.ErrNoStatus) {
			return s, err
		}
		if err == nil {
			switch s.State {
			case report.Launching, report.Rebooting, report.Stopping:
			default:
				return s, nil
			}
		}
		select {
		case <-ctx.Done():
			return s, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func (a *app) waitCommand() *cobra.Command {
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "wait",
		Short: "Wait for READY; exit code 0 when it comes, 4 when the launch fails",
	}
	c.Flags().DurationVar(&timeout, "timeout", 0, "how long at most; 0 is for ever")
	c.RunE = func(c *cobra.Command, _ []string) error {
		h, err := a.host()
		if err != nil {
			return err
		}
		s, err := await(c.Context(), h, timeout)
		if err != nil {
			return err
		}
		if s.State == report.Ready || s.State == report.NotReady {
			return nil
		}
		fmt.Fprintln(a.stderr, "amiagent: "+s.Headline())
		if s.Hint != "" {
			fmt.Fprintln(a.stderr, "    hint: "+s.Hint)
		}
		return exit{ExitNotReady}
	}
	return c
}

// signalAgent sends a signal to the running agent.
func (a *app) signalAgent(sig syscall.Signal) (pid int, err error) {
	h, err := a.host()
	if err != nil {
		return 0, err
	}
	s, err := report.LoadStatus(h, report.StatusPath)
	if err == nil && !s.Fresh(time.Now()) {
		err = fmt.Errorf("the agent is silent since %s", s.Updated.Format(time.RFC3339))
	}
	if err != nil {
		return 0, diag.WithHint(fmt.Errorf("cannot reach the agent: %w", err), "start it: `systemctl start amiagent`; or converge once: `amiagent apply`")
	}
	// The pid is from a file: only what is named as the agent gets a signal.
	if p := h.Process(s.PID); !strings.HasPrefix(p.Name, "amiagent") {
		return 0, fmt.Errorf("cannot reach the agent: pid %d is not it any more", s.PID)
	}
	if err := syscall.Kill(s.PID, sig); err != nil {
		return 0, fmt.Errorf("cannot reach the agent: %w", err)
	}
	return s.PID, nil
}

func (a *app) reloadCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Have the running agent read its layers again and converge",
		RunE: func(*cobra.Command, []string) error {
			pid, err := a.signalAgent(syscall.SIGHUP)
			if err == nil && !a.json() {
				fmt.Fprintf(a.stdout, "pid %d converges again; see `amiagent status`\n", pid)
			}
			return err
		},
	}
}

func (a *app) drainCommand() *cobra.Command {
	var shutdown, undo bool
	c := &cobra.Command{
		Use:   "drain",
		Short: "Take this instance out of service: load balancers are told 503",
		Long: "Take this instance out of service: load balancers are told 503, until the next boot or `amiagent drain --undo`.\n" +
			"Restarting or upgrading the agent does not bring it back.",
	}
	c.Flags().BoolVar(&undo, "undo", false, "bring it back into service, as far as its probes hold")
	c.Flags().BoolVar(&shutdown, "shutdown", false, "drain only if the system is shutting down")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if shutdown {
			h, err := a.host()
			if err != nil {
				return err
			}
			sd, err := h.Systemd(c.Context())
			if err != nil {
				return err
			}
			state, err := sd.SystemState(c.Context())
			if err != nil || state != "stopping" {
				return err
			}
		}
		sig := syscall.SIGUSR1
		if undo {
			sig = syscall.SIGUSR2
		}
		if _, err := a.signalAgent(sig); err != nil {
			return err
		}
		return a.awaitDrain(c.Context(), !undo)
	}
	return c
}

// drainPatience is how long the agent may take to say that it drains: a shutdown
// waits for it, and an agent that still proves what it put off does not listen yet.
const drainPatience = 3 * time.Second

// awaitDrain returns once load balancers are told: at shutdown, the services
// stop as soon as this command has ended.
func (a *app) awaitDrain(ctx context.Context, drains bool) error {
	h, err := a.host()
	if err != nil {
		return err
	}
	for end := time.Now().Add(drainPatience); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
		s, err := report.LoadStatus(h, report.StatusPath)
		if err != nil {
			return err
		}
		if (s.State == report.Draining) == drains {
			return nil
		}
	}
	return fmt.Errorf("the agent has not answered within %s", drainPatience)
}

func (a *app) healthCommand() *cobra.Command {
	var address string
	c := &cobra.Command{
		Use:   "health",
		Short: "Answer load balancers from the status file (started by systemd, unprivileged)",
	}
	c.Flags().StringVar(&address, "address", "", "listen on `host:port` instead of what agent.yaml says")
	c.RunE = func(c *cobra.Command, _ []string) error {
		h, err := a.host()
		if err != nil {
			return err
		}
		if address == "" {
			// A faulty agent.yaml must not silence the one who tells that the launch has failed.
			cfg, err := config.Read(h)
			if err != nil {
				a.complain(err)
				cfg = config.Default()
			}
			address = cfg.Health.Address + ":" + strconv.Itoa(cfg.Health.Port)
		}
		inherited, err := health.Inherited(a.getenv, os.Getpid())
		if err != nil {
			return err
		}
		return health.Serve(c.Context(), health.Options{Host: h, Address: address, Inherit: inherited})
	}
	return c
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		RunE: func(*cobra.Command, []string) error {
			if a.json() {
				return printJSON(a.stdout, map[string]any{"format": 1, "version": a.version})
			}
			_, err := fmt.Fprintln(a.stdout, "amiagent "+a.version)
			return err
		},
	}
}
