package pkgmgr

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/pkgmgr/pkgmgrtest"
)

func dnfStory(t *testing.T) *story {
	s := begin(t, "dnf", pkgmgrtest.Dnf())
	s.m.Write("/rpmdb", 0o644, "curl-minimal\t0\t8.5.0\t1\tx86_64\nvim-enhanced\t2\t9.0\t1\tx86_64\n")
	s.m.Write("/provides", 0o644, "vim vim-enhanced\n")
	s.m.Write("/repo", 0o644, "nginx 1.24.0-1\nnginx 1:1.26.0-1\ncurl 8.5.0-1\ncurl-minimal 8.5.0-1\njq 1.7.1-4\n")
	s.m.Write("/conflicts", 0o644, "curl curl-minimal\n")
	return s
}

func TestDnfLooksAtTheDatabase(t *testing.T) {
	s := dnfStory(t)
	s.is("drift", s.drift("curl-minimal=8.5* vim vim-enhanced=2:9.0 nginx curl- vim-"), "nginx: not installed")
	if log := s.m.Log(); len(log) != 2 {
		t.Errorf("rpm was run %d times, want 2: %q", len(log), log)
	}
}

// Amazon Linux 2023 comes with curl-minimal, which excludes curl and without
// which dnf does not work: only one transaction can change them over.
func TestDnfChangesOneForAnotherInOneTransaction(t *testing.T) {
	s := dnfStory(t)
	s.is("failures", s.change("curl jq"), "cannot install curl: package curl-8.5.0-1.x86_64 conflicts with curl-minimal provided by curl-minimal-1.0-1.x86_64")
	s.is("drift of the other", s.drift("jq"), "")
	s.is("failures", s.change("curl curl-minimal-"), "")
	s.is("drift", s.drift("curl curl-minimal-"), "")
}

func TestDnfGoesToAVersionAndBack(t *testing.T) {
	s := dnfStory(t)
	s.is("failures", s.change("nginx=1.26*"), "")
	s.is("drift", s.drift("nginx=1:1.26.0"), "")
	s.is("failures", s.change("nginx=1.24.0"), "")
	s.is("drift", s.drift("nginx=1.24.0-1"), "")
}

func TestDnfUnknownAndExcluded(t *testing.T) {
	s := dnfStory(t)
	s.m.Write("/exclude", 0o644, "jq\n")
	s.is("failures", s.change("nginx=9.* ngimx jq curl-minimal-"), strings.Join([]string{
		"cannot install jq: every version that matches is left out by exclude filtering | see exclude= in /etc/dnf/dnf.conf and in the repository's file, and the versionlock plugin",
		`cannot install ngimx: no repository of this machine has it | did you mean "nginx"?`,
		"cannot install nginx: no repository has version 9.*, only 1:1.26.0-1, 1.24.0-1 | repositories drop old versions; name one that is there, or a glob",
	}, "\n"))
	s.is("drift", s.drift("curl-minimal-"), "")
}

func TestDnfMustNotSkipRepositories(t *testing.T) {
	s := dnfStory(t)
	s.change("jq")
	for _, l := range s.m.Log() {
		if strings.HasPrefix(l, "dnf ") && !strings.Contains(l, "--setopt=skip_if_unavailable=False") {
			t.Errorf("dnf would pass over a repository that cannot be read: %s", l)
		}
	}
}

// amazon-linux-2023 issue 397: dnf does not wait for the rpm lock, which the
// SSM agent's self-update holds at a first boot.
func TestTheRpmLockIsTriedAgain(t *testing.T) {
	s := dnfStory(t)
	s.m.Write("/rpmlock", 0o644, "2\n")
	s.is("failures of install", s.change("jq"), "")
	s.m.Write("/rpmlock", 0o644, "2\n")
	s.is("failures of the shell, which ends with 0", s.change("curl curl-minimal-"), "")
	s.is("drift", s.drift("jq curl"), "")
}

func TestDnfWaitsAreTold(t *testing.T) {
	s := begin(t, "dnf", pkgmgrtest.With(pkgmgrtest.Dnf(), map[string]string{"dnf": `echo "Waiting for process with pid ` + strconv.Itoa(os.Getpid()) + ` to finish."`}))
	s.change("jq")
	if len(s.status) == 0 || !strings.HasPrefix(s.status[0], "waiting for the lock of dnf, held by pid "+strconv.Itoa(os.Getpid())+" (") {
		t.Errorf("status is %q", s.status)
	}
}

func TestADamagedRpmDatabaseIsNotAnEmptyOne(t *testing.T) {
	s := begin(t, "dnf", pkgmgrtest.With(pkgmgrtest.Dnf(), map[string]string{"rpm": `echo "error: cannot open Packages database in /var/lib/rpm" >&2; exit 1`}))
	_, err := s.p.Installed(t.Context(), []string{"jq"})
	if err == nil || !strings.Contains(err.Error(), "cannot read the rpm database") || !strings.Contains(diag.Hint(err), "rebuilddb") {
		t.Errorf("%v", err)
	}
}

func TestDnf5DoesBothInOneTransaction(t *testing.T) {
	cmds, _, err := dnf{five: true}.commands(t.Context(), want("curl=8* curl-minimal-"), false)
	if err != nil || len(cmds) != 1 || !strings.HasSuffix(strings.Join(cmds[0].Argv, " "), "do --action=install curl-8* --action=remove curl-minimal") {
		t.Errorf("%v %v", cmds, err)
	}
}

func TestYumPassesOverUnknownPackagesSoWeLook(t *testing.T) {
	s := begin(t, "yum", pkgmgrtest.Yum())
	s.m.Write("/rpmdb", 0o644, "nginx\t1\t1.22.0\t1\tx86_64\ntelnet\t1\t0.17\t1\tx86_64\n")
	s.m.Write("/repo", 0o644, "nginx 1:1.20.0-1\nnginx 1:1.22.0-1\njq 1.5-1\n")
	s.is("failures", s.change("jq nope"), "cannot install nope: no repository of this machine has it | "+
		"check its name, and that its repository is among `repositories`")
	s.is("drift", s.drift("jq"), "")
	s.ran()
	s.is("failures", s.change("nginx=1.20.* telnet-"), "")
	s.is("drift of an older version", s.drift("nginx=1:1.20.0-1 telnet-"), "")
	s.is("failures", s.change("nginx=1:1.22.0"), "")
	s.is("drift", s.drift("nginx=1.22.0-1"), "")
}

func TestYumDownloads(t *testing.T) {
	s := begin(t, "yum", pkgmgrtest.Yum())
	s.m.Write("/repo", 0o644, "jq 1.5-1\n")
	if err := s.p.Download(t.Context(), want("jq"), s.talk()); err != nil || !s.m.Host.Exists("/var/cache/yum/jq.rpm") {
		t.Errorf("%v", err)
	}
}

func TestOlder(t *testing.T) {
	have := []Package{{Version: "1:1.22.0-1"}}
	for want, is := range map[string]bool{"1.20.0": true, "1.20*": true, "1.22.0-1": false, "1.24": false, "1:1.20": true, "0:1.24": true, "*": false, "2:1.0": false} {
		if got := older(want, have); got != is {
			t.Errorf("older(%q) = %v", want, got)
		}
	}
	if older("1", nil) {
		t.Error("what is not installed cannot be too new")
	}
}

func TestAMachineWithoutAPackageManagerSaysSo(t *testing.T) {
	for family, want := range map[string]string{"": "no package manager that is known", "zypper": `"zypper" is not known`} {
		if _, err := New(nil, family); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("family %q: %v", family, err)
		}
	}
}
