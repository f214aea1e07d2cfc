//go:build booted

package units

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/step"
)

// These tests run as root in a booted tree, within amiagent.service, whose
// start job lasts as long as they do. See system_test.go.

func TestUnitFromNothingToStoppedAndMasked(t *testing.T) {
	m := booted(t)
	on := m.member(&Unit{Content: service("ExecStart=/bin/sleep infinity"), Enabled: yes(), State: started,
		DropIns: map[string]string{"env": "[Service]\nEnvironment=A=1\n"}}, "one.service", "k1")
	m.expect("/etc/systemd/system/one.service is missing", on)
	m.must(on)
	if got := show(t, "one.service", "Environment"); got != "A=1" {
		t.Errorf("the drop-in is not in force: Environment is %q", got)
	}
	if to, err := os.Readlink("/etc/systemd/system/multi-user.target.wants/one.service"); err != nil {
		t.Error("not enabled:", to, err)
	}
	pid := show(t, "one.service", "MainPID")
	m.expect("", on)
	if err := m.apply(on); err != nil {
		t.Fatal(err)
	}
	if now := show(t, "one.service", "MainPID"); now != pid {
		t.Errorf("a second Apply restarted it: process %s, was %s", now, pid)
	}

	exec.Command("systemctl", "stop", "one.service").Run()
	m.expect("is inactive, want started", on)
	m.must(on)
	exec.Command("systemctl", "disable", "one.service").Run()
	m.expect("is disabled, want enabled", on)
	m.must(on)

	off := m.member(&Unit{Enabled: no(), State: stopped}, "one.service", "k2")
	m.expect("is enabled, want disabled", off)
	m.must(off)
	if got := show(t, "one.service", "ActiveState"); got != "inactive" {
		t.Error("it is", got)
	}
	masked := m.member(&Unit{Masked: yes(), State: stopped}, "systemd-timesyncd.service", "k3")
	m.must(masked)
	never := m.member(&Unit{State: started}, "systemd-timesyncd.service", "k4")
	if err := m.errorOf(never); err == nil || !strings.Contains(err.Error(), "masked") {
		t.Errorf("starting a masked unit: %v", err)
	}
	unmasked := m.member(&Unit{Masked: no()}, "systemd-timesyncd.service", "k5")
	m.expect("is masked", unmasked)
	m.must(unmasked)
}

// A crash after a file was changed and before its service was restarted loses
// no restart: the stamp is dropped before the file is touched.
func TestRestartSurvivesACrashInBetween(t *testing.T) {
	m := booted(t)
	config := step.ID{Kind: "files", Name: "/etc/two.conf"}
	u := func(key string) step.Member {
		return m.member(&Unit{Content: service("ExecStart=/bin/sleep infinity"), State: started, RestartOn: []step.ID{config}}, "two.service", key)
	}
	m.must(u("config-1"))
	first := show(t, "two.service", "MainPID")

	// The file changes to another text: another key. The agent drops the
	// stamp, writes the file and is killed.
	_ = m.stamps.Drop(u("").ID)
	m.expect("has not been restarted since what it reads changed", u("config-2"))
	m.must(u("config-2"))
	second := show(t, "two.service", "MainPID")
	if second == first {
		t.Error("it was not restarted")
	}
	// The file was damaged by hand and put right: the same key as before.
	_ = m.stamps.Drop(u("").ID)
	m.must(u("config-2"))
	if third := show(t, "two.service", "MainPID"); third == second {
		t.Error("it was not restarted although its file was rewritten")
	}

	// Killed between the restart and the stamp: one restart too many, none too few.
	_ = m.stamps.Drop(u("").ID)
	m.must(u("config-2"))

	// Its own file, damaged by hand, loaded and run.
	os.WriteFile("/etc/systemd/system/two.service", []byte(service("ExecStart=/bin/sleep 9999")), 0o644)
	exec.Command("systemctl", "daemon-reload").Run()
	exec.Command("systemctl", "restart", "two.service").Run()
	m.expect("/etc/systemd/system/two.service differs", u("config-2"))
	m.must(u("config-2"))
	if cmd, _ := os.ReadFile("/proc/" + show(t, "two.service", "MainPID") + "/cmdline"); !strings.Contains(string(cmd), "infinity") {
		t.Errorf("it runs as %q", cmd)
	}

	// Killed between the file and the reload of systemd.
	more := u("config-3")
	more.Step.(*Unit).DropIns = map[string]string{"x": "[Service]\nEnvironment=B=2\n"}
	if _, err := more.Step.(*Unit).writeTexts(t.Context(), m.host); err != nil {
		t.Fatal(err)
	}
	m.expect("systemd has not read its changed files", more)
	m.must(more)
	os.WriteFile("/etc/systemd/system/two.service.d/x.conf", []byte("[Service]\nEnvironment=B=3\n"), 0o644)
	again := u("config-4")
	again.Step.(*Unit).DropIns = map[string]string{"x": "[Service]\nEnvironment=B=3\n"}
	m.expect("systemd has not read its changed files", again)
	m.must(again)
	if got := show(t, "two.service", "Environment"); got != "B=3" {
		t.Errorf("Environment is %q", got)
	}
}

// A drop-in that the kind files wrote is in force after the restart that it brings about.
func TestDropInOfAnotherStep(t *testing.T) {
	m := booted(t)
	const file = "/etc/systemd/system/three.service.d/y.conf"
	u := func(key string) step.Member {
		return m.member(&Unit{Content: service("ExecStart=/bin/sleep infinity"), State: started,
			RestartOn: []step.ID{{Kind: "files", Name: file}}}, "three.service", key)
	}
	m.must(u("1"))
	_ = m.stamps.Drop(u("").ID)
	os.Mkdir("/etc/systemd/system/three.service.d", 0o755)
	os.WriteFile(file, []byte("[Service]\nEnvironment=C=1\n"), 0o644)
	m.must(u("2"))
	if got := show(t, "three.service", "Environment"); got != "C=1" {
		t.Errorf("Environment is %q", got)
	}
}

func TestStoppedUnitIgnoresRestarts(t *testing.T) {
	m := booted(t)
	u := m.member(&Unit{Content: service("ExecStart=/bin/sleep infinity"), State: stopped}, "still.service", "k")
	m.must(u)
	m.expect("", m.member(u.Step.(*Unit), "still.service", "other key"))
}

func TestReloadInsteadOfRestart(t *testing.T) {
	m := booted(t)
	u := func(key string) step.Member {
		return m.member(&Unit{Content: service("ExecStart=/bin/sleep infinity", "ExecReload=/bin/touch /reloaded"),
			State: started, Reload: true, RestartOn: []step.ID{{Kind: "files", Name: "/x"}}}, "rel.service", key)
	}
	m.must(u("1"))
	pid := show(t, "rel.service", "MainPID")
	m.must(u("2"))
	if _, err := os.Stat("/reloaded"); err != nil {
		t.Error("not reloaded:", err)
	}
	if now := show(t, "rel.service", "MainPID"); now != pid {
		t.Error("restarted")
	}
}

// Ten units with files, drop-ins and links: systemd is reloaded once. What
// changes nothing reloads nothing.
func TestOneReloadForAll(t *testing.T) {
	m := booted(t)
	reloads := countReloads(t)
	var all []step.Member
	for i := range 10 {
		all = append(all, m.member(&Unit{Content: service("ExecStart=/bin/sleep infinity"), Enabled: yes(), State: started,
			DropIns: map[string]string{"a": "[Service]\nNice=5\n"}}, fmt.Sprintf("many%d.service", i), "k"))
	}
	m.must(all...)
	if n := reloads(); n != 1 {
		t.Errorf("systemd was reloaded %d times, want once", n)
	}
	if err := m.apply(all...); err != nil {
		t.Fatal(err)
	}
	if n := reloads(); n != 1 {
		t.Errorf("an Apply with nothing to do reloaded systemd")
	}
}

func TestUnitsThatDoNotStart(t *testing.T) {
	for name, c := range map[string]struct {
		content     string
		want, hint  string
		afterwards  string
		needsOthers map[string]string
	}{
		"exits.service": {service("ExecStart=/bin/sh -c 'echo cannot read /etc/app.toml; exit 3'"),
			`cannot start exits.service: it exited with 3; it last logged "cannot read /etc/app.toml"`,
			"systemctl status exits.service; journalctl -u exits.service", "has failed: it exited with 3", nil},
		"missing.service": {service("ExecStart=/opt/none"),
			"cannot start missing.service: its program cannot be run (status 203)", "", "has failed: its program cannot be run (status 203)", nil},
		"nouser.service": {service("User=nobodyhere", "ExecStart=/bin/true"),
			"its User= does not exist (status 217)", "", "", nil},
		"loops.service": {service("ExecStart=/bin/false", "Restart=always", "RestartSec=60"),
			"cannot start loops.service: it exited with 1", "", "keeps failing: it exited with 1", nil},
		"ends.service": {service("ExecStart=/bin/true"),
			"cannot start ends.service: it ended by itself, with success", "write Type=oneshot", "is inactive, want started", nil},
		"slow.service": {service("Type=notify", "TimeoutStartSec=300ms", "ExecStart=/bin/sleep infinity"),
			"cannot start slow.service: it was not up within the time that its unit allows", "", "", nil},
		"conditional.service": {"[Unit]\nConditionPathExists=/no/such/path\n" + service("ExecStart=/bin/sleep infinity"),
			"cannot start conditional.service: a condition of its unit file is not met, ConditionPathExists=/no/such/path", "",
			"is inactive: a condition of its unit file is not met, ConditionPathExists=/no/such/path", nil},
		"dependent.service": {"[Unit]\nRequires=base.service\nAfter=base.service\n" + service("ExecStart=/bin/sleep infinity"),
			"cannot start dependent.service: a unit that it needs failed: base.service", "journalctl -u base.service", "",
			map[string]string{"base.service": service("Type=oneshot", "ExecStart=/bin/false")}},
		"nosuchthing.service": {"", "cannot start nosuchthing.service", "systemctl status", "systemd knows no such unit", nil},
	} {
		t.Run(name, func(t *testing.T) {
			m := booted(t)
			for other, text := range c.needsOthers {
				os.WriteFile("/etc/systemd/system/"+other, []byte(text), 0o644)
			}
			body := &Unit{Content: c.content, State: started}
			if strings.HasPrefix(name, "cond") {
				body.Enabled = yes() // so that systemd remembers why it did not start
			}
			u := m.member(body, name, "k")
			// A healthy unit of the same group is none the worse for it.
			well := m.member(&Unit{Content: service("ExecStart=/bin/sleep infinity"), State: started}, "well-"+name, "k")
			err := m.errorOf(u, well)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want %q in it", err, c.want)
			}
			if hint := diag.Hint(err); !strings.Contains(hint, c.hint) || hint == "" {
				t.Errorf("hint is %q, want %q in it", hint, c.hint)
			}
			if c.afterwards != "" {
				m.expect(c.afterwards, u)
			}
			m.expect("", well)
		})
	}
}

func TestTimeoutOfTheManifest(t *testing.T) {
	m := booted(t)
	u := m.member(&Unit{Content: service("Type=notify", "ExecStart=/bin/sleep infinity"), State: started, Timeout: 200 * time.Millisecond}, "patient.service", "k")
	err := m.errorOf(u)
	if err == nil || !strings.Contains(err.Error(), "cannot start patient.service: not done within the 200ms that the manifest allows") {
		t.Error(err)
	}
	m.expect("began to start before what it reads changed", u)
	exec.Command("systemctl", "stop", "--no-block", "patient.service").Run()
}

func TestCancelledApplyReturnsSoon(t *testing.T) {
	m := booted(t)
	u := m.member(&Unit{Content: service("Type=notify", "ExecStart=/bin/sleep infinity"), State: started}, "endless.service", "k")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	err := group{}.Apply(ctx, u.Env, []step.Member{u})
	if err == nil || time.Since(began) > time.Second {
		t.Errorf("it took %s and gave %v", time.Since(began), err)
	}
	exec.Command("systemctl", "stop", "--no-block", "endless.service").Run()
}

// A oneshot that does not remain is inactive after success, as it is before it ever ran.
func TestOneshotsRunOnceABoot(t *testing.T) {
	m := booted(t)
	u := func(key string) step.Member {
		return m.member(&Unit{Content: "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo ran >>/once'\n", State: started}, "once.service", key)
	}
	runs := func() int { b, _ := os.ReadFile("/once"); return strings.Count(string(b), "ran") }
	m.expect("/etc/systemd/system/once.service is missing", u("1"))
	m.must(u("1"))
	m.expect("", u("1"))
	if err := m.apply(u("1")); err != nil || runs() != 1 {
		t.Errorf("ran %d times, %v", runs(), err)
	}
	m.expect("has not run since what it reads changed", u("2"))
	m.must(u("2"))
	if runs() != 2 {
		t.Errorf("ran %d times, want 2", runs())
	}
	// The next boot: systemd knows nothing of it any more.
	next := u("2")
	next.Env.Boot = "next-boot"
	m.expect("has not run in this boot", next)

	remains := m.member(&Unit{Content: service("Type=oneshot", "RemainAfterExit=yes", "ExecStart=/bin/true"), State: started}, "remains.service", "k")
	m.must(remains)
	fails := m.member(&Unit{Content: service("Type=oneshot", "ExecStart=/bin/false"), State: started}, "onefail.service", "k")
	if err := m.errorOf(fails); err == nil || !strings.Contains(err.Error(), "cannot start onefail.service: it exited with 1") {
		t.Error(err)
	}
}

func TestOtherTypesAndTemplates(t *testing.T) {
	m := booted(t)
	m.must(
		m.member(&Unit{Content: "[Service]\nExecStart=/bin/sleep infinity\n"}, "tpl@.service", "k"),
		m.member(&Unit{State: started, Enabled: nil}, "tpl@a.service", "k"),
		m.member(&Unit{Content: "[Timer]\nOnBootSec=1d\n[Install]\nWantedBy=timers.target\n", Enabled: yes(), State: started}, "tpl@b.timer", "k"),
		m.member(&Unit{Content: "[Service]\nExecStart=/bin/cat\nStandardInput=socket\n"}, "tpl@c.service", "k"),
		m.member(&Unit{Content: "[Socket]\nListenStream=/run/tpl.sock\nService=tpl@c.service\n", State: started}, "tplsock.socket", "k"),
		m.member(&Unit{Content: "[Path]\nPathExists=/never\nUnit=tpl@a.service\n", State: started}, "tpl.path", "k"),
		m.member(&Unit{Content: "[Unit]\nDescription=x\n", State: started}, "tpl.target", "k"),
	)
	if show(t, "tpl@a.service", "ActiveState") != "active" {
		t.Error("the instance does not run")
	}
}

// A unit that systemd orders after the agent is not waited for: the agent's
// own job would wait for itself.
func TestUnitsOrderedAfterTheAgent(t *testing.T) {
	m := booted(t)
	late := func(name, unit string) step.Member {
		return m.member(&Unit{Content: unit + service("ExecStart=/bin/sleep infinity"), State: started}, name, "k")
	}
	direct := late("direct.service", "[Unit]\nAfter=amiagent.service\n")
	through := late("through.service", "[Unit]\nAfter=multi-user.target\n")
	another := late("another.service", "[Unit]\nAfter=direct.service\n")
	free := late("free.service", "")
	oneshot := m.member(&Unit{Content: "[Unit]\nAfter=amiagent.service\n[Service]\nType=oneshot\nExecStart=/bin/touch /late-oneshot\n", State: started}, "lateone.service", "k")

	began := time.Now()
	err := m.apply(direct, through, another, free, oneshot)
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("Apply took %s", took)
	}
	var some step.MemberErrors
	if !errors.As(err, &some) {
		t.Fatal(err)
	}
	for m, want := range map[*step.Member]string{
		&direct:  "direct.service is ordered after amiagent.service: its start goes on once that is up",
		&through: "through.service is ordered after multi-user.target, after amiagent.service: its start goes on once that is up",
		&another: "another.service is ordered after direct.service, after amiagent.service: its start goes on once that is up",
		&oneshot: "lateone.service is ordered after amiagent.service: its start goes on once that is up",
	} {
		reason, ok := step.Deferred(some[m.ID])
		if !ok || reason != want {
			t.Errorf("%s: %v, want deferred with %q", m.ID, some[m.ID], want)
		}
	}
	if some[free.ID] != nil {
		t.Errorf("the unit that waits for nobody: %v", some[free.ID])
	}
	m.expect("waits to start|waits to start|waits to start|", direct, through, another, free)
	// Again, as after a crash of the agent: the same.
	if _, ok := step.Deferred(m.errorOf(direct)); !ok {
		t.Error("a second Apply does not defer")
	}
	if !m.stamps.Has(direct.ID, "k") {
		t.Error("the queued unit is not stamped: it would be restarted for nothing after READY")
	}
}

func TestOwnUnitIsNotRestarted(t *testing.T) {
	m := booted(t)
	s, err := m.host.Systemd(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.Self() != "amiagent.service" {
		t.Fatalf("the own unit is %q", s.Self())
	}
	if _, err := s.Queue(t.Context(), host.Restart, s.Self()); !errors.Is(err, host.ErrSelf) {
		t.Error(err)
	}
}

func TestUnitFileStates(t *testing.T) {
	m := booted(t)
	s, err := m.host.Systemd(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile("/etc/systemd/system/compare.service", []byte(service("ExecStart=/bin/true")), 0o644)
	for _, unit := range []string{"compare.service", "no-such.service", "dbus.service", "getty@.service", "systemd-journald.service"} {
		live, err := s.UnitFileState(t.Context(), unit)
		if err != nil {
			t.Error(err)
		}
		tree, err := m.host.TreeUnitState(unit)
		if err != nil {
			t.Error(err)
		}
		if live != tree {
			t.Errorf("%s: systemd says %q, the tree %q", unit, live, tree)
		}
	}
	if err := m.host.TreeEnable("compare.service"); err != nil {
		t.Fatal(err)
	}
	if state, _ := s.UnitFileState(t.Context(), "compare.service"); state != "enabled" {
		t.Errorf("after enabling without systemd, systemd says %q", state)
	}
	state, err := s.SystemState(t.Context())
	if err != nil || !slices.Contains([]string{"starting", "degraded"}, state) {
		t.Errorf("the system is %q, %v", state, err)
	}
}
