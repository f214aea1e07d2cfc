package agent_test

import (
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/amiagent/amiagent/agent"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/ec2sim"
	"github.com/amiagent/amiagent/internal/pkgmgr/pkgmgrtest"
	"github.com/amiagent/amiagent/internal/report"
	"github.com/amiagent/amiagent/internal/step"
	"github.com/amiagent/amiagent/internal/step/kinds"
)

// service is what a probe asks: well while the file /well is on the machine.
func (m *machine) service() (url string) {
	m.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		m.t.Fatal(err)
	}
	srv := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if m.read("/well") == "" {
			http.Error(w, "ill", http.StatusServiceUnavailable)
		}
	})}
	go func() { _ = srv.Serve(l) }()
	m.t.Cleanup(func() { srv.Close() })
	return "http://" + l.Addr().String()
}

const watched = `amiagent: 1
files:
  /etc/role: {template: '{{ tag "Role" }}'}
ready:
  http: {url: '{{ tag "Service" }}', within: 5s, every: 10ms, fall: 2}
`

func TestTheLifeOfADaemon(t *testing.T) {
	m := newMachine(t, watched, nil)
	m.SetTag("Service", m.service())

	d := m.run()
	d.until("proving", func(s report.Status) bool { return s.Phase == report.Prove && len(s.Probes) > 0 })
	if s := m.status(); s.State != report.Launching || s.Done != 1 || s.Total != 1 {
		t.Errorf("while the service is ill: %+v", s)
	}
	m.write("/well", "yes")
	d.untilState(report.Ready)
	m.remove("/well")
	if s := d.untilState(report.NotReady); s.Reason == "" || !s.Fresh(time.Now()) {
		t.Errorf("not ready: %+v", s)
	}
	m.write("/well", "yes")
	d.untilState(report.Ready)

	m.SetTag("Role", "worker")
	d.Reload()
	d.until("reloaded", func(s report.Status) bool { return m.read("/etc/role") == "worker" })
	d.Drain("the instance goes")
	if s := d.untilState(report.Draining); s.Reason != "the instance goes" {
		t.Errorf("draining: %+v", s)
	}
	if err := d.end(); err != nil {
		t.Error(err)
	}
	want := "began, ready, not-ready, ready, reload began, reload ready, draining, stopping"
	again := m.run() // a restarted agent does not bring a draining instance back
	again.until("draining again", func(s report.Status) bool { return s.State == report.Draining && s.PID != 0 })
	for begin := time.Now(); time.Since(begin) < 50*time.Millisecond; time.Sleep(time.Millisecond) {
		if s := m.status(); s.State != report.Draining {
			t.Fatalf("after the restart: %+v", s)
		}
	}
	again.Undrain()
	again.untilState(report.Ready)
	if got := d.news.all(); got != want {
		t.Errorf("sinks were told\n%s, want\n%s", got, want)
	}
}

// The agent is restarted while the machine runs on: whoever asks sees no change, whichever way it stood.
func TestARestartChangesNothingForAnybody(t *testing.T) {
	m := newMachine(t, watched, nil)
	m.SetTag("Service", m.service())
	m.write("/well", "yes")
	d := m.run()
	d.untilState(report.Ready)
	if err := d.end(); err != nil {
		t.Fatal(err)
	}
	for _, state := range []report.State{report.Ready, report.NotReady} {
		if s := m.status(); s.State != state {
			t.Errorf("between two agents: %s, want %s", s.State, state)
		}
		m.SetFault(ec2sim.Fault{Do: ec2sim.Fail}) // nobody outside is asked
		m.ForgetRequests()
		d = m.run()
		for begin := time.Now(); time.Since(begin) < 100*time.Millisecond; time.Sleep(time.Millisecond) {
			if s := m.status(); s.State != state {
				t.Fatalf("after the restart: %+v, want %s", s, state)
			}
		}
		if n := len(m.Requests()); n != 0 {
			t.Errorf("%d requests: %v", n, m.Requests())
		}
		m.ClearFaults()
		m.remove("/well")
		d.untilState(report.NotReady)
		if err := d.end(); err != nil {
			t.Fatal(err)
		}
	}
	d = m.run()
	m.write("/well", "yes")
	d.untilState(report.Ready)
}

// A reload while the service is ill must not be the last word of it.
func TestProbesTurnBackAfterAReload(t *testing.T) {
	m := newMachine(t, strings.Replace(watched, "within: 5s", "within: 50ms", 1), nil)
	m.SetTag("Service", m.service())
	m.write("/well", "yes")
	d := m.run()
	d.untilState(report.Ready)
	m.remove("/well")
	d.untilState(report.NotReady)
	d.Reload()
	s := d.until("told of the reload", func(s report.Status) bool { return strings.Contains(d.news.all(), "reload failed") })
	if s.State != report.NotReady {
		t.Errorf("after a reload that failed: %+v", s)
	}
	m.write("/well", "yes")
	d.untilState(report.Ready)
}

func TestALaunchThatTakesTooLongIsAFailedOne(t *testing.T) {
	m := newMachine(t, "amiagent: 1\ncommands: {slow: {run: [sleep, '60']}}\n", nil)
	m.cfg.Deadline = time.Second
	d := m.run()
	if err := d.wait(); !errors.Is(err, agent.ErrDeadline) {
		t.Errorf("err = %v", err)
	}
	if s := m.status(); s.State != report.DidFail || !strings.Contains(s.Reason, "the launch took longer than 1s") {
		t.Errorf("status: %+v", s)
	}
	rep, err := report.Latest(d.Host(), agent.ReportsDir)
	if err != nil || rep.Outcome != report.Failed || rep.Cause == nil || rep.Cause.Step != "commands.slow" {
		t.Errorf("report: %v, %+v", err, rep)
	}
	if got := d.news.all(); got != "began, failed" {
		t.Errorf("sinks were told %s", got)
	}
}

// After exit 194 the launch goes on where it was, behind the reboot.
func TestARebootIsAskedForAndGoneOnAfter(t *testing.T) {
	m := newMachine(t, `amiagent: 1
commands:
  first: {run: [kernel]}
  second: {run: [sh, -c, 'touch $AMIAGENT_ROOT/second']}
`, map[string]string{"kernel": `test -e "$AMIAGENT_ROOT/rebooted" || exit 194`})
	rep, err := m.apply()
	if !errors.Is(err, agent.ErrReboot) || rep.Outcome != report.Reboot || outline(rep) != "commands.first reboot; commands.second blocked" {
		t.Errorf("%v, %s: %s", err, rep.Outcome, outline(rep))
	}
	if m.read("/second") != "" {
		t.Error("the second command ran before the reboot")
	}
	m.write("/rebooted", "yes")
	m.converged("commands.first changed; commands.second changed")
	m.converged("")
}

// One that is refused does not keep the others out, and the launch says which and what to try.
func TestAnUnknownPackageIsNamed(t *testing.T) {
	m := newMachine(t, "amiagent: 1\npackages: {ngimx: {}, jq: {}}\n", pkgmgrtest.Apt())
	m.write("/repo", "nginx 1.22.1-9\njq 1.6-2\n")
	rep, err := m.apply()
	const text = "the launch failed: packages.ngimx: cannot install ngimx: no repository of this machine has it"
	if err == nil || err.Error() != text || diag.Hint(err) != `did you mean "nginx"?` {
		t.Errorf("err = %v | %s\nwant %s", err, diag.Hint(err), text)
	}
	if !errors.Is(err, agent.ErrFailed) || rep.Cause == nil || rep.Cause.Step != "packages.ngimx" || outline(rep) != "packages.ngimx failed; packages.jq changed" {
		t.Errorf("%s, cause: %+v", outline(rep), rep.Cause)
	}
}

// Fetch everything, then touch anything: what cannot be had keeps the machine as it was.
func TestNothingIsTouchedBeforeAllIsThere(t *testing.T) {
	m := newMachine(t, `amiagent: 1
artifacts:
  app: {source: s3://acme/app.tar, unpack: /opt/app}
files:
  /etc/motd: {content: hello}
  /etc/key: {template: '{{ secret "ssm:/none" }}', mode: "0600"}
commands:
  warm: {run: [warm]}
`, map[string]string{"warm": ""})
	before := strings.Join(m.tree(), "\n")
	rep, err := m.apply()
	if !errors.Is(err, agent.ErrFailed) {
		t.Errorf("err = %v", err)
	}
	if got, want := outline(rep), "artifacts.app failed; files./etc/motd blocked; files./etc/key failed; commands.warm blocked"; got != want {
		t.Errorf("steps: %s, want %s", got, want)
	}
	for _, line := range m.tree() {
		if !strings.Contains(before, line) && !strings.HasPrefix(line, "/var ") && !strings.Contains(line, "/var/lib") {
			t.Errorf("touched: %s", line)
		}
	}

	// What may fail keeps nothing else from being done, and is told.
	m.manifest(`amiagent: 1
artifacts:
  app: {source: s3://acme/app.tar, unpack: /opt/app, on-failure: continue}
files:
  /etc/motd: {content: hello}
`)
	rep = m.converged("artifacts.app continued; files./etc/motd changed")
	if rep.Outcome != report.Changed || !strings.Contains(rep.Steps[0].Error, "404") {
		t.Errorf("%s: %+v", rep.Outcome, rep.Steps[0])
	}
}

// A step's own account of what changed leads others to act, across failures between the two.
func TestARestartIsNotLostByAFailureInBetween(t *testing.T) {
	m := newMachine(t, `amiagent: 1
files:
  /etc/app.conf: {template: '{{ tag "Role" }}'}
commands:
  restart: {run: [restart], on-change: [files./etc/app.conf]}
`, map[string]string{"restart": `test ! -e "$AMIAGENT_ROOT/broken" || exit 1; echo x >>"$AMIAGENT_ROOT/restarts"`})
	m.converged("files./etc/app.conf changed; commands.restart changed")
	m.SetTag("Role", "worker")
	m.write("/broken", "yes")
	if _, err := m.apply(); err == nil {
		t.Error("the restart did not fail")
	}
	m.remove("/broken")
	m.converged("commands.restart changed")
	m.converged("")
	if got := m.read("/restarts"); got != "x\nx\n" {
		t.Errorf("restarts: %q", got)
	}
}

// A manifest of several layers: later ones replace whole entries.
func TestLayersLieOverOneAnother(t *testing.T) {
	m := newMachine(t, "amiagent: 1\nfiles: {/etc/a: {content: base}, /etc/b: {content: base}}\n", nil)
	m.PutObject("acme", "web.yaml", []byte("amiagent: 1\nfiles: {/etc/b: {content: web}}\n"))
	m.cfg.Layers = append(m.cfg.Layers, m.cfg.Layers[0])
	m.cfg.Layers[1].Source = `s3://acme/{{ tag "Role" }}.yaml`
	rep := m.converged("files./etc/a changed; files./etc/b changed")
	if m.read("/etc/a") != "base" || m.read("/etc/b") != "web" {
		t.Errorf("a = %q, b = %q", m.read("/etc/a"), m.read("/etc/b"))
	}
	if len(rep.Layers) != 2 || rep.Layers[1].Source != "s3://acme/web.yaml" || !strings.HasPrefix(rep.Layers[1].Digest, "sha256:") {
		t.Errorf("layers: %+v", rep.Layers)
	}
}

// A plan looks, and writes nothing at all, its own state included.
func TestAPlanWritesNothing(t *testing.T) {
	m := newMachine(t, `amiagent: 1
files: {/etc/motd: {content: hello}, /etc/key: {template: '{{ secret "ssm:/key" }}', mode: "0600"}}
commands: {warm: {run: [warm]}}
`, map[string]string{"warm": ""})
	m.PutParameter("/key", "SecureString", "tr0ub4dor&3")
	before := strings.Join(m.tree(), "\n")
	p, err := m.agent().Plan(t.Context())
	if err != nil || !p.Drift || len(p.Steps) != 3 || p.Format != agent.PlanFormat {
		t.Errorf("%v: %+v", err, p)
	}
	if after := strings.Join(m.tree(), "\n"); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if _, err := os.Stat(m.path("/var/lib/amiagent")); err == nil {
		t.Error("the plan made a state folder")
	}
	if _, err := os.Stat(filepath.Join(m.bin + ".log")); err == nil {
		t.Error("the plan ran a command")
	}
	var b strings.Builder
	if err := p.Text(&b); err != nil || strings.Contains(b.String(), "tr0ub4dor") {
		t.Error(b.String())
	}
}

// The kinds are a list: another is one folder (here, a file) and one entry.
func TestAToyKindIsOneFolderAndOneEntry(t *testing.T) {
	m := newMachine(t, "amiagent: 1\ngreetings:\n  world: {text: 'hello from {{ tag \"Role\" }}'}\n", nil)
	toys := func(o *agent.Options) { o.Kinds = append(kinds.All(), greetings()) }
	m.converged("greetings.world changed", toys)
	if got := m.read("/etc/greetings/world"); got != "hello from web" {
		t.Errorf("greeting: %q", got)
	}
	m.converged("", toys)

	// It is validated, planned and reported as any other.
	m.write("/etc/greetings/world", "good bye")
	p, err := m.agent(toys).Plan(t.Context())
	if err != nil || len(p.Steps) != 1 || p.Steps[0].Why != "says something else" || p.Steps[0].Reads[0] != "tag Role" {
		t.Errorf("%v: %+v", err, p)
	}
	_, err = m.apply(toys, documents("amiagent: 1\ngreetings: {world: {txt: hello}}\n"))
	want := "m.yaml:2:20: greetings.world.text: must be given\n" +
		`m.yaml:2:21: greetings.world.txt: unknown key, did you mean "text"?`
	if err == nil || err.Error() != want {
		t.Errorf("err:\n%v\nwant:\n%s", err, want)
	}
	// Without the entry nobody knows it.
	if _, err := m.apply(); err == nil || !strings.Contains(err.Error(), "greetings: unknown key") {
		t.Errorf("err = %v", err)
	}
}

var _ step.Step = (*greeting)(nil)
