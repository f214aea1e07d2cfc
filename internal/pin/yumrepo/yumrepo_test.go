package yumrepo

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/pin/pintest"
	"github.com/amiagent/amiagent/internal/step/steptest"
)

func machine(t *testing.T, files map[string]string) *steptest.Machine {
	t.Helper()
	m := steptest.NewMachine(t, steptest.Options{Facts: pintest.Facts("amzn", "2023", "dnf")})
	for name, text := range files {
		m.Write(name, 0o644, text)
	}
	return m
}

// What a variable's file means is the programs' own reading of it, quirks included.
func TestVariablesAreReadAsTheManagersDo(t *testing.T) {
	m := machine(t, map[string]string{
		"/etc/yum/vars/releasever": "2023.7\n", "/etc/dnf/vars/releasever": "2023.6\nsecond line\n",
		"/usr/share/dnf5/vars.d/releasever": "2023.5", "/usr/share/dnf5/vars.d/only5": "x",
		"/etc/yum/vars/empty": "", "/etc/yum/vars/crlf": "a\r\n", "/etc/yum/vars/padded": " b \n", "/real": "linked\n",
		"/etc/dnf/vars/folder/x": "no variable",
	})
	m.Link("/real", "/etc/yum/vars/link")
	m.Link("/nowhere", "/etc/yum/vars/dangling")
	for name, want := range map[string]string{
		"dnf":  `crlf="a" empty="" link="linked" padded=" b " releasever="2023.6"`, // dnf's folder stands above yum's
		"dnf5": `only5="x" releasever="2023.6"`,                                    // and it reads no folder of yum's
		"yum":  `crlf="a" empty="" padded=" b " releasever="2023.7"`,               // which follows no links
	} {
		vars, err := DialectOf(name).Vars(m.Host)
		var got []string
		for n, v := range vars {
			got = append(got, fmt.Sprintf("%s=%q", n, v.Value))
		}
		slices.Sort(got)
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %s, %v, want %s", name, strings.Join(got, " "), err, want)
		}
	}
}

func TestExpand(t *testing.T) {
	vars := map[string]string{"releasever": "2023.9", "awsregion": "us-east-1", "dualstack": "", "a": "$b", "b": "never"}
	for text, want := range map[string]string{
		"https://al2023-repos-$awsregion-de612dc2.s3$dualstack.$awsregion.x/$releasever/": "https://al2023-repos-us-east-1-de612dc2.s3.us-east-1.x/2023.9/ []",
		"${releasever}x/$releaseverx/$$": "2023.9x/$releaseverx/$$ [releaseverx]",
		"$a":                             "$b []", // once
		"$x/$x/$y":                       "$x/$x/$y [x y]",
	} {
		out, unknown := Expand(text, vars)
		if got := fmt.Sprint(out, " ", unknown); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	if !Uses("x/${releasever}/", "releasever") || Uses("x/$releasever_major/", "releasever") {
		t.Error("a variable is taken for another")
	}
}

func TestRepositoriesAreReadFromAllTheirFiles(t *testing.T) {
	m := machine(t, map[string]string{
		"/etc/dnf/dnf.conf":            "[main]\ngpgcheck=1\nproxy = http://proxy:3128\n[inmain]\nbaseurl=http://x/\n",
		"/etc/yum.repos.d/a.repo":      "# comment\n[a]\nname = A\nmirrorlist = http://m/$releasever\npriority=10\n; another\n[off]\nbaseurl=http://off/\nenabled=0\n",
		"/etc/yum.repos.d/b.repo":      "[b]\nbaseurl=\n  http://one/\n  http://two/\nenabled: yes\n[nothing]\nname=no address\n",
		"/etc/yum.repos.d/c.repo.save": "[c]\nbaseurl=http://c/\n",
		"/etc/distro.repos.d/d.repo":   "[d]\nmetalink=http://d/\nbaseurl=http://ignored/\n",
	})
	c, err := Load(m.Host, m.Facts, DialectOf("dnf"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range c.Repos {
		got = append(got, fmt.Sprintf("%s %s %s %t %d", r.ID, r.Kind, r.Address, r.Enabled, r.Priority))
	}
	want := "inmain baseurl http://x/ true 99\na mirrorlist http://m/$releasever true 10\noff baseurl http://off/ false 99\nb baseurl http://one/ true 99\nd metalink http://d/ true 99"
	if strings.Join(got, "\n") != want || c.Main["proxy"] != "http://proxy:3128" {
		t.Errorf("%s\nwant:\n%s\nmain: %v", strings.Join(got, "\n"), want, c.Main)
	}
}

func TestWhatFloats(t *testing.T) {
	guid := pintest.GUID("x")
	for _, x := range []struct {
		kind, address string
		floats        bool
	}{
		{"mirrorlist", "http://x/$releasever/mirror.list", false},
		{"baseurl", "http://x/${releasever}/", false},
		{"baseurl", "http://x/guids/" + guid + "/x86_64/", false},
		{"mirrorlist", "http://x/guids/" + guid + "/mirror.list", true}, // a list may lead elsewhere tomorrow
		{"mirrorlist", "http://x/al2023/mirror.list", true},
		{"baseurl", "http://x/latest/", true},
	} {
		if got := (&Config{}).Floats(Repo{Kind: x.kind, Address: x.address}); (got != "") != x.floats {
			t.Errorf("%s %s: %q", x.kind, x.address, got)
		}
	}
}

func TestFreezeAndThawAreOpposites(t *testing.T) {
	for _, text := range []string{
		"[a]\nname=A\nmirrorlist=http://m/\nenabled=1\n\n[b]\nbaseurl=http://b/\n",
		"[a]\nmirrorlist = http://m/\nmetalink=http://n/",
		"[b]\nx=1\n[a]\nbaseurl=http://one/\n  http://two/\n\tname=still the address\nname=A\n",
		"[a]\n", "[b]\nbaseurl=http://b/\n", "",
	} {
		once := frozen(text, "a", "http://frozen/")
		if strings.Contains(text, "[a]") && text != "[a]\n" {
			sections := ParseINI("x", once)
			i := slices.IndexFunc(sections, func(s Section) bool { return s.ID == "a" })
			if v := sections[i].Values; v["baseurl"] != "http://frozen/" || v["mirrorlist"]+v["metalink"] != "" {
				t.Errorf("%q is frozen to %q", text, once)
			}
			again := frozen(once, "a", "http://other/")
			if again != strings.Replace(once, "frozen", "other", 1) {
				t.Errorf("frozen twice: %q", again)
			}
		}
		if back := thawed(once, "a"); back != text {
			t.Errorf("%q comes back as %q", text, back)
		}
	}
}

func TestTheReleaseInAnAddress(t *testing.T) {
	for _, x := range []struct{ template, address, want string }{
		{"https://x-$awsregion.s3$dualstack/core/mirrors/$releasever/$basearch/$mirrorlist", "https://x-us-east-1.s3/core/mirrors/2023.9.1/x86_64/mirror.list?instance_id=i-1", "2023.9.1"},
		{"http://x/$releasever/y", "http://x//y", ""},
		{"http://x/$releasever/y", "http://x/2023 /y", "2023 "},
		{"http://x/${releasever}/y, http://z", "http://x/9.4/y, http://z", "9.4"},
	} {
		if got, ok := matchRelease(x.template, x.address); !ok || got != x.want {
			t.Errorf("%s: %q %t", x.address, got, ok)
		}
	}
	if got, ok := matchRelease("http://x/latest", "http://x/latest"); ok {
		t.Errorf("a release where there is none: %q", got)
	}
}

// An empty variable is worse than none, and an unfinished file in the folder is a variable.
func TestAVariableIsWrittenWhole(t *testing.T) {
	m := machine(t, nil)
	for _, bad := range []string{"", " ", "a\nb", "\n"} {
		if err := WriteVar(t.Context(), m.Host, "/etc/dnf/vars/releasever", bad); err == nil {
			t.Errorf("%q was written", bad)
		}
	}
	if m.Host.Exists("/etc/dnf/vars/releasever") {
		t.Error("a variable that was refused is there")
	}
	m.Write("/real", 0o644, "x\n")
	m.Link("/real", "/etc/dnf/vars/releasever") // yum would not follow it
	if err := WriteVar(t.Context(), m.Host, "/etc/dnf/vars/releasever", "2023.9"); err != nil {
		t.Fatal(err)
	}
	st, err := m.Host.Lstat("/etc/dnf/vars/releasever")
	if err != nil || !st.Mode().IsRegular() || st.Mode().Perm() != 0o644 || m.Read("/etc/dnf/vars/releasever") != "2023.9\n" || m.Read("/real") != "x\n" {
		t.Errorf("%v, %v", st, err)
	}
	for _, dir := range []string{"/etc/dnf", "/etc/dnf/vars"} {
		entries, err := m.Host.ReadDir(dir)
		if err != nil || len(entries) != 1 {
			t.Errorf("%s has %v, %v", dir, entries, err)
		}
	}
}

func TestSwappedPutsFilesBackWhenTheWorkFails(t *testing.T) {
	m := machine(t, map[string]string{"/a": "old", "/b": "same"})
	before := m.Tree()
	failed := errors.New("no")
	err := host.Swapped(t.Context(), m.Host, []string{"/a", "/b", "/c"}, func() error {
		m.Write("/a", 0o644, "new")
		m.Write("/c", 0o644, "made")
		return failed
	})
	if diff := steptest.Changes(before, m.Tree()); !errors.Is(err, failed) || diff != "" {
		t.Errorf("%v, changed:\n%s", err, diff)
	}
}

func FuzzFreeze(f *testing.F) {
	f.Add("[a]\nmirrorlist=x\n  y\n[b]\nz=1\n")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, was) || strings.Contains(text, "[a]\nbaseurl=") {
			t.Skip()
		}
		once := frozen(text, "a", "http://frozen/")
		if strings.Contains(once, was) && thawed(once, "a") != text {
			t.Errorf("%q comes back as %q", text, thawed(once, "a"))
		}
	})
}
