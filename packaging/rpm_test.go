//go:build system

package packaging

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// rpms are a release and the next one, whose default configuration differs.
func rpms(t *testing.T) (first, next string) {
	t.Helper()
	return pack(t, "rpm", arch, "1.0.0"), pack(t, "rpm", arch, "1.1.0")
}

// base is a package that stands for what the Debian tree has and rpm does not know of.
func base(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "nfpm.yaml")
	const config = "name: base\nversion: 1.0.0\narch: all\nprovides: [ca-certificates, shadow-utils, /bin/sh]\n"
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	return nfpm(t, dir, file, "rpm", nil)
}

// newRPMTree is a tree with rpm's database in it, and Amazon Linux's preset: what no preset enables is off.
func newRPMTree(t *testing.T) tree {
	t.Helper()
	x := newTree(t)
	x.write("/usr/lib/systemd/system-preset/99-default-disable.preset", "disable *\n")
	if err := os.MkdirAll(x.path("/var/lib/rpm"), 0o755); err != nil {
		t.Fatal(err)
	}
	x.rpm("--install", base(t))
	return x
}

// rpm is Debian's, which keeps its database in the home unless told otherwise.
func (x tree) rpm(args ...string) string {
	x.Helper()
	out := run(x.T, nil, append([]string{"rpm", "--root", x.root, "--dbpath", "/var/lib/rpm"}, args...)...)
	var said []string
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "rpm: ") { // Debian's own advice not to
			said = append(said, line)
		}
	}
	return strings.Join(said, "")
}

func TestRPMInAnImage(t *testing.T) {
	first, next := rpms(t)
	x := newRPMTree(t)

	out := x.rpm("--install", first)
	if out != "" {
		t.Errorf("the install complains:\n%s", out)
	}
	x.wantEnabled("enabled", units...)
	x.wantUser("amiagent-health")
	x.wantThere("/usr/bin/amiagent", "/usr/share/man/man1/amiagent.1.gz", "/usr/share/licenses/amiagent/LICENSE")
	if bad := x.rpm("--verify", "amiagent"); bad != "" {
		t.Errorf("files are not as packaged:\n%s", bad)
	}
	if v := x.chroot("amiagent", "version"); !strings.Contains(v, "1.0.0") {
		t.Errorf("the program in the tree says %q", v)
	}

	x.launched()
	const mine = "amiagent: 1\ndeadline: 5m\n"
	x.write("/etc/amiagent/agent.yaml", mine)
	run(t, nil, "systemctl", "--root="+x.root, "disable", "amiagent.service")
	x.rpm("--upgrade", next)
	x.wantEnabled("disabled", "amiagent.service") // the administrator's choice
	if got := x.read("/etc/amiagent/agent.yaml"); got != mine {
		t.Errorf("the configuration is now\n%s", got)
	}
	x.wantThere("/etc/amiagent/agent.yaml.rpmnew")

	x.rpm("--erase", "amiagent")
	x.wantGone("/usr/bin/amiagent", "/usr/lib/systemd/system/amiagent.service", "/etc/amiagent/agent.yaml")
	x.wantThere("/var/lib/amiagent/journal/1", "/etc/amiagent/agent.yaml.rpmsave", "/etc/amiagent/manifest.d/web.yaml")
	if left := run(t, nil, "find", x.path("/etc/systemd"), "-name", "*amiagent*"); left != "" {
		t.Errorf("the erase left:\n%s", left)
	}
}

func TestRPMHonoursThePresetOfAnAdministrator(t *testing.T) {
	x := newRPMTree(t)
	x.write("/etc/systemd/system-preset/10-site.preset", "disable amiagent.service\n")
	x.rpm("--install", pack(t, "rpm", arch, "1.0.0"))
	x.wantEnabled("disabled", "amiagent.service")
	x.wantEnabled("enabled", "amiagent-health.service")
}

func TestRPMWhereThereIsNoSystemctlSaysSo(t *testing.T) {
	x := newRPMTree(t)
	for _, name := range []string{"systemctl", "systemd-sysusers"} { // Amazon Linux 2 has no sysusers
		if err := os.Remove(x.path("/usr/bin/" + name)); err != nil {
			t.Fatal(err)
		}
	}
	out := x.rpm("--install", pack(t, "rpm", arch, "1.0.0"))
	if !strings.Contains(out, "cannot enable the units") {
		t.Errorf("no complaint: %s", out)
	}
	x.wantUser("amiagent-health")
}

func TestRPMOnARunningMachine(t *testing.T) {
	first, next := rpms(t)
	x := newRPMTree(t)

	x.running("inactive")
	x.rpm("--install", first)
	x.wantAsked("--no-reload preset amiagent.service amiagent-health.service", "daemon-reload") // and nothing is started
	x.wantEnabled("enabled", units...)

	x.running("active")
	x.rpm("--upgrade", next)
	x.wantAsked("daemon-reload", "daemon-reload", "try-restart amiagent-health.service", "try-restart amiagent.service")

	for _, busy := range []string{"activating", "reloading", "failed"} {
		x.running(busy)
		x.rpm("--upgrade", "--force", next)
		x.wantAsked("daemon-reload", "daemon-reload", "try-restart amiagent-health.service")
	}

	x.running("active")
	x.below("amiagent.service")
	x.rpm("--upgrade", "--force", next)
	x.wantAsked("daemon-reload", "daemon-reload", "try-restart amiagent-health.service")

	x.below("sshd.service")
	x.rpm("--erase", "amiagent")
	x.wantAsked("--no-reload disable amiagent.service amiagent-health.service",
		"stop amiagent-health.service", "stop amiagent.service", "daemon-reload")
}

func TestDnfInstallsAndRemovesIt(t *testing.T) {
	repo := t.TempDir()
	for _, file := range []string{base(t), pack(t, "rpm", arch, "1.0.0"), pack(t, "rpm", arch, "1.2.0-rc.1")} {
		if err := os.Symlink(file, filepath.Join(repo, filepath.Base(file))); err != nil {
			t.Fatal(err)
		}
	}
	run(t, nil, "createrepo_c", repo)
	x := newTree(t)
	x.write("/etc/dnf/dnf.conf", "[main]\n")
	dnf := func(args ...string) string {
		return run(t, nil, append([]string{"dnf", "--installroot=" + x.root, "--releasever=1", "--assumeyes",
			"--disablerepo=*", "--repofrompath=local,file://" + repo, "--enablerepo=local", "--nogpgcheck"}, args...)...)
	}
	dnf("install", "amiagent-1.0.0")
	x.wantEnabled("enabled", units...)
	x.wantUser("amiagent-health")
	x.launched()
	dnf("upgrade", "amiagent") // 1.2.0~rc.1 is newer than 1.0.0
	if got := dnf("list", "--installed", "amiagent"); !strings.Contains(got, "1.2.0~rc.1") {
		t.Errorf("after the upgrade:\n%s", got)
	}
	dnf("remove", "amiagent")
	x.wantGone("/usr/bin/amiagent")
	x.wantThere("/var/lib/amiagent/journal/1")
}
