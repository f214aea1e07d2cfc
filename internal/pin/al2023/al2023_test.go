package al2023

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/pin"
	"github.com/amiagent/amiagent/internal/pin/pintest"
	"github.com/amiagent/amiagent/internal/pkgmgr/pkgmgrtest"
	"github.com/amiagent/amiagent/internal/step/steptest"
)

const (
	older = "2023.9.20251117"
	newer = "2023.10.20260105"
	third = "2023.10.20260120"
)

const atOlder = `system-release 2023.9.20251117-0.amzn2023
openssl 1:3.0.8-1.amzn2023
bash 5.2.15-1.amzn2023
kernel 6.1.1-1.amzn2023
kernel 6.1.2-1.amzn2023
local 9-1
`

const atNewer = `system-release 2023.10.20260105-0.amzn2023
openssl 1:3.0.9-1.amzn2023
bash 5.2.15-1.amzn2023
kernel 6.1.10-1.amzn2023
nginx 1.26-1.amzn2023
`

// story is an AL2023 machine and its CDN, which has two releases.
type story struct {
	*testing.T
	cdn *pintest.Server
	m   *steptest.Machine
	out []string
}

func newStory(t *testing.T) *story { return storyWith(t, pkgmgrtest.DnfReleases()) }

func storyWith(t *testing.T, programs map[string]string) *story {
	s := &story{T: t, cdn: pintest.Serve(t), m: steptest.NewMachine(t, steptest.Options{
		Facts: pintest.Facts("amzn", "2023", "dnf"), Programs: programs})}
	s.release(older, atOlder)
	s.release(newer, atNewer, pintest.Notice{ID: "ALAS2023-2026-1", Type: "security", Severity: "Important", Fixes: "openssl 1:3.0.9-1.amzn2023"},
		pintest.Notice{ID: "ALAS2023-2020-1", Type: "security", Severity: "Critical", Fixes: "openssl 1:3.0.1-1.amzn2023"})
	s.cdn.Put("/core/releasemd.xml", `<?xml version="1.0" encoding="utf8"?>
<root>
  <releases>
    <release version="2023.9.20251117">
      <update><name>2023.10.20260105</name><version_string>2023.10.20260105</version_string><release_notes>https://docs.example.com/relnotes-2023.10.20260105.html</release_notes></update>
    </release>
  </releases>
  <release version="2023.10.20260105"/>
  <release/>
</root>`)
	s.m.Write("/etc/yum.repos.d/amazonlinux.repo", 0o644, strings.ReplaceAll(`[amazonlinux]
name=Amazon Linux 2023 repository
mirrorlist=URL/core/mirrors/$releasever/$basearch/$mirrorlist
priority=10
enabled=1
gpgcheck=1

[amazonlinux-source]
name=Amazon Linux 2023 repository - Source packages
mirrorlist=URL/core/mirrors/$releasever/SRPMS/$mirrorlist
enabled=0
`, "URL", s.cdn.URL))
	s.m.Write("/etc/yum.repos.d/kernel-livepatch.repo", 0o644,
		"[kernel-livepatch]\nname=Amazon Linux 2023 Kernel Livepatch repository\nmirrorlist="+s.cdn.URL+"/kernel-livepatch/mirrors/al2023/$basearch/$mirrorlist\nenabled=1\n")
	s.m.Write("/etc/dnf/vars/mirrorlist", 0o644, "mirror.list?instance_id=i-0123456789abcdef0\n")
	pintest.RPM(s.m, atOlder)
	return s
}

// release is one of the machine's own dnf and of the CDN.
func (s *story) release(name, packages string, notices ...pintest.Notice) {
	s.m.Write("/releases/"+name, 0o644, packages)
	base := "/core/guids/" + pintest.GUID(name) + "/x86_64/"
	s.cdn.Repo(base, packages, notices...)
	s.cdn.Put("/core/mirrors/"+name+"/x86_64/mirror.list", s.cdn.URL+base)
}

func (s *story) pin() *pin.Pin {
	return pin.New(s.m.Host, s.m.Facts, New(pintest.Options(s, s.m)))
}

func (s *story) set(word string) string {
	s.Helper()
	_, err := s.pin().Set(s.Context(), word, nil)
	return pintest.Told(err, diag.Hint(err))
}

func (s *story) status() pin.Status {
	s.Helper()
	st, err := s.pin().Status(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	return st
}

// says is the status in one line: release, how, how far behind, what is odd.
func (s *story) says(want string) {
	s.Helper()
	st := s.status()
	got := fmt.Sprintf("%s, %s: %s", st.Release, st.How, st.BehindText())
	for _, o := range append(st.Odd, st.Unknown...) {
		got += "\nodd: " + o
	}
	if got != want {
		s.Errorf("status is:\n%s\nwant:\n%s", got, want)
	}
}

func (s *story) is(what, got, want string) {
	s.Helper()
	if got != want {
		s.Errorf("%s:\n%s\nwant:\n%s", what, got, want)
	}
}

func (s *story) options() pin.MoveOptions {
	o := pin.MoveOptions{}
	o.Talk.Output = func(line string) { s.out = append(s.out, line) }
	return o
}

func TestANewMachineIsLockedToWhatItWasBuiltFrom(t *testing.T) {
	s := newStory(t)
	s.says("2023.9.20251117, locked to the installed system-release: 1 release behind")
	st := s.status()
	s.is("the rest", fmt.Sprintf("%s %s %s %s", st.Image, st.Latest, st.Notes, st.Family), "2023.9.20251117 2023.10.20260105 https://docs.example.com/relnotes-2023.10.20260105.html Amazon Linux 2023")
	if len(st.Floating) != 1 || st.Floating[0].ID != "kernel-livepatch" || st.Floating[0].Floating == "" {
		t.Errorf("floating: %+v", st.Floating)
	}
	if len(st.Advisories) != 1 || st.Advisories[0].ID != "ALAS2023-2026-1" {
		t.Errorf("advisories: %+v", st.Advisories)
	}
	s.is("set image", s.set(pin.Image), "")
	if s.m.Host.Exists(VarFile) {
		t.Error("a variable was written although the native lock holds")
	}
}

func TestSetWritesOneWholeLineAndUnlockGoesBackToLatest(t *testing.T) {
	s := newStory(t)
	before := s.m.Tree()
	s.is("set", s.set(newer), "")
	s.is("changed", steptest.Changes(before, s.m.Tree()), "/etc/dnf/vars/releasever 0644 \"2023.10.20260105\\n\"")
	s.is("the variable", s.m.Read(VarFile), newer+"\n")
	entries, err := s.m.Host.ReadDir("/etc/dnf/vars")
	if err != nil || len(entries) != 2 {
		t.Errorf("beside the variable: %v, %v", entries, err)
	}
	s.says("2023.10.20260105, /etc/dnf/vars/releasever: up to date")
	s.is("unlock", s.set(pin.Latest), "no such release: latest for repository amazonlinux: cannot read "+s.cdn.URL+"/core/mirrors/latest/x86_64/mirror.list?instance_id=i-0123456789abcdef0: not there: the server answered 403 | the nearest release that exists is 2023.9.20251117")
	s.cdn.Put("/core/mirrors/latest/x86_64/mirror.list", s.cdn.URL+"/core/guids/"+pintest.GUID(newer)+"/x86_64/")
	s.is("unlock", s.set(pin.Latest), "")
	s.says("latest, /etc/dnf/vars/releasever: up to date")
	s.is("back", s.set(older), "")
	s.says("2023.9.20251117, locked to the installed system-release: 1 release behind")
}

func TestTheMachinesOwnAddressAndVariablesAreAsked(t *testing.T) {
	s := newStory(t)
	s.m.Write("/etc/dnf/vars/dualstack", 0o644, "\n") // how an isolated network blanks it
	s.m.Write("/etc/dnf/vars/awsregion", 0o644, "us-iso-east-1\r\n")
	s.m.Write("/etc/yum.repos.d/amazonlinux.repo", 0o644, "[amazonlinux]\nmirrorlist="+s.cdn.URL+"/al2023-repos-$awsregion-de612dc2.s3$dualstack.$awsregion.$awsdomain/core/mirrors/$releasever/$basearch/$mirrorlist\n")
	s.set(newer)
	s.is("asked", strings.Join(s.cdn.Asked()[:1], "\n"),
		"/al2023-repos-us-iso-east-1-de612dc2.s3.us-iso-east-1.amazonaws.com/core/mirrors/2023.10.20260105/x86_64/mirror.list?instance_id=i-0123456789abcdef0")
}

// Amazon's repositories answer 403 for a release that does not exist, and dnf ends with 0.
func TestTrapExitZeroWithABadRelease(t *testing.T) {
	s := newStory(t)
	before := s.m.Tree()
	_, err := s.pin().Set(t.Context(), "2023.11.20260105", nil)
	if !errors.Is(err, pin.ErrNoRelease) {
		t.Fatalf("error is %v", err)
	}
	s.is("hint", diag.Hint(err), "the nearest release that exists is 2023.10.20260105")
	s.is("changed", steptest.Changes(before, s.m.Tree()), "")

	// dnf itself: the release was there when it was validated, and is gone when dnf asks.
	s.m.Remove("/releases/" + newer)
	_, err = s.pin().Advance(t.Context(), newer, s.options())
	if err == nil || !strings.Contains(err.Error(), "cannot move to release 2023.10.20260105: Failed to download metadata for repo 'amazonlinux'") {
		t.Errorf("advance: %v", err)
	}
	if !strings.Contains(strings.Join(s.m.Log(), "\n"), "--setopt=*.skip_if_unavailable=False") {
		t.Error("dnf was let to do without the repository")
	}
}

// A dnf whose repositories' own files overrule what it was told on its command line.
func TestTrapADnfThatSkipsAllTheSame(t *testing.T) {
	programs := pkgmgrtest.DnfReleases()
	programs["dnf"] = strings.Replace(programs["dnf"], `[ -z "$strict" ] || exit 1`, "", 1)
	s := storyWith(t, programs)
	s.m.Remove("/releases/" + newer)
	_, err := s.pin().Advance(t.Context(), newer, s.options())
	if err == nil || !strings.Contains(err.Error(), "cannot move to release 2023.10.20260105: Failed to download metadata for repo 'amazonlinux'") {
		t.Errorf("advance: %v", err)
	}
}

// What is written is believed only when dnf itself says it: something else may set the release too.
func TestTheReleaseInForceIsWhatDnfSays(t *testing.T) {
	programs := pkgmgrtest.DnfReleases()
	programs["dnf"] = strings.Replace(programs["dnf"], "case $verb in\n", "[ $verb != repoinfo ] || release=2023.1.20230101\ncase $verb in\n", 1)
	s := storyWith(t, programs)
	s.is("set", s.set(newer), "release 2023.10.20260105 is not in force: the package manager says \"2023.1.20230101\" | `amiagent pin status` tells what else sets the release")
}

func TestTrapExitZeroAndNothingDone(t *testing.T) {
	s := newStory(t)
	s.m.Write("/releases/"+newer, 0o644, "bash 5.2.15-1.amzn2023\n") // as if system-release were excluded
	_, err := s.pin().Advance(t.Context(), newer, s.options())
	s.is("advance", pintest.Told(err, diag.Hint(err)),
		"cannot move to release 2023.10.20260105: the transaction ended well, but system-release is of 2023.9.20251117, not of 2023.10.20260105 | is system-release excluded or versionlocked? See /etc/dnf/dnf.conf")
}

func TestTrapAnEmptyVariable(t *testing.T) {
	s := newStory(t)
	for content, odd := range map[string]string{
		"":                          ", /etc/dnf/vars/releasever, which is empty: \nodd: /etc/dnf/vars/releasever is empty: dnf takes that for the release, and finds no repository; remove it, or set a release",
		"2023.9.20251117 \n":        "2023.9.20251117 , /etc/dnf/vars/releasever: \nodd: /etc/dnf/vars/releasever has white space around the release (\"2023.9.20251117 \"): dnf puts it into the address",
		"# pinned\n2023.9.20251117": "# pinned, /etc/dnf/vars/releasever: \nodd: /etc/dnf/vars/releasever says \"# pinned\", which is no release of Amazon Linux 2023",
	} {
		s.m.Write(VarFile, 0o644, content)
		s.says(odd)
		if spoken, err := s.pin().Spoken(t.Context()); err != nil || spoken == older {
			t.Errorf("%q: dnf says %q, %v", content, spoken, err)
		}
		s.is("set", s.set(older), "")
		s.says("2023.9.20251117, locked to the installed system-release: 1 release behind")
	}
}

// An upgrade by hand leaves a variable behind that names the older release.
func TestTrapAStaleVariableAfterAnUpgrade(t *testing.T) {
	s := newStory(t)
	pintest.RPM(s.m, atNewer)
	s.m.Write(VarFile, 0o644, older+"\n")
	s.says("2023.9.20251117, /etc/dnf/vars/releasever: 1 release behind\nodd: /etc/dnf/vars/releasever says 2023.9.20251117, but the installed packages are of 2023.10.20260105: new packages would come from the older release; `amiagent pin set 2023.10.20260105` mends it")
	s.is("set", s.set(newer), "")
	s.says("2023.10.20260105, locked to the installed system-release: up to date")
	// And an Advance of ours leaves none.
	s = newStory(t)
	s.is("set", s.set(newer), "")
	s.is("set", s.set(older), "")
	s.m.Write(VarFile, 0o644, older+"\n")
	if _, err := s.pin().Advance(t.Context(), newer, s.options()); err != nil {
		t.Fatal(err)
	}
	s.says("2023.10.20260105, locked to the installed system-release: up to date")
}

// Amazon's own plugin took 2023.9 for newer than 2023.10, by its first digit.
func TestTrapReleasesAreNotStrings(t *testing.T) {
	s := newStory(t)
	f := New(pintest.Options(t, s.m))
	if f.Compare(newer, older) <= 0 || f.Compare("2023.9.20251208", "2023.9.20251117") <= 0 || f.Compare(newer, newer) != 0 {
		t.Error("releases are compared as strings")
	}
	all, err := f.Releases(t.Context())
	if got := fmt.Sprint(all); err != nil || got != "[{2023.9.20251117 } {2023.10.20260105 https://docs.example.com/relnotes-2023.10.20260105.html}]" {
		t.Error(got, err)
	}
	s.says("2023.9.20251117, locked to the installed system-release: 1 release behind")
}

func TestReleasesAreReadLeniently(t *testing.T) {
	for text, want := range map[string]string{
		`<root/>`: "",
		`<root><releases><release version=" 2023.10.1 "><update><name>2023.9.1</name></update></release></releases></root>`:           "2023.9.1 2023.10.1",
		`<?xml version="1.0" encoding="utf8"?><root><release version="2023.1.1"/><other><release version="2023.2.1"/></other></root>`: "2023.1.1 2023.2.1",
	} {
		all, err := parseReleases(strings.NewReader(text))
		var names []string
		for _, r := range all {
			names = append(names, r.Name)
		}
		if got := strings.Join(names, " "); err != nil || got != want {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
	if _, err := parseReleases(strings.NewReader("<root><releases>")); err == nil {
		t.Error("a list that is cut off passes")
	}
}

func TestTheFormOfARelease(t *testing.T) {
	s := newStory(t)
	for release, want := range map[string]string{
		newer:                  "",
		"2027.0.20260817":      "no such release: 2027.0.20260817 is a release of Amazon Linux 2027, this is Amazon Linux 2023",
		"2023.10.20260105.0":   "\"2023.10.20260105.0\" is the version of an image, not a release | its release is 2023.10.20260105",
		"":                     "\"\" is no release of Amazon Linux 2023: want the form 2023.1.20260105, or latest or image",
		"2023.10.20260105\n":   "\"2023.10.20260105\\n\" is no release of Amazon Linux 2023: want the form 2023.1.20260105, or latest or image",
		"../../2023.1.2026010": "\"../../2023.1.2026010\" is no release of Amazon Linux 2023: want the form 2023.1.20260105, or latest or image",
	} {
		err := s.pin().Validate(release)
		s.is(release, pintest.Told(err, diag.Hint(err)), want)
	}
}

func TestDiffNamesWhatWouldChange(t *testing.T) {
	s := newStory(t)
	changes, err := s.pin().Diff(t.Context(), newer)
	if err != nil {
		t.Fatal(err)
	}
	s.is("diff", pintest.Brief(changes), strings.Join([]string{
		"kernel 6.1.2-1.amzn2023 6.1.10-1.amzn2023",
		"openssl 1:3.0.8-1.amzn2023 1:3.0.9-1.amzn2023 ALAS2023-2026-1",
		"system-release 2023.9.20251117-0.amzn2023 2023.10.20260105-0.amzn2023",
	}, "\n"))
	if _, err := s.pin().Diff(t.Context(), third); !errors.Is(err, pin.ErrNoRelease) {
		t.Errorf("a release that is not there: %v", err)
	}
}

func TestAdvanceMovesAndRollbackReturns(t *testing.T) {
	s := newStory(t)
	o := s.options()
	o.DryRun = true
	before := s.m.Tree()
	m, err := s.pin().Advance(t.Context(), "", o)
	if err != nil || m.To != newer || len(m.Changes) != 3 {
		t.Fatalf("%+v, %v", m, err)
	}
	s.is("a dry run changed", steptest.Changes(before, s.m.Tree()), "")

	if m, err = s.pin().Advance(t.Context(), "", s.options()); err != nil || m.From != older {
		t.Fatalf("%+v, %v\n%s", m, err, strings.Join(s.out, "\n"))
	}
	s.says("2023.10.20260105, locked to the installed system-release: up to date")
	s.is("image", s.status().Image, newer)
	if _, err = s.pin().Advance(t.Context(), "", s.options()); err != nil {
		t.Errorf("again: %v", err)
	}

	_, err = s.pin().Advance(t.Context(), older, s.options())
	s.is("back without being asked", pintest.Told(err, diag.Hint(err)), "refused to move from release 2023.10.20260105 to 2023.9.20251117: it is older | --downgrade makes packages older; what they have written since may be too new for them")
	if m, err = s.pin().Rollback(t.Context(), s.options()); err != nil || m.To != older {
		t.Fatalf("%+v, %v\n%s", m, err, strings.Join(s.out, "\n"))
	}
	s.says("2023.9.20251117, locked to the installed system-release: 1 release behind")
	s.is("openssl", strings.Split(s.m.Read("/rpmdb"), "\n")[4], "system-release\t0\t2023.9.20251117\t0.amzn2023\tx86_64")
	_, err = s.pin().Rollback(t.Context(), s.options())
	if !errors.Is(err, pin.ErrRefused) {
		t.Errorf("a second rollback: %v", err)
	}
}

// Rollbacks go back step by step, each to what was before the move it undoes.
func TestRollbackTwice(t *testing.T) {
	s := newStory(t)
	s.release(third, strings.ReplaceAll(atNewer, newer, third))
	for _, to := range []string{newer, third} {
		if _, err := s.pin().Advance(t.Context(), to, s.options()); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{newer, older} {
		if m, err := s.pin().Rollback(t.Context(), s.options()); err != nil || m.To != want {
			t.Fatalf("%+v, %v, want %s", m, err, want)
		}
	}
}

// Power fails in the middle of a transaction: the machine says so, and either way out works.
func TestAnAdvanceThatWasCutOffIsFinishedOrUndone(t *testing.T) {
	for _, way := range []string{"finish", "undo"} {
		s := newStory(t)
		s.m.Write("/cut-off", 0o644, "")
		if _, err := s.pin().Advance(t.Context(), newer, s.options()); err == nil {
			t.Fatal("the cut transaction ended well")
		}
		odd := strings.Join(s.status().Odd, "\n")
		if !strings.Contains(odd, "a move from 2023.9.20251117 to 2023.10.20260105, begun on ") || !strings.Contains(odd, "`amiagent pin advance --to 2023.10.20260105` finishes it") {
			t.Errorf("odd: %s", odd)
		}
		if way == "finish" {
			if _, err := s.pin().Advance(t.Context(), newer, s.options()); err != nil {
				t.Fatal(err)
			}
			s.says("2023.10.20260105, locked to the installed system-release: up to date")
		}
		if m, err := s.pin().Rollback(t.Context(), s.options()); err != nil || m.To != older {
			t.Fatalf("%s: %+v, %v", way, m, err)
		}
		s.says("2023.9.20251117, locked to the installed system-release: 1 release behind")
	}
}

// rpm's lock is not waited for by dnf itself; whoever holds it ends soon.
func TestTrapLocks(t *testing.T) {
	s := newStory(t)
	s.m.Write("/rpmlock", 0o644, "2\n")
	if _, err := s.pin().Advance(t.Context(), newer, s.options()); err != nil {
		t.Fatalf("%v\n%s", err, strings.Join(s.out, "\n"))
	}
	s.is("tries", fmt.Sprint(strings.Count(strings.Join(s.m.Log(), "\n"), " upgrade")), "3")
}

func TestARepositoryIsFrozenByItsAddress(t *testing.T) {
	s := newStory(t)
	base := s.cdn.URL + "/kernel-livepatch/guids/" + pintest.GUID("livepatch") + "/x86_64/"
	o := pintest.Options(t, s.m)
	o.Repositories = map[string]string{"kernel-livepatch": base}
	f := New(o)
	drift, err := f.Unfrozen()
	s.is("before", fmt.Sprint(drift, err), "repository kernel-livepatch is at "+s.cdn.URL+"/kernel-livepatch/mirrors/al2023/$basearch/$mirrorlist, want "+base+"<nil>")
	before := s.m.Tree()
	if err := f.Freeze(t.Context()); !errors.Is(err, pin.ErrNoRelease) {
		t.Errorf("an address that has nothing: %v", err)
	}
	s.is("changed", steptest.Changes(before, s.m.Tree()), "")
	s.cdn.Repo("/kernel-livepatch/guids/"+pintest.GUID("livepatch")+"/x86_64/", "x 1-1")
	if err := f.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	drift, err = f.Unfrozen()
	s.is("after", fmt.Sprint(drift, err), "<nil>")
	if n := len(s.status().Floating); n != 0 {
		t.Errorf("%d still float", n)
	}
	if err := f.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.is("the file", s.m.Read("/etc/yum.repos.d/kernel-livepatch.repo"), "[kernel-livepatch]\nbaseurl="+base+"\nname=Amazon Linux 2023 Kernel Livepatch repository\n#amiagent-was: mirrorlist="+s.cdn.URL+"/kernel-livepatch/mirrors/al2023/$basearch/$mirrorlist\nenabled=1\n")
}

func TestAVariableThatNobodySetsIsNoMissingRelease(t *testing.T) {
	s := newStory(t)
	s.m.Write("/etc/yum.repos.d/amazonlinux.repo", 0o644, "[amazonlinux]\nmirrorlist="+s.cdn.URL+"/$stage/$releasever/x\n")
	s.is("set", s.set(newer), "cannot validate release 2023.10.20260105: repository amazonlinux: cannot tell where repository amazonlinux is: "+s.cdn.URL+"/$stage/$releasever/x has the variable $stage, which nothing sets | a variable is a file of one line in /etc/dnf/vars")
}

// AL2027 has dnf 5, which reads other folders and answers in other words.
func TestDnf5(t *testing.T) {
	s := newStory(t)
	s.m = steptest.NewMachine(t, steptest.Options{Facts: pintest.Facts("amzn", "2027", "dnf5"), Programs: map[string]string{
		"rpm":  pkgmgrtest.DnfReleases()["rpm"],
		"dnf5": `echo "arch = x86_64"; printf 'releasever = %s\n' "$(cat $AMIAGENT_ROOT/etc/dnf/vars/releasever)"; echo "releasever_major = 2027"`,
	}})
	s.m.Write("/etc/yum/vars/releasever", 0o644, "2027.0.20260101\n") // dnf 5 does not read it
	pintest.RPM(s.m, "system-release 2027.0.20260817-0\n")
	s.m.Write("/etc/yum.repos.d/a.repo", 0o644, "[a]\nmirrorlist="+s.cdn.URL+"/al2027/core/mirrors/$releasever/$basearch/mirror.list\n")
	s.cdn.Put("/al2027/core/mirrors/2027.0.20260901/x86_64/mirror.list", s.cdn.URL+"/x/")
	s.cdn.Repo("/x/", "bash 1-1")
	st, err := s.pin().State(t.Context())
	s.is("state", fmt.Sprint(st.Release, ", ", st.How, err), "2027.0.20260817, locked to the installed system-release<nil>")
	s.is("set", s.set("2027.0.20260901"), "")
	s.is("variable", s.m.Read(VarFile), "2027.0.20260901\n")
}
