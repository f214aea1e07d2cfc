//go:build booted

package host

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// These tests run as root in a booted tree, within amiagent.service, whose
// start job lasts as long as they do.

func live(t *testing.T) (*Host, *Systemd) {
	t.Helper()
	h, err := New("/", Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := h.Systemd(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.CloseSystemd)
	return h, s
}

func unitFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(UnitDir+"/"+name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

const sleeps = "[Service]\nExecStart=/bin/sleep infinity\n"

func TestStartStopRestart(t *testing.T) {
	_, s := live(t)
	unitFile(t, "sleeps.service", sleeps)
	for _, c := range []struct {
		verb Verb
		want string
	}{{Start, "active"}, {Start, "active"}, {Restart, "active"}, {ReloadOrRestart, "active"}, {Stop, "inactive"}, {Stop, "inactive"}} {
		if err := s.Do(t.Context(), c.verb, "sleeps.service"); err != nil {
			t.Fatal(err)
		}
		now, err := s.Units(t.Context(), []string{"sleeps.service", "no-such.service"})
		if err != nil || now["sleeps.service"].Active != c.want || now["no-such.service"].Load != "not-found" {
			t.Errorf("after %s: %v, %v", c.verb, now, err)
		}
	}
	err := s.Do(t.Context(), Start, "no-such.service")
	if err == nil || !strings.HasPrefix(err.Error(), "cannot start no-such.service: ") {
		t.Error(err)
	}
	unitFile(t, "bad.service", "[Service]\nType=oneshot\nExecStart=/bin/false\n")
	var failed *JobError
	if err := s.Do(t.Context(), Start, "bad.service"); !errors.As(err, &failed) || failed.Result != "failed" {
		t.Error(err)
	}
}

// systemd 219 has neither GetJobBefore nor ListUnitsByNames. What stands in for
// them must say the same.
func TestOldSystemdsWaysSayTheSame(t *testing.T) {
	_, s := live(t)
	unitFile(t, "late.service", "[Unit]\nAfter=multi-user.target\n"+sleeps)
	unitFile(t, "later.service", "[Unit]\nAfter=late.service\n"+sleeps)
	unitFile(t, "free.service", sleeps)
	for unit, want := range map[string]string{
		"late.service": "late.service multi-user.target amiagent.service", "later.service": "later.service late.service multi-user.target amiagent.service", "free.service": "",
	} {
		if unit == "later.service" {
			if _, err := s.Queue(t.Context(), Start, "late.service"); err != nil {
				t.Fatal(err)
			}
		}
		j, err := s.Queue(t.Context(), Start, unit)
		if err != nil {
			t.Fatal(err)
		}
		chain, err := j.behindSelf(t.Context())
		if got := strings.Join(chain, " "); got != want || err != nil {
			t.Errorf("GetJobBefore: %s waits by %q, %v, want %q", unit, got, err, want)
		}
		var jobs []queued
		if err := s.call(t.Context(), "ListJobs", nil, &jobs); err != nil {
			t.Fatal(err)
		}
		chain, err = findChain(queued{ID: j.ID, Unit: unit}, s.Self(), func(q queued) ([]queued, error) {
			return s.orderedBefore(t.Context(), q, jobs)
		})
		if got := strings.Join(chain, " "); got != want || err != nil {
			t.Errorf("After=: %s waits by %q, %v, want %q", unit, got, err, want)
		}
	}
	one, err := s.Units(t.Context(), []string{"free.service"})
	if err != nil {
		t.Fatal(err)
	}
	other, err := s.unit(t.Context(), "free.service")
	if err != nil || other.Active != one["free.service"].Active || other.Load != one["free.service"].Load {
		t.Errorf("%v, %v, want %v", other, err, one)
	}
}

// Without a bus, root reaches systemd itself.
func TestPrivateConnection(t *testing.T) {
	s := &Systemd{}
	err := s.dialBy(t.Context(), func(opts ...dbus.ConnOption) (*dbus.Conn, error) { return dbus.Dial(privateSocket, opts...) }, false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.conn.Close()
	unitFile(t, "private.service", sleeps)
	release := s.Hold(t.Context(), "private.service")
	defer release()
	if err := s.Do(t.Context(), Start, "private.service"); err != nil {
		t.Error(err)
	}
}

func TestCancelledWait(t *testing.T) {
	_, s := live(t)
	unitFile(t, "never-ready.service", "[Service]\nType=notify\nExecStart=/bin/sleep infinity\n")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, errors.New("patience is over"))
	defer cancel()
	err := s.Do(ctx, Start, "never-ready.service")
	if err == nil || err.Error() != "cannot start never-ready.service: patience is over" {
		t.Error(err)
	}
	if _, err := s.Queue(t.Context(), Stop, "never-ready.service"); err != nil {
		t.Error(err)
	}
	gone, stop := context.WithCancel(t.Context())
	stop()
	if _, err := s.Units(gone, []string{"x.service"}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// The connection outlives the context that it was opened with, comes back after
// it was lost, ends waits when it is closed, and leaves no goroutine behind.
func TestLifeOfTheConnection(t *testing.T) {
	before := runtime.NumGoroutine()
	h, err := New("/", Options{})
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		ctx, cancel := context.WithCancel(t.Context())
		s, err := h.Systemd(ctx)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := h.Systemd(t.Context()); again != s || err != nil {
			t.Error("a second connection was opened:", err)
		}
		if _, err := s.SystemState(t.Context()); err != nil {
			t.Error(err)
		}
		s.raw.Close() // as when systemd restarts itself
	}
	s, err := h.Systemd(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	unitFile(t, "endless.service", "[Service]\nType=notify\nExecStart=/bin/sleep infinity\n")
	j, err := s.Queue(t.Context(), Start, "endless.service")
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(50*time.Millisecond, h.CloseSystemd)
	if err := j.Wait(t.Context()); !errors.Is(err, ErrConnectionLost) {
		t.Error(err)
	}
	exec.Command("systemctl", "stop", "--no-block", "endless.service").Run()
	h.CloseSystemd()
	ended, stop := context.WithCancel(t.Context())
	stop()
	if _, err := h.Systemd(ended); err == nil {
		t.Error("a connection was opened under a context that has ended")
	}
	for range 50 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	buf := make([]byte, 1<<16)
	t.Errorf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
}

// systemd restarts itself, as an upgrade of its package makes it do.
func TestSystemdRestartsItself(t *testing.T) {
	h, _ := live(t)
	if out, err := exec.Command("systemctl", "daemon-reexec").CombinedOutput(); err != nil {
		t.Fatal(string(out))
	}
	var err error
	for range 20 {
		var s *Systemd
		if s, err = h.Systemd(t.Context()); err == nil {
			if _, err = s.SystemState(t.Context()); err == nil {
				return
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Error(err)
}

func TestHeldUnitIsRemembered(t *testing.T) {
	_, s := live(t)
	unitFile(t, "brief.service", "[Service]\nType=oneshot\nExecStart=/bin/true\n")
	release := s.Hold(t.Context(), "brief.service")
	if err := s.Do(t.Context(), Start, "brief.service"); err != nil {
		t.Fatal(err)
	}
	p, err := s.Properties(t.Context(), "brief.service")
	if err != nil || p.Int("ExecMainExitTimestampMonotonic") == 0 || p.String("Result") != "success" {
		t.Errorf("%v, %v", p.Int("ExecMainExitTimestampMonotonic"), err)
	}
	release()
	for range 50 {
		if p, err = s.Properties(t.Context(), "brief.service"); err == nil && p.Int("ExecMainExitTimestampMonotonic") == 0 {
			return // let go of
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("a released unit is still remembered")
}

// Links made without systemd are those that systemctl makes.
func TestTreeEnableIsSystemctlEnable(t *testing.T) {
	h, s := live(t)
	unitFile(t, "en@.service", sleeps+"[Install]\nWantedBy=multi-user.target\nRequiredBy=%i.target\nAlias=en-two@%i.service\nDefaultInstance=dflt\n")
	unitFile(t, "en.socket", "[Socket]\nListenStream=/run/en\n[Install]\nWantedBy=sockets.target\nAlso=en@x.service\n")
	list := func() string {
		out, err := exec.Command("find", UnitDir, "-type", "l", "-name", "en*", "-printf", "%P -> %l\n").Output()
		if err != nil {
			t.Fatal(err)
		}
		all := strings.Split(strings.TrimSpace(string(out)), "\n")
		slices.Sort(all)
		return strings.Join(all, "\n")
	}
	for _, unit := range []string{"en@a.service", "en@.service", "en.socket"} {
		if err := s.EnableUnit(t.Context(), unit); err != nil {
			t.Fatal(err)
		}
		want := list()
		if err := s.DisableUnit(t.Context(), unit); err != nil {
			t.Fatal(err)
		}
		if err := h.TreeDisable("en@x.service"); err != nil { // systemd forgets an instance's alias
			t.Fatal(err)
		}
		if err := h.TreeEnable(unit); err != nil {
			t.Fatal(err)
		}
		if got := list(); got != want {
			t.Errorf("%s: links are\n%s\nsystemd makes\n%s", unit, got, want)
		}
		if state, err := s.UnitFileState(t.Context(), unit); err != nil || state != "enabled" && !strings.Contains(unit, "@.") {
			t.Errorf("systemd says of %s: %q, %v", unit, state, err)
		}
		if err := h.TreeDisable(unit); err != nil {
			t.Fatal(err)
		}
		if left := list(); left != "" {
			t.Errorf("%s: disabling leaves\n%s", unit, left)
		}
	}
}
