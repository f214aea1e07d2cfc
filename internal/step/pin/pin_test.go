package pin_test

import (
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/pin/pintest"
	"github.com/amiagent/amiagent/internal/pkgmgr/pkgmgrtest"
	"github.com/amiagent/amiagent/internal/step"
	"github.com/amiagent/amiagent/internal/step/pin"
	"github.com/amiagent/amiagent/internal/step/steptest"
)

const (
	older = "2023.9.20251117"
	newer = "2023.10.20260105"

	variable = "/etc/dnf/vars/releasever"
)

// cdn has two releases of Amazon Linux 2023, and what latest leads to.
func cdn(t *testing.T) *pintest.Server {
	s := pintest.Serve(t)
	for _, r := range []string{older, newer, "latest"} {
		s.Repo("/core/guids/"+pintest.GUID(r)+"/x86_64/", "system-release "+r+"-0.amzn2023\n")
		s.Put("/core/mirrors/"+r+"/x86_64/mirror.list", s.URL+"/core/guids/"+pintest.GUID(r)+"/x86_64/")
	}
	s.Put("/core/releasemd.xml", `<?xml version="1.0" encoding="utf8"?><root><release version="`+older+`"/><release version="`+newer+`"/></root>`)
	s.Repo("/livepatch/1/", "x 1-1")
	return s
}

// machine is Amazon Linux 2023, built from the older release.
func machine(s *pintest.Server) func(*testing.T, *steptest.Machine) {
	return func(_ *testing.T, m *steptest.Machine) {
		pintest.RPM(m, "system-release "+older+"-0.amzn2023\n")
		m.Write("/etc/yum.repos.d/amazonlinux.repo", 0o644, "[amazonlinux]\nmirrorlist="+s.URL+"/core/mirrors/$releasever/$basearch/mirror.list\n")
	}
}

func with(s *pintest.Server, more func(m *steptest.Machine)) func(*testing.T, *steptest.Machine) {
	return func(t *testing.T, m *steptest.Machine) {
		machine(s)(t, m)
		more(m)
	}
}

func floating(s *pintest.Server) func(m *steptest.Machine) {
	return func(m *steptest.Machine) {
		m.Write("/etc/yum.repos.d/livepatch.repo", 0o644, "[kernel-livepatch]\nmirrorlist="+s.URL+"/kernel-livepatch/mirrors/al2023/$basearch/mirror.list\n")
	}
}

func TestPin(t *testing.T) {
	s := cdn(t)
	al2023, dnf := pintest.Facts("amzn", "2023", "dnf"), pkgmgrtest.DnfReleases()
	steptest.Run(t, pin.Kind(), []steptest.Case{{
		Name: "the release of the image is there by itself", Entry: "release", Facts: al2023, Programs: dnf,
		Body: "release: image", Setup: machine(s), None: true,
	}, {
		Name: "a release by name", Entry: "release", Facts: al2023, Programs: dnf,
		Body: "release: " + newer, Setup: with(s, func(m *steptest.Machine) { m.Mkdir("/etc/dnf/vars", 0) }),
		Drift: `release is "2023.9.20251117", want "2023.10.20260105"`,
		Want:  "/etc/dnf/vars/releasever 0644 \"2023.10.20260105\\n\"",
		Breaks: []steptest.Break{
			{Name: "removed", Do: func(m *steptest.Machine) { m.Remove(variable) }, Drift: `release is "2023.9.20251117"`},
			{Name: "emptied", Do: func(m *steptest.Machine) { m.Write(variable, 0o644, "") }, Drift: `release is "", want "2023.10.20260105"`},
			{Name: "padded", Do: func(m *steptest.Machine) { m.Write(variable, 0o644, newer+" \n") }, Drift: `release is "2023.10.20260105 "`},
			{Name: "unlocked", Do: func(m *steptest.Machine) { m.Write(variable, 0o644, "latest\n") }, Drift: `release is "latest"`},
		},
	}, {
		Name: "back to the image's", Entry: "release", Facts: al2023, Programs: dnf, Body: "release: image",
		Setup: with(s, func(m *steptest.Machine) { m.Write(variable, 0o644, "latest\n") }),
		Drift: `release is "latest", want "2023.9.20251117"`, Want: "/etc/dnf/vars/releasever gone",
	}, {
		Name: "nothing held", Entry: "release", Facts: al2023, Programs: dnf, Body: "release: latest",
		Setup: with(s, func(m *steptest.Machine) { m.Mkdir("/etc/dnf/vars", 0) }),
		Drift: `want "latest"`, Want: "/etc/dnf/vars/releasever 0644 \"latest\\n\"",
	}, {
		Name: "a release that does not exist changes nothing", Entry: "release", Facts: al2023, Programs: dnf,
		Body: "release: 2023.11.20260105", Setup: machine(s),
		Error: "no such release: 2023.11.20260105 for repository amazonlinux", Hint: "the nearest release that exists is 2023.10.20260105",
	}, {
		Name: "a floating repository is refused before anything is written", Entry: "release", Facts: al2023, Programs: dnf,
		Body: "release: " + newer + "\nfloating: refuse", Setup: with(s, floating(s)),
		Error: "refused: repositories float: kernel-livepatch (its address has no release", Hint: "hold them by address under `repositories`",
	}, {
		Name: "a floating repository is held by its address", Entry: "release", Facts: al2023, Programs: dnf,
		Body:  "release: image\nfloating: refuse\nrepositories: {kernel-livepatch: " + s.URL + "/livepatch/" + pintest.GUID("lp") + "/}",
		Setup: with(s, func(m *steptest.Machine) { floating(s)(m); s.Repo("/livepatch/"+pintest.GUID("lp")+"/", "x 1-1") }),
		Drift: "repository kernel-livepatch is at " + s.URL + "/kernel-livepatch/mirrors/al2023/$basearch/mirror.list",
	}, {
		Name: "an OS that has no releases", Entry: "release", Facts: pintest.Facts("arch", "", ""), Body: "release: image",
		Error: "this machine has no package manager that is known",
	}})
}

func TestWhatFloatsIsReported(t *testing.T) {
	s := cdn(t)
	m := steptest.NewMachine(t, steptest.Options{Facts: pintest.Facts("amzn", "2023", "dnf"), Programs: pkgmgrtest.DnfReleases()})
	with(s, floating(s))(t, m)
	for body, want := range map[string]string{
		"release: " + newer:                       "repository kernel-livepatch floats: its address has no release: it has whatever its publisher puts there",
		"release: " + newer + "\nfloating: allow": "",
	} {
		st, err := steptest.Decode(pin.Kind(), "release", body)
		if err != nil {
			t.Fatal(err)
		}
		before := len(m.Output())
		if err := st.Apply(t.Context(), m.Env(step.ID{Kind: "pin", Name: "release"}, "k")); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(m.Output()[before:], "\n"); got != want {
			t.Errorf("%s: %q, want %q", body, got, want)
		}
	}
}

func TestFaults(t *testing.T) {
	steptest.Faults(t, pin.Kind(), []steptest.Fault{
		{Name: "nothing", Entry: "release", Body: "{}", Want: "manifest.yaml:1:1: pin.release: says nothing: give a release"},
		{Name: "fine", Entry: "release", Body: "{release: '{{ .Vars.release }}', by: url, hold-off: [apt-daily.timer, x@y.service]}"},
		{Name: "every field", Entry: "release", Body: `
release: "2023 9"
floating: maybe
by: magic
repositories: {docker: ftp://x, "a b": https://x/}
hold-off: [apt-daily, /x.timer]`, Want: `
manifest.yaml:1:10: pin.release.release: must be a release, image, latest or now, is "2023 9"
manifest.yaml:2:11: pin.release.floating: must be allow, report or refuse, is "maybe"
manifest.yaml:3:5: pin.release.by: must be one of url, versionlock, is "magic"
manifest.yaml:4:24: pin.release.repositories.docker: must be an address as https://example.com/repo/, is "ftp://x"
manifest.yaml:4:40: pin.release.repositories.a b: "a b" is no id of a repository
manifest.yaml:5:12: pin.release.hold-off[0]: must be a unit as apt-daily.timer, is "apt-daily"
manifest.yaml:5:23: pin.release.hold-off[1]: must be a unit as apt-daily.timer, is "/x.timer"`},
	})
}
