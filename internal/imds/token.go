package imds

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The token's path must be /latest/: on a dated path the service answers 403.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
const (
	tokenPath   = "/latest/api/token"
	ttlHeader   = "X-aws-ec2-metadata-token-ttl-seconds"
	tokenHeader = "X-aws-ec2-metadata-token"
	// maxTTL is the longest life the service gives a token: six hours.
	maxTTL = 21600 * time.Second
	// stagger is the head start of one endpoint before the next is asked too.
	stagger = 200 * time.Millisecond
)

type token struct {
	value   string
	base    string    // the endpoint that gave it
	renewal time.Time // by the wall clock, so that sleep counts
}

// getToken gives the present token, or gets one. Concurrent callers wait for
// one request; each stops waiting when its own ctx ends.
func (c *Client) getToken(ctx context.Context) (token, error) {
	if t, ok := c.current(); ok {
		return t, nil
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return token{}, fmt.Errorf("%w: %w", ErrNoAnswer, ctx.Err())
	}
	if t, ok := c.current(); ok {
		return t, nil
	}
	t, err := c.race(ctx)
	if err != nil {
		return token{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.token = t
	return t, nil
}

func (c *Client) current() (token, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.token, c.token.value != "" && time.Now().Round(0).Before(c.token.renewal)
}

// drop forgets a token that the service no longer takes, unless it was replaced meanwhile.
func (c *Client) drop(t token) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.token == t {
		c.token = token{}
	}
}

type answer struct {
	token token
	err   error
}

// race asks the endpoints in order, each with a head start, and takes the first token.
func (c *Client) race(ctx context.Context) (token, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		answers = make(chan answer, len(c.opt.Endpoints))
		rest    = c.opt.Endpoints
		running int
		telling error // the error of the endpoint that came furthest
	)
	for {
		if len(rest) > 0 {
			base := strings.TrimRight(rest[0], "/")
			rest, running = rest[1:], running+1
			go func() {
				t, err := c.ask(ctx, base)
				answers <- answer{t, err}
			}()
		}
		var next <-chan time.Time
		if len(rest) > 0 {
			next = time.After(stagger)
		}
		select {
		case <-next:
			continue
		case a := <-answers:
			if a.err == nil {
				return a.token, nil
			}
			if telling == nil || errors.Is(telling, ErrUnreachable) && !errors.Is(a.err, ErrUnreachable) {
				telling = a.err
			}
			if running--; running == 0 && len(rest) == 0 {
				return token{}, telling
			}
		}
	}
}

// ask gets a token from one endpoint.
func (c *Client) ask(ctx context.Context, base string) (token, error) {
	asked := time.Now().Round(0)
	status, header, body, err := c.do(ctx, http.MethodPut, base+tokenPath, ttlHeader, strconv.Itoa(int(maxTTL/time.Second)))
	if err != nil {
		return token{}, fmt.Errorf("no token from %s: %w", base, err)
	}
	switch {
	case status == http.StatusOK && plausible(body):
		ttl := maxTTL
		if s, err := strconv.Atoi(header.Get(ttlHeader)); err == nil && s > 0 {
			ttl = min(ttl, time.Duration(s)*time.Second)
		}
		return token{string(body), base, asked.Add(ttl - ttl/10)}, nil
	case status == http.StatusOK:
		return token{}, fmt.Errorf("%w: %s answered with something else", ErrNoV2, base)
	case status == http.StatusForbidden:
		return token{}, fmt.Errorf("no token from %s: %w: %w", base, ErrForbidden, &StatusError{Code: status})
	case status == http.StatusNotFound, status == http.StatusMethodNotAllowed, status == http.StatusNotImplemented:
		return token{}, fmt.Errorf("%w: %s %w", ErrNoV2, base, &StatusError{Code: status})
	}
	return token{}, fmt.Errorf("no token from %s: %w", base, newStatusError(status, header))
}

// plausible tells whether an answer may be a token: one short line of visible
// ASCII. A page of a captive portal is none, and would break the header.
func plausible(b []byte) bool {
	if len(b) == 0 || len(b) > 4096 {
		return false
	}
	for _, c := range b {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}
