package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/amiagent/amiagent/internal/channel"
	"github.com/amiagent/amiagent/internal/config"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/fetch"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/layers"
	"github.com/amiagent/amiagent/internal/lock"
	"github.com/amiagent/amiagent/internal/render"
	"github.com/amiagent/amiagent/internal/report"
)

const (
	// choiceFile keeps which lock this instance launched with.
	choiceFile = StateDir + "/channel.json"
	// locksDir keeps the bytes of that lock.
	locksDir = StateDir + "/locks"
	// advanceFile asks the next convergence to read the channel again.
	advanceFile = StateDir + "/channel-advance"

	choiceFormat = 1
)

// choice is which lock an instance launched with. From the launch on it keeps
// that lock, whatever becomes of the channel, until it is told to advance.
type choice struct {
	Format   int            `json:"format"`
	Instance string         `json:"instance"`
	Channel  report.Channel `json:"channel"`
	Address  string         `json:"address"` // of the lock
	// Proved tells that a launch with this lock has succeeded. It is then this
	// instance's lock for good, and a failure later is no verdict on it.
	Proved bool `json:"proved,omitempty"`
	// Stable is the channel's stable lock and its address, when the choice is
	// the candidate and its failure may be answered with the stable one.
	Stable        string `json:"stable,omitempty"`
	StableAddress string `json:"stable_address,omitempty"`
}

// Followed is the channel that this machine's lock is from; nil when it has not
// launched by a channel.
func Followed(h *host.Host) (*report.Channel, error) {
	c, err := readChoice(h)
	if err != nil || c == nil {
		return nil, err
	}
	return &c.Channel, nil
}

// Advance asks the next convergence to read the channel again, and to launch
// with what it says then. Without it an instance keeps the lock it launched with.
func Advance(ctx context.Context, h *host.Host) error {
	if err := h.MkdirAll(StateDir); err != nil {
		return fmt.Errorf("cannot ask for an advance: %w", err)
	}
	if err := h.WriteFile(ctx, host.File{Path: advanceFile, Data: strings.NewReader(""), Mode: 0o600, UID: host.Keep, GID: host.Keep}); err != nil {
		return fmt.Errorf("cannot ask for an advance: %w", err)
	}
	return nil
}

// ReadChannel reads a channel as an instance would, wherever it lies.
func (a *Agent) ReadChannel(ctx context.Context, address string) (*channel.Channel, error) {
	l := a.newLaunch("channel")
	l.dry = true
	if err := l.identify(ctx); err != nil {
		return nil, err
	}
	l.store = l.openStore()
	return l.readChannel(ctx, address)
}

// chooseLock gives the lock that the channel has for this instance: the one it
// launched with before, else the one that the channel says now.
func (l *launch) chooseLock(ctx context.Context) (layers.Document, error) {
	kept, err := readChoice(l.host)
	if err != nil {
		l.rec.Note(err.Error())
	}
	if kept != nil && kept.Instance != l.facts.Instance() {
		kept = nil // another instance's, copied with its disk
	}
	c := kept
	if kept == nil || l.host.Exists(advanceFile) {
		if c, err = l.choose(ctx, kept); err != nil {
			if kept == nil || l.state() != report.Launching || ctx.Err() != nil {
				return layers.Document{}, err
			}
			// A boot must not fail for an advance that can wait.
			l.rec.Note(fmt.Sprintf("cannot advance, this instance stays with the lock it has: %v", err))
			c = kept
		}
	} else if address, err := l.channelAddress(); err == nil && fetch.Redact(address) != kept.Channel.Source {
		l.rec.Note(fmt.Sprintf("the channel is now %s, this instance keeps its lock from %s; `amiagent channel advance` follows", fetch.Redact(address), kept.Channel.Source))
	}
	c.Channel.Kept = c == kept
	l.choice = c
	shown := l.rec.Channel(c.Channel)
	l.rec.Note(describe(*shown))
	l.update(func(s *report.Status) { s.Channel = shown })
	doc, err := l.lockOf(ctx, c)
	if err == nil && !l.dry {
		err = l.keepChoice(ctx, c, doc)
	}
	return doc, err
}

// describe is the choice in a sentence.
func describe(c report.Channel) string {
	s := fmt.Sprintf("the lock is %s, the %s of the channel %s at revision %d: %s", c.Lock, c.Role, c.Name, c.Revision, c.Why)
	if c.Kept {
		s += "; chosen " + c.Chosen.UTC().Format(time.RFC3339)
	}
	if f := c.Failed; f != nil {
		s += fmt.Sprintf("; the launch %s with the candidate %s failed: %s", f.Report, f.Lock, f.Error)
	}
	return s
}

func (l *launch) channelAddress() (string, error) {
	s, _, err := render.New(l.facts, l.opt.Env).String(l.cfg.Channel, diag.Pos{File: config.Path})
	if err != nil {
		return "", diag.WithHint(fmt.Errorf("cannot tell the channel's address from %s: %w", l.cfg.Channel, err), "%s", diag.Hint(err))
	}
	return s, nil
}

// choose asks the channel.
func (l *launch) choose(ctx context.Context, kept *choice) (*choice, error) {
	address, err := l.channelAddress()
	if err != nil {
		return nil, err
	}
	patience := ctx
	if kept != nil { // there is a lock to do with
		var cancel context.CancelFunc
		patience, cancel = context.WithTimeoutCause(ctx, l.cfg.Patience, fmt.Errorf("no answer in %s", l.cfg.Patience))
		defer cancel()
	}
	ch, err := l.readChannel(patience, address)
	if err != nil {
		return nil, err
	}
	shown := fetch.Redact(address)
	if kept != nil && kept.Channel.Source == shown && kept.Channel.Name == ch.Name && ch.Revision < kept.Channel.Revision {
		// An old file with a good signature is still an old file.
		return nil, diag.WithHint(fmt.Errorf("%w: the channel %s is at revision %d, this instance has seen %d", channel.ErrRefused, shown, ch.Revision, kept.Channel.Revision),
			"to go back, promote the older lock: each change counts the revision up")
	}
	at := ch.Choose(l.facts.Instance(), time.Now())
	c := &choice{
		Format: choiceFormat, Instance: l.facts.Instance(),
		Channel: report.Channel{
			Source: shown, Name: ch.Name, Revision: ch.Revision, Role: string(at.Role), Lock: at.Lock,
			Wave: at.Wave, Share: at.Share, Why: at.Why, Chosen: time.Now().UTC().Truncate(time.Second),
		},
	}
	if c.Address, err = l.lockAddress(ch, address, at.Lock); err != nil {
		return nil, err
	}
	onFailure := ch.OnCandidateFailure
	if l.cfg.OnCandidateFailure != "" {
		onFailure = l.cfg.OnCandidateFailure
	}
	if at.Role == channel.OnTrial && onFailure == channel.FallBack {
		c.Stable = ch.Stable
		if c.StableAddress, err = l.lockAddress(ch, address, ch.Stable); err != nil {
			return nil, err
		}
	}
	c.Proved = kept != nil && kept.Proved && kept.Channel.Lock == c.Channel.Lock
	return c, nil
}

func (l *launch) lockAddress(ch *channel.Channel, from, digest string) (string, error) {
	s, _, err := render.New(l.facts, l.opt.Env).String(ch.LockAddress(from, digest), diag.Pos{File: fetch.Redact(from)})
	if err != nil {
		return "", diag.WithHint(fmt.Errorf("cannot tell the lock's address from locks: of the channel: %w", err), "%s", diag.Hint(err))
	}
	return s, nil
}

// readChannel reads a channel; where this machine trusts keys, only a signed one.
// The signature covers the locks too, which the channel names by digest.
func (l *launch) readChannel(ctx context.Context, address string) (*channel.Channel, error) {
	doc, err := l.signedDocument(ctx, "channel", address)
	if err != nil {
		return nil, err
	}
	return channel.Parse(doc.File, doc.Data)
}

// lockOf is the lock of a choice: the bytes that were kept, else those at its
// address. Other bytes than the channel names are refused.
func (l *launch) lockOf(ctx context.Context, c *choice) (layers.Document, error) {
	doc := layers.Document{Source: fetch.Redact(c.Address), File: fetch.Redact(c.Address), Lock: true}
	doc.Origin = doc.Source
	var err error
	if doc.Data, err = l.host.ReadLimited(lockPath(c.Channel.Lock), lock.MaxBytes); err == nil && doc.Digest() == c.Channel.Lock {
		doc.Kept = true
		return doc, nil
	}
	doc.Data, doc.Origin, err = l.document(ctx, c.Address, lock.MaxBytes)
	if err == nil && doc.Digest() != c.Channel.Lock {
		err = diag.WithHint(fmt.Errorf("%w: got %s, the channel %s names %s", fetch.ErrDigest, doc.Digest(), c.Channel.Name, c.Channel.Lock),
			"a lock is not changed where it lies: write a new one, and promote that")
	}
	if err != nil {
		return doc, diag.WithHint(fmt.Errorf("cannot read the %s lock %s: %w", c.Channel.Role, doc.Source, err), "%s", diag.Hint(err))
	}
	return doc, nil
}

func lockPath(digest string) string {
	return locksDir + "/" + strings.Replace(digest, ":", "-", 1) + ".lock"
}

// keepChoice remembers the choice and its lock, the lock first: a choice that is
// kept can be followed without the world outside.
func (l *launch) keepChoice(ctx context.Context, c *choice, doc layers.Document) error {
	if !doc.Kept {
		if err := l.host.MkdirAll(locksDir); err != nil {
			return fmt.Errorf("cannot keep the lock: %w", err)
		}
		f := host.File{Path: lockPath(c.Channel.Lock), Data: bytes.NewReader(doc.Data), Mode: 0o600, UID: host.Keep, GID: host.Keep}
		if err := l.host.WriteFile(ctx, f); err != nil {
			return fmt.Errorf("cannot keep the lock: %w", err)
		}
	}
	if err := l.writeChoice(ctx, c); err != nil {
		return err
	}
	if !c.Channel.Kept {
		if err := l.advanced(); err != nil {
			return err
		}
	}
	entries, err := l.host.ReadDir(locksDir)
	if err != nil {
		return nil // they are only in the way
	}
	for _, e := range entries {
		if name := locksDir + "/" + e.Name(); name != lockPath(c.Channel.Lock) {
			_ = l.host.Remove(name)
		}
	}
	return nil
}

// advanced notes that nobody has to read the channel again.
func (l *launch) advanced() error {
	if err := l.host.Remove(advanceFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot note that the advance is done: %w", err)
	}
	return nil
}

// writeChoice writes nothing when nothing has changed.
func (l *launch) writeChoice(ctx context.Context, c *choice) error {
	kept := *c
	kept.Channel.Kept = false
	b, err := json.MarshalIndent(kept, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot keep the choice of the lock: %w", err)
	}
	b = append(b, '\n')
	if old, err := l.host.ReadFile(choiceFile); err == nil && bytes.Equal(old, b) {
		return nil
	}
	if err := l.host.WriteFile(ctx, host.File{Path: choiceFile, Data: bytes.NewReader(b), Mode: 0o600, UID: host.Keep, GID: host.Keep}); err != nil {
		return fmt.Errorf("cannot keep the choice of the lock: %w", err)
	}
	return nil
}

// readChoice is nil when there is none.
func readChoice(h *host.Host) (*choice, error) {
	b, err := h.ReadLimited(choiceFile, 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var c choice
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err == nil && c.Format != choiceFormat {
		err = fmt.Errorf("format %d is not known", c.Format)
	}
	if err == nil && !channel.ValidDigest(c.Channel.Lock) {
		err = fmt.Errorf("%q is no digest of a lock", c.Channel.Lock)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read which lock was chosen before: %w", err)
	}
	return &c, nil
}

// follow tells in the status what an agent that was restarted goes on with.
func (a *Agent) follow(known *facts.Facts) {
	if c, err := readChoice(a.host); err == nil && c != nil && a.cfg.Channel != "" && c.Instance == known.Instance() {
		c.Channel.Kept = true
		a.update(func(s *report.Status) { s.Channel = &c.Channel })
	}
}
