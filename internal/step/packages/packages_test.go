package packages

import (
	"errors"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/pkgmgr/pkgmgrtest"
	"github.com/amiagent/amiagent/internal/step"
	"github.com/amiagent/amiagent/internal/step/steptest"
)

func family(name string) *facts.Facts {
	f := facts.New()
	f.Set(facts.PackageFamily, name, facts.Bake, "test")
	return f
}

const dpkgStatus = "Package: dpkg\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.21\n\n" +
	"Package: old\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.0\n\n"

func debian(_ *testing.T, m *steptest.Machine) {
	m.Write("/var/lib/dpkg/status", 0o644, dpkgStatus)
	m.Write("/repo", 0o644, "nginx 1:1.24.2-1\nnginx 1.22.1-9\nold 1.0\n")
	m.Write("/var/lib/apt/lists/known", 0o644, m.Read("/repo"))
}

func amazon(_ *testing.T, m *steptest.Machine) {
	m.Write("/rpmdb", 0o644, "old\t0\t1.0\t1\tx86_64\n")
	m.Write("/repo", 0o644, "nginx 1:1.24.2-1\nold 1.0-1\n")
}

func TestKind(t *testing.T) {
	steptest.Run(t, Kind(), []steptest.Case{{
		Name: "apt installs", Entry: "nginx", Facts: family("apt"), Programs: pkgmgrtest.Apt(), Setup: debian,
		Body:  "{}",
		Drift: "not installed",
		Breaks: []steptest.Break{
			{Name: "removed by hand", Do: func(m *steptest.Machine) { m.Write("/var/lib/dpkg/status", 0o644, dpkgStatus) }, Drift: "not installed"},
			{Name: "dpkg was killed", Do: func(m *steptest.Machine) {
				m.Write("/var/lib/dpkg/status", 0o644, strings.Replace(m.Read("/var/lib/dpkg/status"),
					"Package: nginx\nStatus: install ok installed", "Package: nginx\nStatus: install ok half-configured", 1))
				m.Write("/interrupted", 0o644, "")
			}, Drift: "installed only in part (half-configured)"},
		},
	}, {
		Name: "apt goes to a version", Entry: "nginx", Facts: family("apt"), Programs: pkgmgrtest.Apt(), Setup: debian,
		Body:  `version: "1.22*"`,
		Drift: "not installed",
		Breaks: []steptest.Break{
			{Name: "upgraded by hand", Do: func(m *steptest.Machine) {
				m.Write("/var/lib/dpkg/status", 0o644, strings.Replace(m.Read("/var/lib/dpkg/status"), "1.22.1-9", "1:1.24.2-1", 1))
			}, Drift: "version is 1:1.24.2-1, want 1.22*"},
		},
	}, {
		Name: "apt removes", Entry: "old", Facts: family("apt"), Programs: pkgmgrtest.Apt(), Setup: debian,
		Body: "state: absent", Drift: "1.0 is installed, want it absent",
	}, {
		Name: "what is there is not touched", Entry: "old", Facts: family("apt"), Programs: pkgmgrtest.Apt(), Setup: debian,
		Body: "{}", None: true,
	}, {
		Name: "what is absent already", Entry: "nginx", Facts: family("apt"), Programs: pkgmgrtest.Apt(), Setup: debian,
		Body: "state: absent", None: true,
	}, {
		Name: "dnf installs", Entry: "nginx", Facts: family("dnf"), Programs: pkgmgrtest.Dnf(), Setup: amazon,
		Body: `version: 1.24.2`, Drift: "not installed",
	}, {
		Name: "dnf removes", Entry: "old", Facts: family("dnf"), Programs: pkgmgrtest.Dnf(), Setup: amazon,
		Body: "state: absent", Drift: "1.0-1 is installed, want it absent",
	}, {
		Name: "yum installs", Entry: "nginx", Facts: family("yum"), Programs: pkgmgrtest.Yum(), Setup: amazon,
		Body: "{}", Drift: "not installed",
	}, {
		Name: "no package manager", Entry: "nginx", Facts: family(""),
		Body: "{}", Error: "this machine has no package manager that is known", Hint: "`when: {os: …}`",
	}})
}

func TestFaults(t *testing.T) {
	steptest.Faults(t, Kind(), []steptest.Fault{
		{Name: "nothing wrong", Entry: "g++", Body: "{}"},
		{Name: "nothing is known yet", Entry: "nginx", Body: `{version: "{{ .Vars.nginx }}", state: "{{ .Vars.state }}"}`},
		{Name: "state", Entry: "nginx", Body: "state: installed",
			Want: `manifest.yaml:1:8: packages.nginx.state: must be present or absent, is "installed"`},
		{Name: "latest", Entry: "nginx", Body: "version: latest",
			Want: `manifest.yaml:1:10: packages.nginx.version: "latest" is no version: leave it out to take what the repositories have now`},
		{Name: "operator", Entry: "nginx", Body: `version: ">= 1.2"`,
			Want: "manifest.yaml:1:10: packages.nginx.version: must be a version or a glob, as 1.24.0-3 or 1.24.*"},
		{Name: "absent with a version", Entry: "nginx", Body: "{state: absent, version: 1.2}",
			Want: "manifest.yaml:1:26: packages.nginx.version: an absent package has no version"},
		{Name: "an option for a name", Entry: "--installroot", Body: "{}",
			Want: `manifest.yaml:1:1: packages.--installroot: "--installroot" cannot name a package: is no package's name`},
		{Name: "a group", Entry: "@development", Body: "{}",
			Want: `manifest.yaml:1:1: packages.@development: "@development" cannot name a package: groups and modules are not supported, name their packages`},
		{Name: "unknown key", Entry: "nginx", Body: "ensure: present",
			Want: "manifest.yaml:1:1: packages.nginx.ensure: unknown key, known are state, version"},
	})
}

// members are packages as the agent hands them to the group, by "name body" lines.
func members(t *testing.T, m *steptest.Machine, bodies map[string]string) []step.Member {
	t.Helper()
	var all []step.Member
	for name, body := range bodies {
		st, err := steptest.Decode(Kind(), name, body)
		if err != nil {
			t.Fatal(err)
		}
		id := step.ID{Kind: "packages", Name: name}
		all = append(all, step.Member{ID: id, Env: m.Env(id, ""), Step: st})
	}
	return all
}

func TestAllPackagesOfARunAreOneTransactionAfterOneDownload(t *testing.T) {
	m := steptest.NewMachine(t, steptest.Options{Facts: family("apt"), Programs: pkgmgrtest.Apt()})
	debian(t, m)
	all := members(t, m, map[string]string{"nginx": "{}", "old": "state: absent"})
	env := m.Env(step.ID{Kind: "packages"}, "")
	g := Kind().Group
	if err := g.(step.GroupPrefetcher).Prefetch(t.Context(), env, all); err != nil {
		t.Fatal(err)
	}
	if err := g.Apply(t.Context(), env, all); err != nil {
		t.Fatal(err)
	}
	drifts, err := g.Check(t.Context(), env, all)
	if err != nil || drifts[0] != "" || drifts[1] != "" {
		t.Errorf("drifts %q, %v", drifts, err)
	}
	runs := m.Log()
	if len(runs) != 2 || !strings.Contains(runs[0], "--download-only") || strings.Contains(runs[1], "--download-only") ||
		!strings.Contains(runs[1], " nginx") || !strings.Contains(runs[1], " old-") {
		t.Errorf("ran:\n%s", strings.Join(runs, "\n"))
	}
}

func TestOneUnknownPackageFailsAlone(t *testing.T) {
	m := steptest.NewMachine(t, steptest.Options{Facts: family("dnf"), Programs: pkgmgrtest.Dnf()})
	amazon(t, m)
	all := members(t, m, map[string]string{"nginx": "{}", "ngnix": "{}"})
	env := m.Env(step.ID{Kind: "packages"}, "")
	err := Kind().Group.Apply(t.Context(), env, all)
	var each step.MemberErrors
	if !errors.As(err, &each) || len(each) != 1 {
		t.Fatalf("the error is %v, want one of one member", err)
	}
	if got := each[step.ID{Kind: "packages", Name: "ngnix"}]; got == nil || got.Error() != "cannot install ngnix: no repository of this machine has it" {
		t.Errorf("the error is %v", got)
	}
	if !strings.HasPrefix(m.Read("/rpmdb"), "nginx\t1\t1.24.2") {
		t.Errorf("nginx is not installed: %s", m.Read("/rpmdb"))
	}
}
