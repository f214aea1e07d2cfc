package systemd

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/go-systemd/v22/unit"
)

// read gives a unit's settings as "Section.Name" → values in order.
func read(t *testing.T, name string) map[string][]string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	options, err := unit.DeserializeOptions(f)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	settings := map[string][]string{}
	for _, o := range options {
		key := o.Section + "." + o.Name
		settings[key] = append(settings[key], o.Value)
	}
	return settings
}

func units(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, pattern := range []string{"*.service", "*.target"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, found...)
	}
	if len(names) != 5 {
		t.Fatalf("units are %q", names)
	}
	return names
}

func TestBootOrderIsTheOneThatIsCleanOnEveryCloudInit(t *testing.T) {
	s := read(t, "amiagent.service")
	for key, want := range map[string]string{
		"Unit.After":           "network-online.target cloud-config.target",
		"Unit.Before":          "cloud-config.service cloud-final.service",
		"Unit.Wants":           "network-online.target",
		"Install.WantedBy":     "multi-user.target",
		"Service.Type":         "notify",
		"Service.NotifyAccess": "main",
		"Service.KillMode":     "mixed",
		"Service.ExecStart":    "/usr/bin/amiagent run",
		"Service.ExecReload":   "/usr/bin/amiagent reload",
	} {
		if got := strings.Join(s[key], " ; "); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
}

func TestOneFileOrOneKernelOptionSkipsEverything(t *testing.T) {
	for _, name := range []string{"amiagent.service", "amiagent-health.service", "amiagent-gate.service"} {
		s := read(t, name)
		if !slices.Equal(s["Unit.ConditionPathExists"], []string{"!/etc/amiagent/disabled"}) ||
			!slices.Equal(s["Unit.ConditionKernelCommandLine"], []string{"!amiagent=off"}) {
			t.Errorf("%s starts in spite of them", name)
		}
	}
}

// A launch that fails must fail the gate, and restarting the agent must restart nobody.
func TestNobodyIsBoundToTheAgentItself(t *testing.T) {
	for _, name := range units(t) {
		s := read(t, name)
		for _, key := range []string{"Unit.Requires", "Unit.BindsTo", "Unit.PartOf", "Unit.Requisite"} {
			if slices.Contains(s[key], "amiagent.service") {
				t.Errorf("%s: %s=amiagent.service restarts it with the agent", name, key)
			}
		}
	}
	target, gate := read(t, "amiagent-ready.target"), read(t, "amiagent-gate.service")
	for _, key := range []string{"Unit.Requires", "Unit.After"} {
		if !slices.Equal(target[key], []string{"amiagent-gate.service"}) {
			t.Errorf("target: %s is %q", key, target[key])
		}
	}
	if gate["Service.RemainAfterExit"][0] != "yes" || gate["Service.ExecStart"][0] != "/usr/bin/amiagent wait" {
		t.Errorf("gate: %q", gate)
	}
}

func TestTheResponderNeedsNeitherAgentNorNetworkNorRoot(t *testing.T) {
	s := read(t, "amiagent-health.service")
	for key := range s {
		if slices.Contains([]string{"Unit.Requires", "Unit.Wants", "Unit.After", "Unit.BindsTo", "Unit.PartOf"}, key) {
			t.Errorf("%s=%s", key, s[key])
		}
	}
	if s["Service.User"][0] != "amiagent-health" || s["Service.CapabilityBoundingSet"][0] != "" {
		t.Errorf("user %q, capabilities %q", s["Service.User"], s["Service.CapabilityBoundingSet"])
	}
	users, err := os.ReadFile("sysusers.d/amiagent.conf")
	if err != nil || !strings.Contains(string(users), "\nu amiagent-health - ") {
		t.Errorf("its user is not made: %v", err)
	}
}

// systemd 219 (Amazon Linux 2) passes over the groups of a system call filter: an
// allow list would be empty there. It knows start limits only in [Service].
func TestSystemd219(t *testing.T) {
	for _, name := range units(t) {
		s := read(t, name)
		for _, v := range s["Service.SystemCallFilter"] {
			if !strings.HasPrefix(v, "~") {
				t.Errorf("%s: SystemCallFilter=%s would allow nothing", name, v)
			}
		}
		for _, key := range []string{"Unit.StartLimitIntervalSec", "Unit.StartLimitBurst", "Service.StartLimitIntervalSec", "Service.DynamicUser"} {
			if s[key] != nil {
				t.Errorf("%s: %s is not known there", name, key)
			}
		}
		for key, values := range s { // "infinity" came with 229
			if strings.HasPrefix(key, "Service.Timeout") && slices.Contains(values, "infinity") {
				t.Errorf("%s: %s=infinity", name, key)
			}
		}
	}
}

// The agent's verdicts are its exit codes; only a crash is worth another try, and a
// panic must not pass for exit code 2, "faulty document".
func TestOnlyACrashIsTriedAgain(t *testing.T) {
	s := read(t, "amiagent.service")
	if s["Service.Restart"][0] != "on-failure" || s["Service.RestartPreventExitStatus"][0] != "1 2 5 6" || !slices.Contains(s["Service.Environment"], "GOTRACEBACK=crash") {
		t.Errorf("%q", s)
	}
	if s["Service.StartLimitBurst"] == nil || s["Service.StartLimitInterval"] == nil {
		t.Error("a crash is tried again without end")
	}
}

func TestTheDrainUnitStopsFirst(t *testing.T) {
	s := read(t, "amiagent-drain.service")
	for _, unit := range []string{"amiagent.service", "amiagent-health.service"} {
		if !strings.Contains(s["Unit.After"][0]+" ", unit+" ") {
			t.Errorf("it does not stop before %s", unit)
		}
	}
	if s["Install.WantedBy"] != nil {
		t.Error("it must be started by the agent, at READY")
	}
	if s["Service.ExecStop"][0] != "-/usr/bin/amiagent drain --shutdown" {
		t.Errorf("ExecStop is %q", s["Service.ExecStop"])
	}
}
