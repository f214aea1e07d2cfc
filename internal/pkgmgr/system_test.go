//go:build system

package pkgmgr

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/pkgmgr/pkgmgrtest"
)

// The stories here are told again with the real apt, dpkg, dnf and rpm, in a
// Debian tree, entered by chroot as bake does it, against repositories on loopback.
type system struct {
	t      *testing.T
	h      *host.Host
	p      *Manager
	family string
	dir    string // of the repository, as it is served
	url    string
	stop   func()

	mu     sync.Mutex
	status []string
	output []string
}

func newSystem(t *testing.T, family string) *system {
	t.Helper()
	s := &system{t: t, h: pkgmgrtest.Tree(t), family: family, dir: t.TempDir()}
	s.url, s.stop = pkgmgrtest.Serve(t, s.dir)
	s.next()
	return s
}

func (s *system) next() {
	s.t.Helper()
	var err error
	if s.p, err = New(s.h, s.family); err != nil {
		s.t.Fatal(err)
	}
	s.p.LockWait = 20 * time.Second
}

func (s *system) talk() Talk {
	add := func(to *[]string) func(string) {
		return func(line string) {
			s.mu.Lock()
			defer s.mu.Unlock()
			*to = append(*to, line)
		}
	}
	return Talk{Output: add(&s.output), Status: add(&s.status)}
}

func (s *system) change(text string) string {
	s.t.Helper()
	return told(s.p.Change(s.t.Context(), want(text), s.talk()))
}

// is changes, and expects these failures and then no drift from after.
func (s *system) is(text, failures, after string) {
	s.t.Helper()
	if got := s.change(text); got != failures {
		s.t.Errorf("%s: failures are:\n%s\nwant:\n%s\noutput:\n%s", text, got, failures, strings.Join(s.output, "\n"))
	}
	s.settled(after)
}

func (s *system) settled(text string) {
	s.t.Helper()
	s.p.Forget()
	all := want(text)
	db, err := s.p.Installed(s.t.Context(), names(all))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, w := range all {
		if d := db.Drift(w); d != "" {
			s.t.Errorf("%s: %s\noutput:\n%s", w.Name, d, strings.Join(s.output, "\n"))
		}
	}
	s.output = nil
}

func newApt(t *testing.T, packages ...pkgmgrtest.Deb) *system {
	t.Helper()
	s := newSystem(t, "apt")
	pkgmgrtest.DebRepo(t, s.dir, packages...)
	pkgmgrtest.Write(t, s.h, "/etc/apt/sources.list.d/test.sources",
		fmt.Sprintf("Types: deb\nURIs: %s\nSuites: ./\nTrusted: yes\n", s.url))
	return s
}

func TestSystemApt(t *testing.T) {
	s := newApt(t,
		pkgmgrtest.Deb{Name: "web", Version: "1.0-1"}, pkgmgrtest.Deb{Name: "web", Version: "1:1.2-1"},
		pkgmgrtest.Deb{Name: "web", Version: "1:1.10-1"}, pkgmgrtest.Deb{Name: "tool", Version: "2"},
		pkgmgrtest.Deb{Name: "rival", Version: "1", Fields: "Conflicts: tool\nProvides: tooling\n"},
		pkgmgrtest.Deb{Name: "orphan", Version: "1", Fields: "Depends: nowhere\n"})
	s.is("web tool", "", "web=1:1.10-1 tool")      // lists are read, once
	s.is("web=1.2", "", "web=1:1.2-1 tool")        // down, over an epoch
	s.is("web=1.0-*", "", "web=1.0-1")             // down to no epoch
	s.is("rival tool-", "", "rival tooling tool-") // in one transaction
	s.is("web=9 tool- wbe", strings.Join([]string{
		"cannot install wbe: no repository of this machine has it | did you mean \"web\"?",
		"cannot install web: no repository has version 9, only 1:1.10-1, 1:1.2-1, 1.0-1 | repositories drop old versions; name one that is there, or a glob",
	}, "\n"), "rival")
	s.is("orphan web=1.10*", "cannot install orphan: apt says Depends: nowhere but it is not installable", "web=1:1.10-1")
	s.next()
	s.stop() // what is as wanted needs no network
	s.is("web=1.10* rival tool-", "", "")
}

func TestSystemAptKeepsChangedConffilesWithoutAsking(t *testing.T) {
	conf := func(version, content string) pkgmgrtest.Deb {
		return pkgmgrtest.Deb{Name: "daemon", Version: version, Files: map[string]string{"etc/daemon.conf": content},
			Conffiles: []string{"/etc/daemon.conf"}, Scripts: map[string]string{"postinst": `if read answer; then echo "got $answer" >&2; exit 1; fi; exit 0`}}
	}
	s := newApt(t, conf("1", "one\n"), conf("2", "two\n"))
	s.is("daemon=1", "", "daemon=1")
	pkgmgrtest.Write(t, s.h, "/etc/daemon.conf", "mine\n")
	s.is("daemon=2", "", "daemon=2")
	if b, err := s.h.ReadFile("/etc/daemon.conf"); string(b) != "mine\n" {
		t.Errorf("the file is %q, %v", b, err)
	}
}

func TestSystemAnInterruptedDpkgIsFinished(t *testing.T) {
	s := newApt(t,
		pkgmgrtest.Deb{Name: "slow", Version: "1", Scripts: map[string]string{"postinst": "[ ! -e /slow ] || { : >/begun; sleep 60; }"}},
		pkgmgrtest.Deb{Name: "other", Version: "1"})
	pkgmgrtest.Write(t, s.h, "/slow", "")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for !s.h.Exists("/begun") && ctx.Err() == nil {
			time.Sleep(20 * time.Millisecond)
		}
		cancel()
	}()
	if err := s.p.Change(ctx, want("slow"), s.talk()); !errors.Is(err, context.Canceled) {
		t.Fatalf("ended with %v", err)
	}
	if err := s.h.Remove("/slow"); err != nil {
		t.Fatal(err)
	}
	// What a dpkg that was killed leaves: a journal beside the status file.
	pkgmgrtest.Write(t, s.h, "/var/lib/dpkg/updates/0000", "Package: slow\nStatus: install ok half-configured\nPriority: optional\nSection: misc\nMaintainer: Test <test@example.com>\nArchitecture: all\nVersion: 1\nDescription: test\n")
	s.next()
	s.is("other slow", "", "other slow")
}

func TestSystemAScriptThatFailsIsBlamed(t *testing.T) {
	s := newApt(t, pkgmgrtest.Deb{Name: "bad", Version: "1", Scripts: map[string]string{"postinst": "exit 3"}},
		pkgmgrtest.Deb{Name: "good", Version: "1"})
	s.is("bad good", "cannot install bad: dpkg: installed bad package post-installation script subprocess returned error exit status 3", "good")
}

func TestSystemAHeldPackageIsLeftAlone(t *testing.T) {
	s := newApt(t, pkgmgrtest.Deb{Name: "a", Version: "1"}, pkgmgrtest.Deb{Name: "a", Version: "2"}, pkgmgrtest.Deb{Name: "b", Version: "1"})
	s.is("a=1", "", "a=1")
	if _, err := s.h.Run(t.Context(), host.Cmd{Argv: []string{"apt-mark", "hold", "a"}}); err != nil {
		t.Fatal(err)
	}
	s.is("a=2 b", "cannot install a: it is on hold | `apt-mark unhold a` lets it be changed", "a=1 b")
}

// A baked image has lists of the day it was baked; the repository has moved on.
func TestSystemStaleListsAreReadAgain(t *testing.T) {
	s := newApt(t, pkgmgrtest.Deb{Name: "a", Version: "1"}, pkgmgrtest.Deb{Name: "b", Version: "1"})
	s.is("b", "", "b")
	old, _ := filepath.Glob(filepath.Join(s.dir, "a_1*"))
	if len(old) != 1 || os.Remove(old[0]) != nil {
		t.Fatal("cannot remove the old package", old)
	}
	pkgmgrtest.DebRepo(t, s.dir, pkgmgrtest.Deb{Name: "a", Version: "2"})
	// HTTP tells times to the second, and the test is quicker than that.
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(filepath.Join(s.dir, "Release"), later, later); err != nil {
		t.Fatal(err)
	}
	s.next()
	s.is("a", "", "a=2")
}

func TestSystemDownloadsMakeTheNetworkNeedless(t *testing.T) {
	t.Run("apt", func(t *testing.T) {
		s := newApt(t, pkgmgrtest.Deb{Name: "a", Version: "1"}, pkgmgrtest.Deb{Name: "b", Version: "1"})
		s.offline()
	})
	t.Run("dnf", func(t *testing.T) {
		s := newDnf(t, pkgmgrtest.RPM{Name: "a", Version: "1-1"}, pkgmgrtest.RPM{Name: "b", Version: "1-1"})
		s.offline()
	})
}

func (s *system) offline() {
	s.t.Helper()
	if err := s.p.Download(s.t.Context(), want("a b=1* nope"), s.talk()); err != nil {
		s.t.Fatal(err)
	}
	s.p.Forget()
	db, err := s.p.Installed(s.t.Context(), []string{"a"})
	if err != nil || db.Drift(Want{Name: "a"}) == "" {
		s.t.Fatalf("the download has installed (%v)", err)
	}
	s.stop()
	s.is("a b=1*", "", "a b")
}

func (s *system) hold(file string) *exec.Cmd {
	s.t.Helper()
	p, err := s.h.Path(file)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(p), 0o755)
	}
	if err == nil {
		var f *os.File
		if f, err = os.OpenFile(p, os.O_RDWR|os.O_CREATE, 0o640); err == nil {
			f.Close()
		}
	}
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestHoldALock$")
	cmd.Env = append(os.Environ(), "PKGMGR_TEST_LOCK="+p)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err == nil {
		_, err = out.Read(make([]byte, 7))
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// waits proves that a change waits for a holder, says for whom, and goes on when it ends.
func (s *system) waits(text string, holder *exec.Cmd, said string) {
	s.t.Helper()
	done := make(chan string, 1)
	go func() { done <- s.change(text) }()
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		s.mu.Lock()
		status := strings.Join(s.status, "\n")
		s.mu.Unlock()
		if strings.Contains(status, said) {
			break
		}
		if time.Now().After(end) {
			s.t.Fatalf("status is %q, want %q in it\noutput:\n%s", status, said, strings.Join(s.output, "\n"))
		}
	}
	select {
	case got := <-done:
		s.t.Fatalf("did not wait: %s", got)
	default:
	}
	_ = holder.Process.Kill()
	_ = holder.Wait()
	if got := <-done; got != "" {
		s.t.Errorf("failures are %s", got)
	}
	s.settled(text)
}

func TestSystemAptLocks(t *testing.T) {
	s := newApt(t, pkgmgrtest.Deb{Name: "a", Version: "1"})
	holder := s.hold("/var/lib/dpkg/lock-frontend")
	s.waits("a", holder, "waiting for the lock of apt, held by "+called(holder))
}

func newDnf(t *testing.T, packages ...pkgmgrtest.RPM) *system {
	t.Helper()
	s := newSystem(t, "dnf")
	pkgmgrtest.RPMRepo(t, s.dir, packages...)
	pkgmgrtest.Write(t, s.h, "/etc/yum.repos.d/test.repo", "[test]\nname=test\nbaseurl="+s.url+"\ngpgcheck=0\n")
	pkgmgrtest.Write(t, s.h, "/etc/dnf/vars/releasever", "1\n")
	return s
}

func TestSystemDnf(t *testing.T) {
	s := newDnf(t,
		pkgmgrtest.RPM{Name: "web", Version: "1.0-1"}, pkgmgrtest.RPM{Name: "web", Version: "1:1.2-1"},
		pkgmgrtest.RPM{Name: "web", Version: "1:1.10-1"}, pkgmgrtest.RPM{Name: "tool", Version: "2-1"},
		pkgmgrtest.RPM{Name: "curl-minimal", Version: "8-1"},
		pkgmgrtest.RPM{Name: "curl", Version: "8-1", Fields: "Conflicts: curl-minimal\n"},
		pkgmgrtest.RPM{Name: "needs-curl", Version: "1-1", Fields: "Requires: (curl or curl-minimal)\n"},
		pkgmgrtest.RPM{Name: "vim-enhanced", Version: "9-1", Fields: "Provides: vim\n"},
		pkgmgrtest.RPM{Name: "hidden", Version: "1-1"},
		pkgmgrtest.RPM{Name: "orphan", Version: "1-1", Fields: "Requires: nowhere\n"})
	pkgmgrtest.Write(t, s.h, "/etc/dnf/dnf.conf", "[main]\nskip_if_unavailable=True\nclean_requirements_on_remove=True\nexcludepkgs=hidden\n")
	s.is("web tool vim", "", "web=1:1.10-1 tool=2 vim vim-enhanced")
	s.is("web=1.2", "", "web=1:1.2-1")
	s.is("web=1:1.10*", "", "web=1.10-1")
	s.is("web=1.0-1", "", "web=1.0")
	s.is("needs-curl curl-minimal", "", "needs-curl curl-minimal")
	s.is("curl", "cannot install curl: package curl-8-1.noarch conflicts with curl-minimal provided by curl-minimal-8-1.noarch", "curl-minimal")
	s.is("curl curl-minimal-", "", "curl curl-minimal- needs-curl")
	s.is("web=9 tool- wbe hidden orphan", strings.Join([]string{
		"cannot install hidden: every version that matches is left out by exclude filtering | see exclude= in /etc/dnf/dnf.conf and in the repository's file, and the versionlock plugin",
		"cannot install orphan: nothing provides nowhere needed by orphan-1-1.noarch",
		"cannot install wbe: no repository of this machine has it | did you mean \"web\"?",
		"cannot install web: no repository has version 9, only 1:1.10-1, 1:1.2-1, 1.0-1 | repositories drop old versions; name one that is there, or a glob",
	}, "\n"), "tool- web")
	s.next()
	s.stop()
	s.is("web=1.0 tool- vim", "", "")
}

// The traps file: dnf ends with 0 and "Complete!" when a repository cannot be read.
func TestSystemDnfDoesNotPassOverABrokenRepository(t *testing.T) {
	s := newDnf(t, pkgmgrtest.RPM{Name: "a", Version: "1-1"})
	pkgmgrtest.Write(t, s.h, "/etc/dnf/dnf.conf", "[main]\nskip_if_unavailable=True\n")
	pkgmgrtest.Write(t, s.h, "/etc/yum.repos.d/gone.repo", "[gone]\nname=gone\nbaseurl="+s.url+"/gone\ngpgcheck=0\n")
	got := s.change("a")
	if !strings.HasPrefix(got, "cannot install a: Failed to download metadata for repo 'gone'") {
		t.Errorf("failures are %q", got)
	}
}

func TestSystemDnfLocks(t *testing.T) {
	t.Run("rpm", func(t *testing.T) {
		s := newDnf(t, pkgmgrtest.RPM{Name: "a", Version: "1-1"})
		// Debian's rpm keeps its database in the home folder: our own look does not know this lock, rpm does.
		holder := s.hold("/root/.rpmdb/.rpm.lock")
		s.waits("a", holder, "waiting for the lock of dnf, held by "+called(holder))
	})
	t.Run("dnf", func(t *testing.T) {
		s := newDnf(t, pkgmgrtest.RPM{Name: "a", Version: "1-1"})
		holder := exec.Command("sleep", "60")
		if err := holder.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = holder.Process.Kill() })
		pkgmgrtest.Write(t, s.h, "/var/lib/dnf/rpmdb_lock.pid", strconv.Itoa(holder.Process.Pid))
		s.waits("a", holder, "waiting for the lock of dnf, held by pid "+strconv.Itoa(holder.Process.Pid)+" (sleep)")
	})
	t.Run("a lock file that is garbage", func(t *testing.T) {
		s := newDnf(t, pkgmgrtest.RPM{Name: "a", Version: "1-1"})
		pkgmgrtest.Write(t, s.h, "/var/lib/dnf/rpmdb_lock.pid", "garbage")
		got := s.change("a")
		if !strings.HasPrefix(got, "cannot install a: Malformed lock file found: /var/lib/dnf/rpmdb_lock.pid") || !strings.Contains(got, "remove it when no dnf is running") {
			t.Errorf("failures are %q", got)
		}
	})
}
