package apt

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/pin"
	"github.com/amiagent/amiagent/internal/pin/pintest"
	"github.com/amiagent/amiagent/internal/pkgmgr/pkgmgrtest"
	"github.com/amiagent/amiagent/internal/step/steptest"
)

const (
	april = "20260401T000000Z"
	may   = "20260501T000000Z"
	today = "20260510T120000Z"
)

// story is a machine with apt, and a server that is archive and snapshot server at once.
type story struct {
	*testing.T
	web  *pintest.Server
	m    *steptest.Machine
	repo map[string]string
	by   string
}

// newStory is a machine with this apt. All servers are on loopback, so the
// host of its sources is 127.0.0.1, and docker's is another name for it.
func newStory(t *testing.T, os, version, aptVersion string) *story {
	s := &story{T: t, web: pintest.Serve(t), m: steptest.NewMachine(t, steptest.Options{
		Facts: pintest.Facts(os, version, "apt"), Programs: pkgmgrtest.AptSnapshots()})}
	s.repo = map[string]string{"127.0.0.1": s.web.URL + "/snapshot/@SNAPSHOTID@/"}
	s.m.Write("/var/lib/dpkg/status", 0o644, stanza("dpkg", "1")+stanza("apt", aptVersion)+stanza("openssl", "3.0.2")+stanza("local", "1"))
	s.m.Write("/etc/apt/sources.list", 0o644, "# Ubuntu\ndeb "+s.web.URL+"/ubuntu noble main universe\ndeb-src "+s.web.URL+"/ubuntu noble main\n")
	s.m.Write("/repo", 0o644, "openssl 3.0.9\n")
	s.at(april, "openssl 3.0.2\n")
	s.at(may, "openssl 3.0.5\n")
	return s
}

func stanza(name, version string) string {
	return fmt.Sprintf("Package: %s\nStatus: install ok installed\nArchitecture: amd64\nVersion: %s\n\n", name, version)
}

// at makes a moment, for the machine's apt and on the snapshot server.
func (s *story) at(moment, packages string) {
	s.m.Write("/releases/"+moment, 0o644, packages)
	var index strings.Builder
	for line := range strings.Lines(packages) {
		f := strings.Fields(line)
		fmt.Fprintf(&index, "Package: %s\nVersion: %s\nArchitecture: amd64\n\n", f[0], f[1])
	}
	base := "/snapshot/" + moment + "/dists/noble/"
	s.web.Put(base+"InRelease", "Origin: Ubuntu\nSuite: noble\nSHA256:\n aa 1 main/binary-amd64/Packages\n")
	s.web.Put(base+"main/binary-amd64/Packages", index.String())
}

func (s *story) family() *Family {
	o := pintest.Options(s, s.m)
	o.Repositories, o.By = s.repo, s.by
	f := New(o)
	f.now = func() time.Time { at, _ := time.Parse(form, today); return at }
	return f
}

func (s *story) pin() *pin.Pin { return pin.New(s.m.Host, s.m.Facts, s.family()) }

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

func TestUbuntuIsHeldByItsConfiguration(t *testing.T) {
	s := newStory(t, "ubuntu", "24.04", "2.7.14build2")
	s.says("latest, no snapshot is set\nfloats: 127.0.0.1 noble")
	before := s.m.Tree()
	s.is("set", s.set(april), "")
	s.is("changed", strings.Join(changedFiles(steptest.Changes(before, s.m.Tree())), " "), "/etc/apt/apt.conf.d/ /etc/apt/apt.conf.d/50amiagent-snapshot")
	s.is("file", s.m.Read(confFile), "// Written by amiagent: package repositories are held at this moment.\nAPT::Snapshot \"20260401T000000Z\";\n"+
		"Acquire::Snapshots::URI::Host::127.0.0.1 \""+s.web.URL+"/snapshot/@SNAPSHOTID@/\";\n"+
		"Acquire::Snapshots::URI::Host::ports.ubuntu.com \"https://snapshot.ubuntu.com/ubuntu/@SNAPSHOTID@/\";\n")
	s.says("20260401T000000Z, APT::Snapshot in /etc/apt/apt.conf.d/50amiagent-snapshot")
	s.is("unlock", s.set(pin.Latest), "")
	s.says("latest, no snapshot is set\nfloats: 127.0.0.1 noble")
}

// changedFiles are the paths in what steptest.Changes prints.
func changedFiles(changes string) []string {
	var all []string
	for line := range strings.Lines(changes) {
		if strings.HasPrefix(line, "/") {
			all = append(all, strings.Fields(line)[0])
		}
	}
	return all
}

func TestASourceWithoutASnapshotServerFloats(t *testing.T) {
	s := newStory(t, "ubuntu", "24.04", "2.7.14build2")
	s.m.Write("/etc/apt/sources.list.d/docker.list", 0o644, "deb [arch=amd64] https://download.docker.com/linux/ubuntu noble stable\n")
	s.is("set", s.set(april), "")
	s.says("20260401T000000Z, APT::Snapshot in /etc/apt/apt.conf.d/50amiagent-snapshot\nfloats: download.docker.com noble")
	s.repo = nil
	s.m.Write(confFile, 0o644, "APT::Snapshot \"20260401T000000Z\";\n")
	s.is("none at all", s.set(may), "refused: no source of this machine has a snapshot server that is known | name one under `repositories`: the source's host, and an address with @SNAPSHOTID@ in it")
}

func TestAMomentThatTheServerDoesNotHaveChangesNothing(t *testing.T) {
	s := newStory(t, "ubuntu", "24.04", "2.7.14build2")
	before := s.m.Tree()
	for moment, want := range map[string]string{
		"20100101T000000Z": "no such release: 20100101T000000Z for 127.0.0.1 noble: cannot read " + s.web.URL + "/snapshot/20100101T000000Z/dists/noble/Release: not there: the server answered 403 | the snapshot server may be younger than that, or not have this suite",
		"20300101T000000Z": "no such release: 20300101T000000Z is in the future | the nearest moment that exists is now, 20260510T120000Z",
		"2026-04-01":       "\"2026-04-01\" is no moment of a snapshot server: want the form 20260401T000000Z, or latest or image",
		"20261301T000000Z": "\"20261301T000000Z\" is no moment of a snapshot server: want the form 20260401T000000Z, or latest or image",
	} {
		s.is(moment, s.set(moment), want)
	}
	diff := steptest.Changes(before, s.m.Tree())
	for _, f := range changedFiles(diff) {
		if !strings.HasPrefix(f, "/var/lib/apt") && f != "/var/lib" { // what apt itself has read
			t.Errorf("changed: %s", f)
		}
	}
}

// Debian 12's apt takes APT::Snapshot and ignores it, without a word.
func TestTrapAnAptThatIgnoresSnapshots(t *testing.T) {
	s := newStory(t, "debian", "12", "2.6.1")
	before := s.m.Tree()
	s.is("set", s.set(april), "refused: apt 2.6.1 has no snapshots, and would ignore them in silence | Debian 13 and Ubuntu 24.04 have them; here, `by: url` (--by url) rewrites the sources to the snapshot server's addresses")
	s.is("changed", steptest.Changes(before, s.m.Tree()), "")
	s.m.Write("/etc/apt/apt.conf.d/99mine", 0o644, "APT::Snapshot \"20260401T000000Z\";\n")
	s.says("latest, APT::Snapshot is set, and apt 2.6.1 knows nothing of it\nfloats: 127.0.0.1 noble\nodd: apt 2.6.1 ignores APT::Snapshot; `by: url` holds the sources by their addresses")
	s.m.Remove("/etc/apt/apt.conf.d/99mine")

	s.by = "url"
	s.m.Write("/etc/apt/sources.list.d/x.sources", 0o644, "# mine\nTypes: deb deb-src\nURIs: "+s.web.URL+"/ubuntu/\nSuites: noble\nComponents: main\n\nTypes: deb\nURIs: https://example.com/x\nSuites: ./\n")
	sources := s.m.Tree()
	s.m.Mkdir("/etc/cloud", 0)
	s.is("set by url", s.set(april), "")
	snap := s.web.URL + "/snapshot/" + april + "/"
	s.is("list", s.m.Read("/etc/apt/sources.list"), "# Ubuntu\n# amiagent-was: deb "+s.web.URL+"/ubuntu noble main universe\ndeb [check-valid-until=no] "+snap+" noble main universe\ndeb-src "+s.web.URL+"/ubuntu noble main\n")
	s.is("deb822", s.m.Read("/etc/apt/sources.list.d/x.sources"), "# mine\nTypes: deb deb-src\n# amiagent-was: URIs: "+s.web.URL+"/ubuntu/\nURIs: "+snap+"\nSuites: noble\nComponents: main\n# amiagent-was:\nCheck-Valid-Until: no\n\nTypes: deb\nURIs: https://example.com/x\nSuites: ./\n")
	s.is("cloud-init", s.m.Read(cloudFile), "# Written by amiagent: apt's sources are pinned.\napt:\n  preserve_sources_list: true\n")
	s.says("20260401T000000Z, the addresses in apt's sources\nfloats: example.com ./")
	s.is("another", s.set(may), "")
	s.says("20260501T000000Z, the addresses in apt's sources\nfloats: example.com ./")
	s.is("unlock", s.set(pin.Latest), "")
	s.m.Remove("/etc/cloud")
	s.is("as it was", strings.Join(changedFiles(steptest.Changes(sources, s.m.Tree())), " "), "")
}

// Ubuntu 22.04's apt has snapshots where a source says so.
func TestAnAptThatWantsAnOptionInEverySource(t *testing.T) {
	s := newStory(t, "ubuntu", "22.04", "2.4.13")
	s.is("set", s.set(april), "")
	s.is("list", strings.Split(s.m.Read("/etc/apt/sources.list"), "\n")[2], "deb [snapshot=yes] "+s.web.URL+"/ubuntu noble main universe")
	s.says("20260401T000000Z, APT::Snapshot in /etc/apt/apt.conf.d/50amiagent-snapshot")
}

func TestWhatAnAptCanDoIsToldByItsVersion(t *testing.T) {
	for version, want := range map[string]ability{
		"2.6.1": none, "2.2.4": none, "1.8.2.3": none, "2.0.9": none, "2.4.10": none, "2.5.0": none,
		"2.0.10": byOption, "2.4.11": byOption, "2.4.13": byOption, "2.7.1": byOption, "2.7.11": byOption,
		"2.7.12": automatic, "2.7.14build2": automatic, "3.0.4": automatic, "2.9.34": automatic,
	} {
		if got := abilityOf(version); got != want {
			t.Errorf("%s: %d, want %d", version, got, want)
		}
	}
}

func TestImageIsTheDayItWasBuilt(t *testing.T) {
	s := newStory(t, "ubuntu", "24.04", "2.7.14build2")
	s.is("without", s.set(pin.Image), "cannot tell which release this image was built from | name a release, or hold one in the image build: `amiagent pin set now --root D`")
	s.m.Write("/etc/cloud/build.info", 0o644, "build_name: server\nserial: 20260401.1\n")
	s.is("with", s.set(pin.Image), "")
	s.says("20260401T000000Z, APT::Snapshot in /etc/apt/apt.conf.d/50amiagent-snapshot")
}

func TestAdvanceAndRollback(t *testing.T) {
	s := newStory(t, "ubuntu", "24.04", "2.7.14build2")
	s.is("set", s.set(april), "")
	changes, err := s.pin().Diff(t.Context(), may)
	s.is("diff", fmt.Sprint(pintest.Brief(changes), err), "openssl 3.0.2 3.0.5<nil>")
	if _, err := s.pin().Advance(t.Context(), "", pin.MoveOptions{}); !errors.Is(err, pin.ErrUnlisted) || diag.Hint(err) != "name one: --to RELEASE" {
		t.Errorf("to the newest: %v", err)
	}
	if _, err := s.pin().Advance(t.Context(), may, pin.MoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(s.m.Read("/var/lib/dpkg/status"), "Version: 3.0.5") {
		t.Error("openssl was not upgraded")
	}
	s.says("20260501T000000Z, APT::Snapshot in /etc/apt/apt.conf.d/50amiagent-snapshot")
	_, err = s.pin().Advance(t.Context(), april, pin.MoveOptions{})
	if !errors.Is(err, pin.ErrRefused) {
		t.Errorf("back without being asked: %v", err)
	}
	m, err := s.pin().Rollback(t.Context(), pin.MoveOptions{})
	if err != nil || m.To != april || !strings.Contains(s.m.Read("/var/lib/dpkg/status"), "Package: openssl\nStatus: install ok installed\nArchitecture: amd64\nVersion: 3.0.2") {
		t.Errorf("%+v, %v", m, err)
	}
	s.says("20260401T000000Z, APT::Snapshot in /etc/apt/apt.conf.d/50amiagent-snapshot")
}

// What is configured must be what is installed, so a move that fails puts the file back.
func TestAMoveThatFailsLeavesTheOldMoment(t *testing.T) {
	s := newStory(t, "ubuntu", "24.04", "2.7.14build2")
	s.is("set", s.set(april), "")
	s.m.Write("/full", 0o644, "")
	_, err := s.pin().Advance(t.Context(), may, pin.MoveOptions{})
	s.is("advance", pintest.Told(err, diag.Hint(err)), "cannot move to release 20260501T000000Z: You don't have enough free space in /var/cache/apt/archives/. | the disk is full: make room, or launch with a larger volume")
	s.says("20260401T000000Z, APT::Snapshot in /etc/apt/apt.conf.d/50amiagent-snapshot")
}

func TestRestoreUndoesRewriteWhateverTheFile(t *testing.T) {
	decide := func(uri string) *change {
		if !strings.Contains(uri, "deb.debian.org") {
			return nil
		}
		return &change{uri: "https://snapshot.debian.org/archive/debian/" + april + "/", options: map[string]string{"check-valid-until": "no"}}
	}
	for file, text := range map[string]string{
		"/a.list":    "deb http://deb.debian.org/debian trixie main\n\n# deb http://deb.debian.org/debian sid main\ndeb [arch=amd64 signed-by=/x] http://deb.debian.org/debian/ ./\ndeb http://example.com x y",
		"/a.sources": "Types: deb\nURIs: http://deb.debian.org/debian/\n  http://example.com/debian\nSuites: trixie\nCheck-Valid-Until: yes\n\n\nTypes: deb\nURIs: http://deb.debian.org/debian\nSuites: x\nEnabled: no\n",
	} {
		once := rewritten(file, text, decide)
		if once == text || !strings.Contains(once, "snapshot.debian.org") {
			t.Errorf("%s is not rewritten:\n%s", file, once)
		}
		if again := rewritten(file, once, decide); again != once {
			t.Errorf("%s is rewritten twice:\n%s", file, again)
		}
		if n := strings.Count(once, "example.com"); n != strings.Count(text, "example.com") {
			t.Errorf("%s: the other address is there %d times", file, n)
		}
		if back := restored(once); back != text {
			t.Errorf("%s is restored to:\n%s\nwant:\n%s", file, back, text)
		}
	}
}
