// Package sink is where news of a launch goes: each folder below this one is
// one place, such as systemd, the console, a load balancer's group.
//
// The agent tells every sink the same events in the same order and knows
// nothing of their formats. What a place makes of an event, and which it passes
// over, is its own affair.
package sink

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/amiagent/amiagent/internal/report"
)

// Kind is what an event tells.
type Kind string

const (
	Began    Kind = "began"    // a launch or a reload begins
	Progress Kind = "progress" // the status changed
	Ready    Kind = "ready"    // the launch ended well, or a probe holds again
	NotReady Kind = "not-ready"
	Failed   Kind = "failed"
	Reboot   Kind = "reboot" // the machine reboots and goes on
	Draining Kind = "draining"
	Stopping Kind = "stopping" // the agent leaves
)

// Event is one piece of news. Its texts are redacted.
type Event struct {
	Kind   Kind
	Reload bool // of a reload, not of the launch
	Status report.Status
	Report *report.Report // with Ready, Failed and Reboot of a launch or reload; read only
}

// Sink is one place.
type Sink interface {
	Name() string
	// Send delivers one event before ctx ends, or passes it over. It is not
	// called twice at once. Whoever must not lose news over an error retries by
	// itself and keeps an outbox: the caller only tells people of the error.
	// After a crash the agent may tell the same news again.
	Send(ctx context.Context, e Event) error
}

// sendTimeout bounds one sink's hold on the launch.
const sendTimeout = 10 * time.Second

// Tee tells several sinks of every event, all at once, so that a slow one
// delays no other.
type Tee struct {
	mu    sync.Mutex
	sinks []Sink
}

// NewTee joins sinks.
func NewTee(sinks ...Sink) *Tee { return &Tee{sinks: sinks} }

// Name is "tee".
func (t *Tee) Name() string { return "tee" }

// Send returns when every sink has returned, at the latest after ten seconds;
// its error is all of theirs, each with its sink's name.
func (t *Tee) Send(ctx context.Context, e Event) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	errs := make([]error, len(t.sinks))
	var wg sync.WaitGroup
	for i, s := range t.sinks {
		wg.Go(func() {
			if err := s.Send(ctx, e); err != nil {
				errs[i] = fmt.Errorf("cannot tell %s: %w", s.Name(), err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
