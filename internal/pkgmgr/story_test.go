package pkgmgr

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/pkgmgr/pkgmgrtest"
	"github.com/amiagent/amiagent/internal/step/steptest"
)

// story is a machine with a package manager, and what it said.
type story struct {
	t *testing.T
	m *steptest.Machine
	p *Manager

	mu     sync.Mutex
	status []string
	output []string
}

func begin(t *testing.T, family string, programs map[string]string) *story {
	t.Helper()
	s := &story{t: t, m: steptest.NewMachine(t, steptest.Options{Programs: programs})}
	s.next(family)
	return s
}

// next is the next run of the agent.
func (s *story) next(family string) {
	s.t.Helper()
	p, err := New(s.m.Host, family)
	if err != nil {
		s.t.Fatal(err)
	}
	p.LockWait = 5 * time.Second
	s.p = p
}

func (s *story) talk() Talk {
	add := func(to *[]string) func(string) {
		return func(line string) {
			s.mu.Lock()
			defer s.mu.Unlock()
			*to = append(*to, line)
		}
	}
	return Talk{Output: add(&s.output), Status: add(&s.status)}
}

// want reads "a b=1.2* c-": present, at a version, absent.
func want(text string) []Want {
	var all []Want
	for _, f := range strings.Fields(text) {
		name, version, _ := strings.Cut(f, "=")
		if n, ok := strings.CutSuffix(name, "-"); ok {
			all = append(all, Want{Name: n, Absent: true})
			continue
		}
		all = append(all, Want{Name: name, Version: version})
	}
	return all
}

// change does what text wants, and tells what became of it: failures, one a line with
// their hints.
func (s *story) change(text string) string {
	s.t.Helper()
	return told(s.p.Change(s.t.Context(), want(text), s.talk()))
}

func told(err error) string {
	var failed Failures
	if !errors.As(err, &failed) {
		if err == nil {
			return ""
		}
		return hintedText(err)
	}
	var lines []string
	for _, e := range failed {
		lines = append(lines, hintedText(e))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func hintedText(err error) string {
	if h := diag.Hint(err); h != "" {
		return err.Error() + " | " + h
	}
	return err.Error()
}

// drift is what differs from text's wants now.
func (s *story) drift(text string) string {
	s.t.Helper()
	all := want(text)
	s.p.Forget()
	db, err := s.p.Installed(s.t.Context(), names(all))
	if err != nil {
		s.t.Fatal(err)
	}
	var lines []string
	for _, w := range all {
		if d := db.Drift(w); d != "" {
			lines = append(lines, w.Name+": "+d)
		}
	}
	return strings.Join(lines, "\n")
}

func (s *story) is(what, got, want string) {
	s.t.Helper()
	if got != want {
		s.t.Errorf("%s:\n%s\nwant:\n%s", what, got, want)
	}
}

// ran is the programs run since the last call, without options.
func (s *story) ran() string {
	var lines []string
	for _, l := range s.m.Log() {
		var words []string
		f := strings.Fields(l)
		for i := 0; i < len(f); i++ {
			switch {
			case f[i] == "-o":
				i++
			case strings.HasPrefix(f[i], "-") && f[i] != "--download-only" && f[i] != "--downloadonly" && f[i] != "--allowerasing" && f[i] != "--configure" && !strings.HasPrefix(f[i], "--action"):
			default:
				words = append(words, f[i])
			}
		}
		lines = append(lines, strings.Join(words, " "))
	}
	s.m.Remove("/../bin.log") // where steptest keeps it, beside the root
	return strings.Join(lines, "\n")
}

const debian = "Package: dpkg\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.21\n\nPackage: old\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.0\n\n"

func aptStory(t *testing.T, programs map[string]string) *story {
	s := begin(t, "apt", programs)
	s.m.Write("/var/lib/dpkg/status", 0o644, debian)
	s.m.Write("/repo", 0o644, "nginx 1.22.1-9\nnginx 1:1.24.0-1\nnginx 1:1.24.2-1\njq 1.6-2\nold 1.0\n")
	return s
}

func TestAptInstallsAndRemovesInOneTransaction(t *testing.T) {
	s := aptStory(t, pkgmgrtest.Apt())
	s.m.Write("/var/lib/apt/lists/known", 0o644, s.m.Read("/repo"))
	s.is("failures", s.change("nginx=1.24.* jq old-"), "")
	s.is("drift", s.drift("nginx=1:1.24.2-1 jq old-"), "")
	s.is("programs", s.ran(), "apt-cache policy nginx\napt-get install nginx=1:1.24.2-1 jq old-")

	s.is("failures", s.change("nginx=1.24.* jq old-"), "")
	s.is("programs of a second run", s.ran(), "")

	s.is("failures", s.change("nginx=1.22*"), "")
	s.is("drift after the way back", s.drift("nginx=1.22.1-9"), "")
}

func TestAptNeverAsksAnybody(t *testing.T) {
	s := aptStory(t, pkgmgrtest.With(pkgmgrtest.Apt(), map[string]string{"apt-get": `env; cat; exit 100`}))
	s.change("jq")
	out := strings.Join(s.output, "\n")
	for _, v := range []string{"DEBIAN_FRONTEND=noninteractive", "NEEDRESTART_MODE=l", "NEEDRESTART_SUSPEND=1",
		"APT_LISTCHANGES_FRONTEND=none", "UCF_FORCE_CONFFOLD=1"} {
		if !strings.Contains(out, v) {
			t.Errorf("%s is not set", v)
		}
	}
	log := strings.Join(s.m.Log(), "\n")
	for _, o := range []string{"-y", "--force-confdef", "--force-confold", "DPkg::Lock::Timeout="} {
		if !strings.Contains(log, o) {
			t.Errorf("apt-get is run without %s: %s", o, log)
		}
	}
}

func TestAptReadsRepositoriesOnceAndOnlyWhenAPackageIsNotKnown(t *testing.T) {
	s := aptStory(t, pkgmgrtest.Apt()) // no lists: the image was cleaned
	s.is("failures", s.change("jq"), "")
	s.is("programs", s.ran(), "apt-get install jq\napt-get update\napt-get install jq")
	s.is("failures", s.change("nope"),
		"cannot install nope: no repository of this machine has it | check its name, and that its repository is among `repositories`")
	s.is("programs later in the run", s.ran(), "apt-get install nope\napt-cache policy nope\napt-cache pkgnames n")
}

func TestAnUnknownPackageDoesNotKeepTheOthersOut(t *testing.T) {
	s := aptStory(t, pkgmgrtest.Apt())
	s.m.Write("/repo", 0o644, "nginx 1.22.1-9\n"+"jq 1.6-2\n")
	s.is("failures", s.change("ngimx jq nginx=9.*"), strings.Join([]string{
		`cannot install ngimx: no repository of this machine has it | did you mean "nginx"?`,
		`cannot install nginx: no repository has version 9.*, only 1.22.1-9 | repositories drop old versions; name one that is there, or a glob`,
	}, "\n"))
	s.is("drift", s.drift("jq"), "")
}

func TestARepositoryThatCannotBeReadIsTheHint(t *testing.T) {
	s := aptStory(t, pkgmgrtest.Apt())
	s.m.Write("/unreachable", 0o644, "")
	s.is("failures", s.change("jq"), `cannot install jq: no repository of this machine has it | `+
		`a repository could not be read: 1 https://deb.example.com ./ InRelease
  Could not resolve 'deb.example.com'`)
}

func TestAnInterruptedDpkgIsFinished(t *testing.T) {
	s := aptStory(t, pkgmgrtest.Apt())
	s.m.Write("/var/lib/apt/lists/known", 0o644, s.m.Read("/repo"))
	s.m.Write("/interrupted", 0o644, "")
	s.is("failures", s.change("jq"), "")
	s.is("programs", s.ran(), "apt-get install jq\ndpkg --configure\napt-get install jq")
}

// Cut off while it unpacked, dpkg leaves a package that apt-get takes for installed.
func TestAPackageThatWasCutOffIsUnpackedAgain(t *testing.T) {
	for wants, install := range map[string]string{"jq": "apt-get install jq", "nginx": "apt-get install jq nginx"} {
		s := aptStory(t, pkgmgrtest.Apt())
		s.m.Write("/var/lib/apt/lists/known", 0o644, s.m.Read("/repo"))
		s.m.Write("/var/lib/dpkg/status", 0o644, debian+"\nPackage: jq\nStatus: install reinstreq half-installed\nArchitecture: amd64\nVersion: 1.6-2\n\n")
		s.is("drift", s.drift("jq"), "jq: installed only in part (must be reinstalled)")
		s.is("failures", s.change(wants), "")
		if log := strings.Join(s.m.Log(), "\n"); !strings.Contains(log, " --reinstall ") {
			t.Errorf("apt-get is not told to: %s", log)
		}
		s.is("programs", s.ran(), install)
		s.is("drift", s.drift("jq "+wants), "")
	}
}

func TestAFullDiskIsCalledByItsName(t *testing.T) {
	s := aptStory(t, pkgmgrtest.Apt())
	s.m.Write("/full", 0o644, "")
	s.is("failures", s.change("jq"), "cannot install jq: You don't have enough free space in /var/cache/apt/archives/. | "+
		"the disk is full: make room, or launch with a larger volume")
}

func TestAPackageWhoseScriptFailsIsBlamedAlone(t *testing.T) {
	s := aptStory(t, pkgmgrtest.Apt())
	s.m.Write("/badscript", 0o644, "jq\n")
	s.is("failures", s.change("jq nginx"),
		"cannot install jq: dpkg: installed jq package post-installation script subprocess returned error exit status 1")
	s.is("drift", s.drift("jq nginx"), "jq: installed only in part (half-configured)")
}

func TestAHeldPackageIsLeftAlone(t *testing.T) {
	s := aptStory(t, pkgmgrtest.Apt())
	s.m.Write("/var/lib/dpkg/status", 0o644, strings.Replace(debian, "Package: old\nStatus: install", "Package: old\nStatus: hold", 1))
	s.is("failures", s.change("old- jq"), "cannot remove old: it is on hold | `apt-mark unhold old` lets it be changed")
	s.is("drift", s.drift("jq old"), "")
}

func TestDownloadsComeFirstAndChangeNothing(t *testing.T) {
	s := aptStory(t, pkgmgrtest.Apt())
	if err := s.p.Download(t.Context(), want("jq nope old-"), s.talk()); err != nil {
		t.Fatal(err)
	}
	s.is("drift", s.drift("jq"), "jq: not installed")
	if !s.m.Host.Exists("/var/cache/apt/archives/jq.deb") || s.m.Host.Exists("/var/cache/apt/archives/old.deb") {
		t.Error("downloaded is not what was wanted")
	}
	s.ran()
	if err := s.p.Download(t.Context(), want("old"), s.talk()); err != nil {
		t.Fatal(err)
	}
	s.is("programs when all is installed", s.ran(), "")
}

// hold starts another process that holds a POSIX lock on a file of the machine.
func (s *story) hold(file string) *exec.Cmd {
	s.t.Helper()
	s.m.Write(file, 0o644, "")
	cmd := exec.Command(os.Args[0], "-test.run=^TestHoldALock$")
	cmd.Env = append(os.Environ(), "PKGMGR_TEST_LOCK="+s.m.Path(file))
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

// called is how a person finds the holder: the kernel keeps 15 bytes of a program's name.
func called(holder *exec.Cmd) string {
	name := filepath.Base(os.Args[0])
	return fmt.Sprintf("pid %d (%s)", holder.Process.Pid, name[:min(len(name), 15)])
}

// TestHoldALock is no test of its own: this test binary, started again, is the other process.
func TestHoldALock(t *testing.T) {
	path := os.Getenv("PKGMGR_TEST_LOCK")
	if path == "" {
		return
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &syscall.Flock_t{Type: syscall.F_WRLCK}); err != nil {
		t.Fatal(err)
	}
	os.Stdout.WriteString("locked\n")
	time.Sleep(time.Minute)
}

// peers.md, trap 16: package managers at war with unattended upgrades and self-updating agents.
func TestALockOfOthersIsWaitedForByName(t *testing.T) {
	for _, file := range []string{"/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/cache/apt/archives/lock", "/var/lib/apt/lists/lock"} {
		t.Run(file, func(t *testing.T) {
			s := aptStory(t, pkgmgrtest.Apt())
			s.m.Write("/var/lib/apt/lists/known", 0o644, s.m.Read("/repo"))
			holder := s.hold(file)
			done := make(chan string, 1)
			go func() { done <- s.change("jq") }()
			select {
			case got := <-done:
				t.Fatalf("did not wait: %s", got)
			case <-time.After(50 * time.Millisecond):
			}
			_ = holder.Process.Kill()
			s.is("failures", <-done, "")
			s.is("status", strings.Join(s.status, "\n"),
				"waiting for the lock of apt, held by "+called(holder))
		})
	}
}

func TestALockThatIsNeverReleasedEndsTheWait(t *testing.T) {
	s := aptStory(t, pkgmgrtest.Apt())
	s.p.LockWait = 30 * time.Millisecond
	holder := s.hold("/var/lib/dpkg/lock-frontend")
	got := s.change("jq")
	if want := "cannot get the lock of apt: held by " + called(holder) + " | see what that program is doing"; !strings.HasPrefix(got, want) {
		t.Errorf("the error is %q, want %q", got, want)
	}
	s.is("programs", s.ran(), "")
}

func TestAWaitForALockCanBeCancelled(t *testing.T) {
	s := aptStory(t, pkgmgrtest.Apt())
	s.hold("/var/lib/dpkg/lock-frontend")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	began := time.Now()
	err := s.p.Change(ctx, want("jq"), s.talk())
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 2*time.Second {
		t.Errorf("ended after %s with %v", time.Since(began), err)
	}
}

func TestWhatACancelledChangeHasDoneIsSeen(t *testing.T) {
	slow := strings.Replace(pkgmgrtest.Apt()["apt-get"], "exit $code", "trap 'exit 1' TERM; : >$R/done; while :; do sleep 0.01; done", 1)
	s := aptStory(t, pkgmgrtest.With(pkgmgrtest.Apt(), map[string]string{"apt-get": slow}))
	s.m.Write("/var/lib/apt/lists/known", 0o644, s.m.Read("/repo"))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for !s.m.Host.Exists("/done") && t.Context().Err() == nil {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	if err := s.p.Change(ctx, want("jq"), s.talk()); !errors.Is(err, context.Canceled) {
		t.Fatalf("ended with %v", err)
	}
	db, err := s.p.Installed(t.Context(), []string{"jq"})
	if err != nil || db.Drift(Want{Name: "jq"}) != "" {
		t.Errorf("drift is %q (%v)", db.Drift(Want{Name: "jq"}), err)
	}
}

// The lock may be taken between our look and apt's.
func TestALockTakenUnderOurNoseIsTriedAgain(t *testing.T) {
	s := aptStory(t, pkgmgrtest.Apt())
	s.m.Write("/var/lib/apt/lists/known", 0o644, s.m.Read("/repo"))
	s.m.Write("/hold-lock", 0o644, "2\n")
	s.is("failures", s.change("jq"), "")
	s.is("programs", s.ran(), "apt-get install jq\napt-get install jq\napt-get install jq")
}
