package repositories

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/pkgmgr/pkgmgrtest"
	"github.com/amiagent/amiagent/internal/step"
	"github.com/amiagent/amiagent/internal/step/steptest"
)

const (
	armoured = armour + "\n\nmQENBF\n-----END PGP PUBLIC KEY BLOCK-----\n"
	binary   = "\x99\x01\x0d\x04 not armoured"
	keyURL   = "https://example.com/key"
)

func digest(content string) string {
	return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(content)))
}

func family(name string) *facts.Facts {
	f := facts.New()
	f.Set(facts.PackageFamily, name, facts.Bake, "test")
	return f
}

const debBody = `
deb:
  uris: https://deb.example.com
  suites: [bookworm]
  components: [main, extra]
  architectures: [amd64, arm64]
  signed-by: |
    -----BEGIN PGP PUBLIC KEY BLOCK-----

    mQENBF
    -----END PGP PUBLIC KEY BLOCK-----
`

const rpmBody = `
rpm:
  name: Example packages
  baseurl: [https://a.example.com/$basearch, https://b.example.com/$basearch]
  repo-gpgcheck: true
  priority: 9
  includepkgs: [nginx*, njs]
  exclude: nginx-debug
  module-hotfixes: true
  gpgkey: /etc/pki/rpm-gpg/RPM-GPG-KEY-image
`

func TestKind(t *testing.T) {
	steptest.Run(t, Kind(), []steptest.Case{{
		Name: "apt", Facts: family("apt"), Programs: pkgmgrtest.Apt(), Body: debBody + strings.TrimPrefix(rpmBody, "\n"),
		Setup: func(_ *testing.T, m *steptest.Machine) { m.Mkdir("/etc/apt/sources.list.d", 0) },
		Drift: "/etc/apt/keyrings/example.asc is not there",
		Want: `
			/etc/apt/keyrings/ 0755
			/etc/apt/keyrings/example.asc 0644 "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQENBF\n-----END PGP PUBLIC KEY BLOCK-----\n"
			/etc/apt/sources.list.d/example.sources 0644 sha256:78fae93284cb1fc1a9f72a97b28a5b13b294d959f1c6a6f91e4a936b13eaaf32
			/run/ 0755
			/run/amiagent/ 0755
			/var/ 0755
			/var/lib/ 0755
			/var/lib/apt/ 0755
			/var/lib/apt/lists/ 0755
			/var/lib/apt/lists/known 0644 ""`,
		Breaks: []steptest.Break{
			{Name: "source edited", Do: func(m *steptest.Machine) {
				m.Write("/etc/apt/sources.list.d/example.sources", 0o644, "Types: deb\n")
			}, Drift: "/etc/apt/sources.list.d/example.sources differs"},
			{Name: "source removed", Do: func(m *steptest.Machine) { m.Remove("/etc/apt/sources.list.d/example.sources") },
				Drift: "/etc/apt/sources.list.d/example.sources is not there"},
			{Name: "key replaced", Do: func(m *steptest.Machine) { m.Write("/etc/apt/keyrings/example.asc", 0o644, "evil") },
				Drift: "/etc/apt/keyrings/example.asc differs"},
			{Name: "key writable by all", Do: func(m *steptest.Machine) { m.Chmod("/etc/apt/keyrings/example.asc", 0o666) },
				Drift: "mode of /etc/apt/keyrings/example.asc is 0666, want 0644"},
		},
	}, {
		Name: "dnf", Facts: family("dnf"), Programs: pkgmgrtest.Dnf(), Body: rpmBody + strings.TrimPrefix(debBody, "\n"),
		Setup: func(_ *testing.T, m *steptest.Machine) { m.Write("/repo", 0o644, "") },
		Drift: "/etc/yum.repos.d/example.repo is not there",
		Breaks: []steptest.Break{
			{Name: "checks turned off", Do: func(m *steptest.Machine) {
				m.Write("/etc/yum.repos.d/example.repo", 0o644, strings.Replace(m.Read("/etc/yum.repos.d/example.repo"), "gpgcheck=1", "gpgcheck=0", 1))
			}, Drift: "/etc/yum.repos.d/example.repo differs"},
		},
	}, {
		Name: "a key that was fetched", Facts: family("dnf"), Programs: pkgmgrtest.Dnf(),
		Fetched: map[string]steptest.Item{keyURL: {File: armoured}},
		Setup:   func(_ *testing.T, m *steptest.Machine) { m.Write("/repo", 0o644, "") },
		Body:    "rpm: {baseurl: https://example.com, gpgkey: {url: " + keyURL + ", digest: \"" + digest(armoured) + "\"}}",
		Drift:   "the key is not there, or is another",
		Breaks: []steptest.Break{
			{Name: "key replaced", Do: func(m *steptest.Machine) { m.Write("/etc/pki/rpm-gpg/RPM-GPG-KEY-example", 0o644, armoured+"x") },
				Drift: "the key is not there, or is another"},
		},
	}, {
		Name: "state absent", Facts: family("apt"), Body: "state: absent",
		Setup: func(_ *testing.T, m *steptest.Machine) {
			m.Write("/etc/apt/sources.list.d/example.sources", 0o644, "x")
			m.Write("/etc/apt/sources.list.d/other.sources", 0o644, "x")
			m.Write("/etc/apt/keyrings/example.gpg", 0o644, "x")
		},
		Drift: "/etc/apt/sources.list.d/example.sources is there, want it absent",
		Want: `
			/etc/apt/keyrings/example.gpg gone
			/etc/apt/sources.list.d/example.sources gone`,
	}, {
		Name: "for the other family only", Facts: family("apt"), Body: rpmBody, None: true,
	}, {
		Name: "turned off is not read", Facts: family("apt"),
		Body:     debBody + "  enabled: false\n",
		Programs: pkgmgrtest.With(pkgmgrtest.Apt(), map[string]string{"apt-get": "exit 1"}),
		Drift:    "not there",
	}, {
		Name: "an address that does not answer", Facts: family("apt"), Programs: pkgmgrtest.Apt(), Body: debBody,
		Setup: func(_ *testing.T, m *steptest.Machine) {
			m.Write("/unreachable", 0o644, "")
			m.Mkdir("/run/amiagent", 0)
			m.Write("/etc/apt/sources.list.d/example.sources", 0o644, "the old one\n")
		},
		Error: "cannot read repository example: 1 https://deb.example.com ./ InRelease",
		Hint:  "check the instance's DNS",
	}, {
		Name: "a release that does not exist", Facts: family("dnf"), Programs: pkgmgrtest.Dnf(), Body: rpmBody,
		Setup: func(_ *testing.T, m *steptest.Machine) {
			m.Write("/unreachable", 0o644, "")
			m.Write("/repo", 0o644, "")
			m.Write("/cache", 0o644, "")
			m.Write("/rpmdb", 0o644, "")
			m.Mkdir("/run/amiagent", 0)
		},
		Error: "cannot read repository example: Failed to download metadata for repo 'x'",
		Hint:  "403 from a repository: the release does not exist",
	}, {
		Name: "no package manager", Facts: family(""), Body: rpmBody, Error: "no package manager that is known",
	}})
}

// text is what a body becomes on a machine.
func text(t *testing.T, body string) string {
	t.Helper()
	st, err := steptest.Decode(Kind(), "example", strings.TrimPrefix(body, "\n"))
	if err != nil {
		t.Fatal(err)
	}
	r := st.(*Repository)
	if r.RPM != nil {
		return r.RPM.text("example", r.RPM.keyFile("example", true))
	}
	return r.Deb.text("example", r.Deb.keyFile("example", true))
}

func TestTextOfRpm(t *testing.T) {
	want := head + `[example]
name=Example packages
baseurl=https://a.example.com/$basearch https://b.example.com/$basearch
enabled=1
gpgcheck=1
repo_gpgcheck=1
gpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-example
priority=9
includepkgs=nginx* njs
exclude=nginx-debug
module_hotfixes=1
`
	if got := text(t, rpmBody); got != want {
		t.Errorf("the file is:\n%s\nwant:\n%s", got, want)
	}
}

func TestTextOfRpmWithoutChecks(t *testing.T) {
	want := head + "[x]\nname=x\nmirrorlist=https://x/list\nenabled=0\ngpgcheck=0\nrepo_gpgcheck=0\n"
	if got := (&RPM{MirrorList: "https://x/list", GPGCheck: new(bool), Enabled: new(bool)}).text("x", ""); got != want {
		t.Errorf("the file is:\n%s\nwant:\n%s", got, want)
	}
}

func TestTextOfDeb(t *testing.T) {
	want := head + `Types: deb
URIs: https://deb.example.com
Suites: bookworm
Components: main extra
Architectures: amd64 arm64
Signed-By: /etc/apt/keyrings/example.asc
`
	if got := text(t, debBody); got != want {
		t.Errorf("the file is:\n%s\nwant:\n%s", got, want)
	}
	want = head + "Types: deb\nURIs: https://x\nSuites: /\nTrusted: yes\nEnabled: no\n"
	r := Deb{URIs: Words{"https://x"}, Suites: Words{"/"}, Trusted: true, Enabled: new(bool)}
	if got := r.text("x", ""); got != want {
		t.Errorf("the file is:\n%s\nwant:\n%s", got, want)
	}
}

// apt tells armour from binary by the name alone, and says "unsupported filetype" otherwise.
func TestABinaryKeyGetsTheNameOfOne(t *testing.T) {
	m := steptest.NewMachine(t, steptest.Options{Facts: family("apt"), Programs: pkgmgrtest.Apt(),
		Fetched: map[string]steptest.Item{keyURL: {File: binary}}})
	st, err := steptest.Decode(Kind(), "example", "deb: {uris: https://x, suites: /, signed-by: {url: "+keyURL+", digest: \""+digest(binary)+"\"}}")
	if err != nil {
		t.Fatal(err)
	}
	env := m.Env(step.ID{Kind: "repositories", Name: "example"}, "")
	if err := st.Apply(t.Context(), env); err != nil {
		t.Fatal(err)
	}
	if got := m.Read("/etc/apt/keyrings/example.gpg"); got != binary {
		t.Errorf("the key is %q", got)
	}
	if !strings.Contains(m.Read("/etc/apt/sources.list.d/example.sources"), "Signed-By: /etc/apt/keyrings/example.gpg\n") {
		t.Error("the source names another key")
	}
}

func TestFaults(t *testing.T) {
	key := "/etc/key"
	steptest.Faults(t, Kind(), []steptest.Fault{
		{Name: "nothing wrong", Body: "rpm: {metalink: https://x, gpgkey: /etc/key}"},
		{Name: "nothing is known yet", Body: `{rpm: {baseurl: "{{ .Vars.url }}", gpgkey: "{{ .Vars.key }}"}, state: "{{ .Vars.s }}"}`},
		{Name: "empty", Body: "{}", Want: "manifest.yaml:1:1: repositories.example: needs rpm, deb, or both"},
		{Name: "absent needs nothing", Body: "state: absent"},
		{Name: "name", Entry: "../x", Body: "state: absent",
			Want: `manifest.yaml:1:1: repositories.../x: "../x" cannot name a repository: use letters, digits, '_', '.' and '-', a letter or digit first`},
		{Name: "state", Body: "{state: here, rpm: {baseurl: https://x, gpgkey: " + key + "}}",
			Want: `manifest.yaml:1:9: repositories.example.state: must be present or absent, is "here"`},
		{Name: "no source", Body: "rpm: {gpgkey: /etc/key}", Want: "manifest.yaml:1:6: repositories.example.rpm: needs one of baseurl, mirrorlist and metalink"},
		{Name: "no key", Body: "rpm: {baseurl: https://x}", Want: "manifest.yaml:1:6: repositories.example.rpm.gpgkey: is missing: packages are checked with it"},
		{Name: "checks off", Body: "rpm: {baseurl: https://x, gpgcheck: false}",
			Want: "manifest.yaml:1:37: repositories.example.rpm.gpgcheck: is off: packages from there could be anybody's; say `insecure: true` beside rpm if that is meant"},
		{Name: "checks off, and meant", Body: "{insecure: true, rpm: {baseurl: https://x, gpgcheck: false}}"},
		{Name: "trusted", Body: "deb: {uris: https://x, suites: /, trusted: true}",
			Want: "manifest.yaml:1:44: repositories.example.deb.trusted: is on: packages from there could be anybody's; say `insecure: true` beside deb if that is meant"},
		{Name: "trusted, and meant", Body: "{insecure: true, deb: {uris: https://x, suites: /, trusted: true}}"},
		{Name: "a key by address alone", Body: "rpm: {baseurl: https://x, gpgkey: https://x/key}",
			Want: `manifest.yaml:1:35: repositories.example.rpm.gpgkey: an address needs a digest: write {url: ..., digest: "sha256:..."}`},
		{Name: "a key with half a digest", Body: "rpm: {baseurl: https://x, gpgkey: {url: https://x/key, digest: sha256:12}}",
			Want: `manifest.yaml:1:64: repositories.example.rpm.gpgkey.digest: must be sha256: or sha512: and its hex digits, is "sha256:12"`},
		{Name: "a private key", Body: "rpm: {baseurl: https://x, gpgkey: \"-----BEGIN PGP PRIVATE KEY BLOCK-----\"}",
			Want: "manifest.yaml:1:35: repositories.example.rpm.gpgkey: is a private key, give the public one"},
		{Name: "an address that is none", Body: "rpm: {baseurl: x.example.com/repo, gpgkey: /etc/key}",
			Want: `manifest.yaml:1:16: repositories.example.rpm.baseurl[0]: must be an address as https://example.com/repo, is "x.example.com/repo"`},
		{Name: "a field smuggled in", Body: `rpm: {baseurl: https://x, name: "x\ngpgcheck=0", gpgkey: /etc/key}`,
			Want: `manifest.yaml:1:33: repositories.example.rpm.name: must be one line, is "x\ngpgcheck=0"`},
		{Name: "deb, all missing", Body: "deb: {}", Want: `
			manifest.yaml:1:6: repositories.example.deb.uris: is missing
			manifest.yaml:1:6: repositories.example.deb.suites: is missing: name the release, or / for a flat repository
			manifest.yaml:1:6: repositories.example.deb.signed-by: is missing: the repository is checked with it`},
		{Name: "no components", Body: "deb: {uris: https://x, suites: bookworm, signed-by: /etc/key}",
			Want: "manifest.yaml:1:6: repositories.example.deb.components: is missing: write main, or a suite that ends in / for a flat repository"},
		{Name: "types", Body: "deb: {uris: https://x, suites: /, types: [rpm], signed-by: /etc/key}",
			Want: `manifest.yaml:1:43: repositories.example.deb.types[0]: must be deb or deb-src, is "rpm"`},
		{Name: "unknown key", Body: "rpm: {baseurl: https://x, gpgkey: /etc/key, gpg-check: true}",
			Want: `manifest.yaml:1:45: repositories.example.rpm.gpg-check: unknown key, did you mean "gpgcheck"?`},
	})
}

func TestKeysAreFetchedOnce(t *testing.T) {
	k := &Key{URL: keyURL, Digest: digest(armoured)}
	r := &Repository{name: "x", State: present, RPM: &RPM{GPGKey: k}, Deb: &Deb{SignedBy: k}}
	all := r.Fetches()
	if len(all) != 1 || all[0].Source != keyURL || all[0].Digest != k.Digest || all[0].Name != "repositories.x" {
		t.Errorf("fetches are %+v", all)
	}
	r.State = absent
	if len(r.Fetches()) != 0 {
		t.Error("an absent repository fetches")
	}
}
