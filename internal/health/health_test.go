package health_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/amiagent/amiagent/internal/health"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/report"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// status is a fresh one.
func status(state report.State, phase report.Phase, step string, probes ...report.Probe) report.Status {
	return report.Status{Format: 1, State: state, Phase: phase, Step: step, Probes: probes, Updated: now.Add(-2 * time.Second), Beat: 5 * time.Second}
}

func TestWhatALoadBalancerIsTold(t *testing.T) {
	bad := report.Probe{Name: "our secret project", Kind: "http", Error: "GET http://10.0.0.1/internal: 500"}
	stale := func(s report.Status) report.Status { s.Updated = now.Add(-16 * time.Second); return s }
	for want, s := range map[string]report.Status{
		"200 ready":                               status(report.Ready, report.Watch, ""),
		"503 launching: fetch":                    status(report.Launching, report.Fetch, ""),
		"503 launching: converge, packages":       status(report.Launching, report.Converge, "packages.acme-secret"),
		"503 launching":                           status(report.Launching, "", ""),
		"503 failed: units":                       status(report.DidFail, report.Converge, "units.app.service"),
		"503 failed: resolve":                     status(report.DidFail, report.Resolve, ""),
		"503 failed: launch":                      status(report.DidFail, "", "<script>.x"),
		"503 failed: files":                       stale(status(report.DidFail, report.Converge, "files./etc/x")), // though the agent has gone
		"503 not ready: probe http":               status(report.NotReady, report.Watch, "", report.Probe{Name: "a", Kind: "tcp", OK: true}, bad),
		"503 not ready":                           status(report.NotReady, report.Watch, ""),
		"503 draining":                            status(report.Draining, report.Watch, ""),
		"503 stopping":                            stale(status(report.Stopping, report.Watch, "")),
		"503 rebooting":                           status(report.Rebooting, "", ""),
		"503 disabled":                            status(report.Disabled, "", ""),
		"503 agent is silent: last heard 16s ago": stale(status(report.Ready, report.Watch, "")),
		"503 unknown state":                       status("", "", ""),
	} {
		code, line := health.Ready(s, nil, now)
		if got := fmt.Sprint(code, " ", line); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	for want, err := range map[string]error{"503 no status yet": report.ErrNoStatus, "503 the status cannot be read": errors.New("format 7")} {
		for _, judge := range []func(report.Status, error, time.Time) (int, string){health.Ready, health.Live} {
			code, line := judge(report.Status{}, err, now)
			if got := fmt.Sprint(code, " ", line); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	}
}

func TestAliveIsNotReady(t *testing.T) {
	for _, state := range []report.State{report.Launching, report.DidFail, report.NotReady, report.Ready} {
		if code, line := health.Live(status(state, "", ""), nil, now); code != 200 || line != "alive" {
			t.Errorf("%s: %d %s", state, code, line)
		}
	}
	s := status(report.Ready, "", "")
	if code, line := health.Live(s, nil, now.Add(time.Minute)); code != 503 || line != "agent is silent: last heard 1m2s ago" {
		t.Errorf("%d %s", code, line)
	}
}

// responder is one that runs, and the machine it speaks for.
type responder struct {
	*testing.T
	host *host.Host
	addr string
	stop func() error
}

func start(t *testing.T) *responder {
	t.Helper()
	h, err := host.New(t.TempDir(), host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	listening, done := make(chan string, 1), make(chan error, 1)
	go func() {
		done <- health.Serve(ctx, health.Options{Host: h, Address: "127.0.0.1:0", Listening: func(a net.Addr) { listening <- a.String() }})
	}()
	r := &responder{T: t, host: h}
	r.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("stopped with %v", err)
		}
	})
	select {
	case r.addr = <-listening:
	case err := <-done:
		done <- err
		t.Fatal(err)
	}
	return r
}

// ask gives code and body, or what went wrong.
func (r *responder) ask(method, path string) string {
	r.Helper()
	req, err := http.NewRequest(method, "http://"+r.addr+path, nil)
	if err != nil {
		r.Fatal(err)
	}
	client := http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return fmt.Sprintf("%d %s", resp.StatusCode, strings.TrimSuffix(string(b), "\n"))
}

func (r *responder) want(method, path, want string) {
	r.Helper()
	if got := r.ask(method, path); got != want {
		r.Errorf("%s %s: %q, want %q", method, path, got, want)
	}
}

// raw sends bytes and gives all that comes back.
func (r *responder) raw(text string) string {
	r.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(3 * time.Second))
	_, _ = io.WriteString(c, text)
	b, _ := io.ReadAll(c)
	return string(b)
}

func TestItFollowsTheAgent(t *testing.T) {
	r := start(t)
	r.want("GET", "/readyz", "503 no status yet")
	r.want("GET", "/livez", "503 no status yet")
	p, err := report.Publish(r.host, report.Status{State: report.Launching, Phase: report.Fetch}, report.PublisherOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, path := range []string{"/", "/readyz", "/healthz", "/readyz?x=1"} {
		r.want("GET", path, "503 launching: fetch")
	}
	r.want("GET", "/livez", "200 alive")
	// Quick turns of the same length in one tick of the file system's clock are all seen.
	for i := range 50 {
		state, want := report.Ready, "200 ready"
		if i%2 == 1 {
			state, want = report.Draining, "503 draining"
		}
		p.Update(func(s *report.Status) { s.State = state })
		r.want("GET", "/readyz", want)
	}
	if err := r.host.Replace(report.StatusPath, []byte(`{"format":2}`), 0o600, host.Keep); err != nil {
		t.Fatal(err)
	}
	r.want("GET", "/readyz", "503 the status cannot be read")
	if err := r.host.Remove(report.StatusPath); err != nil {
		t.Fatal(err)
	}
	r.want("GET", "/readyz", "503 no status yet")
}

func TestOnlyLookingIsAllowed(t *testing.T) {
	r := start(t)
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"} {
		r.want(method, "/readyz", "405 GET and HEAD only")
	}
	r.want("HEAD", "/readyz", "503 ")
	for _, path := range []string{"/status", "/readyz/", "/../etc/passwd", "/debug/pprof/", "/metrics", "/favicon.ico"} {
		r.want("GET", path, "404 not found")
	}
	got := r.raw("HEAD / HTTP/1.0\r\n\r\n")
	head, body, _ := strings.Cut(got, "\r\n\r\n")
	if !strings.HasPrefix(head, "HTTP/1.0 503 ") || body != "" || !strings.Contains(head, "Content-Length: 14") || !strings.Contains(head, "Cache-Control: no-store") {
		t.Errorf("HEAD of HTTP/1.0 gave %q", got)
	}
	if !strings.Contains(r.raw("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"), "Allow: GET, HEAD\r\n") {
		t.Error("405 without Allow")
	}
	if got := r.raw("GET / HTTP/1.1\r\nHost: x\r\n\r\n"); !strings.Contains(got, "Connection: close\r\n") {
		t.Errorf("the connection is kept: %q", got)
	}
}

func TestNonsenseIsRefusedAndHurtsNobody(t *testing.T) {
	r := start(t)
	for name, text := range map[string]string{
		"not HTTP":        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n",
		"no version":      "GET /\r\n\r\n",
		"bad header":      "GET / HTTP/1.1\r\nHost: x\r\nno colon here\r\n\r\n",
		"two hosts":       "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
		"smuggling":       "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nGET /",
		"huge header":     "GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n",
		"endless headers": "GET / HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("A: b\r\n", 20000),
		"long path":       "GET /" + strings.Repeat("x", 64<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"null bytes":      strings.Repeat("\x00", 1000) + "\r\n\r\n",
	} {
		got := r.raw(text)
		if got != "" && !strings.HasPrefix(got, "HTTP/1.1 4") {
			t.Errorf("%s: %.60q", name, got)
		}
	}
	r.want("GET", "/", "503 no status yet")
}

// A body that never comes must not hold an answer back.
func TestABodyIsNotWaitedFor(t *testing.T) {
	r := start(t)
	begin := time.Now()
	if got := r.raw("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc"); !strings.HasPrefix(got, "HTTP/1.1 503 ") {
		t.Errorf("got %.60q", got)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("answered after %v", took)
	}
}

// Slow-loris: thousands of connections that never finish their request neither
// take the memory nor the place of one that does.
func TestThousandsOfHalfOpenConnectionsHoldNobodyUp(t *testing.T) {
	r := start(t)
	const flood = 2000
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	goroutines := runtime.NumGoroutine()
	var slowest time.Duration
	for i := range flood {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
		if i%2 == 0 {
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nX-Slow: ")
		}
		if i%100 == 99 {
			begin := time.Now()
			r.want("GET", "/readyz", "503 no status yet")
			slowest = max(slowest, time.Since(begin))
		}
	}
	if slowest > time.Second {
		t.Errorf("an honest request took %v", slowest)
	}
	if n := runtime.NumGoroutine() - goroutines; n > 3*256 {
		t.Errorf("%d goroutines for %d connections", n, flood)
	}
	closed := 0
	for _, c := range conns[:flood-256] {
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := c.Read(make([]byte, 1)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			closed++
		}
	}
	if closed < flood-256 {
		t.Errorf("only %d of the oldest %d connections were closed", closed, flood-256)
	}
}

func TestStoppingIsQuickThoughClientsHang(t *testing.T) {
	r := start(t)
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "GET / HT")
	r.want("GET", "/", "503 no status yet")
	begin := time.Now()
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("stopped after %v", took)
	}
	if _, err := net.Dial("tcp", r.addr); err == nil {
		t.Error("it still listens")
	}
}

func TestAPortInUseIsAnError(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = health.Serve(t.Context(), health.Options{Address: l.Addr().String()})
	want := "cannot serve health on " + l.Addr().String() + ": "
	if err == nil || !strings.HasPrefix(err.Error(), want) || !strings.HasSuffix(err.Error(), "address already in use") {
		t.Errorf("got %v", err)
	}
}

// The socket of systemd: a child gets it as its file 3 and says what it hears.
func TestASocketFromSystemd(t *testing.T) {
	if root := os.Getenv("HEALTH_TEST_ROOT"); root != "" {
		vars := map[string]string{"LISTEN_PID": fmt.Sprint(os.Getpid()), "LISTEN_FDS": "1"}
		l, err := health.Inherited(func(k string) string { return vars[k] }, os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		h, err := host.New(root, host.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := health.Serve(t.Context(), health.Options{Host: h, Inherit: l}); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "HEALTH_TEST_ROOT="+t.TempDir())
	cmd.ExtraFiles = []*os.File{f}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	c, err := net.Dial("tcp", l.Addr().String()) // waits in the socket until the child is there
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.0 503") {
		t.Errorf("%q, %v", line, err)
	}
}

func TestNoSocketFromSystemd(t *testing.T) {
	for _, vars := range []map[string]string{{}, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}} {
		if l, err := health.Inherited(func(k string) string { return vars[k] }, 42); l != nil || err != nil {
			t.Errorf("%v: %v, %v", vars, l, err)
		}
	}
	vars := map[string]string{"LISTEN_PID": "42", "LISTEN_FDS": "2"}
	if _, err := health.Inherited(func(k string) string { return vars[k] }, 42); err == nil || err.Error() != `cannot use systemd's sockets: LISTEN_FDS is "2", want 1` {
		t.Errorf("got %v", err)
	}
}

// What is in the status file of a launch must not get out, whatever it is.
func TestNothingButPhaseAndKindGetsOut(t *testing.T) {
	r := start(t)
	file := filepath.Join(r.host.Root(), report.StatusPath)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	const secret = "x-s3cr3t"
	for _, state := range []report.State{report.Launching, report.DidFail, report.NotReady} {
		p, err := report.Publish(r.host, report.Status{
			State: state, Phase: secret, Step: secret + ".x", Reason: secret, Hint: secret, Notes: []string{secret}, Instance: secret,
			Probes: []report.Probe{{Name: secret, Kind: secret, Error: secret}},
		}, report.PublisherOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got := r.raw("GET / HTTP/1.0\r\n\r\n"); !strings.Contains(got, " 503 ") || strings.Contains(got, secret) {
			t.Errorf("%s: %q", state, got)
		}
		p.Close()
	}
}
