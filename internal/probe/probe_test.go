package probe_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/amiagent/amiagent/internal/decode"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/probe"
)

// parse decodes a manifest's `ready` section.
func parse(t *testing.T, text string) ([]probe.Probe, error) {
	t.Helper()
	var list diag.List
	root := decode.Parse("m.yaml", []byte(text), &list)
	if root == nil {
		t.Fatal(list.Err())
	}
	at := decode.At(&list, "m.yaml", root, "ready")
	keys, values := decode.Pairs(root, at)
	var probes []probe.Probe
	for i, k := range keys {
		probes = append(probes, probe.Decode(k.Value, values[i], at.Field(k.Value)))
	}
	return probes, list.Err()
}

func must(t *testing.T, text string) []probe.Probe {
	t.Helper()
	probes, err := parse(t, text)
	if err != nil {
		t.Fatalf("%s\n%v", text, err)
	}
	return probes
}

func env(t *testing.T) probe.Env {
	t.Helper()
	h, err := host.New(t.TempDir(), host.Options{Programs: host.Outside, Path: os.Getenv("PATH")})
	if err != nil {
		t.Fatal(err)
	}
	return probe.Env{Host: h}
}

// try asks the only probe of text once and gives the error's text, "" for good.
func try(t *testing.T, e probe.Env, text string) string {
	t.Helper()
	if err := must(t, text)[0].Try(t.Context(), e); err != nil {
		return err.Error()
	}
	return ""
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func TestDefaultsAndNames(t *testing.T) {
	probes := must(t, `
http: {url: "http://127.0.0.1/"}
app port: {type: tcp, address: ":80", within: 5m, every: 250ms, for: 3s, timeout: 1s, fall: 3, rise: 2}
`)
	want := probe.Timing{Within: time.Minute, Every: time.Second, Timeout: 5 * time.Second, Fall: 2, Rise: 1}
	if p := probes[0]; p.Name != "http" || p.Kind != "http" || p.Timing != want {
		t.Errorf("%+v", p)
	}
	want = probe.Timing{Type: "tcp", Within: 5 * time.Minute, Every: 250 * time.Millisecond, For: 3 * time.Second, Timeout: time.Second, Fall: 3, Rise: 2}
	if p := probes[1]; p.Name != "app port" || p.Kind != "tcp" || p.Timing != want {
		t.Errorf("%+v", p)
	}
}

func TestFaultsHavePlacesAndSentences(t *testing.T) {
	for text, want := range map[string]string{
		`web: {url: "http://h/"}`:                          `m.yaml:1:6: ready.web: "web" is no kind of probe, known are exec, file, http, tcp, unit; an entry of another name says its kind with type`,
		`web: {type: htpp}`:                                `m.yaml:1:13: ready.web.type: "htpp" is no kind of probe, known are exec, file, http, tcp, unit; an entry of another name says its kind with type`,
		`http: {}`:                                         `m.yaml:1:7: ready.http: needs url`,
		`http:`:                                            `m.yaml:1:6: ready.http: needs url`,
		`http: [1]`:                                        "m.yaml:1:7: ready.http: must be a mapping, is a list\nm.yaml:1:7: ready.http: needs url",
		`http: {url: "http://h/", withn: 1s}`:              `m.yaml:1:26: ready.http.withn: unknown key, did you mean "within"?`,
		`http: {url: "http://h/", within: 60}`:             `m.yaml:1:34: ready.http.within: must be a duration such as 30s or 5m, is "60"`,
		`http: {url: "h:80"}`:                              `m.yaml:1:13: ready.http.url: must be an http or https address, is "h:80"`,
		`http: {url: "ftp://h/"}`:                          `m.yaml:1:13: ready.http.url: must be an http or https address, is "ftp://h/"`,
		`http: {url: "http://h/", status: ok}`:             `m.yaml:1:34: ready.http.status: must be a status such as 200 or 2xx, is "ok"`,
		`http: {url: "http://h/", status: [200, 999, 2x]}`: `m.yaml:1:40: ready.http.status[1]: must be a status such as 200 or 2xx, is "999"` + "\n" + `m.yaml:1:45: ready.http.status[2]: must be a status such as 200 or 2xx, is "2x"`,
		`http: {url: "http://h/", headers: {"a b": c}}`:    `m.yaml:1:43: ready.http.headers.a b: is no header`,
		`http: {url: "http://h/", within: 5s, for: 5s}`:    `m.yaml:1:43: ready.http.for: must be shorter than within (5s), is 5s`,
		`http: {url: "http://h/", every: 0s, fall: 0, rise: -1, timeout: -1s}`: `m.yaml:1:33: ready.http.every: must be at least 10ms, is 0s
m.yaml:1:43: ready.http.fall: must be at least 1, is 0
m.yaml:1:52: ready.http.rise: must be at least 1, is -1
m.yaml:1:65: ready.http.timeout: must be at least 1ms, is -1s`,
		`tcp: {}`:                           `m.yaml:1:6: ready.tcp: needs address`,
		`tcp: {address: localhost}`:         `m.yaml:1:16: ready.tcp.address: must be host:port, is "localhost"`,
		`unit: {}`:                          `m.yaml:1:7: ready.unit: needs unit`,
		`unit: {unit: app, state: running}`: "m.yaml:1:14: ready.unit.unit: must be a unit's whole name, as app.service\nm.yaml:1:26: ready.unit.state: must be one of active, reloading, inactive, failed, activating, deactivating, is \"running\"",
		`exec: {run: []}`:                   `m.yaml:1:7: ready.exec: needs run, a list: the program and its arguments`,
		`exec: {run: [x], cwd: tmp}`:        `m.yaml:1:23: ready.exec.cwd: must be an absolute path, is "tmp"`,
		`file: {}`:                          `m.yaml:1:7: ready.file: needs path`,
		`file: {path: x}`:                   `m.yaml:1:14: ready.file.path: must be an absolute path, is "x"`,
	} {
		if _, err := parse(t, text); err == nil || err.Error() != want {
			t.Errorf("%s\ngot  %v\nwant %s", text, err, want)
		}
	}
}

func TestTemplatesAreNotJudged(t *testing.T) {
	must(t, `
http: {url: '{{ fact "x" }}', status: '{{ .Vars.s }}', within: '{{ .Vars.w }}'}
tcp: {address: '{{ .Vars.a }}'}
unit: {unit: '{{ .Vars.u }}', state: '{{ .Vars.u }}'}
exec: {run: ['{{ .Vars.u }}'], cwd: '{{ .Vars.u }}'}
file: {path: '{{ .Vars.u }}'}
`)
}

func TestHTTP(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ok":
			fmt.Fprintf(w, "%s %s %s %s", r.Method, r.Host, r.Header.Get("X-Probe"), r.UserAgent())
		case "/503":
			w.WriteHeader(503)
		case "/204":
			w.WriteHeader(204)
		case "/moved":
			http.Redirect(w, r, "/ok", http.StatusFound)
		case "/hang":
			<-r.Context().Done()
		case "/slow-body":
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		case "/large":
			_, _ = io.WriteString(w, strings.Repeat("x", 1<<20)+"needle")
		}
	})
	for text, want := range map[string]string{
		`/ok"`:                               "",
		`/ok", status: 2xx`:                  "",
		`/204", status: [200, 204]`:          "",
		`/204"`:                              "GET URL/204: 204 No Content (want 200)",
		`/503"`:                              "GET URL/503: 503 Service Unavailable (want 200)",
		`/503", status: [2xx, 301]`:          "GET URL/503: 503 Service Unavailable (want 2xx or 301)",
		`/moved", status: 302`:               "",
		`/moved"`:                            "GET URL/moved: 302 Found (want 200)", // what the address itself answers counts
		`/ok", method: post, contains: POST`: "",
		`/ok", method: head`:                 "",
		`/ok", contains: absent`:             `GET URL/ok: the answer does not contain "absent"`,
		`/ok", contains: amiagent-probe`:     "",
		`/large", contains: needle`:          `GET URL/large: the answer does not contain "needle"`,
		`/ok", headers: {X-Probe: p, Host: web.example}, contains: "GET web.example p"`: "",
		`/hang", timeout: 30ms`:                   "GET URL/hang: no answer within 30ms",
		`/slow-body", contains: x, timeout: 30ms`: "GET URL/slow-body: cannot read the answer: no answer within 30ms",
	} {
		text = `http: {url: "` + url + text + `}`
		if got := strings.ReplaceAll(try(t, probe.Env{}, text), url, "URL"); got != want {
			t.Errorf("%s\ngot  %q\nwant %q", text, got, want)
		}
	}
}

func TestHTTPSTakesAnyCertificateOnlyIfAsked(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // it tells of every refused certificate
	s.StartTLS()
	t.Cleanup(s.Close)
	if got := try(t, probe.Env{}, fmt.Sprintf(`http: {url: %q}`, s.URL)); !strings.Contains(got, "certificate") {
		t.Errorf("got %q", got)
	}
	if got := try(t, probe.Env{}, fmt.Sprintf(`http: {url: %q, insecure: true}`, s.URL)); got != "" {
		t.Errorf("got %q", got)
	}
}

func TestAProbeGoesPastTheProxy(t *testing.T) {
	proxy := serve(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("the proxy was asked for %s", r.URL) })
	t.Setenv("HTTP_PROXY", proxy)
	t.Setenv("http_proxy", proxy)
	// A name, because Go itself spares loopback addresses the proxy.
	if got := try(t, probe.Env{}, `http: {url: "http://amiagent.invalid/", timeout: 2s}`); got == "" {
		t.Error("a name that does not exist answered")
	}
}

func TestCredentialsInAnAddressAreNotTold(t *testing.T) {
	got := try(t, probe.Env{}, fmt.Sprintf(`http: {url: "http://me:hunter2@%s/"}`, closedPort(t)))
	if strings.Contains(got, "hunter2") || !strings.HasSuffix(got, "connection refused") {
		t.Errorf("got %q", got)
	}
}

// closedPort is an address where nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for _, address := range []string{l.Addr().String(), ":" + port} {
		if got := try(t, probe.Env{}, fmt.Sprintf(`tcp: {address: %q}`, address)); got != "" {
			t.Errorf("%s: %s", address, got)
		}
	}
	closed := closedPort(t)
	if got, want := try(t, probe.Env{}, fmt.Sprintf(`tcp: {address: %q}`, closed)), "connect to "+closed+": connection refused"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestUnit(t *testing.T) {
	states := map[string]string{"app.service": "active", "old.timer": "failed"}
	e := probe.Env{UnitState: func(_ context.Context, unit string) (string, error) {
		if s, ok := states[unit]; ok {
			return s, nil
		}
		return "", errors.New("systemd is gone")
	}}
	for text, want := range map[string]string{
		`unit: {unit: app.service}`:                  "",
		`unit: {unit: old.timer}`:                    "unit old.timer: failed (want active)",
		`unit: {unit: old.timer, state: failed}`:     "",
		`unit: {unit: app.service, state: inactive}`: "unit app.service: active (want inactive)",
		`unit: {unit: x.service}`:                    "unit x.service: systemd is gone",
	} {
		if got := try(t, e, text); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	if got := try(t, probe.Env{}, `unit: {unit: app.service}`); got != "unit app.service: this needs the running system, not a tree" {
		t.Errorf("without systemd: %q", got)
	}
	err := must(t, `unit: {unit: old.timer}`)[0].Try(t.Context(), e)
	if diag.Hint(err) != "systemctl status old.timer; journalctl -u old.timer" {
		t.Errorf("hint is %q", diag.Hint(err))
	}
}

func TestExec(t *testing.T) {
	e := env(t)
	if err := e.Host.MkdirAll("/srv"); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		`[sh, -c, "exit 0"]`: "",
		`[sh, -c, "echo first >&2; echo the queue is full >&2; exit 3"]`: "sh exited with 3: the queue is full",
		`[no-such-program]`:                  "cannot run no-such-program: no such program",
		`[sh, -c, "sleep 5"], timeout: 30ms`: "sh: no answer within 30ms",
		`[sh, -c, 'test "$GREETING" = "hello there"'], env: {GREETING: hello there}`: "",
		`[sh, -c, 'case $PWD in */srv) ;; *) exit 1;; esac'], cwd: /srv`:             "",
	} {
		if got := try(t, e, "exec: {run: "+text+"}"); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func TestFile(t *testing.T) {
	e := env(t)
	path := func(name string) string { return filepath.Join(e.Host.Root(), name) }
	if err := os.WriteFile(path("ok"), []byte("all is well\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(path("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		`{path: /ok}`:                    "",
		`{path: /ok, contains: is well}`: "",
		`{path: /ok, contains: is bad}`:  `file /ok: does not contain "is bad"`,
		`{path: /none}`:                  "file /none: is not there",
		`{path: /pipe}`:                  "",
		`{path: /pipe, contains: x}`:     "file /pipe: is not a regular file", // and does not hang
		`{path: /ok/below}`:              "file /ok/below: stat /ok/below: not a directory",
	} {
		if got := try(t, e, "file: "+text); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func TestKindsAreSorted(t *testing.T) {
	if !slices.IsSorted(probe.Kinds()) || len(probe.Kinds()) != 5 {
		t.Error(probe.Kinds())
	}
}
