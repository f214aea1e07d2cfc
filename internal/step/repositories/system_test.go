//go:build system

package repositories

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/pkgmgr"
	"github.com/amiagent/amiagent/internal/pkgmgr/pkgmgrtest"
	"github.com/amiagent/amiagent/internal/step"
	"github.com/amiagent/amiagent/internal/step/steptest"
)

// machine is a real tree, and what its steps use.
type machine struct {
	t   *testing.T
	h   *host.Host
	env step.Env
	log []string
}

func newMachine(t *testing.T, pm string) *machine {
	m := &machine{t: t, h: pkgmgrtest.Tree(t)}
	m.env = step.Env{Host: m.h, Facts: family(pm), ID: step.ID{Kind: "repositories", Name: "example"},
		Shared: &step.Shared{}, Output: func(l string) { m.log = append(m.log, l) }}
	return m
}

// apply converges a body, and gives the error.
func (m *machine) apply(body string) error {
	m.t.Helper()
	st, err := steptest.Decode(Kind(), "example", body)
	if err != nil {
		m.t.Fatal(err)
	}
	drift, err := st.Check(m.t.Context(), m.env)
	if err != nil || drift == "" {
		m.t.Fatalf("first Check: %q, %v", drift, err)
	}
	if err := st.Apply(m.t.Context(), m.env); err != nil {
		return err
	}
	if drift, err := st.Check(m.t.Context(), m.env); err != nil || drift != "" {
		m.t.Fatalf("Check after Apply: %q, %v", drift, err)
	}
	return nil
}

// install installs the package "web" from the repository, in the same run.
func (m *machine) install() error {
	p, err := step.Memo(m.env.Shared, pkgmgr.MemoKey, func() (*pkgmgr.Manager, error) {
		return pkgmgr.New(m.h, m.env.Facts.Get(facts.PackageFamily))
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return p.Change(m.t.Context(), []pkgmgr.Want{{Name: "web"}}, pkgmgr.Talk{Output: m.env.Output})
}

// refused expects an error, and that the repository's file is not there.
func (m *machine) refused(err error, text, hint, file string) {
	m.t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) || !strings.Contains(diag.Hint(err), hint) {
		m.t.Errorf("the error is %v (hint %q), want %q (hint %q)\n%s", err, diag.Hint(err), text, hint, strings.Join(m.log, "\n"))
	}
	if m.h.Exists(file) {
		m.t.Errorf("%s is there", file)
	}
	if m.h.Exists(trial) {
		m.t.Errorf("%s is left behind", trial)
	}
}

func indent(key string) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(key), "\n", "\n    ")
}

func TestSystemApt(t *testing.T) {
	dir := t.TempDir()
	pkgmgrtest.DebRepo(t, dir, pkgmgrtest.Deb{Name: "web", Version: "1"})
	home, key := pkgmgrtest.GPG(t)
	_, other := pkgmgrtest.GPG(t)
	url, _ := pkgmgrtest.Serve(t, dir)
	body := func(key string) string {
		return fmt.Sprintf("deb:\n  uris: %s\n  suites: ./\n  signed-by: |\n%s\n", url, indent(key))
	}
	const file = "/etc/apt/sources.list.d/example.sources"
	m := newMachine(t, "apt")

	m.refused(m.apply(body(key)), "is not signed", "check the repository's key", file)
	pkgmgrtest.SignDebRepo(t, dir, home)
	m.refused(m.apply(body(other)), "NO_PUBKEY", "check the repository's key", file)
	m.refused(m.apply(strings.Replace(body(key), url, url+"/gone", 1)), "404", "", file)

	if err := m.apply(body(key)); err != nil {
		t.Fatalf("%v\n%s", err, strings.Join(m.log, "\n"))
	}
	m.log = nil
	if err := m.install(); err != nil {
		t.Fatalf("%v\n%s", err, strings.Join(m.log, "\n"))
	}
	if strings.Contains(strings.Join(m.log, "\n"), "Hit:") {
		t.Errorf("the lists were read again:\n%s", strings.Join(m.log, "\n"))
	}
	if err := m.apply("state: absent"); err != nil || m.h.Exists(file) {
		t.Errorf("%v", err)
	}
}

func TestSystemDnf(t *testing.T) {
	dir := t.TempDir()
	pkgmgrtest.RPMRepo(t, dir, pkgmgrtest.RPM{Name: "web", Version: "1-1"})
	home, key := pkgmgrtest.GPG(t)
	_, other := pkgmgrtest.GPG(t)
	url, _ := pkgmgrtest.Serve(t, dir)
	body := func(key string) string {
		return fmt.Sprintf("rpm:\n  baseurl: %s\n  gpgkey: |\n%s\n", url, indent(key))
	}
	const file = "/etc/yum.repos.d/example.repo"
	m := newMachine(t, "dnf")
	pkgmgrtest.Write(t, m.h, "/etc/dnf/vars/releasever", "1\n")

	m.refused(m.apply(strings.Replace(body(key), url, url+"/gone", 1)), "Failed to download metadata for repo 'example'", "", file)

	if err := m.apply(body(key)); err != nil {
		t.Fatalf("%v\n%s", err, strings.Join(m.log, "\n"))
	}
	err := m.install()
	if err == nil || !strings.Contains(err.Error(), "web") || !strings.Contains(strings.Join(m.log, "\n"), "is not signed") {
		t.Errorf("a package without signature: %v\n%s", err, strings.Join(m.log, "\n"))
	}
	pkgmgrtest.SignRPMs(t, dir, home)
	m.forgetCache()
	if err := m.apply(body(other)); err != nil {
		t.Fatal(err)
	}
	if err := m.install(); err == nil {
		t.Error("a package signed by another key is installed")
	}
	m.forgetCache()
	if err := m.apply(body(key)); err != nil {
		t.Fatal(err)
	}
	if err := m.install(); err != nil {
		t.Fatalf("%v\n%s", err, strings.Join(m.log, "\n"))
	}
}

// forgetCache is the next run, on a machine whose metadata is of today.
func (m *machine) forgetCache() {
	m.env.Shared = &step.Shared{}
	if err := os.RemoveAll(filepath.Join(m.h.Root(), "var/cache/dnf")); err != nil {
		m.t.Fatal(err)
	}
	m.log = nil
}
