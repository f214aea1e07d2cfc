package sysctl

import (
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/step"
	"github.com/amiagent/amiagent/internal/step/steptest"
)

const (
	head = "# Made by amiagent from the manifest, and restored when it is changed.\n"
	file = "/etc/sysctl.d/99-zz-amiagent-vm-swappiness.conf"
	live = "/proc/sys/vm/swappiness"
)

// kernel is a machine whose kernel, plain files here, has this value.
func kernel(value string) func(*testing.T, *steptest.Machine) {
	return func(t *testing.T, m *steptest.Machine) {
		m.Mkdir("/etc/sysctl.d", 0)
		m.Write(live, 0o644, value)
	}
}

func TestSettings(t *testing.T) {
	steptest.Run(t, Kind(), []steptest.Case{
		{
			Name: "on a live machine", Entry: "vm.swappiness", Body: "value: 1", Live: true, Setup: kernel("60\n"),
			Drift: file + ` is missing; the kernel has "60", want "1"`,
			Want:  file + ` 0644 "` + strings.ReplaceAll(head, "\n", `\n`) + `vm/swappiness = 1\n"` + "\n" + live + ` 0644 "1\n"`,
			Breaks: []steptest.Break{
				{Name: "set by hand", Do: func(m *steptest.Machine) { m.Write(live, 0o644, "60\n") }, Drift: `the kernel has "60", want "1"`},
				{Name: "file removed", Do: func(m *steptest.Machine) { m.Remove(file) }, Drift: file + " is missing"},
				{Name: "file edited", Do: func(m *steptest.Machine) { m.Write(file, 0o644, "vm.swappiness = 2\n") }, Drift: file + " differs"},
				{Name: "file closed", Do: func(m *steptest.Machine) { m.Chmod(file, 0o600) }, Drift: "mode is 0600, want 0644"},
				{Name: "file made a link", Do: func(m *steptest.Machine) { m.Remove(file); m.Link("/dev/null", file) }, Drift: file + " is no file"},
				{Name: "file grown", Do: func(m *steptest.Machine) { m.Write(file, 0o644, strings.Repeat("#", 100_000)) }, Drift: file + " differs"},
			},
		},
		{
			Name: "in a tree, where no kernel is", Entry: "vm/swappiness", Body: "value: '1'",
			Drift: file + " is missing",
			Want: "/etc/ 0755\n/etc/sysctl.d/ 0755\n" +
				file + ` 0644 "` + strings.ReplaceAll(head, "\n", `\n`) + `vm/swappiness = 1\n"`,
		},
		{
			Name: "the kernel prints tabs", Entry: "vm.swappiness", Body: "value: ' 1  2 '", Live: true, None: true,
			Setup: func(t *testing.T, m *steptest.Machine) {
				m.Write(live, 0o644, "1\t2\n")
				m.Write(file, 0o644, head+"vm/swappiness = 1 2\n")
			},
		},
		{
			Name: "no such parameter", Entry: "vm.swapiness", Body: "value: 1", Live: true, Setup: kernel("60\n"),
			Drift: "the kernel has no such parameter",
			Error: "cannot set vm.swapiness: the kernel has no such parameter", Hint: "sysctl -a",
		},
		{
			Name: "a folder of parameters", Entry: "proc.vm", Body: "value: 1", Live: true,
			Setup: func(t *testing.T, m *steptest.Machine) { m.Mkdir("/proc/sys/proc/vm", 0) },
			Error: "cannot read /proc/sys/proc/vm: is a directory",
		},
		{
			Name: "a folder in the way of the file", Entry: "vm.swappiness", Body: "value: 1",
			Setup: func(t *testing.T, m *steptest.Machine) { m.Mkdir(file, 0) },
			Error: "cannot write " + file + ": it is a folder",
		},
	})
}

// The running kernel of this very test refuses in its own words. Nothing that
// is tried here changes it, whoever runs the test.
func TestRefusalsOfTheRealKernel(t *testing.T) {
	running, err := host.New("/", host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for key, x := range map[string]struct{ value, err, hint string }{
		"kernel.ostype": {"Plan9", `cannot set kernel.ostype to "Plan9": `, ""},
		"vm.swappiness": {"much", `cannot set vm.swappiness to "much": `, ""},
		"vm.no_such":    {"1", "cannot set vm.no_such: the kernel has no such parameter", "kernel module"},
	} {
		s := setting(t, key, "value: "+x.value)
		env := steptest.NewMachine(t, steptest.Options{}).Env(id(key), "k")
		env.Host = running
		err := s.Apply(t.Context(), env)
		if err == nil || !strings.HasPrefix(err.Error(), x.err) || !strings.Contains(diag.Hint(err), x.hint) || diag.Hint(err) == "" {
			t.Errorf("%v (hint %q), want %s", err, diag.Hint(err), x.err)
		}
		if running.Exists(s.file()) {
			t.Errorf("%s waits for the next boot, with a value that the kernel refused", s.file())
		}
	}
}

// What the kernel has already is not written again: of some parameters only
// the first write is allowed.
func TestKernelIsNotWrittenInVain(t *testing.T) {
	m := steptest.NewMachine(t, steptest.Options{Live: true})
	kernel("1\n")(t, m)
	before, err := m.Host.Lstat(live)
	if err != nil {
		t.Fatal(err)
	}
	if err := setting(t, "vm.swappiness", "value: 1").Apply(t.Context(), m.Env(id("vm.swappiness"), "k")); err != nil {
		t.Fatal(err)
	}
	after, err := m.Host.Lstat(live)
	if err != nil || !after.ModTime().Equal(before.ModTime()) || !m.Host.Exists(file) {
		t.Errorf("%v, %v then %v", err, before.ModTime(), after.ModTime())
	}
}

func setting(t *testing.T, key, text string) *Setting {
	t.Helper()
	s, err := steptest.Decode(Kind(), key, text)
	if err != nil {
		t.Fatal(err)
	}
	return s.(*Setting)
}

// sysctl.d(5): the separator that comes first separates, the other stands for itself.
func TestKeys(t *testing.T) {
	for key, want := range map[string][2]string{
		"vm.swappiness":                      {"/proc/sys/vm/swappiness", "vm-swappiness"},
		"vm/swappiness":                      {"/proc/sys/vm/swappiness", "vm-swappiness"},
		"net.ipv4.conf.eth0/200.forwarding":  {"/proc/sys/net/ipv4/conf/eth0.200/forwarding", "net-ipv4-conf-eth0.200-forwarding"},
		"net/ipv4/conf/eth0.200/forwarding":  {"/proc/sys/net/ipv4/conf/eth0.200/forwarding", "net-ipv4-conf-eth0.200-forwarding"},
		"net.bridge.bridge-nf-call-iptables": {"/proc/sys/net/bridge/bridge-nf-call-iptables", "net-bridge-bridge-nf-call-iptables"},
	} {
		s := setting(t, key, "value: 1")
		if s.live() != want[0] || s.file() != "/etc/sysctl.d/99-zz-amiagent-"+want[1]+".conf" {
			t.Errorf("%s is %s and %s, want %s", key, s.live(), s.file(), want)
		}
	}
}

func TestFaults(t *testing.T) {
	steptest.Faults(t, Kind(), []steptest.Fault{
		{Name: "no value", Entry: "vm.swappiness", Body: "{}", Want: `
			manifest.yaml:1:1: sysctl.vm.swappiness.value: must be given`},
		{Name: "an empty value is one", Entry: "kernel.core_pattern", Body: "value: ''"},
		{Name: "two lines", Entry: "vm.swappiness", Body: `value: "1\nkernel.panic = 1"`, Want: `
			manifest.yaml:1:8: sysctl.vm.swappiness.value: must be one line`},
		{Name: "a last line end is none", Entry: "vm.swappiness", Body: "value: |\n  1\n"},
		{Name: "a pattern", Entry: "net.ipv4.conf.*.rp_filter", Body: "valeu: 1", Want: `
			manifest.yaml:1:1: sysctl.net.ipv4.conf.*.rp_filter.valeu: unknown key, did you mean "value"?
			manifest.yaml:1:1: sysctl.net.ipv4.conf.*.rp_filter: "net.ipv4.conf.*.rp_filter" is no kernel parameter
			hint: write one key, as vm.swappiness; patterns are not accepted
			manifest.yaml:1:1: sysctl.net.ipv4.conf.*.rp_filter.value: must be given`},
		{Name: "out of the folder", Entry: "../../etc/passwd", Body: "value: 1", Want: `
			manifest.yaml:1:1: sysctl.../../etc/passwd: "../../etc/passwd" is no kernel parameter
			hint: write one key, as vm.swappiness; patterns are not accepted`},
		{Name: "one word", Entry: "swappiness", Body: "value: 1", Want: `
			manifest.yaml:1:1: sysctl.swappiness: "swappiness" is no kernel parameter
			hint: write one key, as vm.swappiness; patterns are not accepted`},
		{Name: "a template is not judged yet", Entry: "vm.swappiness", Body: "value: '{{ .Vars.x }}'"},
	})
}

var _ step.Named = (*Setting)(nil)

func id(key string) step.ID { return step.ID{Kind: "sysctl", Name: key} }
