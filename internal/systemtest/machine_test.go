//go:build system

package systemtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/amiagent/amiagent/internal/nspawntest"
	"github.com/amiagent/amiagent/internal/report"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// built is where programs and packages lie that all tests share.
var built struct {
	once sync.Once
	dir  string
	err  error
}

func buildDir() (string, error) {
	built.once.Do(func() { built.dir, built.err = os.MkdirTemp("", "amiagent-system-") })
	return built.dir, built.err
}

// goBuild builds a program of the repository and gives its file.
func goBuild(name, pkg string, flags ...string) (string, error) {
	dir, err := buildDir()
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, name)
	cmd := exec.Command("go", append(append([]string{"build", "-o", file}, flags...), pkg)...)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build %s: %w\n%s", name, err, out)
	}
	return file, nil
}

// deb builds the package once, as `make package` does, for this architecture only.
var deb = sync.OnceValues(func() (string, error) {
	dir, err := buildDir()
	if err != nil {
		return "", err
	}
	out, err := exec.Command("make", "-C", "../..", "package", "PACKAGED="+runtime.GOARCH, "DIST="+dir).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("make package: %w\n%s", err, out)
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("make package made %v, %w", found, err)
	}
	return found[0], nil
})

// command runs a program to its end and gives its output; a failure ends the test.
func command(t *testing.T, argv0 string, args ...string) string {
	t.Helper()
	out, err := exec.Command(argv0, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", argv0, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// until waits for what must come true; else the test ends.
func until(t *testing.T, patience time.Duration, what string, true func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !true(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

// machine is a Debian with the agent's package installed, and an instance of the cloud.
type machine struct {
	*testing.T
	cloud   *cloud
	tree    string
	kernel  []string // words of the kernel's command line
	console *screen
	init    int // process 1 of the booted system, as seen from outside
	off     chan error
}

// screen collects what a boot prints on its console.
type screen struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (c *screen) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.Write(p)
}

func (c *screen) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.String()
}

// newMachine is the image: base system and package, and what the agent needs
// to know to find this cloud instead of AWS.
func newMachine(c *cloud) *machine {
	c.t.Helper()
	m := &machine{T: c.t, cloud: c, tree: nspawntest.Tree(c.t)}
	file, err := deb()
	if err != nil {
		m.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		m.Fatal(err)
	}
	m.write("/var/tmp/amiagent.deb", string(b))
	m.chroot("dpkg", "--install", "/var/tmp/amiagent.deb")
	m.write("/etc/systemd/system/amiagent.service.d/cloud.conf", "[Service]\nEnvironment="+strings.Join(awsSettings, " ")+"\n")
	// The instance keeps its id, as on a disk that is its own.
	m.write("/etc/machine-id", "6d1e0f2a3b4c5d6e7f8091a2b3c4d5e6\n")
	m.write("/var/log/journal/.keep", "")
	m.Setenv("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "network") // kernel parameters of the namespace may be set
	m.Cleanup(func() {
		if m.off != nil {
			m.kill()
		}
		if m.Failed() && m.console != nil {
			out, _ := m.journalctl("-o", "short-monotonic")
			m.Logf("console:\n%s\njournal:\n%s", m.console, out)
		}
	})
	return m
}

// awsSettings is the agent's environment: AWS's own names for its endpoints.
var awsSettings = []string{"AWS_ENDPOINT_URL=http://" + apiAddress, "AWS_ENDPOINT_URL_S3=http://" + s3Address}

func (m *machine) path(name string) string { return filepath.Join(m.tree, name) }

func (m *machine) write(name, text string) {
	m.Helper()
	err := os.MkdirAll(filepath.Dir(m.path(name)), 0o755)
	if err == nil {
		err = os.WriteFile(m.path(name), []byte(text), 0o644)
	}
	if err != nil {
		m.Fatal(err)
	}
}

func (m *machine) read(name string) string {
	m.Helper()
	b, err := os.ReadFile(m.path(name))
	if err != nil {
		m.Error(err)
	}
	return string(b)
}

func (m *machine) remove(name string) {
	m.Helper()
	if err := os.Remove(m.path(name)); err != nil {
		m.Fatal(err)
	}
}

func (m *machine) exists(name string) bool {
	_, err := os.Lstat(m.path(name))
	return err == nil
}

// chroot runs a program of the image that has not booted.
func (m *machine) chroot(argv ...string) string {
	m.Helper()
	return command(m.T, "env", append([]string{"-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"DEBIAN_FRONTEND=noninteractive", "chroot", m.tree}, argv...)...)
}

// enable has systemd start a unit of the image with the machine.
func (m *machine) enable(unit, text string) {
	m.Helper()
	m.write("/etc/systemd/system/"+unit, text)
	command(m.T, "systemctl", "--quiet", "--root="+m.tree, "enable", unit)
}

// boot starts the machine and returns as soon as it has a process 1.
func (m *machine) boot() {
	m.Helper()
	m.console, m.off, m.init = &screen{}, make(chan error, 1), 0
	ctx, cancel := context.WithTimeout(context.WithoutCancel(m.Context()), 3*time.Minute)
	off := m.off
	go func() {
		defer cancel()
		off <- nspawntest.Boot(ctx, m.tree, nspawntest.Options{
			NetNS: m.cloud.path(), Console: m.console, Kernel: m.kernel, Args: []string{"--console=read-only"},
		})
	}()
	until(m.T, 20*time.Second, "the machine boots", func() bool {
		m.init = process1(m.tree)
		return m.init != 0
	})
}

// process1 is the first child of the systemd-nspawn that runs a tree, once it is systemd; else 0.
func process1(tree string) int {
	commands, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range commands {
		b, _ := os.ReadFile(file)
		if !strings.HasPrefix(string(b), "systemd-nspawn\x00--directory="+tree+"\x00") {
			continue
		}
		pid := filepath.Base(filepath.Dir(file))
		children, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "task", pid, "children"))
		for _, child := range strings.Fields(string(children)) {
			comm, _ := os.ReadFile("/proc/" + child + "/comm")
			if _, err := os.Stat("/proc/" + child + "/root/run/systemd/private"); err == nil && strings.TrimSpace(string(comm)) == "systemd" {
				n, _ := strconv.Atoi(child)
				return n
			}
		}
	}
	return 0
}

// launch boots the machine and waits until the launch has ended, well or not.
func (m *machine) launch() report.Status {
	m.Helper()
	m.boot()
	s := m.ended()
	until(m.T, 5*time.Second, "the report is there", func() bool { return m.latest() == s.Launch })
	for _, p := range m.report().Phases {
		m.Logf("%-9s %s", p.Phase, p.Took.Round(time.Millisecond))
	}
	return s
}

// ended waits until the launch under way has ended.
func (m *machine) ended() report.Status {
	m.Helper()
	var s report.Status
	until(m.T, 100*time.Second, "the launch ends", func() bool {
		var err error
		s, err = m.status()
		return err == nil && (s.State == report.Ready || s.State == report.DidFail)
	})
	return s
}

// status is what the agent publishes in the booted machine.
func (m *machine) status() (report.Status, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/root%s", m.init, report.StatusPath))
	if err != nil {
		return report.Status{}, err
	}
	return report.ParseStatus(b)
}

// wantState waits for a state of the agent.
func (m *machine) wantState(want report.State) report.Status {
	m.Helper()
	var s report.Status
	for end := time.Now().Add(20 * time.Second); s.State != want; time.Sleep(2 * time.Millisecond) {
		s, _ = m.status()
		if time.Now().After(end) {
			m.Fatalf("the agent is %s, want %s", s.Headline(), want)
		}
	}
	return s
}

// try runs a program in the booted machine, as root on its console would, and gives its exit code.
func (m *machine) try(argv ...string) (string, int) {
	m.Helper()
	args := []string{"--target", strconv.Itoa(m.init), "--all", "env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"}
	args = append(append(args, awsSettings...), argv...)
	out, err := exec.Command("nsenter", args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		m.Fatal(err)
	}
	if exit != nil {
		return string(out), exit.ExitCode()
	}
	return string(out), 0
}

// run is try for a program that must succeed.
func (m *machine) run(argv ...string) string {
	m.Helper()
	out, code := m.try(argv...)
	if code != 0 {
		m.Fatalf("%s: exit code %d\n%s", strings.Join(argv, " "), code, out)
	}
	return strings.TrimSpace(out)
}

// unit is one property of a unit of the booted machine.
func (m *machine) unit(name, property string) string {
	m.Helper()
	return m.run("systemctl", "show", "--value", "--property="+property, name)
}

func (m *machine) wantUnit(name, property, want string) {
	m.Helper()
	if got := m.unit(name, property); got != want {
		m.Errorf("%s: %s is %s, want %s", name, property, got, want)
	}
}

// powerOff ends the boot as an administrator does.
func (m *machine) powerOff() {
	m.Helper()
	began := time.Now()
	m.try("systemctl", "poweroff") // nsenter's own process is ended by it
	select {
	case err := <-m.off:
		m.off = nil
		if err != nil {
			m.Error(err)
		}
	case <-time.After(30 * time.Second):
		m.kill()
		m.Fatal("the machine does not power off")
	}
	if took := time.Since(began); took > 10*time.Second {
		m.Errorf("powering off took %s", took)
	}
}

// kill pulls the plug.
func (m *machine) kill() {
	if p, err := os.FindProcess(m.init); err == nil && m.init > 1 {
		_ = p.Kill()
	}
	<-m.off
	m.off = nil
}

// latest is the newest report's id, "" before the first.
func (m *machine) latest() string {
	found, _ := filepath.Glob(m.path("/var/lib/amiagent/reports/*.json"))
	if len(found) == 0 {
		return ""
	}
	return strings.TrimSuffix(filepath.Base(found[len(found)-1]), ".json")
}

// report is the newest report.
func (m *machine) report() report.Report {
	m.Helper()
	b, err := os.ReadFile(m.path("/var/lib/amiagent/reports/" + m.latest() + ".json"))
	var rep report.Report
	if err == nil {
		err = json.Unmarshal(b, &rep)
	}
	if err != nil {
		m.Fatal(err)
	}
	return rep
}

// settled is the newest report once nothing in it is left to be proved.
func (m *machine) settled() report.Report {
	m.Helper()
	var rep report.Report
	until(m.T, 20*time.Second, "all that was put off is proved", func() bool {
		rep = m.report()
		return !slices.ContainsFunc(rep.Steps, func(s report.Step) bool { return s.Outcome == report.Deferred })
	})
	return rep
}

// outcomes are the steps of a report that did not end with "ok".
func outcomes(rep report.Report) map[string]report.Outcome {
	got := map[string]report.Outcome{}
	for _, s := range rep.Steps {
		if s.Outcome != report.OK {
			got[s.ID] = s.Outcome
		}
	}
	return got
}

func stepOf(rep report.Report, id string) report.Step {
	for _, s := range rep.Steps {
		if s.ID == id {
			return s
		}
	}
	return report.Step{}
}

// journal is all that was ever logged on this machine, with every field.
func (m *machine) journal() string {
	m.Helper()
	out, err := m.journalctl("--all", "-o", "export")
	if err != nil || len(out) == 0 {
		m.Fatalf("cannot read the journal: %v", err)
	}
	return out
}

// messages are the plain lines that the agent has logged.
func (m *machine) messages() string {
	m.Helper()
	out, err := m.journalctl("-o", "cat", "--unit=amiagent.service")
	if err != nil {
		m.Fatalf("cannot read the journal: %v", err)
	}
	return out
}

// journalctl reads the machine's journal from outside.
func (m *machine) journalctl(args ...string) (string, error) {
	if m.off != nil {
		m.try("journalctl", "--sync")
	}
	out, err := exec.Command("journalctl", append([]string{"--directory=" + m.path("/var/log/journal"), "--no-pager", "--quiet"}, args...)...).Output()
	return string(out), err
}

// reload has the agent converge again, by this command, and waits for the report.
func (m *machine) reload(argv ...string) report.Report {
	m.Helper()
	before := m.latest()
	m.run(argv...)
	until(m.T, 30*time.Second, "the reload ends", func() bool { return m.latest() != before })
	return m.report()
}
