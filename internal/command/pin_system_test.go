//go:build system

package command

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/pin"
	"github.com/amiagent/amiagent/internal/pkgmgr/pkgmgrtest"
)

// The pin of a machine with the real dnf 4 and the real apt, entered by chroot
// as `--root` does it, against repositories laid out like the vendors'.
type system struct {
	*testing.T
	h   *host.Host
	dir string // what the server has
	url string
}

const (
	relA = "2023.9.20251117"
	relB = "2023.10.20260105"
)

// serve starts the server, which answers 403 for what is not there.
func (s *system) serve() {
	s.dir = s.TempDir()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := filepath.Join(s.dir, filepath.Clean(r.URL.Path))
		if st, err := os.Stat(name); err != nil || st.IsDir() {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		http.ServeFile(w, r, name)
	}))
	s.Cleanup(srv.Close)
	s.url = srv.URL
}

func (s *system) write(name, text string) {
	s.Helper()
	name = filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		s.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		s.Fatal(err)
	}
}

// pin runs `amiagent pin` and expects this exit code.
func (s *system) pin(want int, line string) (stdout, stderr string) {
	s.Helper()
	return s.amiagent(want, "pin "+line)
}

// launch converges on a manifest, as an instance does at boot.
func (s *system) launch(manifest string) {
	s.Helper()
	name := filepath.Join(s.TempDir(), "m.yaml")
	if err := os.WriteFile(name, []byte("amiagent: 1\n"+manifest), 0o644); err != nil {
		s.Fatal(err)
	}
	s.amiagent(ExitOK, "apply "+name)
}

func (s *system) amiagent(want int, line string) (stdout, stderr string) {
	s.Helper()
	var out, errs bytes.Buffer
	args := append([]string{"--root", s.h.Root()}, strings.Fields(line)...)
	if got := Run(s.Context(), "1.2.3", args, []string{"AWS_EC2_METADATA_DISABLED=true"}, &out, &errs); got != want {
		s.Fatalf("%s: exit code %d, want %d\n%s%s", line, got, want, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

func (s *system) status() pin.Status {
	s.Helper()
	out, _ := s.pin(ExitOK, "status -o json")
	var st pin.Status
	if err := json.Unmarshal([]byte(out), &st); err != nil {
		s.Fatal(err, out)
	}
	return st
}

func (s *system) run(argv ...string) string {
	s.Helper()
	res, err := s.h.Run(s.Context(), host.Cmd{Argv: argv})
	if err != nil {
		s.Fatalf("%v: %v\n%s", argv, err, res.Tail)
	}
	return string(res.Stdout)
}

func (s *system) has(packages string) {
	s.Helper()
	got := s.run("rpm", "-qa", "--qf", `%{NAME} %{VERSION}\n`)
	for line := range strings.Lines(packages) {
		if !strings.Contains(got, line) {
			s.Errorf("installed are:\n%s\nwant among them %s", got, line)
		}
	}
}

func newDnfMachine(t *testing.T) *system {
	s := &system{T: t, h: pkgmgrtest.Tree(t)}
	s.serve()
	for release, app := range map[string]string{relA: "1.0-1", relB: "2.0-1"} {
		guid := fmt.Sprintf("core/guids/%064x/x86_64/", len(app)+len(release))
		if err := os.MkdirAll(filepath.Join(s.dir, guid), 0o755); err != nil {
			t.Fatal(err)
		}
		pkgmgrtest.RPMRepo(t, filepath.Join(s.dir, guid),
			pkgmgrtest.RPM{Name: "system-release", Version: release + "-0.amzn2023", Fields: "Provides: system-release(releasever) = " + release + "\n"},
			pkgmgrtest.RPM{Name: "app", Version: app})
		for _, name := range []string{release, "latest"} {
			if name != "latest" || release == relB {
				s.write("core/mirrors/"+name+"/x86_64/mirror.list", s.url+"/"+guid)
			}
		}
	}
	s.write("core/releasemd.xml", `<?xml version="1.0" encoding="utf8"?><root><releases><release version="`+relA+`"><update><name>`+relB+`</name></update></release></releases><release version="`+relB+`"/></root>`)
	pkgmgrtest.Write(t, s.h, "/etc/os-release", "ID=amzn\nVERSION_ID=2023\n")
	pkgmgrtest.Write(t, s.h, "/etc/dnf/dnf.conf", "[main]\ngpgcheck=1\nskip_if_unavailable=True\n")
	pkgmgrtest.Write(t, s.h, "/etc/dnf/vars/basearch", "x86_64\n")
	pkgmgrtest.Write(t, s.h, "/etc/yum.repos.d/amazonlinux.repo", "[amazonlinux]\nname=Amazon Linux\nmirrorlist="+s.url+"/core/mirrors/$releasever/$basearch/mirror.list\ngpgcheck=0\n")
	s.run("dnf", "-y", "--releasever="+relA, "install", "system-release", "app")
	return s
}

func TestSystemPinOfDnf(t *testing.T) {
	s := newDnfMachine(t)
	s.has("app 1.0\nsystem-release " + relA + "\n")
	out, _ := s.pin(ExitOK, "status")
	if want := "release  " + relA + " (locked to the installed system-release)\nlatest   " + relB + ": 1 release behind\n"; !strings.Contains(out, want) {
		t.Errorf("status:\n%s\nwant in it:\n%s", out, want)
	}

	// A release that does not exist: exit code 6, the nearest is named, nothing is changed.
	before := s.run("find", "/etc", "/var/lib", "-newer", "/etc/yum.repos.d/amazonlinux.repo", "-not", "-path", "*/dnf/history*")
	_, errs := s.pin(ExitRefused, "set 2023.11.20260105")
	if !strings.Contains(errs, "no such release: 2023.11.20260105") || !strings.Contains(errs, "hint: the nearest release that exists is "+relB) {
		t.Errorf("said: %s", errs)
	}
	if s.h.Exists("/etc/dnf/vars/releasever") || before != s.run("find", "/etc", "/var/lib", "-newer", "/etc/yum.repos.d/amazonlinux.repo", "-not", "-path", "*/dnf/history*") {
		t.Error("something was changed")
	}

	// What dnf takes from the machine is what the pin says it does: each trap of the variable.
	for content, odd := range map[string]string{"": "is empty", relA + " \n": "white space", relB + "\n": ""} {
		pkgmgrtest.Write(t, s.h, "/etc/dnf/vars/releasever", content)
		if st := s.status(); (odd == "") != (len(st.Odd) == 0) || odd != "" && !strings.Contains(st.Odd[0], odd) {
			t.Errorf("%q: %v", content, st.Odd)
		}
	}
	if out, _ := s.pin(ExitOK, "set "+relA); !strings.Contains(out, "held at "+relA) || s.h.Exists("/etc/dnf/vars/releasever") {
		t.Error("the native lock is not back")
	}
	s.pin(ExitOK, "set "+relB)
	if got := s.run("cat", "/etc/dnf/vars/releasever"); got != relB+"\n" {
		t.Errorf("the variable is %q", got)
	}
	s.pin(ExitOK, "unlock")
	if st := s.status(); st.Release != "latest" || *st.Behind != 0 {
		t.Errorf("unlocked: %+v", st)
	}
	s.pin(ExitOK, "set image")

	// With latest a launch gets B; with the pin it gets A.
	for release, version := range map[string]string{"latest": "2.0", "image": "1.0", relB: "2.0", relA: "1.0"} {
		s.run("dnf", "-y", "remove", "app")
		s.launch("pin: {release: " + release + "}\npackages: {app: {}}\n")
		s.has("app " + version + "\nsystem-release " + relA + "\n")
	}
	s.run("dnf", "-y", "remove", "app")
	s.launch("pin: {release: image}\npackages: {app: {}}\n")
	s.has("app 1.0\n")

	out, _ = s.pin(ExitOK, "diff "+relB)
	if !strings.Contains(out, "app             1.0-1") || !strings.Contains(out, "2 packages would change") {
		t.Errorf("diff:\n%s", out)
	}
	s.pin(ExitOK, "advance --dry-run")
	s.has("app 1.0\n")
	out, _ = s.pin(ExitOK, "advance")
	if out != "moved from "+relA+" to "+relB+": 2 packages changed\n" {
		t.Errorf("advance: %s", out)
	}
	s.has("app 2.0\nsystem-release " + relB + "\n")
	if st := s.status(); st.Release != relB || *st.Behind != 0 || len(st.Odd) != 0 {
		t.Errorf("after the advance: %+v", st)
	}
	s.pin(ExitRefused, "advance --to "+relA)
	s.has("app 2.0\n")
	s.pin(ExitOK, "rollback")
	s.has("app 1.0\nsystem-release " + relA + "\n")
	if st := s.status(); st.Release != relA || *st.Behind != 1 {
		t.Errorf("after the rollback: %+v", st)
	}
	s.pin(ExitRefused, "rollback")
}

const (
	momentA = "20260401T000000Z"
	momentB = "20260501T000000Z"
)

// newAptMachine is a Debian 13 with one signed archive, which is at B, and its
// snapshots A and B.
func newAptMachine(t *testing.T) *system {
	s := &system{T: t, h: pkgmgrtest.Trixie(t)}
	s.serve()
	home, public := pkgmgrtest.GPG(t)
	pkgmgrtest.Write(t, s.h, "/etc/apt/keyrings/test.asc", public)
	for at, version := range map[string]string{"archive": "2.0", "snapshot/" + momentA: "1.0", "snapshot/" + momentB: "2.0"} {
		dir := filepath.Join(s.dir, at)
		pool := filepath.Join(dir, "pool")
		index := filepath.Join(dir, "dists/test/main/binary-amd64")
		for _, d := range []string{pool, index} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		pkgmgrtest.DebRepo(t, pool, pkgmgrtest.Deb{Name: "app", Version: version})
		sh := exec.Command("sh", "-ec", `apt-ftparchive packages pool >dists/test/main/binary-amd64/Packages; xz -k dists/test/main/binary-amd64/Packages
			cd dists/test
			apt-ftparchive -o APT::FTPArchive::Release::Suite=test -o APT::FTPArchive::Release::Architectures=amd64 -o APT::FTPArchive::Release::Components=main release . >/tmp/Release.$$; mv /tmp/Release.$$ Release`)
		sh.Dir = dir
		if out, err := sh.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		pkgmgrtest.SignDebRepo(t, filepath.Join(dir, "dists/test"), home)
	}
	pkgmgrtest.Write(t, s.h, "/etc/apt/sources.list.d/test.sources", "Types: deb\nURIs: "+s.url+"/archive\nSuites: test\nComponents: main\nSigned-By: /etc/apt/keyrings/test.asc\n")
	pkgmgrtest.Write(t, s.h, "/etc/apt/apt.conf.d/90server", "Acquire::Snapshots::URI::Host::127.0.0.1 \""+s.url+"/snapshot/@SNAPSHOTID@/\";\n")
	return s
}

func (s *system) app(want string) {
	s.Helper()
	if got := s.run("dpkg-query", "-W", "-f", "${Version}", "app"); got != want {
		s.Errorf("app is %s, want %s", got, want)
	}
}

func TestSystemPinOfApt(t *testing.T) {
	s := newAptMachine(t)
	if st := s.status(); st.Release != "latest" || len(st.Floating) != 1 {
		t.Errorf("at first: %+v", st)
	}
	_, errs := s.pin(ExitRefused, "set 20100101T000000Z")
	if !strings.Contains(errs, "no such release: 20100101T000000Z") || s.h.Exists("/etc/apt/apt.conf.d/50amiagent-snapshot") {
		t.Errorf("said: %s", errs)
	}
	s.pin(ExitRefused, "set 20990101T000000Z")
	s.pin(ExitOK, "set "+momentA)
	if st := s.status(); st.Release != momentA || len(st.Floating) != 0 || len(st.Odd) != 0 {
		t.Errorf("held: %+v", st)
	}
	// What a launch would do: the pin is in force for apt itself, signature and all.
	s.run("apt-get", "update")
	s.run("apt-get", "-y", "install", "app")
	s.app("1.0")

	pkgmgrtest.Write(t, s.h, "/etc/apt/sources.list.d/third.list", "deb [trusted=yes] http://localhost:1/third test main\n")
	if st := s.status(); len(st.Floating) != 1 || st.Floating[0].ID != "localhost test" {
		t.Errorf("a third party: %+v", st.Floating)
	}
	if err := s.h.Remove("/etc/apt/sources.list.d/third.list"); err != nil {
		t.Fatal(err)
	}
	out, _ := s.pin(ExitOK, "diff "+momentB)
	if !strings.Contains(out, "app  1.0  → 2.0") {
		t.Errorf("diff:\n%s", out)
	}
	s.pin(ExitOK, "advance --to "+momentB)
	s.app("2.0")
	s.pin(ExitRefused, "advance --to "+momentA)
	s.pin(ExitOK, "rollback")
	s.app("1.0")
	if st := s.status(); st.Release != momentA {
		t.Errorf("after the rollback: %+v", st)
	}
	s.pin(ExitOK, "unlock")
	if st := s.status(); st.Release != "latest" {
		t.Errorf("unlocked: %+v", st)
	}
}

// Debian 12's apt would take the setting and ignore it.
func TestSystemPinOfAnAptWithoutSnapshots(t *testing.T) {
	s := &system{T: t, h: pkgmgrtest.Tree(t)}
	pkgmgrtest.Write(t, s.h, "/etc/apt/sources.list", "deb http://deb.debian.org/debian bookworm main\n")
	_, errs := s.pin(ExitRefused, "set "+momentA)
	if !strings.Contains(errs, "has no snapshots, and would ignore them in silence") || !strings.Contains(errs, "--by url") {
		t.Errorf("said: %s", errs)
	}
}
