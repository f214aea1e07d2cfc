//go:build system

package systemd

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// run runs a program and gives its output; failing is part of the story for some.
func run(t *testing.T, dir string, argv ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "SYSTEMD_COLORS=0", "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func must(t *testing.T, dir string, argv ...string) string {
	t.Helper()
	out, err := run(t, dir, argv...)
	if err != nil {
		t.Fatalf("%q: %v\n%s", argv, err, out)
	}
	return out
}

// apt runs apt-get, with fresh lists when it fails with those at hand.
func apt(t *testing.T, dir string, args ...string) {
	t.Helper()
	if _, err := run(t, dir, append([]string{"apt-get", "-y"}, args...)...); err != nil {
		must(t, dir, "apt-get", "update")
		must(t, dir, append([]string{"apt-get", "-y"}, args...)...)
	}
}

// machine is a tree with Debian's units, cloud-init's and ours, ours and
// cloud-init's enabled.
func machine(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		apt(t, "", "install", "systemd")
	}
	packages, tree := t.TempDir(), t.TempDir()
	apt(t, packages, "download", "cloud-init")
	debs, err := filepath.Glob(filepath.Join(packages, "*.deb"))
	if err != nil || len(debs) != 1 {
		t.Fatal(debs, err)
	}
	must(t, "", "dpkg", "-x", debs[0], tree)
	for _, script := range []string{
		`mkdir -p usr/lib usr/bin && cp -a lib/. usr/lib/ && rm -rf lib && ln -s usr/lib lib && ln -s usr/bin bin`,
		`cp -a /lib/systemd/system/. usr/lib/systemd/system/`,
		`rm -rf etc/init.d`, // else systemctl enable asks for update-rc.d
		`for p in amiagent kill true; do cp /bin/true usr/bin/$p; done`,
	} {
		must(t, tree, "sh", "-ec", script)
	}
	for _, name := range units(t) {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		write(t, tree, "usr/lib/systemd/system/"+name, string(data))
	}
	must(t, tree, "systemctl", "--root="+tree, "enable", "amiagent.service", "amiagent-health.service",
		"cloud-init-local.service", "cloud-init.service", "cloud-config.service", "cloud-final.service")
	// cloud-init's generator does this at boot.
	if err := os.Symlink("/usr/lib/systemd/system/cloud-init.target", filepath.Join(tree, "etc/systemd/system/multi-user.target.wants/cloud-init.target")); err != nil {
		t.Fatal(err)
	}
	return tree
}

func write(t *testing.T, tree, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(tree, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// edit changes a unit of the tree.
func edit(t *testing.T, tree, name, pattern, with string) {
	t.Helper()
	name = "usr/lib/systemd/system/" + name
	old, err := os.ReadFile(filepath.Join(tree, name))
	if err != nil {
		t.Fatal(err)
	}
	changed := regexp.MustCompile("(?m)"+pattern).ReplaceAll(old, []byte(with))
	if bytes.Equal(changed, old) {
		t.Fatalf("%s has no %s", name, pattern)
	}
	write(t, tree, name, string(changed))
}

// verify has systemd load the units and order a boot; clean is no word at all.
func verify(t *testing.T, tree string, more ...string) string {
	t.Helper()
	argv := []string{"systemd-analyze", "verify", "--root=" + tree, "--man=no", "multi-user.target", "cloud-final.service"}
	out, err := run(t, "", append(append(argv, units(t)...), more...)...)
	if err != nil && out == "" {
		out = err.Error()
	}
	return out
}

const app = `[Unit]
Requires=amiagent-ready.target
After=amiagent-ready.target
[Service]
ExecStart=/bin/true
[Install]
WantedBy=multi-user.target
`

func TestTheBootHasNoCycleWithCloudInit(t *testing.T) {
	for name, variant := range map[string]func(string){
		"Debian": func(string) {},
		"Amazon Linux, where cloud-final is not after multi-user": func(tree string) {
			edit(t, tree, "cloud-final.service", `^(After=.*)multi-user\.target(.*)$`, "$1$2")
		},
		"24.3 and later, where the network stage has another name": func(tree string) {
			must(t, tree, "sh", "-ec", `cd usr/lib/systemd/system; mv cloud-init.service cloud-init-network.service
				sed -i 's/cloud-init\.service/cloud-init-network.service/g' cloud-*.service cloud-*.target
				cd /; cd "$0/etc/systemd/system/cloud-init.target.wants"; rm cloud-init.service
				ln -s /usr/lib/systemd/system/cloud-init-network.service .`, tree)
		},
	} {
		t.Run(name, func(t *testing.T) {
			tree := machine(t)
			variant(tree)
			if out := verify(t, tree); out != "" {
				t.Errorf("systemd says\n%s", out)
			}
			write(t, tree, "etc/systemd/system/app.service", app)
			must(t, tree, "systemctl", "--root="+tree, "enable", "app.service")
			if out := verify(t, tree, "app.service"); out != "" {
				t.Errorf("with a unit that waits for ready, systemd says\n%s", out)
			}
		})
	}
}

// The test above would be worth nothing if it could not see a cycle, a
// misspelt setting or a missing program.
func TestVerifySeesWhatIsWrong(t *testing.T) {
	for want, change := range map[string]func(string){
		"ordering cycle": func(tree string) {
			edit(t, tree, "amiagent.service", `^Before=.*$`, "")
			edit(t, tree, "amiagent.service", `^After=.*$`, "After=cloud-final.service")
		},
		"Unknown key": func(tree string) { edit(t, tree, "amiagent-gate.service", `^RemainAfterExit`, "RemainAfterExits") },
		"Command /usr/bin/amiagent is not executable": func(tree string) {
			if err := os.Remove(filepath.Join(tree, "usr/bin/amiagent")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		tree := machine(t)
		change(tree)
		if out := verify(t, tree); !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestTheResponderIsConfined(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		apt(t, "", "install", "systemd")
	}
	if out, err := run(t, "", "systemd-analyze", "security", "--offline=true", "--threshold=15", "./amiagent-health.service"); err != nil {
		t.Errorf("too much exposed: %v\n%s", err, out)
	}
}

func TestUserAndFoldersAreMade(t *testing.T) {
	tree := t.TempDir()
	for _, dir := range []string{"etc", "run", "var/lib"} {
		if err := os.MkdirAll(filepath.Join(tree, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, tree, "etc/passwd", "root:x:0:0:root:/root:/bin/bash\n")
	write(t, tree, "etc/group", "root:x:0:\n")
	for _, dir := range []string{"sysusers.d", "tmpfiles.d"} {
		must(t, "", "sh", "-ec", `mkdir -p "$0/usr/lib/$1" && cp "$1/amiagent.conf" "$0/usr/lib/$1/"`, tree, dir)
	}
	must(t, "", "systemd-sysusers", "--root="+tree)
	must(t, "", "systemd-tmpfiles", "--root="+tree, "--create", "amiagent.conf")
	passwd, err := os.ReadFile(filepath.Join(tree, "etc/passwd"))
	if err != nil || !regexp.MustCompile(`(?m)^amiagent-health:.:\d+:\d+:amiagent health responder:/:\S*nologin$`).Match(passwd) {
		t.Errorf("%v, passwd is\n%s", err, passwd)
	}
	for _, dir := range []string{"run/amiagent", "var/lib/amiagent"} {
		if st, err := os.Stat(filepath.Join(tree, dir)); err != nil || st.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v, %v", dir, st, err)
		}
	}
}
