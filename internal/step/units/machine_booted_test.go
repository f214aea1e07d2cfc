//go:build booted

package units

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/stamps"
	"github.com/amiagent/amiagent/internal/step"
)

// machine is the booted system, and the agent's memory of it.
type machine struct {
	t      *testing.T
	host   *host.Host
	stamps *stamps.Store
	mu     sync.Mutex
	output []string
}

func booted(t *testing.T) *machine {
	t.Helper()
	h, err := host.New("/", host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.CloseSystemd)
	kept, err := stamps.Open(h, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &machine{t: t, host: h, stamps: kept}
}

func (m *machine) member(u *Unit, name, key string) step.Member {
	u.SetName(name)
	id := step.ID{Kind: "units", Name: name}
	return step.Member{ID: id, Step: u, Env: step.Env{
		Host: m.host, Facts: facts.New(), Stamps: m.stamps, ID: id, Key: key, Boot: "this-boot", Shared: &step.Shared{},
		Output: func(line string) { m.mu.Lock(); defer m.mu.Unlock(); m.output = append(m.output, line) },
	}}
}

func (m *machine) check(ms ...step.Member) string {
	m.t.Helper()
	ds, err := group{}.Check(m.t.Context(), ms[0].Env, ms)
	if err != nil {
		m.t.Fatal(err)
	}
	var all []string
	for _, d := range ds {
		all = append(all, string(d))
	}
	return strings.Join(all, "|")
}

func (m *machine) apply(ms ...step.Member) error {
	ctx, cancel := context.WithTimeout(m.t.Context(), 15*time.Second)
	defer cancel()
	return group{}.Apply(ctx, ms[0].Env, ms)
}

func (m *machine) must(ms ...step.Member) {
	m.t.Helper()
	if err := m.apply(ms...); err != nil {
		m.t.Fatalf("%v (hint: %s)", err, diag.Hint(err))
	}
	if d := m.check(ms...); strings.Trim(d, "|") != "" {
		m.t.Fatalf("after Apply: %s", d)
	}
}

func (m *machine) expect(want string, ms ...step.Member) {
	m.t.Helper()
	if got := m.check(ms...); got != want {
		m.t.Errorf("Check finds %q, want %q", got, want)
	}
}

// errorOf is the error of one member of an Apply.
func (m *machine) errorOf(one step.Member, all ...step.Member) error {
	m.t.Helper()
	err := m.apply(append([]step.Member{one}, all...)...)
	var some step.MemberErrors
	if !errors.As(err, &some) {
		m.t.Fatalf("Apply gives %v, want errors of members", err)
	}
	return some[one.ID]
}

func show(t *testing.T, unit, property string) string {
	t.Helper()
	out, err := exec.Command("systemctl", "show", "-p", property, "--value", unit).CombinedOutput()
	if err != nil {
		t.Fatalf("%v %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func service(lines ...string) string {
	return "[Service]\n" + strings.Join(lines, "\n") + "\n[Install]\nWantedBy=multi-user.target\n"
}

func yes() *bool { b := true; return &b }
func no() *bool  { b := false; return &b }

// countReloads counts systemd's own signals: each reload sends Reloading twice, at its begin and end.
func countReloads(t *testing.T) func() int {
	t.Helper()
	c, err := dbus.SystemBusPrivate()
	if err == nil {
		if err = c.Auth(nil); err == nil {
			err = c.Hello()
		}
	}
	if err == nil {
		err = c.AddMatchSignal(dbus.WithMatchInterface("org.freedesktop.systemd1.Manager"), dbus.WithMatchMember("Reloading"))
	}
	if err == nil {
		err = c.Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1").Call("org.freedesktop.systemd1.Manager.Subscribe", 0).Err
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	signals := make(chan *dbus.Signal, 100)
	c.Signal(signals)
	count := 0
	return func() int {
		for {
			select {
			case s := <-signals:
				if len(s.Body) == 1 && s.Body[0] == true {
					count++
				}
			case <-time.After(100 * time.Millisecond):
				return count
			}
		}
	}
}
