//go:build system

package systemtest

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/amiagent/amiagent/internal/report"
)

// One machine's life: its first launch, work on it, and two boots more.
func TestWebServer(t *testing.T) {
	c := webCloud(t)
	lb := newBalancer(c)
	m := newWebMachine(c)

	s := m.launch()
	if s.State != report.Ready {
		t.Fatalf("the first launch: %s", s.Headline())
	}
	up := lb.wantTurn("UP")
	if up.at.Before(s.Since) {
		t.Errorf("the load balancer sent traffic at %s, before READY at %s", up.at, s.Since)
	}
	for _, story := range []struct {
		name string
		tell func(*testing.T, *machine, *balancer)
	}{
		{"the first launch made everything", madeEverything},
		{"units behind the agent did not block it", behindTheAgent},
		{"systemd is content", systemdIsContent},
		{"the responder has no privileges", responderUnprivileged},
		{"the secret is nowhere else", secretNowhereElse},
		{"a failing probe takes it out of service", probeFails},
		{"a restart of the agent flips nothing", restartAgent},
		{"a reload brings a stopped service back", reloadRevives},
		{"a changed tag converges", tagChanges},
		{"drift is found and mended", driftByHand},
	} {
		t.Run(story.name, func(t *testing.T) { story.tell(t, m.in(t), lb) })
	}
	m.powerOff()
	t.Run("it drained before its service stopped", func(t *testing.T) { drained(t, m.in(t)) })

	t.Run("the second boot changes nothing", func(t *testing.T) { secondBoot(t, m.in(t)) })
	t.Run("the third boot needs nothing from outside", func(t *testing.T) { thirdBoot(t, m.in(t)) })
	t.Run("disabled, it does nothing", func(t *testing.T) { disabled(t, m.in(t)) })
}

// in is the machine, and its cloud, in a subtest.
func (m *machine) in(t *testing.T) *machine {
	whole := m.T
	m.T, m.cloud.t = t, t
	t.Cleanup(func() { m.T, m.cloud.t = whole, whole })
	return m
}

func madeEverything(t *testing.T, m *machine, _ *balancer) {
	rep := m.report()
	if rep.Outcome != report.Changed || rep.Command != "run" || rep.Name != "web" || rep.Instance != "i-0123456789abcdef0" {
		t.Errorf("report: %s of %s for %s on %s", rep.Outcome, rep.Command, rep.Name, rep.Instance)
	}
	if len(rep.Notes) > 0 {
		t.Errorf("notes: %q", rep.Notes)
	}
	m.wantUnit("amiagent.service", "ActiveState", "active")
	m.wantUnit("amiagent.service", "NRestarts", "0")
	m.wantUnit("app.service", "ActiveState", "active")
	m.wantUnit("app.service", "UnitFileState", "enabled")
	if text := m.messages(); !regexp.MustCompile(`(?m)^ready took=`).MatchString(text) {
		t.Errorf("no line says ready in the journal:\n%s", text)
	}
	if !strings.Contains(m.console.String(), `amiagent: {"format":1,"outcome":"changed"`) {
		t.Errorf("the console does not tell:\n%s", m.console)
	}
	for file, want := range map[string]string{
		"/etc/app":                  "app app 750 directory",
		"/etc/app/app.conf":         "app app 600 regular file",
		"/etc/motd":                 "root root 644 regular file",
		"/usr/local/bin/app":        "root root 777 symbolic link",
		"/opt/app":                  "root root 777 symbolic link",
		"/opt/app/bin/app":          "root root 755 regular file",
		"/var/lib/app/cache":        "app app 600 regular file",
		"/var/lib/amiagent/reports": "root root 700 directory",
	} {
		if got := m.run("stat", "--format=%U %G %a %F", file); got != want {
			t.Errorf("%s is %s, want %s", file, got, want)
		}
	}
	want := "color = blue\ninstance = i-0123456789abcdef0\npassword = " + password
	if got := m.run("cat", "/etc/app/app.conf"); got != want {
		t.Errorf("app.conf:\n%s\nwant:\n%s", got, want)
	}
	if got := m.run("id", "--groups", "--name", "app"); got != "app readers" {
		t.Errorf("app is in %s", got)
	}
	if got := m.run("dpkg-query", "--show", "--showformat=${Version}", "greeter"); got != "1.2-3" {
		t.Errorf("greeter is %s", got)
	}
	if got := m.run("cat", "/proc/sys/net/core/somaxconn"); got != "512" {
		t.Errorf("somaxconn is %s", got)
	}
	if got := m.run("cat", "/var/lib/greeted"); got != "hello" {
		t.Errorf("greeted: %q", got)
	}
	for address, want := range map[string]string{
		"127.0.0.1:8000/":        "200 blue", // through the load balancer
		"127.0.0.1:8099/readyz":  "200 ready",
		"127.0.0.1:8099/livez":   "200 alive",
		"127.0.0.1:8099/unknown": "404 not found",
	} {
		if code, body := m.cloud.get(address); fmt.Sprint(code, " ", body) != want {
			t.Errorf("%s: %d %s, want %s", address, code, body, want)
		}
	}
	if n := len(m.cloud.gets("acme-artifacts")); n != 1 {
		t.Errorf("the artifact was read %d times:\n%s", n, strings.Join(m.cloud.gets("acme-artifacts"), "\n"))
	}
	for _, op := range []string{"DescribeTags"} { // tags are in the metadata
		if n := m.cloud.Count("ec2", op); n != 0 {
			t.Errorf("%d calls of %s", n, op)
		}
	}
	status := m.run("amiagent", "status")
	if !strings.HasPrefix(status, "ready") {
		t.Errorf("amiagent status:\n%s", status)
	}
}

// startedWith is the state that the agent published when a unit started.
func startedWith(t *testing.T, m *machine, unit string) report.State {
	t.Helper()
	s, err := report.ParseStatus([]byte(m.run("cat", "/run/"+unit)))
	if err != nil {
		t.Error(err)
	}
	return s.State
}

func behindTheAgent(t *testing.T, m *machine, _ *balancer) {
	rep := m.settled()
	for _, unit := range []string{"behind-agent.service", "behind-boot.service"} {
		if st := stepOf(rep, "units."+unit); st.Reason != "proved after READY" {
			t.Errorf("%s: %+v", unit, st)
		}
		m.wantUnit(unit, "ActiveState", "active")
		if s := startedWith(t, m, unit); s != report.Ready {
			t.Errorf("%s started while the instance was %s", unit, s)
		}
	}
	m.wantUnit("amiagent-ready.target", "ActiveState", "active")
	until(t, 5*time.Second, "what waits for ready has started", func() bool { return m.unit("waiter.service", "ActiveState") == "active" })
	if s := startedWith(t, m, "waiter"); s != report.Ready {
		t.Errorf("what waits for ready started while the instance was %s", s)
	}
}

func systemdIsContent(t *testing.T, m *machine, _ *balancer) {
	until(t, 10*time.Second, "the boot is done", func() bool {
		out, _ := m.try("systemctl", "is-system-running")
		return strings.TrimSpace(out) != "starting"
	})
	if out, code := m.try("systemctl", "is-system-running"); code != 0 {
		t.Errorf("the system is %s%s", out, m.run("systemctl", "--failed", "--no-legend"))
	}
	if out := m.run("systemd-analyze", "verify", "--man=no", "--recursive-errors=one", "amiagent.service", "amiagent-health.service",
		"amiagent-ready.target", "amiagent-drain.service", "waiter.service"); out != "" {
		t.Errorf("systemd-analyze verify:\n%s", out)
	}
	if log := m.journal(); strings.Contains(log, "ordering cycle") {
		t.Error("the journal tells of an ordering cycle")
	}
}

func responderUnprivileged(t *testing.T, m *machine, _ *balancer) {
	pid := m.unit("amiagent-health.service", "MainPID")
	want := m.run("id", "--user", "amiagent-health")
	status := m.run("cat", "/proc/"+pid+"/status")
	for _, line := range []string{`Uid:\t` + strings.Repeat(`\d+\t`, 3) + `\d+`, `NoNewPrivs:\t1`, `CapEff:\t0000000000000000`, `CapBnd:\t0000000000000000`} {
		if !regexp.MustCompile(`(?m)^` + line + `$`).MatchString(status) {
			t.Errorf("no line %s in\n%s", line, status)
		}
	}
	if got := m.run("stat", "--format=%u", "/proc/"+pid); got != want || got == "0" {
		t.Errorf("the responder runs as %s, want %s", got, want)
	}
}

func secretNowhereElse(t *testing.T, m *machine, _ *balancer) {
	out, _ := m.try("grep", "--recursive", "--text", "--files-with-matches", "--fixed-strings", "--devices=skip", "-e", password,
		"/etc", "/var", "/run", "/root", "/home", "/opt", "/srv", "/tmp", "/usr/local")
	if got := strings.TrimSpace(out); got != "/etc/app/app.conf" {
		t.Errorf("the secret is in\n%s", got)
	}
	status := m.run("amiagent", "status", "-o", "json")
	analysis := m.run("amiagent", "analyze")
	plan, _ := m.try("amiagent", "plan", "-o", "json", "-v")
	for name, text := range map[string]string{
		"the journal": m.journal(), "the console": m.console.String(), "status": status, "the analysis": analysis, "the plan": plan,
	} {
		if strings.Contains(text, password) || strings.Contains(text, "battery-staple") {
			t.Errorf("the secret is in %s", name)
		}
	}
	// The command printed it; that it was seen and taken out shows that the search above can find something.
	if out := stepOf(m.report(), "commands.greet").Output; !strings.Contains(strings.Join(out, "\n"), report.Redacted) {
		t.Errorf("the command's output: %q", out)
	}
}

func probeFails(t *testing.T, m *machine, lb *balancer) {
	m.run("systemctl", "stop", "app.service")
	lb.wantTurn("DOWN")
	if code, body := m.cloud.get("127.0.0.1:8099/readyz"); code != 503 || body != "not ready: probe http" {
		t.Errorf("/readyz says %d %s", code, body)
	}
	if out, code := m.try("amiagent", "status"); code != 4 || !strings.Contains(out, "not ready: probe http: ") {
		t.Errorf("amiagent status: %d\n%s", code, out)
	}
	m.wantUnit("amiagent.service", "ActiveState", "active")

	m.run("systemctl", "restart", "amiagent.service")
	lb.wantNoTurn("a restart of the agent on an instance that is not ready")
	if s := m.wantState(report.NotReady); !strings.Contains(s.Reason, "probe http") {
		t.Errorf("after a restart of the agent: %s", s.Headline())
	}

	m.run("systemctl", "start", "app.service")
	lb.wantTurn("UP")
	m.wantState(report.Ready)
}

func restartAgent(t *testing.T, m *machine, lb *balancer) {
	before, app, waiter := m.latest(), m.unit("app.service", "MainPID"), m.unit("waiter.service", "ActiveEnterTimestampMonotonic")
	m.run("systemctl", "restart", "amiagent.service")
	m.run("systemctl", "kill", "--signal=KILL", "amiagent.service")
	until(t, 15*time.Second, "systemd has restarted the agent", func() bool {
		return m.unit("amiagent.service", "NRestarts") == "1" && m.unit("amiagent.service", "ActiveState") == "active"
	})
	lb.wantNoTurn("restart and kill of the agent")
	if after := m.latest(); after != before {
		t.Errorf("the restarted agent launched again: report %s after %s", after, before)
	}
	m.wantUnit("app.service", "MainPID", app)
	m.wantUnit("waiter.service", "ActiveEnterTimestampMonotonic", waiter)
}

func reloadRevives(t *testing.T, m *machine, lb *balancer) {
	m.run("systemctl", "stop", "app.service")
	lb.wantTurn("DOWN")
	rep := m.reload("amiagent", "reload")
	if got := outcomes(rep); rep.Command != "reload" || len(got) != 1 || got["units.app.service"] != report.Changed {
		t.Errorf("the reload made %v", got)
	}
	lb.wantTurn("UP")
	m.wantState(report.Ready)
}

func tagChanges(t *testing.T, m *machine, lb *balancer) {
	m.cloud.SetTag("Color", "green")
	if out, code := m.try("amiagent", "plan"); code != 3 || !strings.Contains(out, "drift      files./etc/app/app.conf") {
		t.Errorf("plan: exit code %d\n%s", code, out)
	}
	got := outcomes(m.reload("systemctl", "reload", "amiagent.service"))
	if len(got) != 2 || got["files./etc/app/app.conf"] != report.Changed || got["units.app.service"] != report.Changed {
		t.Errorf("the reload made %v", got)
	}
	if code, body := m.cloud.get("127.0.0.1:8080/"); code != 200 || body != "green" {
		t.Errorf("the service says %d %s", code, body)
	}
	lb.wantNoTurn("a reload")
	m.wantState(report.Ready)
}

func driftByHand(t *testing.T, m *machine, lb *balancer) {
	m.write("/etc/motd", "edited by hand\n")
	if out, code := m.try("amiagent", "plan"); code != 3 || !strings.Contains(out, "files./etc/motd") {
		t.Errorf("plan: exit code %d\n%s", code, out)
	}
	m.cloud.forget()
	m.run("amiagent", "apply")
	if got := outcomes(m.report()); len(got) != 1 || got["files./etc/motd"] != report.Changed {
		t.Errorf("apply made %v", got)
	}
	if got := m.read("/etc/motd"); got != "made by amiagent\n" {
		t.Errorf("motd is %q", got)
	}
	if out, code := m.try("amiagent", "plan"); code != 0 || !strings.Contains(out, "nothing to do") {
		t.Errorf("plan: exit code %d\n%s", code, out)
	}
	m.run("amiagent", "apply")
	if rep := m.report(); rep.Outcome != report.OK || len(outcomes(rep)) != 0 {
		t.Errorf("the second apply is %s: %v", rep.Outcome, outcomes(rep))
	}
	if gets := m.cloud.gets("acme-artifacts"); len(gets) != 0 {
		t.Errorf("the artifact was read again:\n%s", strings.Join(gets, "\n"))
	}
	lb.wantNoTurn("apply")
}

func drained(t *testing.T, m *machine) {
	log, err := m.journalctl("-o", "cat")
	if err != nil {
		t.Fatal(err)
	}
	draining, stopping := strings.LastIndex(log, "\ndraining reason="), strings.LastIndex(log, "\nStopping app.service")
	if draining < 0 || stopping < 0 || draining > stopping {
		t.Errorf("draining is at %d, the service's stop at %d of the journal", draining, stopping)
	}
}

// starting are drifts of a unit that systemd itself is about to start with the machine.
var starting = regexp.MustCompile(`^(waits to start|is still starting)`)

func wantNothingChanged(t *testing.T, rep report.Report) {
	t.Helper()
	for _, s := range rep.Steps {
		byBoot := strings.HasPrefix(s.ID, "units.") && (s.Reason == "proved after READY" || starting.MatchString(s.Drift))
		if s.Outcome != report.OK && !byBoot {
			t.Errorf("%s: %s (%s%s%s)", s.ID, s.Outcome, s.Drift, s.Reason, s.Error)
		}
	}
}

func secondBoot(t *testing.T, m *machine) {
	m.cloud.forget()
	m.cloud.ForgetRequests()
	var before syscall.Stat_t
	_ = syscall.Stat(m.path("/etc/app/app.conf"), &before)
	s := m.launch()
	if s.State != report.Ready {
		t.Fatalf("%s", s.Headline())
	}
	rep := m.settled()
	wantNothingChanged(t, rep)
	if len(rep.Notes) > 0 {
		t.Errorf("notes: %q", rep.Notes)
	}
	if rep.Fetched != 0 {
		t.Errorf("%d bytes were fetched", rep.Fetched)
	}
	if gets := m.cloud.gets("acme-artifacts"); len(gets) != 0 {
		t.Errorf("the artifact was read again:\n%s", strings.Join(gets, "\n"))
	}
	if gets := m.cloud.gets("acme-manifests"); len(gets) != 1 {
		t.Errorf("the layer was read %d times", len(gets))
	}
	var after syscall.Stat_t
	_ = syscall.Stat(m.path("/etc/app/app.conf"), &after)
	if before.Ino != after.Ino || before.Mtim != after.Mtim {
		t.Error("app.conf was written again")
	}
	if got := m.read("/var/lib/greeted"); got != "hello\n" {
		t.Errorf("the command ran again: %q", got)
	}
	m.powerOff()
}

// A file is gone, and so are S3, SSM and the metadata service.
func thirdBoot(t *testing.T, m *machine) {
	// On EC2 the firmware says what this is, also while the metadata service is
	// down; a container has no such firmware, so the setting says it.
	m.write("/etc/systemd/system/amiagent.service.d/ec2.conf", "[Service]\nEnvironment=AWS_EC2_METADATA_SERVICE_ENDPOINT=http://169.254.169.254\n")
	m.remove("/etc/motd")
	m.cloud.s3Down()
	m.cloud.metadataDown()
	defer func() { m.cloud.metadataUp(); m.cloud.s3Up() }()
	s := m.launch()
	if s.State != report.Ready {
		t.Fatalf("%s", s.Headline())
	}
	rep := m.report()
	if got := m.read("/etc/motd"); got != "made by amiagent\n" {
		t.Errorf("motd is %q", got)
	}
	if st := stepOf(rep, "files./etc/motd"); st.Outcome != report.Changed || st.Drift != "is missing" {
		t.Errorf("motd: %+v", st)
	}
	conf := stepOf(rep, "files./etc/app/app.conf")
	if conf.Outcome != report.Unverified {
		t.Errorf("app.conf, whose secret cannot be read: %+v", conf)
	}
	if got := m.read("/etc/app/app.conf"); !strings.Contains(got, password) || !strings.Contains(got, "green") {
		t.Error("app.conf is not as it was")
	}
	kept := 0
	for _, l := range rep.Layers {
		if l.Origin == "kept" {
			kept++
		}
	}
	if kept != 1 || len(rep.Layers) != 2 {
		t.Errorf("layers: %+v", rep.Layers)
	}
	notes := strings.Join(rep.Notes, "\n")
	for _, want := range []string{"instance metadata is out of reach", "web.yaml", "cannot read the secret"} {
		if !strings.Contains(notes, want) {
			t.Errorf("no note tells of %q:\n%s", want, notes)
		}
	}
	for _, st := range rep.Steps {
		if st.ID == "files./etc/motd" || st.ID == conf.ID || strings.HasPrefix(st.ID, "units.") {
			continue
		}
		if st.Outcome != report.OK {
			t.Errorf("%s: %s (%s%s)", st.ID, st.Outcome, st.Drift, st.Error)
		}
	}
	m.wantUnit("app.service", "ActiveState", "active")
	m.powerOff()
}

func disabled(t *testing.T, m *machine) {
	reports := m.latest()
	m.write("/etc/amiagent/disabled", "")
	m.boot()
	until(t, 20*time.Second, "the boot is done", func() bool {
		out, _ := m.try("systemctl", "is-active", "multi-user.target")
		return strings.TrimSpace(out) == "active"
	})
	for _, unit := range []string{"amiagent.service", "amiagent-health.service"} {
		m.wantUnit(unit, "ActiveState", "inactive")
		m.wantUnit(unit, "ConditionResult", "no")
	}
	if _, err := m.status(); !os.IsNotExist(err) {
		t.Errorf("there is a status: %v", err)
	}
	if after := m.latest(); after != reports {
		t.Errorf("there is a new report, %s", after)
	}
	if out, code := m.try("amiagent", "status", "-o", "json"); code != 4 || json.Valid([]byte(out)) && strings.Contains(out, "ready") {
		t.Errorf("amiagent status: %d\n%s", code, out)
	}
	m.powerOff()
	m.remove("/etc/amiagent/disabled")

	m.kernel = []string{"amiagent=off"}
	m.boot()
	until(t, 20*time.Second, "the boot is done", func() bool {
		out, _ := m.try("systemctl", "is-active", "multi-user.target")
		return strings.TrimSpace(out) == "active"
	})
	m.wantUnit("amiagent.service", "ConditionResult", "no")
	m.kernel = nil
	m.powerOff()
}
