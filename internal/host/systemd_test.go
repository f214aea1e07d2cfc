package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/diag"
)

// treeWith is a scratch root that holds these files.
func treeWith(t *testing.T, files map[string]string) *Host {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h, err := New(root, Options{Programs: Outside})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// links are all symbolic links of the tree, as "place -> target".
func links(t *testing.T, h *Host) string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(h.Root(), func(p string, d os.DirEntry, err error) error {
		if err == nil && d.Type()&os.ModeSymlink != 0 {
			to, _ := os.Readlink(p)
			all = append(all, strings.TrimPrefix(p, h.Root())+" -> "+to)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

func lines(s ...string) string { return strings.Join(s, "\n") }

func TestTreeHasNoSystemd(t *testing.T) {
	_, err := treeWith(t, nil).Systemd(t.Context())
	if !errors.Is(err, ErrNotLive) {
		t.Errorf("error is %v, want ErrNotLive", err)
	}
}

func TestEnableInATree(t *testing.T) {
	for name, c := range map[string]struct {
		files        map[string]string
		unit         string
		links        string // after TreeEnable
		state        string // then
		err, hint    string
		stateBefore  string
		brokenBefore bool
	}{
		"wanted and required": {
			files: map[string]string{"/usr/lib/systemd/system/app.service": "[Service]\nExecStart=/x\n[Install]\nWantedBy=multi-user.target \\\n graphical.target\nRequiredBy=app.target\n# WantedBy=never.target\n"},
			unit:  "app.service", stateBefore: "disabled", state: "enabled",
			links: lines(
				"/etc/systemd/system/app.target.requires/app.service -> /usr/lib/systemd/system/app.service",
				"/etc/systemd/system/graphical.target.wants/app.service -> /usr/lib/systemd/system/app.service",
				"/etc/systemd/system/multi-user.target.wants/app.service -> /usr/lib/systemd/system/app.service"),
		},
		"the administrator's file goes before the package's": {
			files: map[string]string{"/usr/lib/systemd/system/a.timer": "[Install]\nWantedBy=x.target\n", "/etc/systemd/system/a.timer": "[Install]\nWantedBy=timers.target\n"},
			unit:  "a.timer", stateBefore: "disabled", state: "enabled",
			links: "/etc/systemd/system/timers.target.wants/a.timer -> /etc/systemd/system/a.timer",
		},
		"an empty value forgets, a drop-in adds": {
			files: map[string]string{"/lib/systemd/system/a.service": "[Install]\nWantedBy=x.target\nWantedBy=\nWantedBy=y.target\n",
				"/etc/systemd/system/a.service.d/more.conf": "[Install]\nWantedBy=z.target\n"},
			unit: "a.service", stateBefore: "disabled", state: "enabled",
			links: lines("/etc/systemd/system/y.target.wants/a.service -> /lib/systemd/system/a.service",
				"/etc/systemd/system/z.target.wants/a.service -> /lib/systemd/system/a.service"),
		},
		"an instance of a template": {
			files: map[string]string{"/usr/lib/systemd/system/app@.service": "[Install]\nWantedBy=multi-user.target\nAlias=%p-of-%j@%i.service\n"},
			unit:  "app@one.service", stateBefore: "disabled", state: "enabled",
			links: lines("/etc/systemd/system/app-of-app@one.service -> /usr/lib/systemd/system/app@.service",
				"/etc/systemd/system/multi-user.target.wants/app@one.service -> /usr/lib/systemd/system/app@.service"),
		},
		"a template with a default": {
			files: map[string]string{"/usr/lib/systemd/system/getty@.service": "[Install]\nWantedBy=getty.target\nDefaultInstance=tty1\n"},
			unit:  "getty@.service", stateBefore: "disabled", state: "enabled",
			links: "/etc/systemd/system/getty.target.wants/getty@tty1.service -> /usr/lib/systemd/system/getty@.service",
		},
		"a template without": {
			files: map[string]string{"/usr/lib/systemd/system/app@.service": "[Install]\nWantedBy=multi-user.target\n"},
			unit:  "app@.service", stateBefore: "disabled",
			err: "cannot enable app@.service: it is a template without a DefaultInstance=", hint: "name an instance, as app@NAME.service",
		},
		"with others": {
			files: map[string]string{
				"/usr/lib/systemd/system/d.service": "[Install]\nAlias=dbus-d.service\nAlso=d.socket d-static.service d.service\n",
				"/usr/lib/systemd/system/d.socket":  "[Install]\nWantedBy=sockets.target\n", "/usr/lib/systemd/system/d-static.service": "[Service]\n"},
			unit: "d.service", stateBefore: "disabled", state: "enabled",
			links: lines("/etc/systemd/system/dbus-d.service -> /usr/lib/systemd/system/d.service",
				"/etc/systemd/system/sockets.target.wants/d.socket -> /usr/lib/systemd/system/d.socket"),
		},
		"without [Install]": {
			files: map[string]string{"/usr/lib/systemd/system/s.service": "[Service]\nExecStart=/x\n"},
			unit:  "s.service", stateBefore: "static",
			err: "cannot enable s.service: its file has no [Install] section", hint: "WantedBy=multi-user.target",
		},
		"without a file": {
			unit: "none.service", stateBefore: "", err: "cannot enable none.service: there is no unit file of this name",
		},
		"an alias of another type": {
			files: map[string]string{"/usr/lib/systemd/system/y.service": "[Install]\nAlias=y.socket\n"},
			unit:  "y.service", brokenBefore: true,
			err: "cannot enable y.service: its Alias=y.socket is of another type, or is no template as the unit is",
		},
		"in the way": {
			files: map[string]string{"/usr/lib/systemd/system/w.service": "[Install]\nAlias=v.service\n", "/etc/systemd/system/v.service": "[Unit]\n"},
			unit:  "w.service", stateBefore: "disabled", err: "cannot enable w.service: /etc/systemd/system/v.service is there already and is no link",
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := treeWith(t, c.files)
			if state, err := h.TreeUnitState(c.unit); state != c.stateBefore || (err != nil) != c.brokenBefore {
				t.Errorf("before it is %q, %v, want %q", state, err, c.stateBefore)
			}
			for range 2 {
				err := h.TreeEnable(c.unit)
				if c.err != "" {
					if err == nil || err.Error() != c.err || !strings.Contains(diag.Hint(err), c.hint) {
						t.Fatalf("error is %v (hint %q), want %q (%q)", err, diag.Hint(err), c.err, c.hint)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if got := links(t, h); got != c.links {
					t.Errorf("links are\n%s\nwant\n%s", got, c.links)
				}
			}
			if state, err := h.TreeUnitState(c.unit); state != c.state || err != nil {
				t.Errorf("it is %q, %v, want %q", state, err, c.state)
			}
			for range 2 {
				if err := h.TreeDisable(c.unit); err != nil {
					t.Fatal(err)
				}
			}
			if got := links(t, h); got != "" {
				t.Errorf("after disabling, links are\n%s", got)
			}
		})
	}
}

func TestHalfEnabledIsDisabled(t *testing.T) {
	h := treeWith(t, map[string]string{"/usr/lib/systemd/system/a.service": "[Install]\nWantedBy=x.target y.target\n"})
	if err := h.TreeEnable("a.service"); err != nil {
		t.Fatal(err)
	}
	if err := h.Remove(UnitDir + "/y.target.wants/a.service"); err != nil {
		t.Fatal(err)
	}
	if state, _ := h.TreeUnitState("a.service"); state != "disabled" {
		t.Errorf("it is %q", state)
	}
	// A unit whose file is gone can still be disabled.
	if err := h.Remove("/usr/lib/systemd/system/a.service"); err != nil {
		t.Fatal(err)
	}
	if err := h.TreeDisable("a.service"); err != nil || links(t, h) != "" {
		t.Errorf("%v, left:\n%s", err, links(t, h))
	}
}

func TestMaskInATree(t *testing.T) {
	h := treeWith(t, map[string]string{"/usr/lib/systemd/system/a.service": "[Install]\nWantedBy=x.target\n", "/etc/systemd/system/own.service": "[Service]\n"})
	for range 2 {
		if err := h.TreeMask("a.service"); err != nil {
			t.Fatal(err)
		}
	}
	if got := links(t, h); got != "/etc/systemd/system/a.service -> /dev/null" {
		t.Error(got)
	}
	if state, _ := h.TreeUnitState("a.service"); state != "masked" {
		t.Errorf("it is %q", state)
	}
	if err := h.TreeEnable("a.service"); err == nil || err.Error() != "cannot enable a.service: it is masked" {
		t.Error(err)
	}
	for range 2 {
		if err := h.TreeUnmask("a.service"); err != nil {
			t.Fatal(err)
		}
	}
	if state, _ := h.TreeUnitState("a.service"); state != "disabled" {
		t.Errorf("unmasked it is %q", state)
	}
	if err := h.TreeMask("own.service"); err == nil || err.Error() != "cannot mask own.service: /etc/systemd/system/own.service is a file" {
		t.Error(err)
	}
	if err := h.TreeUnmask("own.service"); err != nil || !h.Exists(UnitDir+"/own.service") {
		t.Errorf("unmasking removed a unit file: %v", err)
	}
}

func TestUnitOfCgroup(t *testing.T) {
	for text, want := range map[string]string{
		"0::/system.slice/amiagent.service\n":                                    "amiagent.service",
		"0::/system.slice/amiagent.service/worker\n":                             "amiagent.service",
		"0::/system.slice/system-app.slice/app@1.service\n":                      "app@1.service",
		"0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.service\n": "user@1000.service",
		"0::/user.slice/user-0.slice/session-3.scope\n":                          "session-3.scope",
		"0::/\n":            "",
		"0::/init.scope\n":  "init.scope",
		"0::/docker/0a1b\n": "",
		"":                  "",
		"no such format\n":  "",
		"4:memory:/x.service\n1:name=systemd:/system.slice/a.service\n":                            "a.service",
		"1:name=systemd:/\n0::/system.slice/b.service\n":                                           "b.service",
		"12:pids:/system.slice/c.service\n1:name=systemd:/system.slice/_cpu.service\n0::/\n":       "cpu.service",
		"1:name=systemd:/system.slice/cloud-final.service\n0::/system.slice/cloud-final.service\n": "cloud-final.service",
	} {
		if got := unitOfCgroup(text); got != want {
			t.Errorf("%q belongs to %q, want %q", text, got, want)
		}
	}
}

// Jobs and what comes before each, in a string: "app<agent" says that app's job
// comes after agent's.
func TestFindChain(t *testing.T) {
	for setup, want := range map[string]string{
		"":                                      "",
		"app<db":                                "",
		"app<agent":                             "app agent",
		"app<target target<agent":               "app target agent",
		"app<db app<target target<agent":        "app target agent",
		"app<db db<net net<app":                 "",              // a circle that is not ours
		"app<a a<b b<a b<agent":                 "app a b agent", // past a circle
		"app<far far<agent app<near near<agent": "app far agent",
		"app<long long<longer longer<agent app<agent": "app agent", // the shortest
		"agent<app": "",
	} {
		ids := map[string]uint32{"app": 1, "agent": 2}
		before := map[string][]string{}
		for _, pair := range strings.Fields(setup) {
			later, earlier, _ := strings.Cut(pair, "<")
			before[later] = append(before[later], earlier)
			for _, unit := range []string{later, earlier} {
				if ids[unit] == 0 {
					ids[unit] = uint32(len(ids) + 1)
				}
			}
		}
		chain, err := findChain(queued{ID: 1, Unit: "app"}, "agent", func(q queued) ([]queued, error) {
			var all []queued
			for _, unit := range before[q.Unit] {
				all = append(all, queued{ID: ids[unit], Unit: unit})
			}
			return all, nil
		})
		if got := strings.Join(chain, " "); got != want || err != nil {
			t.Errorf("%q gives %q, %v, want %q", setup, got, err, want)
		}
	}
	broken := errors.New("broken")
	if _, err := findChain(queued{ID: 1}, "agent", func(queued) ([]queued, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
}

func TestJobSentences(t *testing.T) {
	for err, want := range map[error]string{
		&JobError{"a.service", Restart, "dependency"}: "cannot restart a.service: a unit that it needs failed",
		&JobError{"a.service", Start, "once more"}:    "cannot start a.service: once more",
		&BehindSelfError{&Job{Unit: "a.service", Verb: ReloadOrRestart}, []string{"a.service", "b.target", "agent.service"}}: "a.service is ordered after b.target, after agent.service: its reload or restart goes on once that is up",
	} {
		if err.Error() != want {
			t.Errorf("%q, want %q", err, want)
		}
	}
	if s := fmt.Sprint(Stop); s != "stop" {
		t.Error(s)
	}
}
