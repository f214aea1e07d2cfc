package web_test

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/fetch"
	"github.com/amiagent/amiagent/internal/fetch/web"
)

func client(t *testing.T, o web.Options) *web.Client {
	t.Helper()
	c, err := web.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func get(t *testing.T, c *web.Client, url string) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Basic secret")
	req.Header.Set("X-Token", "secret")
	resp, err := c.Do(req)
	if err == nil {
		t.Cleanup(func() { resp.Body.Close() })
	}
	return resp, err
}

// The machine's metadata service and its own services are out of reach of any
// document, however they are written.
func TestForbiddenAddresses(t *testing.T) {
	c := client(t, web.Options{})
	for _, host := range []string{
		"169.254.169.254", "169.254.170.2", "[fd00:ec2::254]", "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "[fe80::1]",
		"127.0.0.1", "127.1.2.3", "[::1]", "localhost", "0.0.0.0", "[::]", "224.0.0.1",
	} {
		begin := time.Now()
		_, err := get(t, c, "http://"+host+":1/latest/meta-data/")
		if !errors.Is(err, web.ErrForbidden) || fetch.IsTransient(err) || time.Since(begin) > time.Second {
			t.Errorf("%s: %v", host, err)
		}
	}
	// Loopback allowed is not link-local allowed.
	c = client(t, web.Options{Loopback: true})
	if _, err := get(t, c, "http://169.254.169.254/"); !errors.Is(err, web.ErrForbidden) {
		t.Errorf("got %v", err)
	}
}

// A name that resolves to a forbidden address is caught when it is dialled.
func TestForbiddenByName(t *testing.T) {
	c := client(t, web.Options{})
	if _, err := get(t, c, "http://LOCALHOST:1/"); !errors.Is(err, web.ErrForbidden) {
		t.Errorf("got %v", err)
	}
}

func TestRedirects(t *testing.T) {
	seen := map[string]http.Header{}
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen["other"] = r.Header.Clone()
		if r.URL.Path == "/back" {
			http.Redirect(w, r, "http://"+r.Host+"/end", http.StatusFound)
		}
	}))
	defer other.Close()
	hops := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen[r.URL.Path] = r.Header.Clone()
		switch r.URL.Path {
		case "/same":
			http.Redirect(w, r, "/end", http.StatusFound)
		case "/cross":
			http.Redirect(w, r, other.URL+"/x", http.StatusFound)
		case "/imds":
			http.Redirect(w, r, "http://169.254.169.254/latest/meta-data/iam/", http.StatusFound)
		case "/ftp":
			http.Redirect(w, r, "file:///etc/shadow", http.StatusFound)
		case "/loop":
			hops++
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/xtg":
			w.Header().Set("X-Terraform-Get", other.URL+"/evil")
		}
	}))
	defer srv.Close()
	c := client(t, web.Options{Loopback: true, Redirects: 3})

	if _, err := get(t, c, srv.URL+"/same?sig=1"); err != nil {
		t.Fatal(err)
	}
	if h := seen["/end"]; h.Get("X-Token") != "secret" || h.Get("Referer") != "" {
		t.Errorf("to the same host went %v", h)
	}
	if _, err := get(t, c, srv.URL+"/cross?sig=1"); err != nil {
		t.Fatal(err)
	}
	if h := seen["other"]; h.Get("Authorization")+h.Get("X-Token")+h.Get("Referer") != "" || h.Get("Accept-Encoding") != "identity" || h.Get("User-Agent") != "amiagent" {
		t.Errorf("to another host went %v", h)
	}
	if _, err := get(t, c, srv.URL+"/imds"); !errors.Is(err, web.ErrForbidden) || fetch.IsTransient(err) {
		t.Errorf("metadata service by redirect: %v", err)
	}
	if _, err := get(t, c, srv.URL+"/ftp"); err == nil || fetch.IsTransient(err) {
		t.Errorf("another scheme by redirect: %v", err)
	}
	if _, err := get(t, c, srv.URL+"/loop"); err == nil || fetch.IsTransient(err) || hops != 4 {
		t.Errorf("a loop: %d hops, %v", hops, err)
	}
	// go-getter follows this header by default (CVE-2022-30321).
	delete(seen, "other")
	if resp, err := get(t, c, srv.URL+"/xtg"); err != nil || resp.StatusCode != 200 || seen["other"] != nil {
		t.Errorf("X-Terraform-Get: %v %v", resp, err)
	}
	// Without redirects, the redirect is the answer.
	c = client(t, web.Options{Loopback: true})
	if resp, err := get(t, c, srv.URL+"/same"); err != nil || resp.StatusCode != 302 {
		t.Errorf("got %v %v", resp, err)
	}
}

func TestHTTPSIsNotLeft(t *testing.T) {
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("asked over http") }))
	defer plain.Close()
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, plain.URL, http.StatusFound)
	}))
	defer srv.Close()
	c := client(t, web.Options{Loopback: true, Redirects: 3, CAs: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})})
	_, err := get(t, c, srv.URL+"/?sig=secret")
	if want := "refused to follow a redirect from https to http"; err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

// go-getter's defect 4 let one insecure fetch switch verification off for all.
// Here there is no way to switch it off, and a private CA is named.
func TestGoGetterDefect4CertificatesAreVerified(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer srv.Close()
	srv.Config.ErrorLog = nil
	_, err := get(t, client(t, web.Options{Loopback: true}), srv.URL)
	if err == nil || fetch.IsTransient(err) || !strings.Contains(diag.Hint(err), "AWS_CA_BUNDLE") {
		t.Errorf("got %v, hint %q", err, diag.Hint(err))
	}
	if _, err := web.New(web.Options{CAs: []byte("no certificate")}); err == nil {
		t.Error("a CA bundle without certificates passed")
	}
}

// Proxies are used as the settings say, also on loopback; what must not be reached stays so through them.
func TestProxy(t *testing.T) {
	var asked string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.String()
		_, _ = io.WriteString(w, "through the proxy")
	}))
	defer proxy.Close()
	for _, address := range []string{proxy.URL, strings.TrimPrefix(proxy.URL, "http://")} {
		c := client(t, web.Options{Proxy: httpproxy.Config{HTTPProxy: address, NoProxy: "internal.example"}})
		resp, err := get(t, c, "http://example.test/x")
		if err != nil || asked != "http://example.test/x" {
			t.Fatalf("asked %q, %v", asked, err)
		}
		if b, _ := io.ReadAll(resp.Body); string(b) != "through the proxy" {
			t.Errorf("got %q", b)
		}
		asked = ""
		if _, err := get(t, c, "http://169.254.169.254/"); !errors.Is(err, web.ErrForbidden) || asked != "" {
			t.Errorf("the proxy was asked for %q: %v", asked, err)
		}
	}
}

func TestPatienceEnds(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			_, _ = io.WriteString(w, "begin")
			w.(http.Flusher).Flush()
		}
		<-r.Context().Done()
	}))
	defer srv.Close()
	c := client(t, web.Options{Loopback: true, Header: 50 * time.Millisecond, Idle: 50 * time.Millisecond})
	if _, err := get(t, c, srv.URL+"/header"); !fetch.IsTransient(err) {
		t.Errorf("no header: %v", err)
	}
	resp, err := get(t, c, srv.URL+"/body")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(resp.Body); !fetch.IsTransient(err) || err.Error() != "the server sent nothing for 50ms" {
		t.Errorf("a silent body: %v", err)
	}
	// A reader that takes its time is not the server's silence.
	steady := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "all of it") }))
	defer steady.Close()
	if resp, err = get(t, c, steady.URL); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "all of it" {
		t.Errorf("a slow reader: %q %v", b, err)
	}
	// The caller's own end is told as such, and is not worth another try.
	why := errors.New("the deadline of the launch")
	ctx, cancel := context.WithCancelCause(t.Context())
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+"/body", nil)
	c = client(t, web.Options{Loopback: true})
	if resp, err = c.Do(req); err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	time.AfterFunc(20*time.Millisecond, func() { cancel(why) })
	if _, err := io.ReadAll(resp.Body); !errors.Is(err, why) || fetch.IsTransient(err) {
		t.Errorf("got %v", err)
	}
}

func TestErrorsTellNoAddress(t *testing.T) {
	c := client(t, web.Options{Loopback: true})
	_, err := get(t, c, "http://127.0.0.1:1/x?X-Amz-Signature=secret")
	if !fetch.IsTransient(err) || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
}

func TestStatus(t *testing.T) {
	at := time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)
	for _, c := range []struct {
		status    int
		after     string
		is        error
		transient bool
	}{
		{404, "", fetch.ErrAbsent, false}, {403, "", fetch.ErrDenied, false}, {407, "", fetch.ErrDenied, false},
		{429, "3", nil, true}, {503, at, nil, true}, {503, "nonsense", nil, true}, {400, "", nil, false}, {501, "", nil, false}, {599, "", nil, true},
	} {
		err := web.Status(&http.Response{StatusCode: c.status, Header: http.Header{"Retry-After": {c.after}}}, "detail")
		if c.is != nil && !errors.Is(err, c.is) || fetch.IsTransient(err) != c.transient || !strings.Contains(err.Error(), "(detail)") {
			t.Errorf("%d: %v", c.status, err)
		}
	}
}
