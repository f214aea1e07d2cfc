package rhui

import (
	"errors"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/pin"
	"github.com/amiagent/amiagent/internal/pin/pintest"
	"github.com/amiagent/amiagent/internal/pkgmgr/pkgmgrtest"
	"github.com/amiagent/amiagent/internal/step/steptest"
)

const variable = "/etc/dnf/vars/releasever"

type story struct {
	*testing.T
	m *steptest.Machine
}

// newStory is RHEL 9.4 with RHUI's repositories, which only dnf itself can
// read. What dnf knows of packages and advisories is said as dnf 4 says it.
func newStory(t *testing.T) *story {
	programs := pkgmgrtest.DnfReleases()
	programs["dnf"] = `
case "$*" in
*repoquery*) case "$*" in
	*9.6*) printf 'bash\\t x\n'; printf '%s\n' 'bash\tx86_64\t0:5.1.8-10.el9\n' 'openssl\tx86_64\t1:3.2.2-1.el9\n' ;;
	esac; exit 0 ;;
*updateinfo*)
	echo "RHSA-2025:1330 Important/Sec. openssl-1:3.2.2-1.el9.x86_64"
	echo "RHBA-2025:1331 bugfix         bash-5.1.8-10.el9.x86_64"
	exit 0 ;;
esac
` + programs["dnf"]
	s := &story{t, steptest.NewMachine(t, steptest.Options{Facts: pintest.Facts("rhel", "9.4", "dnf"), Programs: programs})}
	s.m.Write("/etc/os-release", 0o644, "ID=\"rhel\"\nVERSION_ID=\"9.4\"\n")
	s.m.Write("/etc/yum.repos.d/redhat-rhui.repo", 0o644, "[rhel-9-baseos-rhui-rpms]\nmirrorlist=https://rhui.REGION.aws.ce.redhat.com/pulp/mirror/content/dist/rhel9/rhui/$releasever/x86_64/baseos/os\nenabled=1\nsslclientkey=/etc/pki/rhui/content-rhel9.key\n\n"+
		"[rhel-9-client]\nmirrorlist=https://rhui.REGION.aws.ce.redhat.com/pulp/mirror/protected/rhui-client-config/rhel/server/9/x86_64/os\nenabled=1\n")
	s.m.Write("/releases/9", 0o644, "bash 5.1.8-10.el9\n")
	s.m.Write("/releases/9.6", 0o644, "bash 5.1.8-10.el9\nopenssl 1:3.2.2-1.el9\n")
	s.m.Write("/releases/9.4", 0o644, "bash 5.1.8-9.el9\nopenssl 1:3.0.7-1.el9\n")
	pintest.RPM(s.m, "system-release 9-1.el9\nbash 5.1.8-9.el9\nopenssl 1:3.0.7-1.el9\n")
	return s
}

func (s *story) pin() *pin.Pin { return pin.New(s.m.Host, s.m.Facts, New(pintest.Options(s, s.m))) }

func (s *story) set(word string) string {
	s.Helper()
	_, err := s.pin().Set(s.Context(), word, nil)
	return pintest.Told(err, diag.Hint(err))
}

func (s *story) is(what, got, want string) {
	s.Helper()
	if got != want {
		s.Errorf("%s:\n%s\nwant:\n%s", what, got, want)
	}
}

func (s *story) says(want string) {
	s.Helper()
	st, err := s.pin().State(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	got := st.Release + ", " + st.How
	for _, f := range st.Floating {
		got += "\nfloats: " + f.ID
	}
	for _, o := range st.Odd {
		got += "\nodd: " + o
	}
	s.is("state", got, want)
}

func TestAMinorReleaseIsHeldByTheVariable(t *testing.T) {
	s := newStory(t)
	s.says("latest, no variable names a minor release: the newest is used\nfloats: rhel-9-client")
	s.is("image", s.set(pin.Image), "")
	s.is("variable", s.m.Read(variable), "9.4\n")
	s.says("9.4, /etc/dnf/vars/releasever\nfloats: rhel-9-client")
	s.is("unlock", s.set(pin.Latest), "")
	s.says("latest, no variable names a minor release: the newest is used\nfloats: rhel-9-client")
}

func TestWhatCannotBeHeldChangesNothing(t *testing.T) {
	s := newStory(t)
	before := s.m.Tree()
	_, err := s.pin().Set(t.Context(), "9.9", nil)
	if !errors.Is(err, pin.ErrNoRelease) {
		t.Errorf("a release that dnf cannot read: %v", err)
	}
	for release, want := range map[string]string{
		"8.10": "no such release: 8.10 is no release of rhel 9; a major version is moved to by an upgrade of its own",
		"9":    "\"9\" is no minor release of rhel 9: want the form 9.4, or latest or image",
		"now":  "refused: a minor release is no moment | name one, as 9.4",
	} {
		s.is(release, s.set(release), want)
	}
	s.is("changed", steptest.Changes(before, s.m.Tree()), "")
	s.m.Write("/etc/pki/consumer/cert.pem", 0o600, "x")
	s.is("registered", s.set("9.4"), "refused: this machine is registered, so the subscription service decides its release | `subscription-manager release --set=9.4`")
}

func TestTrapAnEmptyVariable(t *testing.T) {
	s := newStory(t)
	s.m.Write(variable, 0o644, "\n")
	s.says(", /etc/dnf/vars/releasever, which is empty\nfloats: rhel-9-client\nodd: /etc/dnf/vars/releasever is empty: it is taken for the release, and no repository is found; remove it, or set a release")
	s.is("set", s.set("9.4"), "")
	s.is("variable", s.m.Read(variable), "9.4\n")
}

func TestDiffIsWhatDnfOffers(t *testing.T) {
	s := newStory(t)
	changes, err := s.pin().Diff(t.Context(), "9.6")
	if err != nil {
		t.Fatal(err)
	}
	s.is("diff", pintest.Brief(changes), "bash 5.1.8-9.el9 5.1.8-10.el9 RHBA-2025:1331\nopenssl 1:3.0.7-1.el9 1:3.2.2-1.el9 RHSA-2025:1330")
	if all := pin.Security(changes); len(all) != 1 || all[0].Severity != "Important" {
		t.Errorf("security: %+v", all)
	}
}

func TestAdvanceSetsTheVariableAfterThePackages(t *testing.T) {
	s := newStory(t)
	s.is("set", s.set("9.4"), "")
	if _, err := s.pin().Advance(t.Context(), "9.6", pin.MoveOptions{}); err != nil {
		t.Fatal(err)
	}
	s.is("variable", s.m.Read(variable), "9.6\n")
	if !strings.Contains(s.m.Read("/rpmdb"), "openssl\t1\t3.2.2") {
		t.Error("openssl was not upgraded")
	}
	if _, err := s.pin().Rollback(t.Context(), pin.MoveOptions{}); err != nil {
		t.Fatal(err)
	}
	s.is("variable", s.m.Read(variable), "9.4\n")
}
