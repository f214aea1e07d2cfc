// Package agent is one boot of one machine, start to finish: the phases of a
// launch in reading order, and the life after READY. It is the only wiring of
// the packages below it, and the API for those who embed the agent.
//
//	identify   what is this machine            identify.go
//	resolve    what should it be               resolve.go
//	fetch      everything on disk, verified    fetch.go
//	converge   check, apply, check             launch.go
//	prove      probes                          launch.go
//	watch      the life after READY            watch.go
package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/amiagent/amiagent/internal/awsconf"
	"github.com/amiagent/amiagent/internal/config"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/identify"
	"github.com/amiagent/amiagent/internal/imds"
	"github.com/amiagent/amiagent/internal/layers"
	"github.com/amiagent/amiagent/internal/report"
	"github.com/amiagent/amiagent/internal/sink"
	"github.com/amiagent/amiagent/internal/stamps"
	"github.com/amiagent/amiagent/internal/step"
	"github.com/amiagent/amiagent/internal/step/kinds"
)

// StateDir holds all that the agent keeps, inside the root.
const StateDir = "/var/lib/amiagent"

// ReportsDir holds the reports of the last launches, inside the root.
const ReportsDir = StateDir + "/reports"

const (
	storeDir   = StateDir + "/store"
	stampsDir  = StateDir + "/stamps"
	journalDir = StateDir + "/journal"
)

// Errors that callers tell apart, beside those of the packages below.
var (
	// ErrFailed is a launch whose report says why.
	ErrFailed = errors.New("the launch failed")
	// ErrDeadline is a launch that took too long.
	ErrDeadline = errors.New("the deadline has passed")
	// ErrBusy is a second convergence at once.
	ErrBusy = errors.New("another convergence is under way")
	// ErrReboot is a launch that goes on after a reboot.
	ErrReboot = errors.New("the machine has to reboot first")
	// ErrDisabled is an agent that was told to do nothing.
	ErrDisabled = errors.New("disabled")
)

// Options are what an Agent needs from outside. The zero Options serve the running machine.
type Options struct {
	Root    string // "" is "/"
	Host    host.Options
	Version string
	Command string                      // for the report: run, apply, reload, bake
	Env     func(string) (string, bool) // the environment; nil knows none
	// Config overrides /etc/amiagent/agent.yaml.
	Config *config.Config
	// Documents are used instead of the configured layers.
	Documents []layers.Document
	// Lock is used instead of the configured lock.
	Lock *layers.Document
	// Facts are added to what identify finds, and win over it.
	Facts map[string]string
	// FactsFile names captured facts, outside the root, that stand in for identify.
	FactsFile string
	Kinds     []step.Kind // nil: all
	Log       *zap.Logger // nil: none
	Sinks     []sink.Sink
	// Watcher sees a launch as it goes, for a terminal. May be nil.
	Watcher Watcher
	// Redact cleans what is printed and kept of secrets; nil: a fresh one.
	Redact *report.Redactor
	// OwnProcess says that the process has no other purpose than this agent. Then
	// Run tunes it: garbage collection, processors in use, pages of the program.
	OwnProcess bool
}

// Watcher sees a launch as it goes. Its methods may be called concurrently and must return soon.
type Watcher interface {
	Phase(p report.Phase)
	Plan(total int)
	Fetch(name string, done, total int64)
	Begin(step string)
	Line(step, line string)
	End(s report.Step)
}

// Agent provisions one machine. Its methods are not for concurrent use, except Reload and Drain.
type Agent struct {
	opt    Options
	host   *host.Host
	cfg    config.Config
	log    *zap.Logger
	kinds  []step.Kind
	stamps step.Stamps
	redact *report.Redactor
	status *report.Publisher // the daemon's; nil in the foreground

	imds *imds.Client
	aws  struct {
		once sync.Once
		cfg  awsconf.Config
		err  error
	}

	processors int // in use during a launch; 0: not known yet

	reload chan struct{}
	drain  chan string
	undo   chan struct{} // of a drain
	one    sync.Mutex    // a convergence of this process
}

// New opens a machine and reads its configuration. It changes nothing and opens no connection.
func New(opt Options) (*Agent, error) {
	if opt.Env == nil {
		opt.Env = func(string) (string, bool) { return "", false }
	}
	if opt.Log == nil {
		opt.Log = zap.NewNop()
	}
	if opt.Redact == nil {
		opt.Redact = &report.Redactor{}
	}
	h, err := host.New(opt.Root, opt.Host)
	if err != nil {
		return nil, err
	}
	a := &Agent{opt: opt, host: h, log: opt.Log, redact: opt.Redact, kinds: opt.Kinds,
		reload: make(chan struct{}, 1), drain: make(chan string, 1), undo: make(chan struct{}, 1)}
	if a.kinds == nil {
		a.kinds = kinds.All()
	}
	if opt.Config != nil {
		a.cfg = *opt.Config
	} else if a.cfg, err = config.Read(h); err != nil {
		return nil, err
	}
	if a.imds, err = identify.Metadata(h, a.getenv); err != nil {
		return nil, err
	}
	return a, nil
}

// Host is the machine.
func (a *Agent) Host() *host.Host { return a.host }

// Config is the configuration in force.
func (a *Agent) Config() config.Config { return a.cfg }

// Close lets go of connections.
func (a *Agent) Close() { a.host.CloseSystemd() }

func (a *Agent) getenv(name string) string {
	v, _ := a.opt.Env(name)
	return v
}

// sections are the names that may stand in a manifest.
func (a *Agent) sections() []string {
	names := []string{probeSection}
	for _, k := range a.kinds {
		names = append(names, k.Name)
	}
	return names
}

// open makes the folders of the agent's state and opens the stamps.
func (a *Agent) open() error {
	if err := a.host.MkdirAll(StateDir); err != nil {
		return diag.WithHint(fmt.Errorf("cannot keep state: %w", err), "the agent needs to write %s", StateDir)
	}
	st, err := stamps.Open(a.host, stampsDir)
	if err != nil {
		return host.Explain(fmt.Errorf("cannot keep state: %w", err))
	}
	a.stamps = st
	return nil
}

// SetSinks says where news of the launch goes. It must come before Run.
func (a *Agent) SetSinks(sinks ...sink.Sink) { a.opt.Sinks = sinks }

// Alive tells whether the status that others read is still being renewed, for a watchdog.
func (a *Agent) Alive() bool {
	s, err := report.LoadStatus(a.host, report.StatusPath)
	return err == nil && s.Fresh(time.Now())
}

// Facts is what the machine is, without its user data.
func (a *Agent) Facts(ctx context.Context) (*facts.Facts, error) {
	l := a.newLaunch("facts")
	l.dry = true
	err := l.identify(ctx)
	return l.facts, err
}

// Reload asks the running agent to converge again. It does not wait.
func (a *Agent) Reload() {
	select {
	case a.reload <- struct{}{}:
	default: // one is waiting already
	}
}

// Drain takes the instance out of service, with the reason. It does not wait.
func (a *Agent) Drain(reason string) {
	select {
	case a.drain <- reason:
	default:
	}
}

// Undrain brings a draining instance back into service, as far as its probes
// hold. It does not wait; on an instance that does not drain it does nothing.
func (a *Agent) Undrain() {
	select {
	case a.undo <- struct{}{}:
	default:
	}
}

// awsConfig is the AWS configuration, loaded on first use: a machine that uses
// no AWS service reads no setting and opens no connection.
func (a *Agent) awsConfig(ctx context.Context, region string) (awsconf.Config, error) {
	a.aws.once.Do(func() {
		a.aws.cfg, a.aws.err = awsconf.Load(ctx, awsconf.Options{Env: a.getenv, IMDS: a.imds, Region: region})
		if errors.Is(a.aws.err, awsconf.ErrNoRegion) && a.aws.cfg.HTTPClient != nil {
			a.aws.err = nil // whoever names its own region may use it; the others fail with the SDK's word
		}
	})
	return a.aws.cfg, a.aws.err
}
