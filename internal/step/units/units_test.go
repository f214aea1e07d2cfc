package units

import (
	"os"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/decode"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/step"
	"github.com/amiagent/amiagent/internal/step/steptest"
)

const appText = "[Service]\nExecStart=/opt/app/bin/app\n[Install]\nWantedBy=multi-user.target\n"

// Nothing here runs systemd: the machines are trees, as an image build has
// them. What runs is tested in a booted system, see booted_test.go.
func TestUnitsOfATree(t *testing.T) {
	steptest.Run(t, Kind(), []steptest.Case{
		{
			Name: "own file, drop-in, enabled", Entry: "app.service",
			Body: "content: |\n  [Service]\n  ExecStart=/opt/app/bin/app\n  [Install]\n  WantedBy=multi-user.target\n" +
				"drop-ins:\n  limits: |\n    [Service]\n    LimitNOFILE=65536\n" +
				"enabled: true\nstate: started\n",
			Drift: "/etc/systemd/system/app.service is missing",
			Want: `
				/etc/ 0755
				/etc/systemd/ 0755
				/etc/systemd/system/ 0755
				/etc/systemd/system/app.service 0644 "[Service]\nExecStart=/opt/app/bin/app\n[Install]\nWantedBy=multi-user.target\n"
				/etc/systemd/system/app.service.d/ 0755
				/etc/systemd/system/app.service.d/limits.conf 0644 "[Service]\nLimitNOFILE=65536\n"
				/etc/systemd/system/multi-user.target.wants/ 0755
				/etc/systemd/system/multi-user.target.wants/app.service -> /etc/systemd/system/app.service`,
			Breaks: []steptest.Break{
				{Name: "file edited", Do: func(m *steptest.Machine) { m.Write("/etc/systemd/system/app.service", 0o644, appText+"# mine\n") }, Drift: "/etc/systemd/system/app.service differs"},
				{Name: "file edited, as long as before", Do: func(m *steptest.Machine) {
					m.Write("/etc/systemd/system/app.service", 0o644, strings.Replace(appText, "/opt/app", "/opt/bad", 1))
				}, Drift: "/etc/systemd/system/app.service differs"},
				{Name: "file made private", Do: func(m *steptest.Machine) { m.Write("/etc/systemd/system/app.service", 0o600, appText) }, Drift: "mode of /etc/systemd/system/app.service is 0600, want 0644"},
				{Name: "drop-in removed", Do: func(m *steptest.Machine) { m.Remove("/etc/systemd/system/app.service.d/limits.conf") }, Drift: "limits.conf is missing"},
				{Name: "disabled", Do: func(m *steptest.Machine) { m.Remove("/etc/systemd/system/multi-user.target.wants/app.service") }, Drift: "is disabled, want enabled"},
				{Name: "masked", Do: func(m *steptest.Machine) {
					m.Remove("/etc/systemd/system/app.service")
					if err := os.Symlink("/dev/null", m.Path("/etc/systemd/system/app.service")); err != nil {
						panic(err)
					}
				}, Drift: "is a link to /dev/null, want a file"},
			},
		},
		{
			Name: "a package's unit, disabled and left running", Entry: "noise.timer", Body: "enabled: false\n",
			Setup: func(t *testing.T, m *steptest.Machine) {
				m.Write("/usr/lib/systemd/system/noise.timer", 0o644, "[Timer]\n[Install]\nWantedBy=timers.target\n")
				m.Mkdir("/etc/systemd/system/timers.target.wants", 0)
				if err := os.Symlink("/usr/lib/systemd/system/noise.timer", m.Path("/etc/systemd/system/timers.target.wants/noise.timer")); err != nil {
					t.Fatal(err)
				}
			},
			Drift: "is enabled, want disabled", Want: "/etc/systemd/system/timers.target.wants/noise.timer gone",
		},
		{
			Name: "masked, though there is no such unit", Entry: "never.service", Body: "masked: true\nstate: stopped\n",
			Drift: "is not masked",
			Want:  "/etc/ 0755\n/etc/systemd/ 0755\n/etc/systemd/system/ 0755\n/etc/systemd/system/never.service -> /dev/null",
		},
		{
			Name: "unmasked and enabled in one", Entry: "back.service", Body: "masked: false\nenabled: true\n",
			Setup: func(t *testing.T, m *steptest.Machine) {
				m.Write("/usr/lib/systemd/system/back.service", 0o644, appText)
				m.Mkdir("/etc/systemd/system", 0)
				if err := os.Symlink("/dev/null", m.Path("/etc/systemd/system/back.service")); err != nil {
					t.Fatal(err)
				}
			},
			Drift: "is masked",
			Want: "/etc/systemd/system/back.service gone\n/etc/systemd/system/multi-user.target.wants/ 0755\n" +
				"/etc/systemd/system/multi-user.target.wants/back.service -> /usr/lib/systemd/system/back.service",
		},
		{
			Name: "an instance", Entry: "app@1.service", Body: "enabled: true\n",
			Setup: func(t *testing.T, m *steptest.Machine) {
				m.Write("/usr/lib/systemd/system/app@.service", 0o644, appText)
			},
			Drift: "is disabled, want enabled",
		},
		{Name: "what runs is no matter of a tree", Entry: "sshd.service", Body: "state: started\nrestart-on: [files./etc/ssh/sshd_config]\n", None: true},
		{
			Name: "enabled, without a file", Entry: "none.service", Body: "enabled: true\n",
			Error: "cannot enable none.service: there is no unit file of this name",
		},
		{
			Name: "enabled, nothing to enable", Entry: "static.service", Body: "enabled: true\n",
			Setup: func(t *testing.T, m *steptest.Machine) {
				m.Write("/usr/lib/systemd/system/static.service", 0o644, "[Service]\n")
			},
			Drift: "is static, want enabled",
			Error: "cannot enable static.service: its file has no [Install] section", Hint: "leave `enabled` out",
		},
	})
}

func TestFaults(t *testing.T) {
	steptest.Faults(t, Kind(), []steptest.Fault{
		{Name: "none", Entry: "a-b:c@1.service", Body: "state: started"},
		{Name: "no type", Entry: "app", Body: "state: started", Want: `
			manifest.yaml:1:1: units.app: "app" names no unit: its type is missing, as .service or .timer
			hint: did you mean app.service?`},
		{Name: "a wrong type", Entry: "app.servce", Body: "state: started", Want: `
			manifest.yaml:1:1: units.app.servce: "app.servce" names no unit: its type is missing, as .service or .timer
			hint: did you mean app.service?`},
		{Name: "a dotted name without a type", Entry: "com.example.app", Body: "state: started", Want: `
			manifest.yaml:1:1: units.com.example.app: "com.example.app" names no unit: its type is missing, as .service or .timer
			hint: did you mean com.example.app.service?`},
		{Name: "a folder", Entry: "../app.service", Body: "state: started", Want: `
			manifest.yaml:1:1: units.../app.service: "../app.service" cannot name a unit: use letters, digits, ':', '_', '.', '-', '\' and one '@', at most 255`},
		{Name: "a template that should run", Entry: "app@.service", Body: "state: started", Want: `
			manifest.yaml:1:8: units.app@.service.state: app@.service is a template, which cannot run
			hint: name an instance, as app@1.service`},
		{Name: "states", Entry: "app.service", Body: "state: running\nrestart-on: [files]\ntimeout: -1s\nreload: true\n", Want: `
			manifest.yaml:1:8: units.app.service.state: must be started or stopped, is "running"
			manifest.yaml:2:14: units.app.service.restart-on[0]: "files" names no step, write kind.name, as files./etc/motd
			manifest.yaml:3:10: units.app.service.timeout: must not be negative, is -1s`},
		{Name: "restarts of what is not started", Entry: "app.service", Body: "enabled: true\nrestart-on: [files./etc/x]\n", Want: "manifest.yaml:2:13: units.app.service.restart-on: needs `state: started`: nothing restarts a unit that nothing keeps started"},
		{Name: "reload of nothing", Entry: "app.service", Body: "state: started\nreload: true\n", Want: "manifest.yaml:2:9: units.app.service.reload: needs restart-on"},
		{Name: "a mask and more", Entry: "app.service", Body: "masked: true\nstate: started\n", Want: "manifest.yaml:1:9: units.app.service.masked: a masked unit cannot be started"},
		{Name: "a mask and a file", Entry: "app.service", Body: "masked: true\ncontent: \"[Service]\"\n", Want: "manifest.yaml:1:9: units.app.service.masked: a masked unit has no content: the mask lies where the file would"},
		{Name: "a mask and a link", Entry: "app.service", Body: "masked: true\nenabled: true\n", Want: "manifest.yaml:1:9: units.app.service.masked: a masked unit cannot be enabled"},
		{Name: "enabled without [Install]", Entry: "app.service", Body: "enabled: true\ncontent: |\n  [Service]\n  ExecStart=/x\n", Want: `
			manifest.yaml:1:10: units.app.service.enabled: the content has no [Install] section, so nothing can enable the unit
			hint: add [Install] with WantedBy=multi-user.target`},
		{Name: "the [Install] of a drop-in", Entry: "app.service", Body: "enabled: true\ncontent: |\n  [Service]\n  ExecStart=/x\ndrop-ins: {i: \"[Install]\\nWantedBy=x.target\"}\n"},
		{Name: "a template text is judged when it is rendered", Entry: "app.service", Body: "enabled: true\nstate: \"{{ .Vars.s }}\"\ncontent: |\n  {{ .Vars.unit }}\n"},
		{Name: "text", Entry: "app.service", Body: "content: |\n  ExecStart=/x\n  [Sevice]\n  ExecStart=/x \\\n    # comment in between\n    --more text\n  Restart always\n  [X-Mine]\n  a=b\n  [Timer]\n  [Unit\n  Description=x\n", Want: `
			manifest.yaml:1:10: units.app.service.content: line 1 of the unit: "ExecStart=/x" stands before the first section
			manifest.yaml:1:10: units.app.service.content: line 2 of the unit: unknown section [Sevice], did you mean [Service]?
			manifest.yaml:1:10: units.app.service.content: line 6 of the unit: "Restart always" is no assignment, write Key=value
			manifest.yaml:1:10: units.app.service.content: line 9 of the unit: unknown section [Timer], known are [Unit], [Install], [Service]
			manifest.yaml:1:10: units.app.service.content: line 10 of the unit: "[Unit" is no section, write [Name]`},
		{Name: "no section of its own", Entry: "app.timer", Body: "content: |\n  [Unit]\n  Description=x\n", Want: `
			manifest.yaml:1:10: units.app.timer.content: has no section [Timer], without which systemd does not load a timer`},
		{Name: "a target needs none", Entry: "app.target", Body: "content: |\n  [Unit]\n  Description=x\n"},
		{Name: "a drop-in needs none, but a name", Entry: "app.service", Body: "drop-ins:\n  good.conf: |\n    [Unit]\n    After=x.target\n  a/b: \"[Unit]\"\n", Want: `
			manifest.yaml:5:8: units.app.service.drop-ins.a/b: "a/b" cannot name a drop-in: use letters, digits, '_', '.' or '-'`},
		{Name: "an unknown key", Entry: "app.service", Body: "restart_on: []\n", Want: `
			manifest.yaml:1:1: units.app.service.restart_on: unknown key, did you mean "restart-on"?`},
	})
}

func TestPowers(t *testing.T) {
	var u step.Step = &Unit{State: started, RestartOn: []step.ID{{Kind: "files", Name: "/a"}}}
	if !u.(step.Runner).Runs() || len(u.(step.Watcher).Watches()) != 1 {
		t.Error("a started unit runs software, and watches")
	}
	if (&Unit{Enabled: new(bool)}).Runs() {
		t.Error("a unit that is only enabled runs nothing now")
	}
}

func TestHowEnded(t *testing.T) {
	for _, c := range []struct {
		props host.Properties
		want  string
	}{
		{host.Properties{"Result": "exit-code", "ExecMainCode": int32(1), "ExecMainStatus": int32(7)}, "it exited with 7"},
		{host.Properties{"Result": "exit-code", "ExecMainCode": int32(1), "ExecMainStatus": int32(217)}, "its User= does not exist (status 217)"},
		{host.Properties{"Result": "signal", "ExecMainCode": int32(2), "ExecMainStatus": int32(9)}, "it was ended by signal 9"},
		{host.Properties{"Result": "core-dump", "ExecMainCode": int32(3), "ExecMainStatus": int32(11)}, "it was ended by signal 11"},
		{host.Properties{"Result": "oom-kill", "ExecMainCode": int32(2), "ExecMainStatus": int32(9)}, "the kernel ended it for want of memory"},
		{host.Properties{"Result": "start-limit-hit"}, "it was started too often in a short time"},
		{host.Properties{"Result": "trigger-limit-hit"}, "its result is trigger-limit-hit"},
		{host.Properties{"Result": "success"}, "it does not stay up"},
		{nil, "it does not stay up"},
	} {
		if got := howEnded(c.props); got != c.want {
			t.Errorf("%v: %q, want %q", c.props, got, c.want)
		}
	}
}

func FuzzValidateText(f *testing.F) {
	f.Add(appText)
	f.Add("[\n]\n=\\\n\\\n;x\n[]=")
	f.Fuzz(func(t *testing.T, text string) {
		u := &Unit{Content: text}
		u.SetName("a.service")
		var list diag.List
		root := decode.Parse("u", []byte("content: x"), &list)
		u.Validate(decode.At(&list, "u", root, ""))
		if err := list.Err(); err != nil && strings.Contains(err.Error(), "%!") {
			t.Error(err)
		}
	})
}
