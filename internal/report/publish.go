package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
)

// ReaderGroup may read the status file: the health responder runs in it.
const ReaderGroup = "amiagent-health"

const (
	// DefaultBeat is how often an idle agent renews its status. Three beats
	// without news count as its death.
	DefaultBeat = 5 * time.Second
	// updateGap is the least time between two writes of progress: people and
	// load balancers do not look more often.
	updateGap = 100 * time.Millisecond
	maxStatus = 1 << 20
)

// PublisherOptions are the parts of a Publisher that seldom differ. The zero options serve.
type PublisherOptions struct {
	Path   string        // default StatusPath
	Beat   time.Duration // default DefaultBeat
	Redact *Redactor
	// Failed takes the error of a write in the background, once for a series of them. May be nil.
	Failed func(error)
}

// Publisher keeps the status file current, also while nothing happens. The file
// is replaced in one rename, so that a reader never sees a part of it.
//
// It is for the members of ReaderGroup where the root has that group. Where it
// has not, it is world-readable when root writes it, and then holds no error
// texts; and for its owner alone when a plain user writes it.
type Publisher struct {
	host *host.Host
	opt  PublisherOptions
	mode fs.FileMode
	gid  int

	mu      sync.Mutex
	status  Status
	pending bool // changed since the last write
	failed  bool // the last write

	write sync.Mutex // of the file; taken before mu

	wake, stop chan struct{}
	close      sync.Once
	done       sync.WaitGroup
}

// Publish writes the first status and keeps it current until Close. State,
// Agent, Instance and the like come from first; Format, PID, Beat and the times are filled in.
func Publish(h *host.Host, first Status, opt PublisherOptions) (*Publisher, error) {
	if opt.Path == "" {
		opt.Path = StatusPath
	}
	if opt.Beat <= 0 {
		opt.Beat = DefaultBeat
	}
	p := &Publisher{host: h, opt: opt, mode: 0o600, gid: host.Keep,
		wake: make(chan struct{}, 1), stop: make(chan struct{})}
	if err := p.audience(); err != nil {
		return nil, fmt.Errorf("cannot publish status: %w", err)
	}
	first.Format, first.PID, first.Beat = StatusFormat, os.Getpid(), opt.Beat
	if first.Since.IsZero() {
		first.Since = time.Now()
	}
	p.status = first
	err := h.MkdirAll(path.Dir(opt.Path))
	if err == nil {
		err = p.Flush()
	}
	if err != nil {
		return nil, fmt.Errorf("cannot publish status: %w", err)
	}
	p.done.Go(p.keep)
	return p, nil
}

func (p *Publisher) audience() error {
	root := os.Geteuid() == 0
	g, err := p.host.LookupGroup(ReaderGroup)
	switch {
	case errors.Is(err, host.ErrNoGroup):
		if root {
			p.mode = 0o644
		}
	case err != nil:
		return err
	case root:
		p.mode, p.gid = 0o640, g.GID
	}
	return nil
}

// Update changes the status. A new State is in the file when Update returns;
// other changes follow within a tenth of a second, the last of several at once.
// change runs with the status locked: it must not call the Publisher.
func (p *Publisher) Update(change func(*Status)) {
	p.mu.Lock()
	before := p.status.State
	change(&p.status)
	turned := p.status.State != before
	if turned {
		p.status.Since = time.Now()
	}
	p.pending = true
	p.mu.Unlock()
	if turned {
		p.tell(p.Flush())
		return
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Status is the status as it stands, redacted.
func (p *Publisher) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.status
	clean := p.opt.Redact.Clean
	s.Reason, s.Hint = clean(s.Reason), clean(s.Hint)
	s.Probes, s.Notes = slices.Clone(s.Probes), slices.Clone(s.Notes)
	for i := range s.Probes {
		s.Probes[i].Error = clean(s.Probes[i].Error)
	}
	for i := range s.Notes {
		s.Notes[i] = clean(s.Notes[i])
	}
	return s
}

// Flush writes the status now.
func (p *Publisher) Flush() error {
	p.write.Lock()
	defer p.write.Unlock()
	p.mu.Lock()
	p.pending = false
	p.mu.Unlock()
	s := p.Status()
	s.Updated, s.Uptime = time.Now().UTC(), Uptime()
	if p.mode&0o004 != 0 {
		s = public(s)
	}
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return p.host.Replace(p.opt.Path, append(b, '\n'), p.mode, p.gid)
}

// public is a status without what may quote a program or a document.
func public(s Status) Status {
	s.Reason, s.Hint, s.Notes, s.Channel = "", "", nil, nil
	for i := range s.Probes {
		s.Probes[i].Error = ""
	}
	return s
}

// keep writes what has changed, and a sign of life with every beat.
func (p *Publisher) keep() {
	beat := time.NewTicker(p.opt.Beat)
	defer beat.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-beat.C:
			p.tell(p.Flush())
			continue
		case <-p.wake:
		}
		p.mu.Lock()
		pending := p.pending
		p.mu.Unlock()
		if !pending {
			continue
		}
		p.tell(p.Flush())
		select {
		case <-p.stop:
			return
		case <-time.After(updateGap):
		}
	}
}

// tell passes the first of a series of errors on.
func (p *Publisher) tell(err error) {
	p.mu.Lock()
	news := err != nil && !p.failed
	p.failed = err != nil
	p.mu.Unlock()
	if news && p.opt.Failed != nil {
		p.opt.Failed(fmt.Errorf("cannot publish status: %w", err))
	}
}

// Close writes the last status and stops. The file stays: its State says what
// came of the agent, its age that it is gone.
func (p *Publisher) Close() error {
	p.close.Do(func() { close(p.stop) })
	p.done.Wait()
	return p.Flush()
}

// ErrNoStatus is a machine whose agent has published nothing since the boot.
var ErrNoStatus = errors.New("no status yet")

// LoadStatus reads the published status; a missing file is ErrNoStatus.
func LoadStatus(h *host.Host, file string) (Status, error) {
	b, err := h.ReadLimited(file, maxStatus)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Status{}, ErrNoStatus
	case errors.Is(err, fs.ErrPermission):
		return Status{}, diag.WithHint(fmt.Errorf("cannot read status: %w", err), "run as root, or as a member of the group %s", ReaderGroup)
	case err != nil:
		return Status{}, fmt.Errorf("cannot read status: %w", err)
	}
	return ParseStatus(b)
}
