package offered_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/fetch/web"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/lock/offered"
	"github.com/amiagent/amiagent/internal/pin/pintest"
	"github.com/amiagent/amiagent/internal/repodata"
	"github.com/amiagent/amiagent/internal/step"
)

func options(t *testing.T, f *facts.Facts, files map[string]string) offered.Options {
	t.Helper()
	c, err := repodata.New(web.Options{Loopback: true})
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for name, text := range files {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h, err := host.New(root, host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return offered.Options{Facts: f, Client: c, Host: h}
}

// choose reads the repositories and gives "version from repository", or the error.
func choose(t *testing.T, o offered.Options, name, want string) string {
	t.Helper()
	repos, err := offered.Read(t.Context(), o)
	if err != nil {
		return err.Error()
	}
	p, err := repos.Choose(name, want)
	if err != nil {
		return err.Error() + " | " + diag.Hint(err)
	}
	return p.Version + " from " + p.Repository
}

func TestVersionsOfRPMRepositories(t *testing.T) {
	s := pintest.Serve(t)
	s.Put("/core/mirrors/2023.9/x86_64/mirror.list", s.URL+"/core/new/\n")
	s.Put("/core/mirrors/2023.8/x86_64/mirror.list", s.URL+"/core/old/\n")
	s.Repo("/core/new/", "nginx 1:1.28.0-1.amzn2023\nnginx 1:1.26.0-1.amzn2023\nnginx 1:1.9.0-1.amzn2023\nsystem-release 2023.9-1\n")
	s.Repo("/core/old/", "nginx 1:1.24.0-1.amzn2023\n")
	s.Repo("/vendor/", "nginx 9.0-1\nagent 2.0-1\nagent 10.0-1\n")
	s.Repo("/better/", "agent 1.0-1\n")
	o := options(t, pintest.Facts("amzn", "2023", "dnf"), map[string]string{
		"/etc/dnf/vars/releasever": "2023.9\n",
		"/etc/yum.repos.d/amazonlinux.repo": "[amazonlinux]\nmirrorlist=" + s.URL + "/core/mirrors/$releasever/$basearch/mirror.list\npriority=10\n" +
			"[amazonlinux-source]\nbaseurl=" + s.URL + "/gone/\nenabled=0\n",
		"/etc/yum.repos.d/vendor.repo": "[vendor]\nbaseurl=" + s.URL + "/gone/\n",
	})
	o.Files = []step.RepositoryFile{{Path: "/etc/yum.repos.d/vendor.repo", Text: "[vendor]\nbaseurl=" + s.URL + "/vendor/\npriority=20\n"}}
	for _, c := range []struct{ name, want, got string }{
		{"nginx", "", "1:1.28.0-1.amzn2023 from amazonlinux"}, // not the vendor's, whose priority is worse
		{"nginx", "1.26.*", "1:1.26.0-1.amzn2023 from amazonlinux"},
		{"nginx", "9.*", "9.0-1 from vendor"},
		{"agent", "", "10.0-1 from vendor"}, // by number, not as text
		{"nginx", "2.*", "no repository offers it in version 2.*, only in 1:1.28.0-1.amzn2023, 1:1.26.0-1.amzn2023, 1:1.9.0-1.amzn2023, 9.0-1 | repositories drop old versions; name one that is there, or a glob"},
		{"ngnix", "", "no repository offers it: read were amazonlinux, vendor | check its name, and that its repository is among `repositories`"},
	} {
		if got := choose(t, o, c.name, c.want); got != c.got {
			t.Errorf("%s %s:\ngot  %s\nwant %s", c.name, c.want, got, c.got)
		}
	}

	// A release that the lock pins stands above that of the machine, and so do its addresses.
	o.Release = "2023.8"
	if got := choose(t, o, "nginx", ""); got != "1:1.24.0-1.amzn2023 from amazonlinux" {
		t.Error(got)
	}
	o.Bases = map[string]string{"amazonlinux": s.URL + "/core/new/"}
	if got := choose(t, o, "nginx", ""); got != "1:1.28.0-1.amzn2023 from amazonlinux" {
		t.Error(got)
	}
	o.Bases = nil
	o.Release = "2023.1"
	if got := choose(t, o, "nginx", ""); !strings.Contains(got, "cannot read repository amazonlinux: ") {
		t.Error(got)
	}
}

func TestAnotherArchitectureAndRepositoriesOfTheManifestAlone(t *testing.T) {
	s := pintest.Serve(t)
	s.Repo("/arm/aarch64/", "tool 1-1\nsystem-release 2-1\n") // tool is for x86_64, the other for all
	f := pintest.Facts("amzn", "2023", "dnf")
	f.Set(facts.Arch, "arm64", facts.Bake, "")
	o := options(t, f, nil)
	o.Host = nil
	o.Files = []step.RepositoryFile{{Path: "/etc/yum.repos.d/v.repo", Text: "[v]\nbaseurl=" + s.URL + "/arm/$basearch/\n"}}
	if got := choose(t, o, "system-release", ""); got != "2-1 from v" {
		t.Error(got)
	}
	if got := choose(t, o, "tool", ""); !strings.HasPrefix(got, "no repository offers it: read were v") {
		t.Error("a package of another architecture: ", got)
	}
	repos, err := offered.Read(t.Context(), o)
	if err != nil || len(repos.All) != 1 || repos.All[0].Base != s.URL+"/arm/aarch64/" || !strings.HasPrefix(repos.All[0].Metadata, "sha256:") {
		t.Errorf("%+v %v", repos.All, err)
	}
}

// suite puts a Debian suite on the server: packages are "name version arch" lines.
func suite(s *pintest.Server, path, component, packages, more string) {
	byArch := map[string]string{}
	for line := range strings.Lines(packages) {
		f := strings.Fields(line)
		byArch[f[2]] += fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: %s\nFilename: pool/x\n\n", f[0], f[1], f[2])
	}
	release := more + "SHA256:\n"
	for arch, text := range byArch {
		if arch == "all" {
			continue
		}
		text += byArch["all"]
		name := "Packages"
		if component != "" {
			name = component + "/binary-" + arch + "/Packages"
		}
		s.Put(path+"/"+name, text)
		release += fmt.Sprintf(" %064d %d %s\n", 0, len(text), name)
	}
	s.Put(path+"/InRelease", release)
}

func TestVersionsOfDebianRepositories(t *testing.T) {
	s := pintest.Serve(t)
	suite(s, "/debian/dists/trixie", "main", "nginx 1.26.3-1 amd64\nnginx 1.26.3-1 arm64\nmail 2~rc1-1 amd64\nmail 1.9-1 amd64\n", "Suite: stable\n")
	suite(s, "/debian/dists/trixie-backports", "main", "nginx 1.28.0-1~bpo13+1 amd64\nonly 5-1 amd64\n", "NotAutomatic: yes\n")
	suite(s, "/security/dists/trixie-security", "main", "nginx 1.26.3-1+deb13u1 amd64\n", "")
	suite(s, "/vendor", "", "agent 3-1 amd64\ndocs 1 all\n", "")
	host := strings.Split(strings.TrimPrefix(s.URL, "http://"), ":")[0]
	o := options(t, pintest.Facts("debian", "13", "apt"), map[string]string{
		"/etc/apt/sources.list": "# deb " + s.URL + "/gone x main\ndeb-src " + s.URL + "/gone x main\ndeb [arch=amd64 signed-by=/k] " + s.URL + "/security/ trixie-security main # the good ones\n" +
			"deb [arch=s390x] " + s.URL + "/gone x main\n",
		"/etc/apt/sources.list.d/debian.sources": "Types: deb\nURIs: " + s.URL + "/debian\nSuites: trixie\n trixie-backports\nComponents: main contrib\n\n" +
			"Types: deb\nEnabled: no\nURIs: " + s.URL + "/gone\nSuites: x\nComponents: main\n",
		"/etc/apt/sources.list.d/README": "deb " + s.URL + "/gone x main\n",
	})
	o.Files = []step.RepositoryFile{{Path: "/etc/apt/sources.list.d/v.sources", Text: "Types: deb\nURIs: " + s.URL + "/vendor\nSuites: ./\n"}}
	for _, c := range []struct{ name, want, got string }{
		{"nginx", "", "1.26.3-1+deb13u1 from " + host + " trixie-security"}, // backports wait to be asked
		{"nginx", "1.28.*", "1.28.0-1~bpo13+1 from " + host + " trixie-backports"},
		{"only", "", "5-1 from " + host + " trixie-backports"},
		{"mail", "", "2~rc1-1 from " + host + " trixie"},
		{"agent", "", "3-1 from " + host + " ./"},
		{"docs", "", "1 from " + host + " ./"},
	} {
		if got := choose(t, o, c.name, c.want); got != c.got {
			t.Errorf("%s %s: got %s, want %s", c.name, c.want, got, c.got)
		}
	}
	o.Bases = map[string]string{host + " trixie-security": s.URL + "/debian/dists/trixie"}
	if got := choose(t, o, "nginx", "1.26.*"); !strings.HasPrefix(got, "1.26.3-1 from ") {
		t.Error("the address at the pinned release is not asked:", got)
	}
}

func TestAMachineWithoutPackageManager(t *testing.T) {
	_, err := offered.Read(t.Context(), options(t, pintest.Facts("slackware", "15", ""), nil))
	if err == nil || err.Error() != "the package manager of slackware-15/amd64 is not known" {
		t.Error(err)
	}
	var none offered.Repositories
	if _, err := none.Choose("x", ""); !errors.Is(err, offered.ErrNotOffered) {
		t.Error(err)
	}
}
