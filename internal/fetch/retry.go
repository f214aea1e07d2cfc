package fetch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// transient marks an error that another try may cure.
type transient struct {
	err   error
	after time.Duration
}

func (t *transient) Error() string { return t.err.Error() }
func (t *transient) Unwrap() error { return t.err }

// Transient marks an error that another try may cure, not before after has
// passed (0: as the policy likes). A nil error stays nil.
func Transient(err error, after time.Duration) error {
	if err == nil {
		return nil
	}
	return &transient{err, after}
}

// IsTransient tells whether an error was marked by Transient.
func IsTransient(err error) bool {
	var t *transient
	return errors.As(err, &t)
}

// Policy says how long to try. The zero Policy has the defaults.
type Policy struct {
	Base  time.Duration // the first wait is at most this; default 200 ms
	Cap   time.Duration // no wait is longer; default 20 s
	Total time.Duration // all tries and waits of one object together; default 5 min
	// DeniedUntil: until then ErrDenied is transient too. The credentials and the
	// policies of a new instance take some seconds to be known everywhere.
	DeniedUntil time.Time
	// OnRetry, if set, is told before each wait. It is called concurrently.
	OnRetry func(name string, err error, wait time.Duration)
}

func (p Policy) orDefault() Policy {
	if p.Base == 0 {
		p.Base = 200 * time.Millisecond
	}
	if p.Cap == 0 {
		p.Cap = 20 * time.Second
	}
	if p.Total == 0 {
		p.Total = 5 * time.Minute
	}
	return p
}

func (p Policy) again(err error) bool {
	return IsTransient(err) || errors.Is(err, ErrDenied) && time.Now().Before(p.DeniedUntil)
}

// errTotal ends the context of the last try.
var errTotal = errors.New("the time for trying is over")

// retry tries until success, a final error or the end of the total time. Waits
// are random between nothing and a bound that doubles (full jitter), so that a
// fleet that was refused together does not come back together.
// https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
func (p Policy) retry(ctx context.Context, name string, try func(context.Context) error) error {
	parent := ctx
	begin := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, p.Total, errTotal)
	defer cancel()
	var last error
	for bound, n := p.Base, 1; ; bound, n = min(2*bound, p.Cap), n+1 {
		err := try(ctx)
		switch {
		case err == nil:
			return nil
		case parent.Err() != nil:
			return context.Cause(parent)
		case ctx.Err() == nil:
			if last = err; !p.again(err) {
				return err
			}
		case last == nil:
			last = err
		}
		wait := rand.N(bound) + 1
		var t *transient
		if errors.As(err, &t) {
			wait = max(wait, min(t.after, p.Cap))
		}
		if deadline, _ := ctx.Deadline(); time.Until(deadline) < wait {
			return fmt.Errorf("%w (gave up after %d tries in %s)", last, n, time.Since(begin).Round(time.Millisecond))
		}
		if p.OnRetry != nil {
			p.OnRetry(name, err, wait)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}
