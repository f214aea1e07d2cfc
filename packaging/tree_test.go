//go:build system

package packaging

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/amiagent/amiagent/internal/nspawntest"
)

// run runs a program to its end and gives its output; a failure ends the test.
func run(t *testing.T, env []string, argv ...string) string {
	t.Helper()
	out, err := try(env, argv...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return out
}

func try(env []string, argv ...string) (string, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// The programs, man pages and completions are built once for all tests.
var build = sync.OnceValues(func() (dist string, err error) {
	if dist, err = os.MkdirTemp("", "amiagent-packaging-"); err != nil {
		return "", err
	}
	if out, err := try(nil, "make", "-C", "..", "binary-amd64", "binary-arm64", "share", "DIST="+dist, "VERSION=1.0.0"); err != nil {
		return dist, fmt.Errorf("cannot build: %w\n%s", err, out)
	}
	return dist, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dist, _ := build(); dist != "" {
		_ = os.RemoveAll(dist)
	}
	os.Exit(code)
}

// changed is a default configuration that differs from the packaged one.
const changed = "amiagent: 1\n# the default of the next release\n"

type packed struct{ format, arch, version string }

// pack makes a package, once: format is deb or rpm. Version 1.1.0 has another
// default configuration.
func pack(t *testing.T, format, arch, version string) string {
	t.Helper()
	key := packed{format, arch, version}
	if file, ok := packages[key]; ok {
		return file
	}
	dist, err := build()
	if err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile("../nfpm.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(dist, "pack-")
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, content string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	text := string(config)
	if version == "1.1.0" {
		text = strings.Replace(text, "packaging/etc/agent.yaml", write("agent.yaml", changed), 1)
	}
	packages[key] = nfpm(t, dir, write("nfpm.yaml", text), format,
		[]string{"ARCH=" + arch, "VERSION=" + version, "DIST=" + dist, "SOURCE_DATE_EPOCH=1700000000"})
	return packages[key]
}

// packages are those made so far. The tests run one after the other.
var packages = map[packed]string{}

func nfpm(t *testing.T, dir, config, format string, env []string) string {
	t.Helper()
	run(t, env, "sh", "-c", `cd .. && exec go tool -modfile=tools/go.mod nfpm package --config "$1" --packager "$2" --target "$3"`,
		"sh", config, format, dir)
	made, err := filepath.Glob(filepath.Join(dir, "*."+format))
	if err != nil || len(made) != 1 {
		t.Fatalf("nfpm made %v, %v", made, err)
	}
	return made[0]
}

// tree is a Debian with systemd, as files, for chroot.
type tree struct {
	*testing.T
	root string
}

func newTree(t *testing.T) tree {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root: it installs packages in a tree by chroot")
	}
	return tree{t, nspawntest.Tree(t)}
}

func (x tree) path(name string) string { return filepath.Join(x.root, name) }

func (x tree) chroot(argv ...string) string {
	x.Helper()
	return run(x.T, []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8"},
		append([]string{"chroot", x.root}, argv...)...)
}

func (x tree) write(name, content string) {
	x.Helper()
	err := os.MkdirAll(filepath.Dir(x.path(name)), 0o755)
	if err == nil {
		err = os.WriteFile(x.path(name), []byte(content), 0o644)
	}
	if err != nil {
		x.Fatal(err)
	}
}

func (x tree) read(name string) string {
	x.Helper()
	b, err := os.ReadFile(x.path(name))
	if err != nil {
		x.Fatal(err)
	}
	return string(b)
}

// copyIn brings a package into the tree and gives its name there.
func (x tree) copyIn(file string) string {
	x.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		x.Fatal(err)
	}
	name := "/var/tmp/" + filepath.Base(file)
	x.write(name, string(b))
	return name
}

func (x tree) wantThere(names ...string) {
	x.Helper()
	for _, n := range names {
		if _, err := os.Lstat(x.path(n)); err != nil {
			x.Errorf("%s should be there: %v", n, err)
		}
	}
}

func (x tree) wantGone(names ...string) {
	x.Helper()
	for _, n := range names {
		if _, err := os.Lstat(x.path(n)); err == nil {
			x.Errorf("%s should be gone", n)
		}
	}
}

// wantEnabled asks the real systemctl, which reads the tree.
func (x tree) wantEnabled(want string, units ...string) {
	x.Helper()
	for _, u := range units {
		out, _ := try(nil, "systemctl", "--root="+x.root, "is-enabled", u)
		if got := strings.TrimSpace(out); got != want {
			x.Errorf("%s is %s, want %s", u, got, want)
		}
	}
}

func (x tree) wantUser(name string) {
	x.Helper()
	for line := range strings.Lines(x.read("/etc/passwd")) {
		if f := strings.Split(strings.TrimSpace(line), ":"); f[0] == name {
			if !strings.HasSuffix(f[6], "nologin") || f[2] == "0" || len(f[2]) > 3 {
				x.Errorf("%s is no system user without login: %s", name, line)
			}
			return
		}
	}
	x.Errorf("there is no user %s", name)
}

// running makes the tree look as if systemd ran it: the scripts' test for that
// is a folder, and systemctl is a program that logs what it is asked.
func (x tree) running(activeState string) {
	x.Helper()
	x.write("/run/systemd/system/.keep", "")
	x.asked()
	if _, err := os.Lstat(x.path("/usr/bin/systemctl.real")); err != nil {
		if err := os.Rename(x.path("/usr/bin/systemctl"), x.path("/usr/bin/systemctl.real")); err != nil {
			x.Fatal(err)
		}
	}
	x.write("/usr/bin/systemctl", `#!/bin/sh
echo "$*" >>/var/tmp/systemctl.log
case $1 in
--root=/) exec /usr/bin/systemctl.real "$@" ;;
--no-reload) shift; exec /usr/bin/systemctl.real --root=/ "$@" ;;
show) echo ActiveState=`+activeState+` ;;
esac
`)
	if err := os.Chmod(x.path("/usr/bin/systemctl"), 0o755); err != nil {
		x.Fatal(err)
	}
}

// asked is what systemctl was asked since the last call. Questions are left
// out, and what deb-systemd-helper asks of the files alone.
func (x tree) asked() string {
	x.Helper()
	log := x.path("/var/tmp/systemctl.log")
	b, err := os.ReadFile(log)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		x.Fatal(err)
	}
	_ = os.Remove(log)
	var lines []string
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "show ") && !strings.HasPrefix(line, "--root=/") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

func (x tree) wantAsked(want ...string) {
	x.Helper()
	if got := x.asked(); got != strings.Join(want, "\n") {
		x.Errorf("systemctl was asked\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

// below makes scripts believe that the agent runs them: the tree's /proc is a plain folder.
func (x tree) below(unit string) {
	x.write("/proc/self/cgroup", "0::/system.slice/"+unit+"\n")
}

const arch = runtime.GOARCH

var units = []string{"amiagent.service", "amiagent-health.service"}

// A launch has left these.
func (x tree) launched() {
	x.write("/var/lib/amiagent/journal/1", "began")
	x.write("/etc/amiagent/manifest.d/web.yaml", "amiagent: 1\n")
}
