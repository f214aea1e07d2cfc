//go:build booted

package pkgmgr

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/host"
)

// These tests run as root in a booted tree. apt there is a program that tells
// how the held units stand while it "works".

func heldMachine(t *testing.T) (*host.Host, *Manager) {
	t.Helper()
	for name, text := range map[string]string{
		"/run/systemd/system/other.timer":   "[Timer]\nOnBootSec=1h\nUnit=other.service\n",
		"/run/systemd/system/other.service": "[Service]\nExecStart=/bin/sleep infinity\n",
		"/run/systemd/system/idle.service":  "[Service]\nExecStart=/bin/sleep infinity\n",
	} {
		// Below /usr/lib, as packages have them: a mask in /run stands above it, not above one in /etc.
		name = strings.Replace(name, "/run/systemd", "/usr/lib/systemd", 1)
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll("/fake", 0o755); err != nil {
		t.Fatal(err)
	}
	apt := `#!/bin/sh
for u in other.timer other.service idle.service; do
	echo "during: $u $(systemctl is-active $u) $(systemctl show -p LoadState --value $u)"
done
systemctl start idle.service 2>&1 | head -1
[ ! -e /fake/fail ] || exit 1
`
	if err := os.WriteFile("/fake/apt-get", []byte(apt), 0o755); err != nil {
		t.Fatal(err)
	}
	h, err := host.New("/", host.Options{Path: "/fake:/usr/sbin:/usr/bin:/sbin:/bin"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.CloseSystemd)
	sd, err := h.Systemd(t.Context())
	if err == nil {
		err = sd.DaemonReload(t.Context())
	}
	for _, u := range []string{"other.timer", "other.service"} {
		if err == nil {
			err = sd.Do(t.Context(), host.Start, u)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(h, "apt")
	if err != nil {
		t.Fatal(err)
	}
	m.HoldOff([]string{"other.timer", "other.service", "idle.service", "no-such.timer"})
	return h, m
}

// asBefore proves that the units stand as heldMachine left them.
func asBefore(t *testing.T, h *host.Host) {
	t.Helper()
	sd, err := h.Systemd(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// What was queued by GiveBack has its time.
	for _, u := range []string{"other.timer", "other.service"} {
		if err := sd.Do(t.Context(), host.Start, u); err != nil {
			t.Error(err)
		}
	}
	states, err := sd.Units(t.Context(), []string{"other.timer", "other.service", "idle.service"})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"other.timer": "loaded active", "other.service": "loaded active", "idle.service": "loaded inactive"} {
		if got := states[name].Load + " " + states[name].Active; got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	if h.Exists(heldOffPath) {
		t.Error("something is still held off")
	}
}

func TestUnitsAreHeldOffWhileAptWorksAndRunAgain(t *testing.T) {
	for _, how := range []string{"well", "badly", "cancelled"} {
		t.Run(how, func(t *testing.T) {
			h, m := heldMachine(t)
			_ = os.Remove("/fake/fail")
			if how == "badly" {
				if err := os.WriteFile("/fake/fail", nil, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var output, status []string
			err := m.MoveTo(ctx, Move{}, Talk{Output: func(line string) {
				output = append(output, line)
				if how == "cancelled" {
					cancel()
				}
			}, Status: func(line string) { status = append(status, line) }})
			if (err == nil) != (how == "well") {
				t.Errorf("ended with %v", err)
			}
			if said := strings.Join(status, "\n"); !strings.Contains(said, "holding off other.timer, other.service, idle.service") {
				t.Errorf("status: %s", said)
			}
			want := "during: other.timer inactive masked\nduring: other.service inactive masked\nduring: idle.service inactive masked\nFailed to start idle.service: Unit idle.service is masked."
			if got := strings.Join(output, "\n"); how != "cancelled" && !strings.HasPrefix(got, want) {
				t.Errorf("output:\n%s\nwant:\n%s", got, want)
			}
			asBefore(t, h)
		})
	}
}

// A process that dies while it holds units off leaves its note; the next start gives them back.
func TestWhatARunThatWasCutOffHeldIsGivenBack(t *testing.T) {
	h, m := heldMachine(t)
	if err := m.hold(t.Context(), Talk{}); err != nil {
		t.Fatal(err)
	}
	left, err := HeldOff(h)
	if err != nil || strings.Join(left, " ") != "other.timer other.service idle.service" {
		t.Errorf("held off: %v, %v", left, err)
	}
	for range 2 { // it may be repeated
		if err := GiveBack(t.Context(), h); err != nil {
			t.Fatal(err)
		}
	}
	asBefore(t, h)
}

// An operator's own mask is not ours to take off.
func TestAMaskOfTheOperatorsStays(t *testing.T) {
	h, m := heldMachine(t)
	sd, err := h.Systemd(t.Context())
	if err == nil {
		err = sd.MaskUnit(t.Context(), "idle.service")
	}
	if err == nil {
		err = sd.DaemonReload(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := m.MoveTo(t.Context(), Move{}, Talk{}); err != nil {
		t.Fatal(err)
	}
	state, err := sd.UnitFileState(t.Context(), "idle.service")
	if err != nil || state != "masked" {
		t.Errorf("idle.service is %s, %v", state, err)
	}
}
