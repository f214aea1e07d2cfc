package sdnotify_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/amiagent/amiagent/internal/report"
	"github.com/amiagent/amiagent/internal/sink"
	"github.com/amiagent/amiagent/internal/sink/sdnotify"
)

// systemd is the other end: a real datagram socket, read without waiting, so
// that it can be used where time is not real.
type systemd struct {
	*testing.T
	fd   int
	name string
}

func listen(t *testing.T, name string) *systemd {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: name})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return &systemd{t, fd, name}
}

func (s *systemd) heard() string {
	s.Helper()
	var all []string
	for {
		b := make([]byte, 4096)
		n, _, err := unix.Recvfrom(s.fd, b, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			return strings.Join(all, " ; ")
		}
		if err != nil {
			s.Fatal(err)
		}
		all = append(all, strings.ReplaceAll(string(b[:n]), "\n", " | "))
	}
}

func (s *systemd) want(text string) {
	s.Helper()
	if got := s.heard(); got != text {
		s.Errorf("systemd heard %q, want %q", got, text)
	}
}

func open(t *testing.T, opt sdnotify.Options) *sdnotify.Sink {
	t.Helper()
	s, err := sdnotify.Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func send(t *testing.T, s *sdnotify.Sink, kind sink.Kind, state report.State, phase report.Phase) {
	t.Helper()
	if err := s.Send(t.Context(), sink.Event{Kind: kind, Status: report.Status{State: state, Phase: phase}}); err != nil {
		t.Fatal(err)
	}
}

func TestALaunchAsSystemdHearsIt(t *testing.T) {
	sd := listen(t, filepath.Join(t.TempDir(), "notify"))
	s := open(t, sdnotify.Options{Socket: sd.name})
	send(t, s, sink.Began, report.Launching, report.Identify)
	sd.want("STATUS=launching: identify")
	send(t, s, sink.Progress, report.Launching, report.Identify)
	sd.want("") // nothing new
	send(t, s, sink.Progress, report.Launching, report.Fetch)
	sd.want("STATUS=launching: fetch")
	send(t, s, sink.Ready, report.Ready, report.Watch)
	sd.want("READY=1 | STATUS=ready")
	send(t, s, sink.NotReady, report.NotReady, report.Watch)
	sd.want("STATUS=not ready")
	send(t, s, sink.Ready, report.Ready, report.Watch)
	sd.want("STATUS=ready") // READY is said once
	send(t, s, sink.Stopping, report.Stopping, report.Watch)
	sd.want("STOPPING=1 | STATUS=stopping")
}

func TestAFailedLaunchIsNeverReady(t *testing.T) {
	sd := listen(t, "@amiagent-test-"+fmt.Sprint(os.Getpid())) // the abstract namespace
	s := open(t, sdnotify.Options{Socket: sd.name})
	err := s.Send(t.Context(), sink.Event{Kind: sink.Failed, Status: report.Status{
		State: report.DidFail, Step: "units.app.service", Reason: "no such file\nREADY=1\n" + strings.Repeat("é", 300)}})
	if err != nil {
		t.Fatal(err)
	}
	got := sd.heard()
	if strings.Contains(got, " | ") || !strings.HasPrefix(got, "STATUS=failed: units.app.service: no such file") || len(got) > 270 {
		t.Errorf("systemd heard %q", got)
	}
}

func TestAReloadEndsReadyEvenIfItFails(t *testing.T) {
	sd := listen(t, filepath.Join(t.TempDir(), "notify"))
	s := open(t, sdnotify.Options{Socket: sd.name})
	send(t, s, sink.Ready, report.Ready, "")
	sd.heard()
	for _, end := range []sink.Kind{sink.Ready, sink.Failed} {
		for _, kind := range []sink.Kind{sink.Began, end} {
			if err := s.Send(t.Context(), sink.Event{Kind: kind, Reload: true, Status: report.Status{State: report.Ready}}); err != nil {
				t.Fatal(err)
			}
		}
		got := sd.heard()
		if !strings.HasPrefix(got, "RELOADING=1 | MONOTONIC_USEC=") || !strings.HasSuffix(got, " ; READY=1") {
			t.Errorf("systemd heard %q", got)
		}
	}
}

func TestSystemdStaysPatientWhileWorkGoesOn(t *testing.T) {
	sd := listen(t, filepath.Join(t.TempDir(), "notify"))
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var alive atomic.Bool
		alive.Store(true)
		s := open(t, sdnotify.Options{Socket: sd.name, Watchdog: 30 * time.Second, Patience: time.Minute, Alive: alive.Load})
		go s.Run(ctx)
		pass := func(d time.Duration) { time.Sleep(d); synctest.Wait() }

		const more = "EXTEND_TIMEOUT_USEC=45000000"
		pass(25 * time.Second)
		sd.want(more + " ; " + more) // and no watchdog: it is not armed before READY
		alive.Store(false)
		pass(10 * time.Second)
		sd.want("") // the heart stands still
		alive.Store(true)
		pass(time.Hour)
		sd.want(more + " ; " + more) // until patience ends after a minute
		send(t, s, sink.Ready, report.Ready, "")
		sd.want("READY=1 | STATUS=ready")
		pass(50 * time.Second)
		sd.want("WATCHDOG=1 ; WATCHDOG=1 ; WATCHDOG=1")
		alive.Store(false)
		pass(time.Minute)
		sd.want("")
	})
}

func TestWithoutASocketNothingHappens(t *testing.T) {
	s := open(t, sdnotify.Options{Watchdog: time.Second})
	send(t, s, sink.Ready, report.Ready, "")
	s.Run(t.Context()) // returns at once
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestASocketThatIsNoneIsAnError(t *testing.T) {
	for socket, want := range map[string]string{
		"notify":         `cannot reach systemd: NOTIFY_SOCKET is "notify", want a path or @name`,
		"/nowhere/there": "cannot reach systemd: dial unixgram /nowhere/there: connect: no such file or directory",
	} {
		if _, err := sdnotify.Open(sdnotify.Options{Socket: socket}); err == nil || err.Error() != want {
			t.Errorf("%s: %v", socket, err)
		}
	}
}

func TestTheEnvironmentOfAService(t *testing.T) {
	for env, want := range map[string]sdnotify.Options{
		"": {},
		"NOTIFY_SOCKET=/run/n WATCHDOG_USEC=30000000":                 {Socket: "/run/n", Watchdog: 30 * time.Second},
		"NOTIFY_SOCKET=/run/n WATCHDOG_USEC=30000000 WATCHDOG_PID=42": {Socket: "/run/n", Watchdog: 30 * time.Second},
		"WATCHDOG_USEC=30000000 WATCHDOG_PID=43":                      {}, // another process's
		"WATCHDOG_USEC=soon":                                          {},
		"WATCHDOG_USEC=-1":                                            {},
	} {
		vars := map[string]string{}
		for _, kv := range strings.Fields(env) {
			k, v, _ := strings.Cut(kv, "=")
			vars[k] = v
		}
		got := sdnotify.FromEnv(func(k string) string { return vars[k] }, 42)
		if got.Socket != want.Socket || got.Watchdog != want.Watchdog {
			t.Errorf("%s: %+v", env, got)
		}
	}
}
