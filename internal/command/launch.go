package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/amiagent/amiagent/agent"
	"github.com/amiagent/amiagent/internal/config"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/layers"
	"github.com/amiagent/amiagent/internal/logging"
	"github.com/amiagent/amiagent/internal/manifest"
	"github.com/amiagent/amiagent/internal/report"
	"github.com/amiagent/amiagent/internal/sink"
	"github.com/amiagent/amiagent/internal/sink/console"
	"github.com/amiagent/amiagent/internal/sink/sdnotify"
	"github.com/amiagent/amiagent/internal/terminal"
)

// machine are the flags that say what is known of the machine.
type machine struct {
	facts     []string
	factsFile string
	lock      string
}

func (m *machine) flags(c *cobra.Command) {
	c.Flags().StringArrayVar(&m.facts, "fact", nil, "a fact as `name=value`; may be given several times")
	c.Flags().StringVar(&m.factsFile, "facts", "", "a `file` of facts that `amiagent facts --capture` wrote, instead of this machine's")
}

func (m *machine) lockFlag(c *cobra.Command) {
	c.Flags().StringVar(&m.lock, "lock", "", "hold everything by the lock in this `file`, instead of the one that agent.yaml names")
}

func (m *machine) parse() (map[string]string, error) {
	facts := map[string]string{}
	for _, f := range m.facts {
		name, value, ok := strings.Cut(f, "=")
		if !ok || name == "" {
			return nil, usage{fmt.Errorf("--fact %q is not name=value", f)}
		}
		facts[name] = value
	}
	return facts, nil
}

// documents reads the manifests named on the command line: files, or folders of them.
func documents(names []string) ([]layers.Document, error) {
	var docs []layers.Document
	for _, name := range names {
		files := []string{name}
		st, err := os.Stat(name)
		if err != nil {
			return nil, usage{fmt.Errorf("cannot read the manifest %s: %w", name, host.Cause(err))}
		}
		if st.IsDir() {
			files = nil
			for _, pattern := range []string{"*.yaml", "*.yml"} {
				found, _ := filepath.Glob(filepath.Join(name, pattern))
				files = append(files, found...)
			}
			slices.Sort(files)
		}
		for _, f := range files {
			b, err := readLimited(f, manifest.MaxBytes)
			if err != nil {
				return nil, usage{fmt.Errorf("cannot read the manifest %s: %w", f, host.Cause(err))}
			}
			docs = append(docs, layers.Document{Source: f, File: f, Data: b, Origin: f})
		}
	}
	if len(names) > 0 && len(docs) == 0 {
		return nil, usage{diag.WithHint(fmt.Errorf("%w: there is no .yaml or .yml file in %s", layers.ErrNone, strings.Join(names, ", ")),
			"name a file; without a name, the layers of %s are used", config.Path)}
	}
	return docs, nil
}

func readLimited(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit+1)) // one more than allowed, for the parser to refuse
}

func (a *app) agent(command string, m *machine, names []string, more func(*agent.Options)) (*agent.Agent, error) {
	docs, err := documents(names)
	if err != nil {
		return nil, err
	}
	facts, err := m.parse()
	if err != nil {
		return nil, err
	}
	opt := agent.Options{
		Root: a.root, Host: a.hostOptions(), Version: a.version, Command: command, Env: a.env,
		Documents: docs, Facts: facts, FactsFile: m.factsFile, Redact: a.redact,
	}
	if opt.Lock, err = heldBy(m.lock); err != nil {
		return nil, err
	}
	if more != nil {
		more(&opt)
	}
	return agent.New(opt)
}

func (a *app) applyCommand() *cobra.Command {
	var m machine
	c := &cobra.Command{
		Use:   "apply [MANIFEST...]",
		Short: "Converge once, in the foreground",
		Long:  "Converge this machine once and print how it went. Without MANIFEST, the layers of /etc/amiagent/agent.yaml are used.",
		Args:  cobra.ArbitraryArgs,
	}
	m.flags(c)
	m.lockFlag(c)
	c.RunE = func(c *cobra.Command, names []string) error {
		ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		view := terminal.New(a.stderr, a.redact.Clean)
		ag, err := a.agent("apply", &m, names, func(o *agent.Options) {
			o.Watcher = view
			if a.verbose {
				o.Log = logging.New(logging.Options{Out: a.stderr, Debug: true, Redact: a.redact.Clean})
			}
		})
		if err != nil {
			view.Close()
			return err
		}
		defer ag.Close()
		rep, err := ag.Apply(ctx)
		view.Close()
		if perr := a.printReport(rep); perr != nil {
			return perr
		}
		if errors.Is(err, agent.ErrReboot) {
			fmt.Fprintln(a.stderr, "amiagent: a step asks for a reboot; reboot, and apply again")
			return exit{ExitFailed}
		}
		return err
	}
	return c
}

func (a *app) printReport(rep report.Report) error {
	if a.json() {
		return report.JSON(a.stdout, rep)
	}
	return report.Text(a.stdout, rep, terminal.Width(a.stdout))
}

func (a *app) planCommand() *cobra.Command {
	var m machine
	c := &cobra.Command{
		Use:   "plan [MANIFEST...]",
		Short: "Show what apply would do, and change nothing",
		Long: "Show each step in order, and which of them this machine is not in line with. Exit code 3 says that there is drift.\n" +
			"With --facts the plan is for another machine, and nothing is looked at.",
		Args: cobra.ArbitraryArgs,
	}
	m.flags(c)
	m.lockFlag(c)
	c.RunE = func(c *cobra.Command, names []string) error {
		ag, err := a.agent("plan", &m, names, nil)
		if err != nil {
			return err
		}
		defer ag.Close()
		p, err := ag.Plan(c.Context())
		if err != nil {
			return err
		}
		if a.json() {
			err = printJSON(a.stdout, p)
		} else {
			err = p.Text(a.stdout)
		}
		if err == nil && p.Drift {
			return exit{ExitDrift}
		}
		return err
	}
	return c
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

func (a *app) validateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "validate MANIFEST...",
		Short: "Check manifests without a machine; every fault at its place",
		Long:  "Check manifests as far as that goes without facts: structure, fields, templates, order. Each fault is file:line:col: field: sentence.",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, names []string) error {
			ag, err := a.agent("validate", &machine{}, names, nil)
			if err != nil {
				return err
			}
			docs, err := documents(names)
			if err != nil {
				return err
			}
			err = ag.Validate(docs)
			if a.json() {
				return errors.Join(err, printJSON(a.stdout, verdict(err)))
			}
			if err == nil {
				fmt.Fprintf(a.stdout, "%d %s valid\n", len(docs), plural(len(docs), "manifest is", "manifests are"))
			}
			return err
		},
	}
}

// validation is what validate prints as JSON. Fields are added, never renamed.
type validation struct {
	Format   int            `json:"format"` // 1
	Valid    bool           `json:"valid"`
	Problems []diag.Problem `json:"problems"`
}

func verdict(err error) validation {
	v := validation{Format: 1, Valid: err == nil, Problems: []diag.Problem{}}
	var faults *diag.Error
	if errors.As(err, &faults) {
		v.Problems = faults.Problems
	}
	return v
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// runCommand is the daemon.
func (a *app) runCommand() *cobra.Command {
	var m machine
	c := &cobra.Command{
		Use:   "run",
		Short: "The daemon: launch, say ready, watch (started by systemd)",
		Long: "Provision this machine, say when it is ready, and watch it until stopped.\n" +
			"SIGHUP converges again, SIGUSR1 takes the instance out of service, SIGUSR2 brings it back, SIGTERM stops.",
	}
	m.flags(c)
	c.RunE = func(c *cobra.Command, _ []string) error { return a.run(c.Context(), &m) }
	return c
}

// patienceBeyond is how much longer than the launch's deadline systemd is asked to wait.
const patienceBeyond = time.Minute

func (a *app) run(ctx context.Context, m *machine) error {
	log := logging.New(logging.Options{
		Journal: logging.Connected(a.getenv("JOURNAL_STREAM"), os.Stderr),
		Out:     a.stdout, Debug: a.verbose, Redact: a.redact.Clean,
	})
	defer func() { _ = log.Sync() }()
	var sinks []sink.Sink
	var given agent.Options
	ag, err := a.agent("run", m, nil, func(o *agent.Options) {
		o.Log, o.OwnProcess = log, true
		given = *o
	})
	if err != nil {
		if h, herr := a.host(); herr == nil {
			given.Sinks = []sink.Sink{console.New(h, a.stderr)}
		}
		agent.FailEarly(ctx, given, err)
		return err
	}
	defer ag.Close()
	opt := sdnotify.FromEnv(a.getenv, os.Getpid())
	opt.Patience = ag.Config().Deadline + patienceBeyond
	opt.Alive = ag.Alive
	notify, err := sdnotify.Open(opt)
	if err != nil {
		return err
	}
	defer func() { _ = notify.Close() }()
	sinks = append(sinks, notify)
	if ag.Config().Console {
		sinks = append(sinks, console.New(ag.Host(), a.stderr))
	}
	ag.SetSinks(sinks...)
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	a.signals(ctx, ag)
	beating, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	go notify.Run(beating)
	err = ag.Run(ctx)
	if errors.Is(err, agent.ErrReboot) {
		return nil
	}
	if err != nil && !errors.Is(err, agent.ErrDisabled) {
		log.Error("the agent ends", zap.Int("exit", code(err)))
	}
	return err
}

// signals turns signals into what they ask for, until ctx ends.
func (a *app) signals(ctx context.Context, ag *agent.Agent) {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	go func() {
		defer signal.Stop(ch)
		for {
			select {
			case <-ctx.Done():
				return
			case s := <-ch:
				switch s {
				case syscall.SIGHUP:
					ag.Reload()
				case syscall.SIGUSR1:
					ag.Drain("asked to by `amiagent drain`")
				case syscall.SIGUSR2:
					ag.Undrain()
				}
			}
		}
	}()
}
