package identify_test

import (
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/identify"
)

// on identifies a machine of these files, without metadata.
func on(t *testing.T, files map[string]string) *facts.Facts {
	t.Helper()
	f, err := identify.Identify(t.Context(), identify.Options{Host: tree(t, files)})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func with(m map[string]string, more ...string) map[string]string {
	m = maps.Clone(m)
	if m == nil {
		m = map[string]string{}
	}
	for i := 0; i < len(more); i += 2 {
		m[more[i]] = more[i+1]
	}
	return m
}

func programs(paths ...string) map[string]string {
	m := map[string]string{}
	for _, p := range paths {
		m[p+"*"] = "#!/bin/sh\n"
	}
	return m
}

func TestDistributions(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, release string
		programs      map[string]string
		id, version   string
		like          string
		family        string
	}{
		{"Amazon Linux 2023", "ID=\"amzn\"\nID_LIKE=\"fedora\"\nVERSION_ID=\"2023\"\n", with(programs("/usr/bin/dnf-3"), "/usr/bin/dnf", "->dnf-3", "/usr/bin/yum", "->dnf-3"), "amzn", "2023", "fedora", "dnf"},
		{"Amazon Linux 2", "ID=\"amzn\"\nID_LIKE=\"centos rhel fedora\"\nVERSION_ID=\"2\"\n", programs("/usr/bin/yum"), "amzn", "2", "centos rhel fedora", "yum"},
		{"Ubuntu", "ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"22.04\"\n", programs("/usr/bin/apt-get"), "ubuntu", "22.04", "debian", "apt"},
		{"Debian with dnf beside apt", "ID=debian\nVERSION_ID='12'\n", programs("/usr/bin/apt-get", "/usr/bin/dnf"), "debian", "12", "", "apt"},
		{"Debian testing, which has no version", "ID=debian\n", programs("/usr/bin/apt-get"), "debian", "", "", "apt"},
		{"Fedora with dnf 5", "ID=fedora\nVERSION_ID=42\n", with(programs("/usr/bin/dnf5"), "/usr/bin/dnf", "->dnf5"), "fedora", "42", "", "dnf5"},
		{"Fedora with dnf 5 beside dnf", "ID=fedora\nVERSION_ID=40\n", with(programs("/usr/bin/dnf5", "/usr/bin/dnf-3"), "/usr/bin/dnf", "->/usr/bin/dnf-3"), "fedora", "40", "", "dnf"},
		{"Fedora with dnf 5 alone", "ID=fedora\nVERSION_ID=43\n", programs("/usr/bin/dnf5"), "fedora", "43", "", "dnf5"},
		{"Amazon Linux with apt", "ID=amzn\n", programs("/usr/bin/apt-get"), "amzn", "", "", ""},
		{"SUSE", "ID=\"sles\"\nID_LIKE=\"suse\"\nVERSION_ID=\"15.6\"\n", programs("/usr/bin/zypper"), "sles", "15.6", "suse", ""},
		{"a relative of Debian's", "ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", programs("/usr/bin/apt-get"), "linuxmint", "", "ubuntu debian", "apt"},
		{"an unknown one", "ID=own\n", programs("/usr/bin/dnf"), "own", "", "", "dnf"},
	} {
		f := on(t, with(tc.programs, "/usr/lib/os-release", tc.release, "/etc/os-release", "->../usr/lib/os-release"))
		got := []string{f.Get(facts.OSID), f.Get(facts.OSVersion), f.Get(facts.OSLike), f.Get(facts.PackageFamily)}
		if want := []string{tc.id, tc.version, tc.like, tc.family}; !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", tc.name, got, want)
		}
	}
}

func TestOSReleaseQuoting(t *testing.T) {
	t.Parallel()
	f := on(t, map[string]string{"/etc/os-release": "# comment\n\nID='o\\s'\nVERSION_ID=\"1\\$\\\"2\"\nID_LIKE=\nVERSION_CODENAME=book\\ worm\nnonsense\n#ID=other\n"})
	if f.Get(facts.OSID) != `o\s` || f.Get(facts.OSVersion) != `1$"2` || f.Get("os.codename") != "book worm" {
		t.Errorf("\n%s", table(f))
	}
	if _, known := f.Lookup(facts.OSLike); known {
		t.Error("an empty value is no fact")
	}
}

func TestArchitectureIsThatOfTheRoot(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"amd64", map[string]string{"/bin/sh": elf(62)}, "amd64"},
		{"arm64, behind links", map[string]string{"/bin": "->usr/bin", "/usr/bin/sh": "->/usr/bin/dash", "/usr/bin/dash": elf(183)}, "arm64"},
		{"386", map[string]string{"/bin/sh": elf(3)}, "386"},
		{"a shell that is a script", map[string]string{"/bin/sh": "#!/bin/busybox and more than twenty bytes", "/usr/bin/env": elf(183)}, "arm64"},
		{"an empty root", nil, runtime.GOARCH},
		{"something else", map[string]string{"/bin/sh": elf(243)}, runtime.GOARCH},
	} {
		if got := on(t, tc.files).Get(facts.Arch); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

func TestVirtualisation(t *testing.T) {
	t.Parallel()
	const dmi = "/sys/class/dmi/id/"
	for _, tc := range []struct {
		files map[string]string
		want  string
	}{
		{map[string]string{dmi + "sys_vendor": "Amazon EC2\n", dmi + "product_name": "m7i.large\n"}, "amazon"},
		{map[string]string{dmi + "sys_vendor": "Amazon EC2\n", dmi + "product_name": "m7i.metal-24xl\n"}, "none"},
		{map[string]string{dmi + "sys_vendor": "Amazon EC2\n", dmi + "product_name": "c5.metal\n"}, "none"},
		{map[string]string{dmi + "sys_vendor": "Xen\n", dmi + "product_name": "HVM domU\n"}, "xen"},
		{map[string]string{"/sys/hypervisor/type": "xen\n"}, "xen"},
		{map[string]string{dmi + "sys_vendor": "QEMU\n", dmi + "product_name": "Standard PC (Q35 + ICH9, 2009)\n"}, "qemu"},
		{map[string]string{dmi + "product_name": "KVM\n", dmi + "sys_vendor": "QEMU\n"}, "kvm"},
		{map[string]string{dmi + "sys_vendor": "LENOVO\n", "/proc/cpuinfo": "flags : fpu vme\n"}, "none"},
		{map[string]string{"/proc/cpuinfo": "flags : fpu hypervisor vme\n"}, "vm-other"},
		{map[string]string{"/run/systemd/container": "systemd-nspawn\n", dmi + "sys_vendor": "Amazon EC2\n"}, "systemd-nspawn"},
		{map[string]string{"/proc/1/environ": "PATH=/bin\x00container=lxc\x00", "/proc/cpuinfo": ""}, "lxc"},
		{map[string]string{"/.dockerenv": ""}, "docker"},
		{map[string]string{"/run/.containerenv": ""}, "podman"},
		{nil, ""},
	} {
		if got := on(t, tc.files).Get(facts.Virt); got != tc.want {
			t.Errorf("%q: %q, want %q", tc.files, got, tc.want)
		}
	}
}

func TestMachineIDThatIsToCome(t *testing.T) {
	t.Parallel()
	for _, content := range []string{"uninitialized\n", ""} {
		if _, known := on(t, map[string]string{"/etc/machine-id": content}).Lookup(facts.MachineID); known {
			t.Errorf("%q is no id", content)
		}
	}
}

func TestImageIdentity(t *testing.T) {
	t.Parallel()
	f := on(t, map[string]string{identify.ImagePath: `{"format":1,"name":"web-base","serial":7,"sealed":true,"digests":{"lock":"sha256:ab"},"packages":["x"]}`})
	var got []string
	for _, name := range f.Names() {
		if strings.HasPrefix(name, "image.") {
			v := f.Values[name]
			got = append(got, name+"="+v.Value+" "+v.Stage.String()+" "+v.Source)
		}
	}
	want := []string{"image.digests.lock=sha256:ab bake image", "image.name=web-base bake image", "image.sealed=true bake image", "image.serial=7 bake image"}
	if !slices.Equal(got, want) || f.Notes != nil {
		t.Errorf("got %q, notes %q", got, f.Notes)
	}
}

func TestFaultyImageIdentityIsANote(t *testing.T) {
	t.Parallel()
	const begin = "cannot read image identity /usr/lib/amiagent/image.json: "
	for content, want := range map[string]string{
		`{"format":2,"name":"x"}`: begin + "format 2, this agent knows 1",
		`{"name":"x"}`:            begin + "format <nil>, this agent knows 1",
		`{`:                       begin + "unexpected end of JSON input",
	} {
		f := on(t, map[string]string{identify.ImagePath: content})
		if _, known := f.Lookup(facts.ImageName); known || !slices.Equal(f.Notes, []string{want}) {
			t.Errorf("%s: notes %q, want %q", content, f.Notes, want)
		}
	}
}

func FuzzOSRelease(f *testing.F) {
	f.Add("ID=amzn\nVERSION_ID=\"2023\"\n")
	f.Add("ID='\nID=\"\\")
	f.Fuzz(func(t *testing.T, text string) {
		for name := range identify.ParseOSRelease(text) {
			if strings.ContainsAny(name, "\n=") {
				t.Errorf("name %q", name)
			}
		}
	})
}
