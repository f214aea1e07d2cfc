package al1

import (
	"errors"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/pin"
	"github.com/amiagent/amiagent/internal/pin/pintest"
	"github.com/amiagent/amiagent/internal/pin/yumrepo"
	"github.com/amiagent/amiagent/internal/pkgmgr/pkgmgrtest"
	"github.com/amiagent/amiagent/internal/step/steptest"
)

const stock = `[main]
cachedir=/var/cache/yum/$basearch/$releasever
keepcache=0
distroverpkg=system-release
timeout=5
retries=7
releasever=latest
# metadata_expire=90m
`

type story struct {
	*testing.T
	cdn *pintest.Server
	m   *steptest.Machine
}

// newStory is a 2018.03 image as it was launched: it follows latest.
func newStory(t *testing.T) *story {
	s := &story{T: t, cdn: pintest.Serve(t), m: steptest.NewMachine(t, steptest.Options{
		Facts: pintest.Facts("amzn", "2018.03", "yum"), Programs: pkgmgrtest.YumReleases()})}
	s.m.Write(conf, 0o644, stock)
	for _, name := range []string{"main", "updates"} {
		s.m.Write("/etc/yum.repos.d/amzn-"+name+".repo", 0o644, "[amzn-"+name+"]\nname=amzn-"+name+"-Base\nmirrorlist="+s.cdn.URL+"/$releasever/"+name+"/mirror.list\nenabled=1\nreport_instanceid=yes\n")
	}
	for release, bash := range map[string]string{"2017.09": "4.2.45-1", "2018.03": "4.2.46-28", "latest": "4.2.46-34"} {
		packages := "system-release " + strings.Replace(release, "latest", "2018.03", 1) + "-0.0.amzn1\nbash " + bash + "\n"
		s.m.Write("/releases/"+release, 0o644, packages)
		for _, name := range []string{"main", "updates"} {
			base := "/" + release + "/" + name + "/" + pintest.GUID(release)[:12] + "/x86_64"
			s.cdn.Put("/"+release+"/"+name+"/mirror.list", s.cdn.URL+strings.Replace(base, "x86_64", "$basearch", 1)+"\n")
			s.cdn.Repo(base+"/", packages)
		}
	}
	s.m.Mkdir("/etc/cloud", 0)
	pintest.RPM(s.m, "system-release 2018.03-0.0.amzn1\nbash 4.2.46-28\n")
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
	st, err := s.pin().Status(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	got := st.Release + ", " + st.How + ": " + st.BehindText()
	for _, o := range append(st.Odd, st.Unknown...) {
		got += "\nodd: " + o
	}
	s.is("status", got, want)
}

func TestALaunchedImageFollowsLatestUntilItIsHeld(t *testing.T) {
	s := newStory(t)
	s.says("latest, /etc/yum.conf: up to date")
	s.is("image", s.set(pin.Image), "")
	s.is("yum.conf", s.m.Read(conf), strings.Replace(stock, "=latest", "=2018.03", 1))
	s.is("cloud-init", strings.Split(s.m.Read(yumrepo.CloudConf), "\n")[1], "repo_upgrade: none")
	s.says("2018.03, /etc/yum.conf: up to date")
	s.is("older", s.set("2017.09"), "")
	s.says("2017.09, /etc/yum.conf: 1 release behind")
	s.is("unlock", s.set(pin.Latest), "")
	s.is("yum.conf", s.m.Read(conf), stock)
	if s.m.Host.Exists(yumrepo.CloudConf) {
		t.Error("cloud-init is still told not to upgrade")
	}
}

// A pin that leaves cloud-init to upgrade at first boot holds nothing.
func TestCloudInitIsPartOfThePin(t *testing.T) {
	s := newStory(t)
	s.is("set", s.set("2018.03"), "")
	s.m.Remove(yumrepo.CloudConf)
	s.says("2018.03, /etc/yum.conf: up to date\nodd: cloud-init installs updates at first boot: /etc/cloud/cloud.cfg.d/95_amiagent-pin.cfg with repo_upgrade: none is not there; `amiagent pin set` writes it")
	drift, err := s.pin().Unfrozen()
	if err != nil || drift != "cloud-init is not told to install no updates" {
		t.Errorf("%q, %v", drift, err)
	}
}

func TestAReleaseThatDoesNotExistChangesNothing(t *testing.T) {
	s := newStory(t)
	before := s.m.Tree()
	_, err := s.pin().Set(t.Context(), "2017.03", nil)
	if !errors.Is(err, pin.ErrNoRelease) {
		t.Fatal(err)
	}
	s.is("bad form", s.set("2017.9"), "\"2017.9\" is no release of Amazon Linux AMI: want the form 2018.03, or latest or image")
	s.is("changed", steptest.Changes(before, s.m.Tree()), "")
}

// yum prefers a variable's file to its command line: the opposite of dnf.
func TestAVariableStandsAboveTheConfiguration(t *testing.T) {
	s := newStory(t)
	s.m.Write("/etc/yum/vars/releasever", 0o644, "2017.09\n")
	s.says("2017.09, /etc/yum/vars/releasever: 1 release behind\nodd: /etc/yum/vars/releasever stands above /etc/yum.conf and the command line; remove it, so that one place says the release\nodd: cloud-init installs updates at first boot: /etc/cloud/cloud.cfg.d/95_amiagent-pin.cfg with repo_upgrade: none is not there; `amiagent pin set` writes it")
	s.is("set", s.set("2018.03"), "")
	s.says("2018.03, /etc/yum.conf: up to date")
}

// yum ignores symbolic links among its variables; dnf follows them.
func TestAVariableThatIsALinkDoesNotCount(t *testing.T) {
	s := newStory(t)
	s.m.Write("/elsewhere", 0o644, "2017.09\n")
	s.m.Link("/elsewhere", "/etc/yum/vars/releasever")
	s.says("latest, /etc/yum.conf: up to date")
}

func TestAdvanceAndRollback(t *testing.T) {
	s := newStory(t)
	pintest.RPM(s.m, "system-release 2017.09-0.0.amzn1\nbash 4.2.45-1\n")
	s.is("set", s.set("2017.09"), "")
	m, err := s.pin().Advance(t.Context(), "", pin.MoveOptions{})
	if err != nil || m.To != "2018.03" || pintest.Brief(m.Changes) != "bash 4.2.45-1 4.2.46-28\nsystem-release 2017.09-0.0.amzn1 2018.03-0.0.amzn1" {
		t.Fatalf("%+v, %v", m, err)
	}
	s.says("2018.03, /etc/yum.conf: up to date")
	if _, err := s.pin().Rollback(t.Context(), pin.MoveOptions{}); err != nil {
		t.Fatal(err)
	}
	s.says("2017.09, /etc/yum.conf: 1 release behind")
	s.is("bash", strings.Fields(s.m.Read("/rpmdb"))[2], "4.2.45")
}

func TestAMoveThatFailsLeavesTheOldRelease(t *testing.T) {
	s := newStory(t)
	s.is("set", s.set("2017.09"), "")
	s.m.Remove("/releases/2018.03")
	if _, err := s.pin().Advance(t.Context(), "", pin.MoveOptions{}); err == nil {
		t.Fatal("yum found no release, and the move ended well")
	}
	st, err := s.pin().Status(t.Context())
	if err != nil || st.Release != "2017.09" || len(st.Odd) != 1 || !strings.Contains(st.Odd[0], "a move from 2017.09 to 2018.03, begun on ") {
		t.Errorf("%+v, %v", st, err)
	}
}

func TestOneLineOfYumConf(t *testing.T) {
	for text, want := range map[string]string{
		stock: strings.Replace(stock, "=latest", "=2018.03", 1),
		"[main]\n#releasever=latest\nretries=7\n":                        "[main]\nreleasever=2018.03\nretries=7\n",
		"[main]\n# releasever=x\nreleasever = y\n[repo]\nreleasever=z\n": "[main]\nreleasever=2018.03\n[repo]\nreleasever=z\n",
		"[main]\nretries=7\n":                                            "[main]\nreleasever=2018.03\nretries=7\n",
		"":                                                               "[main]\nreleasever=2018.03\n",
	} {
		if got := withRelease(text, "2018.03"); got != want {
			t.Errorf("%q:\n%q\nwant:\n%q", text, got, want)
		}
	}
}
