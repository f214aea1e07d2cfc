// Package web is the HTTP of the sources: one guarded client for addresses
// that come from a document.
//
// An address, or a redirect that a server answers, must not make the agent
// speak to the machine's own metadata service or loopback services, carry
// credentials to another host, or drop from https to http. A server that
// stalls, cuts a body short or answers a redirect without end must not hold a
// launch. All of that is seen to here, once. Every error is classed: marked by
// fetch.Transient where another try may help, final otherwise.
package web

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/fetch"
)

// Options are the settings of the machine's network. The zero Options serve most.
type Options struct {
	Proxy     httpproxy.Config // as HTTP_PROXY, HTTPS_PROXY and NO_PROXY say
	CAs       []byte           // PEM certificates trusted beside the system's, as AWS_CA_BUNDLE holds
	Loopback  bool             // addresses of this machine itself are allowed
	Redirects int              // how many to follow; 0: a redirect is the answer
	UserAgent string           // default "amiagent"
	Header    time.Duration    // the longest wait for an answer's header; default 30 s
	Idle      time.Duration    // the longest silence within a body; default 60 s
}

// Client sends requests. It is safe for concurrent use.
type Client struct {
	http *http.Client
	opt  Options
}

// ErrForbidden is an address that no document may make the agent speak to.
var ErrForbidden = errors.New("the address is off limits")

// errRedirect is a redirect that is not followed.
var errRedirect = errors.New("refused to follow a redirect")

// New makes a client. Its error says what is wrong with the settings.
func New(o Options) (*Client, error) {
	if o.UserAgent == "" {
		o.UserAgent = "amiagent"
	}
	if o.Header == 0 {
		o.Header = 30 * time.Second
	}
	if o.Idle == 0 {
		o.Idle = time.Minute
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if len(o.CAs) > 0 && !pool.AppendCertsFromPEM(o.CAs) {
		return nil, diag.WithHint(errors.New("the CA bundle holds no certificate"), "it must be PEM")
	}
	c := &Client{opt: o}
	proxy := o.Proxy.ProxyFunc()
	plain := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	guarded := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second, Control: c.control}
	proxies := proxyHosts(o.Proxy)
	c.http = &http.Client{
		Transport: &http.Transport{
			Proxy: func(r *http.Request) (*url.URL, error) { return proxy(r.URL) },
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				if proxies[addr] { // the operator's own choice, often on loopback
					return plain.DialContext(ctx, network, addr)
				}
				return guarded.DialContext(ctx, network, addr)
			},
			TLSClientConfig:       &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:   10 * time.Second,
			ResponseHeaderTimeout: o.Header,
			DisableCompression:    true, // bytes are hashed as they are stored
			MaxIdleConnsPerHost:   8,
			IdleConnTimeout:       30 * time.Second,
		},
		CheckRedirect: c.redirect,
	}
	return c, nil
}

// proxyHosts are the host:port that the transport dials for the proxies.
func proxyHosts(p httpproxy.Config) map[string]bool {
	hosts := map[string]bool{}
	for _, s := range []string{p.HTTPProxy, p.HTTPSProxy} {
		u, err := url.Parse(s)
		if err != nil || u.Host == "" {
			if u, err = url.Parse("http://" + s); err != nil || s == "" {
				continue
			}
		}
		port := u.Port()
		if port == "" {
			port = map[string]string{"https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
		}
		if port == "" {
			port = "80"
		}
		hosts[net.JoinHostPort(u.Hostname(), port)] = true
	}
	return hosts
}

// control sees each address after its name was resolved, so no DNS answer can pass it by.
func (c *Client) control(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	return c.allowed(ap.Addr())
}

var (
	// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
	ec2Local = netip.MustParsePrefix("fd00:ec2::/32")
	nat64    = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052
)

func (c *Client) allowed(ip netip.Addr) error {
	ip = ip.Unmap().WithZone("")
	if nat64.Contains(ip) {
		b := ip.As16()
		ip = netip.AddrFrom4([4]byte(b[12:]))
	}
	switch {
	case ip.IsLoopback() && c.opt.Loopback:
		return nil
	case ip.IsLoopback(), ip.IsUnspecified(), ip.IsLinkLocalUnicast(), ip.IsMulticast(), ec2Local.Contains(ip):
		return fmt.Errorf("%w: %s belongs to this machine or its metadata service", ErrForbidden, ip)
	}
	return nil
}

// host refuses what is off limits by its text; for a proxy, that is all that can be known.
func (c *Client) host(u *url.URL) error {
	name := u.Hostname()
	if name == "localhost" {
		name = "127.0.0.1"
	}
	if ip, err := netip.ParseAddr(name); err == nil {
		return c.allowed(ip)
	}
	return nil
}

func (c *Client) redirect(req *http.Request, via []*http.Request) error {
	last := via[len(via)-1]
	switch {
	case c.opt.Redirects == 0:
		return http.ErrUseLastResponse
	case len(via) > c.opt.Redirects:
		return fmt.Errorf("%w: it is the %dth", errRedirect, len(via))
	case last.URL.Scheme == "https" && req.URL.Scheme != "https":
		return fmt.Errorf("%w from https to %s", errRedirect, req.URL.Scheme)
	case req.URL.Scheme != "https" && req.URL.Scheme != "http":
		return fmt.Errorf("%w to %s", errRedirect, req.URL.Scheme)
	}
	if err := c.host(req.URL); err != nil {
		return fmt.Errorf("%w: %w", errRedirect, err)
	}
	req.Header.Del("Referer") // it would carry the query, which may be a signature
	if req.URL.Host != last.URL.Host || req.URL.Scheme != last.URL.Scheme {
		keep := http.Header{"User-Agent": req.Header["User-Agent"], "Accept-Encoding": req.Header["Accept-Encoding"]}
		clear(req.Header)
		for k, v := range keep {
			req.Header[k] = v
		}
	}
	return nil
}

// Do sends one request and gives the answer, whatever its status. The body
// fails when it stalls, and must be closed.
func (c *Client) Do(req *http.Request) (*http.Response, error) {
	if err := c.host(req.URL); err != nil {
		return nil, err
	}
	parent := req.Context()
	ctx, cancel := context.WithCancelCause(parent)
	req = req.WithContext(ctx)
	req.Header.Set("User-Agent", c.opt.UserAgent)
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := c.http.Do(req)
	if err != nil {
		cancel(nil)
		if resp != nil && resp.Body != nil {
			resp.Body.Close()
		}
		return nil, classed(parent, err)
	}
	b := &body{rc: resp.Body, ctx: ctx, parent: parent, cancel: cancel, idle: c.opt.Idle}
	b.timer = time.AfterFunc(b.idle, func() { cancel(fmt.Errorf("the server sent nothing for %s", b.idle)) })
	b.timer.Stop()
	resp.Body = b
	return resp, nil
}

// classed tells what another try may help against, and drops the address that
// net/http puts into its errors: its query may be a signature.
func classed(parent context.Context, err error) error {
	var ue *url.Error
	for errors.As(err, &ue) {
		err = ue.Err
	}
	if parent.Err() != nil {
		return context.Cause(parent)
	}
	var cert *tls.CertificateVerificationError
	switch {
	case errors.Is(err, ErrForbidden), errors.Is(err, errRedirect):
		return err
	case errors.As(err, &cert):
		return diag.WithHint(err, "a private CA is given by AWS_CA_BUNDLE; a certificate that has expired may mean that the clock is wrong")
	case errors.Is(err, io.EOF):
		err = errors.New("the server closed the connection without an answer")
	}
	return fetch.Transient(err, 0)
}

// body reads on only while something comes.
type body struct {
	rc          io.ReadCloser
	ctx, parent context.Context
	cancel      context.CancelCauseFunc
	timer       *time.Timer
	idle        time.Duration
}

func (b *body) Read(p []byte) (int, error) {
	b.timer.Reset(b.idle) // only while we wait for the server: a slow disk is not its silence
	n, err := b.rc.Read(p)
	b.timer.Stop()
	switch {
	case err == nil, errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return n, err
	case b.parent.Err() != nil:
		return n, context.Cause(b.parent)
	case b.ctx.Err() != nil:
		return n, fetch.Transient(context.Cause(b.ctx), 0)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return n, fetch.Transient(fetch.ErrTruncated, 0)
	}
	return n, fetch.Transient(err, 0)
}

func (b *body) Close() error {
	b.timer.Stop()
	b.cancel(nil)
	return b.rc.Close()
}

// Cuttable tells an answer whose end looks like a broken connection (RFC 9112 §6.3, case 8).
func Cuttable(r *http.Response) bool {
	return r.ContentLength < 0 && len(r.TransferEncoding) == 0 && r.ProtoMajor == 1
}

// Status is the error of an answer that brings no bytes; detail is what the
// server said, "" for nothing. 408, 425, 429 and most of 5xx are transient,
// with the server's Retry-After; the rest is final.
func Status(r *http.Response, detail string) error {
	text := "the server answered " + strconv.Itoa(r.StatusCode)
	if t := http.StatusText(r.StatusCode); t != "" {
		text += " " + t
	}
	if detail != "" {
		text += " (" + detail + ")"
	}
	switch s := r.StatusCode; {
	case s == 404 || s == 410:
		return fmt.Errorf("%w: %s", fetch.ErrAbsent, text)
	case s == 401 || s == 403 || s == 407:
		return fmt.Errorf("%w: %s", fetch.ErrDenied, text)
	case s == 408 || s == 425 || s == 429 || s >= 500 && s != 501 && s != 505:
		return fetch.Transient(errors.New(text), retryAfter(r.Header.Get("Retry-After")))
	}
	return errors.New(text)
}

// retryAfter reads seconds or a date (RFC 9110 §10.2.3).
func retryAfter(s string) time.Duration {
	if n, err := strconv.Atoi(s); err == nil {
		return time.Duration(max(n, 0)) * time.Second
	}
	if at, err := http.ParseTime(s); err == nil {
		return max(time.Until(at), 0)
	}
	return 0
}
