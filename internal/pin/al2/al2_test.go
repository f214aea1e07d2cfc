package al2

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

// story is an Amazon Linux 2 machine with core and one extra, and their servers.
type story struct {
	*testing.T
	cdn *pintest.Server
	m   *steptest.Machine
	by  string
}

const coreFile = `[amzn2-core]
name=Amazon Linux 2 core repository
mirrorlist=$awsproto://$amazonlinux/$releasever/$product/$target/$basearch/mirror.list
priority=10
gpgcheck=1
enabled=1
metadata_expire=300

[amzn2-core-source]
name=Amazon Linux 2 core repository - source packages
mirrorlist=$awsproto://$amazonlinux/$releasever/$product/$target/SRPMS/mirror.list
enabled=0
`

const extrasFile = `[amzn2extra-docker]
enabled = 1
name = Amazon Extras repo for docker
mirrorlist = $awsproto://$amazonlinux/$releasever/extras/docker/latest/$basearch/mirror.list
gpgcheck = 1
priority = 10
skip_if_unavailable = 1
`

func newStory(t *testing.T) *story {
	s := &story{T: t, cdn: pintest.Serve(t), m: steptest.NewMachine(t, steptest.Options{
		Facts: pintest.Facts("amzn", "2", "yum"), Programs: pkgmgrtest.YumReleases()})}
	s.m.Write("/etc/yum.repos.d/amzn2-core.repo", 0o644, coreFile)
	s.m.Write("/etc/yum.repos.d/amzn2-extras.repo", 0o644, extrasFile)
	s.m.Write("/etc/yum/vars/awsproto", 0o644, "http\n")
	s.m.Write("/etc/yum/vars/amazonlinux", 0o644, strings.TrimPrefix(s.cdn.URL, "http://")+"\n")
	s.m.Write("/etc/yum.conf", 0o644, "[main]\ndistroverpkg=system-release\n")
	s.m.Mkdir("/etc/cloud", 0)
	pintest.RPM(s.m, "system-release 2-16.amzn2\nbash 4.2.46-34.amzn2\nlocal 1-1\n")
	s.head("one", "bash 4.2.46-34.amzn2\n")
	return s
}

// head makes the mirror lists lead to this content; earlier contents stay.
func (s *story) head(word, packages string) {
	for path, list := range map[string]string{
		"/2/core/2.0/x86_64/":             "/2/core/latest/x86_64/mirror.list",
		"/2/extras/docker/latest/x86_64/": "/2/extras/docker/latest/x86_64/mirror.list",
	} {
		base := path + pintest.GUID(word+path) + "/"
		s.cdn.Put(list, s.cdn.URL+base+"\n")
		if strings.Contains(path, "core") {
			s.cdn.Repo(base, packages)
		} else {
			s.cdn.Repo(base, "docker 20-"+word+"\n")
		}
	}
	s.m.Write("/repo", 0o644, packages)
}

func guid(word string) string   { return pintest.GUID(word + "/2/core/2.0/x86_64/") }
func docker(word string) string { return pintest.GUID(word + "/2/extras/docker/latest/x86_64/") }

func (s *story) pin() *pin.Pin {
	o := pintest.Options(s, s.m)
	o.By = s.by
	return pin.New(s.m.Host, s.m.Facts, New(o))
}

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
	got := strings.NewReplacer(guid("one"), "ONE", guid("two"), "TWO").Replace(st.Release+", "+st.How) + ": " + st.BehindText()
	for _, f := range st.Floating {
		got += "\nfloats: " + f.ID
	}
	for _, o := range append(st.Odd, st.Unknown...) {
		got += "\nodd: " + o
	}
	s.is("status", got, want)
}

func TestEveryEnabledRepositoryIsFrozenAndComesBack(t *testing.T) {
	s := newStory(t)
	before := s.m.Tree()
	s.says("latest, the repositories are not frozen: up to date\nfloats: amzn2-core\nfloats: amzn2extra-docker")
	s.is("set", s.set(pin.Now), "")
	s.says("ONE, frozen in /etc/yum.repos.d/amzn2-core.repo: up to date")
	s.is("core", s.m.Read("/etc/yum.repos.d/amzn2-core.repo"), strings.Replace(strings.Replace(coreFile,
		"mirrorlist=$awsproto://$amazonlinux/$releasever/$product/$target/$basearch", "#amiagent-was: mirrorlist=$awsproto://$amazonlinux/$releasever/$product/$target/$basearch", 1),
		"[amzn2-core]\n", "[amzn2-core]\nbaseurl="+s.cdn.URL+"/2/core/2.0/x86_64/"+guid("one")+"/\n", 1))
	if !strings.Contains(s.m.Read("/etc/yum.repos.d/amzn2-extras.repo"), "baseurl="+s.cdn.URL+"/2/extras/docker/latest/x86_64/"+docker("one")+"/\n") {
		t.Error("the extra is not frozen")
	}
	s.is("cloud-init", strings.Split(s.m.Read("/etc/cloud/cloud.cfg.d/95_amiagent-pin.cfg"), "\n")[1], "repo_upgrade: none")
	s.is("again", s.set(guid("one")), "")
	s.is("unlock", s.set(pin.Latest), "")
	s.m.Remove("/var")
	s.m.Remove("/etc/cloud/cloud.cfg.d")
	s.is("left", steptest.Changes(before, s.m.Tree()), "")
}

func TestWhatWasFrozenTogetherComesBackTogether(t *testing.T) {
	s := newStory(t)
	s.is("set", s.set(pin.Now), "")
	s.head("two", "bash 4.2.46-35.amzn2\n")
	s.says("ONE, frozen in /etc/yum.repos.d/amzn2-core.repo: 1 release behind")
	s.is("set", s.set(pin.Now), "")
	s.says("TWO, frozen in /etc/yum.repos.d/amzn2-core.repo: up to date")
	s.is("back", s.set(guid("one")), "")
	if !strings.Contains(s.m.Read("/etc/yum.repos.d/amzn2-extras.repo"), docker("one")) {
		t.Error("the extra did not come back with core")
	}
	// The machine's own view: yum is asked where core is.
	if spoken, err := s.pin().Spoken(t.Context()); err != nil || spoken != guid("one") {
		t.Errorf("yum says %s, %v", spoken, err)
	}
}

func TestAContentThatIsGoneChangesNothing(t *testing.T) {
	s := newStory(t)
	s.is("set", s.set(pin.Now), "")
	before := s.m.Tree()
	_, err := s.pin().Set(t.Context(), pintest.GUID("never"), nil)
	if !errors.Is(err, pin.ErrNoRelease) || !strings.Contains(diag.Hint(err), "the nearest that exists is that of now, "+guid("one")) {
		t.Errorf("%v, %s", err, diag.Hint(err))
	}
	s.is("changed", steptest.Changes(before, s.m.Tree()), "")
	s.is("no release", s.set("2.0.20251117"), "\"2.0.20251117\" is no release of Amazon Linux 2: it has none but the content ids of its repositories, 64 hexadecimal digits | `amiagent pin set now` holds what the repositories have at this moment")
}

func TestAdvanceAndRollback(t *testing.T) {
	s := newStory(t)
	s.is("set", s.set(pin.Now), "")
	s.head("two", "bash 4.2.46-35.amzn2\n")
	m, err := s.pin().Advance(t.Context(), "", pin.MoveOptions{})
	if err != nil || m.From != guid("one") || m.To != guid("two") || pintest.Brief(m.Changes) != "bash 4.2.46-34.amzn2 4.2.46-35.amzn2" {
		t.Fatalf("%+v, %v", m, err)
	}
	s.is("bash", strings.Fields(s.m.Read("/rpmdb"))[3], "35.amzn2")
	s.m.Write("/repo", 0o644, "bash 4.2.46-34.amzn2\n")
	if _, err := s.pin().Rollback(t.Context(), pin.MoveOptions{}); err != nil {
		t.Fatal(err)
	}
	s.is("bash", strings.Fields(s.m.Read("/rpmdb"))[3], "34.amzn2")
	s.says("ONE, frozen in /etc/yum.repos.d/amzn2-core.repo: 1 release behind")
}

func TestAMoveThatFailsLeavesTheFilesAsTheyWere(t *testing.T) {
	s := newStory(t)
	s.is("set", s.set(pin.Now), "")
	files := s.m.Read("/etc/yum.repos.d/amzn2-core.repo") + s.m.Read("/etc/yum.repos.d/amzn2-extras.repo")
	s.head("two", "bash 4.2.46-35.amzn2\n")
	s.m.Remove("/repo")
	if _, err := s.pin().Advance(t.Context(), "", pin.MoveOptions{}); err == nil {
		t.Fatal("yum could read nothing, and the move ended well")
	}
	s.is("files", s.m.Read("/etc/yum.repos.d/amzn2-core.repo")+s.m.Read("/etc/yum.repos.d/amzn2-extras.repo"), files)
}

func TestVersionlockHoldsPackagesInstead(t *testing.T) {
	s := newStory(t)
	s.by = "versionlock"
	s.is("without the plugin", s.set(pin.Image), "cannot tell which release this image was built from | name a release, or hold one in the image build: `amiagent pin set now --root D`")
	s.is("without the plugin", s.set(pin.Now), "cannot hold release installed: refused: versions cannot be locked: the plugin of yum is not installed | `yum install yum-plugin-versionlock` in the image build, or freeze the repositories, which needs no plugin")
	s.m.Write(lockConf, 0o644, "[main]\nenabled = 1\n")
	s.is("set", s.set(pin.Now), "")
	s.is("list", s.m.Read(lockList), "# Written by amiagent: the packages of this machine, held where they are.\n0:bash-4.2.46-34.amzn2.*\n0:local-1-1.*\n0:system-release-2-16.amzn2.*\n")
	st, err := s.pin().State(t.Context())
	s.is("state", fmt.Sprint(st.Release, ", ", st.How, err), "installed, "+lockList+"; the repositories themselves are open<nil>")
	s.is("unlock", s.set(pin.Latest), "")
	s.is("list", s.m.Read(lockList), "") // without the file yum ends with an error
}

func TestARecordOfAnotherFormatIsRefused(t *testing.T) {
	s := newStory(t)
	s.m.Write(freezesPath, 0o644, `{"format": 2}`)
	s.is("set", s.set(guid("one")), "cannot read what was frozen before, /var/lib/amiagent/pin-al2.json: its format is 2, this agent knows 1 | move it away to forget earlier releases")
}
