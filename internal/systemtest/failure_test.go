//go:build system

package systemtest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/amiagent/amiagent/internal/ec2sim"
	"github.com/amiagent/amiagent/internal/report"
	"github.com/amiagent/amiagent/internal/sink/console"
)

const brokenManifest = `
amiagent: 1
name: broken
files:
  /etc/first: {content: "first\n"}
commands:
  fails:
    run: [sh, -c, 'seq --format="line %g of a program that talks a lot" 500; echo the disk is on fire >&2; exit 3']
  after:
    run: [touch, /var/after]
    needs: [commands.fails]
`

// A machine whose manifests are wrong in one way after another, until they are mended.
func TestFailedLaunch(t *testing.T) {
	c := newCloud(t, ec2sim.Config{Tags: map[string]string{"Role": "web"}, TagsInIMDS: true})
	lb := newBalancer(c)
	m := newMachine(c)
	m.write("/etc/amiagent/manifest.d/broken.yaml", brokenManifest)
	m.enable("waiter.service", waiter)
	m.launch()

	t.Run("a failing step is told everywhere", func(t *testing.T) { failureIsLoud(t, m.in(t)) })
	for _, bad := range []struct {
		name, manifest string
		exit           string
		readyz         string
		says           []string
	}{
		{"faulty", "amiagent: 1\nfiles:\n  /etc/x: {contents: x}\n  relative: {content: x}\n", "2", "failed: resolve", []string{
			"/etc/amiagent/manifest.d/broken.yaml:3:12: files./etc/x.contents: ", "/etc/amiagent/manifest.d/broken.yaml:4:13: files.relative: "}},
		{"missing tag", "amiagent: 1\nfiles:\n  /etc/x: {template: '{{ tag \"Nothing\" }}'}\n", "2", "failed: resolve", []string{`Nothing`}},
		{"saying nothing", "amiagent: 1\n", "2", "failed: resolve", []string{"no manifest"}},
		{"too slow", "amiagent: 1\ncommands:\n  slow: {run: [sleep, '60']}\n", "5", "failed: commands", []string{"took longer than 2s", "raise deadline:"}},
	} {
		t.Run("a manifest that is "+bad.name, func(t *testing.T) {
			m := m.in(t)
			m.write("/etc/amiagent/agent.yaml", "amiagent: 1\ndeadline: 2s\n")
			m.write("/etc/amiagent/manifest.d/broken.yaml", bad.manifest)
			m.run("systemctl", "reset-failed", "amiagent.service")
			began := time.Now()
			if _, code := m.try("systemctl", "start", "amiagent.service"); code == 0 {
				t.Error("the agent started")
			}
			if took := time.Since(began); took > 8*time.Second {
				t.Errorf("it took %s", took)
			}
			m.wantFailed(bad.exit)
			if code, body := m.cloud.get("127.0.0.1:8099/readyz"); code != 503 || body != bad.readyz {
				t.Errorf("/readyz says %d %s", code, body)
			}
			out, code := m.try("amiagent", "status")
			out = strings.Join(strings.Fields(out), " ") // it is wrapped
			for _, want := range bad.says {
				if code != 4 || !strings.Contains(out, want) {
					t.Errorf("amiagent status: exit code %d, no %q in\n%s", code, want, out)
				}
			}
		})
	}
	if turns := lb.take(); len(turns) > 0 {
		t.Errorf("the load balancer says %+v", turns)
	}
	t.Run("mended, it becomes ready", func(t *testing.T) {
		m := m.in(t)
		m.write("/etc/amiagent/agent.yaml", "amiagent: 1\n")
		m.write("/etc/amiagent/manifest.d/broken.yaml", strings.ReplaceAll(brokenManifest, "exit 3", "exit 0"))
		m.run("systemctl", "reset-failed", "amiagent.service")
		m.run("systemctl", "start", "amiagent.service")
		lb.wantTurn("UP")
		m.run("systemctl", "start", "waiter.service")
		if !m.exists("/var/after") {
			t.Error("what was blocked has not run")
		}
	})
}

// wantFailed sees that the unit has failed with an exit status, and is not tried again.
func (m *machine) wantFailed(status string) {
	m.Helper()
	m.wantUnit("amiagent.service", "ActiveState", "failed")
	m.wantUnit("amiagent.service", "SubState", "failed") // not auto-restart
	m.wantUnit("amiagent.service", "Result", "exit-code")
	m.wantUnit("amiagent.service", "ExecMainStatus", status)
}

func failureIsLoud(t *testing.T, m *machine) {
	s := m.wantState(report.DidFail)
	if s.Step != "commands.fails" {
		t.Errorf("the status blames %s", s.Step)
	}
	until(t, 10*time.Second, "the unit has failed", func() bool { return m.unit("amiagent.service", "ActiveState") == "failed" })
	m.wantFailed("1")
	m.wantUnit("amiagent.service", "NRestarts", "0")
	if code, body := m.cloud.get("127.0.0.1:8099/readyz"); fmt.Sprint(code, body) != "503failed: commands" {
		t.Errorf("/readyz says %d %s", code, body)
	}

	// What waits for ready does not start; the rest of the machine does.
	until(t, 20*time.Second, "the boot is done", func() bool { return m.unit("multi-user.target", "ActiveState") == "active" })
	m.wantUnit("amiagent-ready.target", "ActiveState", "inactive")
	m.wantUnit("waiter.service", "ActiveState", "inactive")
	m.wantUnit("amiagent-gate.service", "ActiveState", "failed")

	rep := m.report()
	for id, want := range map[string]report.Outcome{"files./etc/first": report.Changed, "commands.fails": report.Failed, "commands.after": report.Blocked} {
		if got := stepOf(rep, id).Outcome; got != want {
			t.Errorf("%s: %s, want %s", id, got, want)
		}
	}
	if rep.Cause == nil || rep.Cause.Step != "commands.fails" {
		t.Errorf("cause: %+v", rep.Cause)
	}
	if m.exists("/var/after") {
		t.Error("a command ran whose need had failed")
	}

	var account []string
	for line := range strings.Lines(m.console.String()) {
		if strings.HasPrefix(line, console.Prefix) {
			account = append(account, line)
		}
	}
	text := strings.Join(account, "")
	if len(text) > 4<<10 {
		t.Errorf("the account on the console has %d bytes", len(text))
	}
	for _, want := range []string{`"outcome":"failed"`, "failed: commands.fails: ", "the disk is on fire"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q on the console:\n%s", want, text)
		}
	}
	if out, code := m.try("amiagent", "status"); code != 4 || !strings.HasPrefix(out, "failed: commands.fails: cannot run fails: ") {
		t.Errorf("amiagent status: exit code %d\n%s", code, out)
	}
	if out := m.run("amiagent", "analyze"); !strings.Contains(out, "the disk is on fire") || !strings.Contains(out, "commands.after") {
		t.Errorf("amiagent analyze:\n%s", out)
	}
	if out := m.messages(); !strings.Contains(out, "the disk is on fire") {
		t.Errorf("the journal does not tell:\n%s", out)
	}
}

// A command that asks for a reboot gets one, and the launch goes on after it.
func TestReboot(t *testing.T) {
	m := newMachine(newCloud(t, ec2sim.Config{}))
	m.write("/etc/amiagent/manifest.d/kernel.yaml", `
amiagent: 1
commands:
  kernel: {run: [sh, -c, 'echo run >>/var/runs; test $(wc -l </var/runs) -ge 3 || exit 194']}
  after: {run: [touch, /var/after], needs: [commands.kernel]}
`)
	for boot := range 2 {
		m.boot()
		if err := <-m.off; err == nil || !strings.HasSuffix(err.Error(), "133") { // how systemd-nspawn tells of a reboot
			t.Fatalf("boot %d ended with %v", boot, err)
		}
		m.off = nil
		if rep := m.report(); rep.Outcome != report.Reboot {
			t.Errorf("boot %d: the report says %s", boot, rep.Outcome)
		}
		if m.exists("/var/after") {
			t.Fatal("a step that needs the command ran before the reboot")
		}
	}
	if s := m.launch(); s.State != report.Ready {
		t.Errorf("after the reboots: %s", s.Headline())
	}
	if got := m.read("/var/runs"); got != "run\nrun\nrun\n" || !m.exists("/var/after") {
		t.Errorf("the command ran %q", got)
	}
	if m.exists("/var/lib/amiagent/reboots.json") {
		t.Error("the reboots still count, after READY")
	}
	m.powerOff()
}

// The plug is pulled in the middle of launches, again and again. The boot after
// that makes of the rest what an undisturbed one would have made.
func TestPlugPulled(t *testing.T) {
	c := webCloud(t)
	m := newWebMachine(c)
	// Each is the first sign of a step that is under way.
	for _, sign := range []string{
		"/var/lib/amiagent/store", "/var/lib/dpkg/info/greeter.list", "/var/lib/app", "/opt/app",
		"/etc/app/app.conf", "/var/lib/greeted", "/etc/systemd/system/app.service",
	} {
		m.boot()
		for end := time.Now().Add(30 * time.Second); !m.exists(sign); time.Sleep(50 * time.Microsecond) {
			if time.Now().After(end) {
				t.Fatalf("no sign of %s", sign)
			}
		}
		m.kill()
	}
	if s := m.launch(); s.State != report.Ready {
		t.Fatalf("after the last cut: %s", s.Headline())
	}
	m.settled()
	if out, code := m.try("amiagent", "plan"); code != 0 {
		t.Errorf("plan finds drift:\n%s", out)
	}
	if code, body := c.get("127.0.0.1:8080/"); code != 200 || body != "blue" {
		t.Errorf("the service says %d %s", code, body)
	}
	if out := m.run("dpkg", "--audit"); out != "" {
		t.Errorf("dpkg is not content:\n%s", out)
	}
	if left := m.run("find", "/etc", "/opt", "/usr/local", "/var/lib/app", "-name", ".*amiagent*"); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
	m.powerOff()
}
