//go:build system

package pkgmgrtest

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/amiagent/amiagent/internal/host"
)

// Needs installs Debian packages on the machine that runs the test, where
// their programs are missing: program name to package name.
func Needs(t testing.TB, programs map[string]string) {
	t.Helper()
	var missing []string
	for prog, pkg := range programs {
		if _, err := exec.LookPath(prog); err != nil {
			missing = append(missing, pkg)
		}
	}
	if len(missing) == 0 {
		return
	}
	run(t, "", "apt-get", "-q", "update")
	run(t, "", "apt-get", append([]string{"-qy", "-o", "DPkg::Lock::Timeout=300", "--no-install-recommends", "install"}, missing...)...)
}

func run(t testing.TB, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Tree is a Debian 12 with apt, dnf and rpm in it, which the test may change: a
// thin layer over a tree that is made once and kept in the user's cache
// folder. Its package sources are empty. Needs root.
func Tree(t testing.TB) *host.Host {
	t.Helper()
	return tree(t, "bookworm", "dnf,rpm,ca-certificates")
}

// Trixie is a Debian 13, whose apt has snapshots, as Tree is a Debian 12.
func Trixie(t testing.TB) *host.Host {
	t.Helper()
	return tree(t, "trixie", "ca-certificates")
}

func tree(t testing.TB, suite, include string) *host.Host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("system tests need root: they make and enter trees")
	}
	base := baseTree(t, suite, include)
	top := t.TempDir()
	root := filepath.Join(top, "root")
	for _, d := range []string{root, top + "/upper", top + "/work"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// A test's temporary folder is private, but apt reads as a user of its own.
	for d := top; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		_ = os.Chmod(d, 0o755)
	}
	layers := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", base, top, top)
	if err := syscall.Mount("overlay", root, "overlay", 0, layers); err != nil {
		run(t, "", "cp", "-a", base+"/.", root) // inside a container there may be no overlay on overlay
	} else {
		t.Cleanup(func() { _ = syscall.Unmount(root, syscall.MNT_DETACH) })
	}
	if err := syscall.Mount("proc", root+"/proc", "proc", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(root+"/proc", syscall.MNT_DETACH) })
	h, err := host.New(root, host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

var making sync.Mutex

// baseTree is made beside its place and renamed, under a lock that test
// binaries share, so that two of them may want it at once.
func baseTree(t testing.TB, suite, include string) string {
	t.Helper()
	making.Lock()
	defer making.Unlock()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	cache = filepath.Join(cache, "amiagent-test")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(filepath.Join(cache, suite+"-packages.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	tree := filepath.Join(cache, suite+"-packages-1")
	if _, err := os.Stat(tree); err == nil {
		return tree
	}
	Needs(t, map[string]string{"mmdebstrap": "mmdebstrap"})
	tmp := tree + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		t.Fatal(err)
	}
	run(t, "", "mmdebstrap", "--variant=minbase", "--include="+include, suite, tmp)
	for _, f := range []string{"/etc/apt/sources.list"} {
		if err := os.RemoveAll(tmp + f); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(tmp, tree); err != nil {
		t.Fatal(err)
	}
	return tree
}

// Write makes a file of the tree, and its folders.
func Write(t testing.TB, h *host.Host, name, content string) {
	t.Helper()
	p, err := h.EntryPath(name)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(p), 0o755)
	}
	if err == nil {
		err = os.WriteFile(p, []byte(content), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Serve serves a folder on loopback until the test ends, or until stop.
func Serve(t testing.TB, dir string) (url string, stop func()) {
	t.Helper()
	s := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(s.Close)
	return s.URL, s.Close
}

// Deb is a package to build: control fields beside name and version, and files.
type Deb struct {
	Name, Version string
	Fields        string            // whole lines, as "Depends: x\n"
	Scripts       map[string]string // postinst, prerm...: sh
	Files         map[string]string
	Conffiles     []string
}

// DebRepo builds packages into a flat apt repository in dir.
func DebRepo(t testing.TB, dir string, packages ...Deb) {
	t.Helper()
	Needs(t, map[string]string{"dpkg-deb": "dpkg", "apt-ftparchive": "apt-utils"})
	for _, p := range packages {
		tree := t.TempDir()
		put := func(name string, mode os.FileMode, content string) {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(tree, name)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(tree, name), []byte(content), mode); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(tree, 0o755); err != nil {
			t.Fatal(err)
		}
		put("DEBIAN/control", 0o644, fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: Test <test@example.com>\nDescription: test\n%s", p.Name, p.Version, p.Fields))
		for name, script := range p.Scripts {
			put("DEBIAN/"+name, 0o755, "#!/bin/sh\n"+script+"\n")
		}
		for name, content := range p.Files {
			put(name, 0o644, content)
		}
		if len(p.Conffiles) > 0 {
			put("DEBIAN/conffiles", 0o644, strings.Join(p.Conffiles, "\n")+"\n")
		}
		file := fmt.Sprintf("%s_%s_all.deb", p.Name, strings.ReplaceAll(p.Version, ":", "%3a"))
		run(t, "", "dpkg-deb", "--root-owner-group", "-b", tree, filepath.Join(dir, strings.ReplaceAll(file, "%3a", ".")))
	}
	index(t, dir)
}

func index(t testing.TB, dir string) {
	t.Helper()
	_ = os.Remove(filepath.Join(dir, "Release"))
	packages := run(t, dir, "apt-ftparchive", "packages", ".")
	if err := os.WriteFile(filepath.Join(dir, "Packages"), []byte(packages), 0o644); err != nil {
		t.Fatal(err)
	}
	release := run(t, dir, "apt-ftparchive", "release", ".")
	if err := os.WriteFile(filepath.Join(dir, "Release"), []byte(release), 0o644); err != nil {
		t.Fatal(err)
	}
}

// RPM is a package to build.
type RPM struct {
	Name, Version string // version-release, with its epoch if any
	Fields        string // whole lines of the spec's preamble
}

// RPMRepo builds packages into a repository in dir.
func RPMRepo(t testing.TB, dir string, packages ...RPM) {
	t.Helper()
	Needs(t, map[string]string{"rpmbuild": "rpm", "createrepo_c": "createrepo-c"})
	build := t.TempDir()
	for _, p := range packages {
		epoch, rest, ok := strings.Cut(p.Version, ":")
		if !ok {
			epoch, rest = "0", p.Version
		}
		version, release, _ := strings.Cut(rest, "-")
		var spec bytes.Buffer
		fmt.Fprintf(&spec, "Name: %s\nEpoch: %s\nVersion: %s\nRelease: %s\nSummary: test\nLicense: test\nBuildArch: noarch\n%s%%description\ntest\n%%files\n",
			p.Name, epoch, version, release, p.Fields)
		file := filepath.Join(build, "x.spec")
		if err := os.WriteFile(file, spec.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		run(t, build, "rpmbuild", "-bb", "--define", "_topdir "+build, "--define", "_rpmdir "+dir, file)
	}
	run(t, "", "createrepo_c", "-q", "--update", dir)
}

// GPG is a new signing key: its home, and the armoured public key.
func GPG(t testing.TB) (home, public string) {
	t.Helper()
	Needs(t, map[string]string{"gpg": "gnupg"})
	home, err := os.MkdirTemp("", "gpg") // an agent's socket wants a short path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run()
		_ = os.RemoveAll(home)
	})
	run(t, "", "gpg", "--homedir", home, "--batch", "--passphrase", "", "--quick-gen-key", "Test <test@example.com>", "rsa2048", "sign", "never")
	return home, run(t, "", "gpg", "--homedir", home, "--armor", "--export")
}

// SignDebRepo signs an apt repository.
func SignDebRepo(t testing.TB, dir, home string) {
	t.Helper()
	run(t, dir, "gpg", "--homedir", home, "--batch", "--yes", "--clearsign", "-o", "InRelease", "Release")
}

// SignRPMs signs the packages of a repository, and indexes it again.
func SignRPMs(t testing.TB, dir, home string) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "*", "*.rpm"))
	if err != nil || len(all) == 0 {
		t.Fatal("no packages to sign", err)
	}
	run(t, dir, "rpmsign", append([]string{"--define", "_gpg_name Test", "--define", "_gpg_path " + home, "--define", "__gpg /usr/bin/gpg", "--addsign"}, all...)...)
	run(t, "", "createrepo_c", "-q", dir)
}
