// Package imds reads the EC2 instance metadata service, version 2 only.
//
// Version 2 wants a session token, got by PUT, on every read; version 1, which
// does not, is never used, whatever happens: the client makes no read without
// a token. One token and at most two kept-alive connections serve all reads,
// since the service limits packets and connections per instance.
//
// Callers tell four things apart: a value that is not there (ErrAbsent, final),
// a machine without the service (ErrUnreachable, ErrOff), a service that is
// there but refuses (ErrForbidden, ErrNoV2), and one that is broken for now,
// which is retried until a deadline.
//
// The SDK's client is not wrapped: it asks for tokens of five minutes, cannot
// tell a machine outside EC2 from a late network, retries no further than three
// times, and reads bodies without a limit (feature/ec2/imds v1.20.1).
package imds

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The service's link-local addresses. IPv6 exists on Nitro instances where it was enabled.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
const (
	IPv4 = "http://169.254.169.254"
	IPv6 = "http://[fd00:ec2::254]"
)

// maxBody bounds every answer. The largest real one is user data, 16 KB before base64.
const maxBody = 1 << 20

// Options are how patient a Client is, and whom it asks. The zero Options ask
// the link-local addresses and serve a machine that may not be on EC2.
type Options struct {
	// Endpoints are base URLs of the same service. The first that gives a
	// token is used; a further one is asked when the ones before it failed or
	// took longer than 200 ms. Default: IPv4, then IPv6.
	Endpoints []string
	// Explicit tells that a person named the endpoint, so that its absence is a fault.
	Explicit bool
	// Off says why the service must not be asked; "" asks it.
	Off string
	// OnEC2 tells that the firmware says EC2: a silent service is then waited
	// for until the deadline, as the network may be late.
	OnEC2 bool
	// Instance and Region complete the commands in hints, where they are known beforehand.
	Instance, Region string

	Attempt  time.Duration // one request; default 2 s
	Deadline time.Duration // one read with its retries; default 60 s
	Silence  time.Duration // until a machine whose service never answered counts as outside EC2; default 1 s
	Settle   time.Duration // how long Await takes 404 for "not yet"; default 10 s
}

// FromEnv reads the standard settings AWS_EC2_METADATA_SERVICE_ENDPOINT,
// AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE and AWS_EC2_METADATA_DISABLED.
// https://docs.aws.amazon.com/sdkref/latest/guide/feature-imds-client.html
func FromEnv(env func(string) string) (Options, error) {
	var o Options
	if strings.EqualFold(env("AWS_EC2_METADATA_DISABLED"), "true") {
		o.Off = "AWS_EC2_METADATA_DISABLED is true"
	}
	if e := env("AWS_EC2_METADATA_SERVICE_ENDPOINT"); e != "" {
		u, err := url.Parse(e)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return o, fmt.Errorf("cannot use AWS_EC2_METADATA_SERVICE_ENDPOINT %q: not an address such as %s", e, IPv4)
		}
		o.Endpoints, o.Explicit = []string{e}, true
		return o, nil
	}
	switch mode := env("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE"); {
	case mode == "":
	case strings.EqualFold(mode, "ipv4"):
		o.Endpoints = []string{IPv4}
	case strings.EqualFold(mode, "ipv6"):
		o.Endpoints = []string{IPv6}
	default:
		return o, fmt.Errorf("cannot use AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE %q: known are IPv4 and IPv6", mode)
	}
	return o, nil
}

// Client reads instance metadata. It is safe for concurrent use and opens no
// connection before the first read.
type Client struct {
	opt      Options
	http     *http.Client
	turn     chan struct{} // held by the one who asks for a token
	answered atomic.Bool   // the service has answered at least once

	mu      sync.Mutex
	token   token
	settled map[string]bool // paths whose 404 has outlasted Settle
}

// New makes a Client; missing options get their defaults.
func New(o Options) *Client {
	if len(o.Endpoints) == 0 {
		o.Endpoints = []string{IPv4, IPv6}
	}
	for d, def := range map[*time.Duration]time.Duration{
		&o.Attempt: 2 * time.Second, &o.Deadline: time.Minute, &o.Silence: time.Second, &o.Settle: 10 * time.Second,
	} {
		if *d <= 0 {
			*d = def
		}
	}
	return &Client{
		opt:     o,
		turn:    make(chan struct{}, 1),
		settled: map[string]bool{},
		http: &http.Client{
			// No proxy, ever: the address is link-local, and the answers hold credentials.
			Transport: &http.Transport{
				DialContext:         (&net.Dialer{Timeout: o.Attempt}).DialContext,
				MaxConnsPerHost:     2,
				MaxIdleConnsPerHost: 2,
				IdleConnTimeout:     30 * time.Second,
				DisableCompression:  true,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Options are the options in force, defaults included.
func (c *Client) Options() Options { return c.opt }

// Get reads one value by its path below /latest/, as "meta-data/hostname".
// Transient failures (5xx, 408, 429, timeouts, connection errors) are retried
// with full jitter until the deadline or ctx ends. 404 is ErrAbsent, at once.
// Parts of the path that are not fixed must be escaped with url.PathEscape.
func (c *Client) Get(ctx context.Context, path string) ([]byte, error) {
	return c.read(ctx, path, false)
}

// Await is Get for values that appear some seconds after boot, as credentials
// do: 404 is retried for Options.Settle before it is ErrAbsent. Once it has
// outlasted that, later calls for the same path get ErrAbsent at once.
func (c *Client) Await(ctx context.Context, path string) ([]byte, error) {
	return c.read(ctx, path, true)
}

// List reads a value that is a list, one item a line.
func (c *Client) List(ctx context.Context, path string) ([]string, error) {
	b, err := c.Get(ctx, path)
	if err != nil {
		return nil, err
	}
	var items []string
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line != "" {
			items = append(items, line)
		}
	}
	return items, nil
}

// UserData reads the instance's user data as it was given at launch: it may be
// compressed, and it may hold secrets. ErrAbsent when there is none.
func (c *Client) UserData(ctx context.Context) ([]byte, error) { return c.Get(ctx, "user-data") }

// Document is the instance identity document, which tells most in one read.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-identity-documents.html
type Document struct {
	Account      string `json:"accountId"`
	Architecture string `json:"architecture"` // x86_64, arm64, i386
	Zone         string `json:"availabilityZone"`
	ImageID      string `json:"imageId"`
	InstanceID   string `json:"instanceId"`
	InstanceType string `json:"instanceType"`
	PrivateIP    string `json:"privateIp"`
	Region       string `json:"region"`
	Pending      string `json:"pendingTime"` // of the launch, RFC 3339
}

// Document reads the identity document.
func (c *Client) Document(ctx context.Context) (Document, error) {
	const path = "dynamic/instance-identity/document"
	var d Document
	b, err := c.Get(ctx, path)
	if err != nil {
		return d, err
	}
	if err := json.Unmarshal(b, &d); err != nil {
		return d, fmt.Errorf("cannot read instance metadata %s: %w", path, err)
	}
	if d.InstanceID == "" || d.Region == "" {
		return d, fmt.Errorf("cannot read instance metadata %s: it names no instance and region", path)
	}
	return d, nil
}

// Backoff is drawn between nothing and a bound that doubles, which spreads a
// fleet that failed together: "full jitter".
const (
	firstPause = 50 * time.Millisecond
	mostPause  = 2 * time.Second
)

func pause(try int) time.Duration {
	return rand.N(min(firstPause<<min(try, 10), mostPause) + 1)
}

func (c *Client) read(ctx context.Context, path string, settling bool) ([]byte, error) {
	if c.opt.Off != "" {
		return nil, fmt.Errorf("cannot read instance metadata %s: %w: %s", path, ErrOff, c.opt.Off)
	}
	begun := time.Now()
	parent := ctx
	ctx, cancel := context.WithTimeout(ctx, c.opt.Deadline)
	defer cancel()
	refreshed := false
	var last error
	for try := 0; ; try++ {
		body, err := c.attempt(ctx, path)
		if err != nil && last != nil && ctx.Err() != nil {
			err = last // the attempt was cut short, and tells nothing
		}
		last = err
		switch {
		case err == nil:
			return body, nil
		case parent.Err() != nil:
			return nil, fmt.Errorf("cannot read instance metadata %s: %w", path, joinCause(context.Cause(parent), err))
		case errors.Is(err, errStale) && !refreshed:
			refreshed = true
			continue
		case errors.Is(err, ErrAbsent) && settling && c.unsettled(path):
			if time.Since(begun) >= c.opt.Settle {
				c.settle(path)
				return nil, fmt.Errorf("cannot read instance metadata %s: %w", path, err)
			}
		case !transient(err) || c.outside(err, begun):
			return nil, c.explain(path, err)
		}
		refreshed = false
		select {
		case <-ctx.Done():
			if parent.Err() != nil {
				err = joinCause(context.Cause(parent), err)
			}
			return nil, c.explain(path, fmt.Errorf("gave up after %s: %w", time.Since(begun).Round(time.Millisecond), err))
		case <-time.After(max(pause(try), retryAfter(err))):
		}
	}
}

// joinCause keeps why the caller stopped in front of what was seen last.
func joinCause(cause, last error) error {
	if errors.Is(last, cause) {
		return last
	}
	return fmt.Errorf("%w (last: %w)", cause, last)
}

// outside tells that waiting is of no use: nothing has ever answered, and
// nothing says that this is EC2.
func (c *Client) outside(err error, begun time.Time) bool {
	silent := errors.Is(err, ErrUnreachable) || errors.Is(err, ErrNoAnswer)
	return silent && !c.answered.Load() && !c.opt.OnEC2 && time.Since(begun) >= c.opt.Silence
}

func (c *Client) unsettled(path string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.settled[path]
}

func (c *Client) settle(path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settled[path] = true
}

// attempt is one read: a token if there is none, then the value.
func (c *Client) attempt(ctx context.Context, path string) ([]byte, error) {
	t, err := c.getToken(ctx)
	if err != nil {
		return nil, err
	}
	status, header, body, err := c.do(ctx, http.MethodGet, t.base+"/latest/"+path, tokenHeader, t.value)
	if err != nil {
		return nil, err
	}
	switch status {
	case http.StatusOK:
		return body, nil
	case http.StatusNotFound:
		return nil, ErrAbsent
	case http.StatusUnauthorized:
		c.drop(t)
		return nil, fmt.Errorf("%w: %w", errStale, &StatusError{Code: status})
	case http.StatusForbidden:
		return nil, fmt.Errorf("%w: %w", ErrForbidden, &StatusError{Code: status})
	}
	return nil, newStatusError(status, header)
}

// do makes one request, bounded in time and size. Its errors are connection errors.
func (c *Client) do(ctx context.Context, method, addr, key, value string) (status int, h http.Header, body []byte, err error) {
	limit := c.opt.Attempt
	if !c.answered.Load() && !c.opt.OnEC2 {
		limit = min(limit, c.opt.Silence)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	})
	req, err := http.NewRequestWithContext(ctx, method, addr, nil)
	if err != nil {
		return 0, nil, nil, err
	}
	req.Header.Set(key, value)
	res, err := c.http.Do(req)
	if err != nil {
		return 0, nil, nil, silence(err, connected.Load(), limit)
	}
	defer res.Body.Close()
	c.answered.Store(true)
	body, err = io.ReadAll(io.LimitReader(res.Body, maxBody+1))
	if err != nil {
		return 0, nil, nil, silence(err, true, limit)
	}
	if len(body) > maxBody {
		return 0, nil, nil, fmt.Errorf("%w: more than %d bytes", errTooLarge, maxBody)
	}
	return res.StatusCode, res.Header, body, nil
}

// silence says how a request failed that got no whole answer.
func silence(err error, connected bool, limit time.Duration) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err // the method and address are told by the caller
	}
	timeout := errors.Is(err, context.DeadlineExceeded)
	switch {
	case !connected && timeout:
		return fmt.Errorf("%w: no connection within %s", ErrUnreachable, limit)
	case !connected:
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	case timeout:
		return fmt.Errorf("%w within %s", ErrNoAnswer, limit)
	}
	return fmt.Errorf("%w: %w", errBroken, err)
}

func retryAfter(err error) time.Duration {
	var se *StatusError
	if errors.As(err, &se) {
		return se.RetryAfter
	}
	return 0
}

func newStatusError(status int, h http.Header) error {
	e := &StatusError{Code: status}
	if s, err := strconv.Atoi(h.Get("Retry-After")); err == nil && s > 0 {
		e.RetryAfter = time.Duration(min(s, 30)) * time.Second
	}
	return e
}
