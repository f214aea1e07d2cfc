package awsconf

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"golang.org/x/net/http/httpproxy"
)

// maxRedirects is the limit of net/http's own policy.
const maxRedirects = 10

// transport is the one connection pool.
func transport(o Options) (*http.Transport, error) {
	roots, err := certificates(o.Env("AWS_CA_BUNDLE"))
	if err != nil {
		return nil, err
	}
	both := func(upper, lower string) string { return first(o.Env, upper, lower) }
	proxies := httpproxy.Config{
		HTTPProxy:  both("HTTP_PROXY", "http_proxy"),
		HTTPSProxy: both("HTTPS_PROXY", "https_proxy"),
		NoProxy:    both("NO_PROXY", "no_proxy"),
	}
	proxyFor := proxies.ProxyFunc()
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	return &http.Transport{
		Proxy: func(r *http.Request) (*url.URL, error) { return proxyFor(r.URL) },
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return stallConn{c, o.Stall}, nil
		},
		TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: 10 * time.Second,
		// Bodies are hashed as they come.
		DisableCompression: true,
		ForceAttemptHTTP2:  true,
		// Ranges of one object come over connections of their own.
		MaxIdleConnsPerHost:   16,
		IdleConnTimeout:       30 * time.Second,
		ExpectContinueTimeout: time.Second,
	}, nil
}

// certificates are the system's roots and those of the bundle, so that a
// private endpoint and a public one can be used side by side.
func certificates(bundle string) (*x509.CertPool, error) {
	if bundle == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(bundle)
	if err != nil {
		return nil, fmt.Errorf("cannot read AWS_CA_BUNDLE: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("cannot read AWS_CA_BUNDLE: %s holds no certificate in PEM form", bundle)
	}
	return pool, nil
}

// stallConn fails a read that waits longer than limit for its next byte, and
// so every attempt has a timeout of its own, however long its body is.
type stallConn struct {
	net.Conn
	limit time.Duration
}

func (c stallConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.limit)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// redirect follows 307 and 308 only, as the SDK's own client does: S3 answers
// a wrong region with 301, which is an error to be read. A session token does
// not follow to another host.
func redirect(r *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("stopped after %d redirects", maxRedirects)
	}
	if code := r.Response.StatusCode; code != http.StatusTemporaryRedirect && code != http.StatusPermanentRedirect {
		return http.ErrUseLastResponse
	}
	if last := via[len(via)-1]; last.URL.Host != r.URL.Host {
		r.Header.Del("X-Amz-Security-Token")
	}
	return nil
}
