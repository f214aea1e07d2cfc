package probe

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/amiagent/amiagent/internal/report"
)

// firstPause is the pause after the first try before READY. It doubles up to
// `every`: a server that is up after 80 ms must not cost a launch a second.
const firstPause = 20 * time.Millisecond

// Prove asks all probes in parallel until each has held or its patience has
// ended, and gives their results in order. tell, if not nil, is called with the
// results so far whenever one changes, never twice at once. The error joins one
// sentence for each that did not hold; when ctx ends it is its cause.
func Prove(ctx context.Context, env Env, probes []Probe, tell func([]report.Probe)) ([]report.Probe, error) {
	b := newBoard(probes, tell)
	errs := make([]error, len(probes))
	var wg sync.WaitGroup
	for i, p := range probes {
		wg.Go(func() {
			start := time.Now()
			set := func(err error) { b.set(i, err, time.Since(start)) }
			err := p.prove(ctx, env, set)
			set(err)
			if err != nil {
				errs[i] = fmt.Errorf("probe %s: %w", p.Name, err)
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return b.probes, context.Cause(ctx)
	}
	return b.probes, errors.Join(errs...)
}

// prove asks until the answer has been good for p.For, or p.Within is over, and
// tells of every bad answer.
func (p Probe) prove(ctx context.Context, env Env, tell func(error)) error {
	patience, cancel := context.WithTimeoutCause(ctx, p.Within, noAnswer(p.Within))
	defer cancel()
	pause := min(firstPause, p.Every)
	var since time.Time // of the first good answer in a row
	var last error
	for {
		asked := time.Now()
		err := p.Try(patience, env)
		wait := pause
		switch {
		case err == nil:
			if since.IsZero() {
				since = asked
			}
			left := p.For - time.Since(since)
			if left <= 0 {
				return nil
			}
			wait = min(p.Every, left)
		case patience.Err() != nil && (last != nil || !since.IsZero()):
			// Cut off by the end of patience: the answer before says more.
		default:
			since, last = time.Time{}, err
			tell(err)
			pause = min(2*pause, p.Every)
		}
		select {
		case <-time.After(wait):
			continue
		case <-patience.Done():
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !since.IsZero():
			return fmt.Errorf("held for %s of %s when %s were over", time.Since(since).Round(time.Millisecond), p.For, p.Within)
		case errors.Is(last, noAnswer(p.Within)):
			return last // says it already
		}
		return fmt.Errorf("%w, for %s", last, p.Within)
	}
}

// Watch asks all probes for ever, each at its own pace, and calls changed with
// all results when one of them turns, after Fall bad answers in a row or Rise
// good ones, or fails for another reason than before. changed is never called twice at once. First are the results so
// far, of Prove, by name; a probe without one counts as good. It returns when ctx ends.
func Watch(ctx context.Context, env Env, probes []Probe, first []report.Probe, changed func([]report.Probe)) {
	b := newBoard(probes, changed)
	for i := range b.probes {
		b.probes[i].OK = true
		for _, f := range first {
			if f.Name == b.probes[i].Name {
				b.probes[i] = f
			}
		}
	}
	var wg sync.WaitGroup
	for i, p := range probes {
		wg.Go(func() { p.watch(ctx, env, b.probes[i].OK, func(err error, took time.Duration) { b.set(i, err, took) }) })
	}
	wg.Wait()
}

func (p Probe) watch(ctx context.Context, env Env, ok bool, tell func(error, time.Duration)) {
	ticker := time.NewTicker(p.Every)
	defer ticker.Stop()
	against := 0 // answers in a row that contradict ok
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		asked := time.Now()
		err := p.Try(ctx, env)
		if ctx.Err() != nil {
			return
		}
		took := time.Since(asked)
		if (err == nil) == ok {
			against = 0
			if !ok {
				tell(err, took) // perhaps for another reason
			}
			continue
		}
		against++
		if !ok && against >= p.Rise || ok && against >= p.Fall {
			ok, against = !ok, 0
			tell(err, took)
		}
	}
}

// board holds the results of several probes.
type board struct {
	mu     sync.Mutex
	probes []report.Probe
	tell   func([]report.Probe)
}

func newBoard(probes []Probe, tell func([]report.Probe)) *board {
	b := &board{tell: tell}
	for _, p := range probes {
		b.probes = append(b.probes, report.Probe{Name: p.Name, Kind: p.Kind, Since: time.Now()})
	}
	return b
}

// set records an answer and tells of it if it is news.
func (b *board) set(i int, err error, took time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	text := ""
	if err != nil {
		text = err.Error()
	}
	p := &b.probes[i]
	if p.OK != (err == nil) {
		p.OK, p.Since = err == nil, time.Now()
	} else if p.Error == text {
		return
	}
	p.Error, p.Took = text, took
	if b.tell != nil {
		b.tell(slices.Clone(b.probes))
	}
}
