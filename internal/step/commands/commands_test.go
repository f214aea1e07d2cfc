package commands

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/step"
	"github.com/amiagent/amiagent/internal/step/steptest"
)

// warm is a program that makes a file, whole, and says so.
const warm = `echo warming; echo "$*" >"$AMIAGENT_ROOT/cache.new" && mv "$AMIAGENT_ROOT/cache.new" "$AMIAGENT_ROOT/cache"`

func TestCommands(t *testing.T) {
	programs := map[string]string{
		"app":    warm,
		"is":     `test "$1" -eq 0 -o -e "$AMIAGENT_ROOT/cache" || exit 3`,
		"broken": "kill -SEGV $$",
	}
	unwarm := func(m *steptest.Machine) { m.Remove("/cache") }
	steptest.Run(t, Kind(), []steptest.Case{
		{
			Name: "creates", Body: "run: [app, warm, 'a b']\ncreates: /cache", Programs: programs,
			Drift: "/cache is missing", Want: `/cache 0644 "warm a b\n"`,
			Breaks: []steptest.Break{{Name: "removed", Do: unwarm, Drift: "/cache is missing"}},
		},
		{
			Name: "unless", Body: "run: [app, warm]\nunless: [is, 1]", Programs: programs,
			Drift: "is exits with 3", Want: `/cache 0644 "warm\n"`,
			Breaks: []steptest.Break{{Name: "removed", Do: unwarm, Drift: "is exits with 3"}},
		},
		{
			Name: "once for its content", Body: "run: [app, warm]", Programs: programs,
			Drift: "has not run with this content", Want: `/cache 0644 "warm\n"`,
			Breaks: []steptest.Break{{Name: "forgotten", Do: func(m *steptest.Machine) { forget(t, m) }, Drift: "has not run with this content"}},
		},
		{
			Name: "on change", Body: "run: [app, warm]\non-change: [files./etc/a, artifacts.app]\ncreates: /cache", Programs: programs,
			Setup: func(t *testing.T, m *steptest.Machine) { m.Write("/cache", 0o644, "of old") },
			Drift: "has not run since the last change of files./etc/a, artifacts.app", Want: `/cache 0644 "warm\n"`,
			Breaks: []steptest.Break{
				{Name: "a watched step is applied", Do: func(m *steptest.Machine) { forget(t, m) }, Drift: "since the last change"},
				{Name: "removed", Do: unwarm, Drift: "/cache is missing"},
			},
		},
		{Name: "created already", Body: "run: [app]\ncreates: /cache", Programs: programs, None: true,
			Setup: func(t *testing.T, m *steptest.Machine) { m.Link("/nowhere", "/cache") }},
		{Name: "unless says so", Body: "run: [app]\nunless: [is, 0]", Programs: programs, None: true},
		{Name: "unless says so, though nothing is created", Body: "run: [app]\ncreates: /cache\nunless: [is, 0]", Programs: programs, None: true},
		{
			Name: "a secret in the arguments", Body: "run: [app, hunter2]\nenv: {PASSWORD: hunter2}\nunless: [is, 1, hunter2]",
			Programs: map[string]string{"app": "exit 4", "is": "exit 1"}, Secret: "hunter2",
			Error: "cannot run example: app exited with 4",
		},
		{Name: "no such program", Body: "run: [nothere]", Error: "cannot run example: cannot run nothere: no such program", Hint: "a package, an artifact"},
		{Name: "no such user", Body: "run: [app]\nuser: app", Programs: programs, Error: `cannot run example: no such user: "app"`, Hint: "add it under users"},
		{Name: "no such folder", Body: "run: [app]\ncwd: /srv/app", Programs: programs, Error: "cannot run example: there is no folder /srv/app", Hint: "directory: true"},
		{Name: "a crash", Body: "run: [broken]", Programs: programs, Error: "cannot run example: broken was ended by a signal", Hint: "kernel log"},
		{Name: "the asking program is still to come", Body: "run: [nothere]\nunless: [nothere]", Drift: "", Error: "no such program"},
		{
			Name: "asking takes too long", Body: "run: [app]\nunless: [slow]\ntimeout: 50ms", Programs: map[string]string{"slow": "exec sleep 10", "app": ""},
			Error: "cannot ask whether example is to be run: slow: timed out after 50ms",
		},
		{
			Name: "running takes too long", Body: "run: [slow]\ntimeout: 50ms", Programs: map[string]string{"slow": "exec sleep 10"},
			Error: "cannot run example: slow: timed out after 50ms", Hint: "give it a longer timeout",
		},
	})
}

var exampleID = step.ID{Kind: "commands", Name: "example"}

func forget(t *testing.T, m *steptest.Machine) {
	t.Helper()
	if err := m.Stamps.Drop(exampleID); err != nil {
		t.Fatal(err)
	}
}

func command(t *testing.T, text string) *Command {
	t.Helper()
	s, err := steptest.Decode(Kind(), exampleID.Name, text)
	if err != nil {
		t.Fatal(err)
	}
	return s.(*Command)
}

// converge is what the agent does with one step: the drift before, and after.
func converge(t *testing.T, c *Command, env step.Env) (before, after step.Drift) {
	t.Helper()
	before, err := c.Check(t.Context(), env)
	if err != nil {
		t.Fatal(err)
	}
	if before == "" {
		return "", ""
	}
	if err := c.Apply(t.Context(), env); err != nil {
		t.Fatal(err)
	}
	after, err = c.Check(t.Context(), env)
	if err != nil {
		t.Fatal(err)
	}
	return before, after
}

// A life of a machine: the columns tell in which boots of which instances, and
// with which content, a command runs.
func TestOnce(t *testing.T) {
	for once, want := range map[string]string{
		"content":  "run - - run -",
		"instance": "run - - - run",
		"boot":     "run - run - run",
		"always":   "run run run run run",
	} {
		t.Run(once, func(t *testing.T) {
			m := steptest.NewMachine(t, steptest.Options{Programs: map[string]string{"app": ""}})
			c := command(t, "run: [app]\nonce: "+once)
			var got []string
			for _, life := range []struct{ instance, boot, key string }{
				{"i-1", "b1", "k1"}, {"i-1", "b1", "k1"}, {"i-1", "b2", "k1"}, {"i-1", "b2", "k2"}, {"i-2", "b3", "k2"},
			} {
				m.NextRun()
				env := m.Env(exampleID, life.key)
				env.Instance, env.Boot = life.instance, life.boot
				before, after := converge(t, c, env)
				if after != "" {
					t.Fatalf("after Apply there is drift: %s", after)
				}
				did := "run"
				if before == "" {
					did = "-"
				}
				got = append(got, did)
			}
			if s := strings.Join(got, " "); s != want {
				t.Errorf("%s, want %s", s, want)
			}
			if runs := len(m.Log()); runs != strings.Count(want, "run") {
				t.Errorf("the program ran %d times", runs)
			}
		})
	}
}

func TestRanInVainIsSaid(t *testing.T) {
	m := steptest.NewMachine(t, steptest.Options{Programs: map[string]string{"app": ""}})
	before, after := converge(t, command(t, "run: [app]\ncreates: /cache"), m.Env(exampleID, "k"))
	if before != "/cache is missing" || after != "has run, but /cache is missing" {
		t.Errorf("%q, then %q", before, after)
	}
}

// 194 means: reboot, and call me again.
func TestRebootAndGoOn(t *testing.T) {
	m := steptest.NewMachine(t, steptest.Options{Programs: map[string]string{
		"app": `test -e "$AMIAGENT_ROOT/half" && exit 0; touch "$AMIAGENT_ROOT/half"; exit 194`}})
	c := command(t, "run: [app]")
	err := c.Apply(t.Context(), m.Env(exampleID, "k"))
	if !errors.Is(err, step.ErrReboot) || err.Error() != "app exited with 194: a reboot is needed" {
		t.Fatal(err)
	}
	m.NextRun()
	before, after := converge(t, c, m.Env(exampleID, "k"))
	if before == "" || after != "" || len(m.Log()) != 2 {
		t.Errorf("after the reboot: %q, then %q, runs %q", before, after, m.Log())
	}
}

// A trap of CodeDeploy's hooks: a background child that holds the output open
// must neither hang nor fail the command.
func TestTrapBackgroundChildHoldingOutput(t *testing.T) {
	m := steptest.NewMachine(t, steptest.Options{Programs: map[string]string{"app": "sleep 5 & echo $! >$AMIAGENT_ROOT/pid; echo started"}})
	began := time.Now()
	_, after := converge(t, command(t, "run: [app]"), m.Env(exampleID, "k"))
	if took := time.Since(began); after != "" || took > 3*time.Second || !slices.Contains(m.Output(), "started") {
		t.Errorf("took %s, drift %q, output %q", took, after, m.Output())
	}
}

// The program gets the user, the folder and the environment of its entry, and
// nothing of the agent's own.
func TestUserFolderEnvironment(t *testing.T) {
	t.Setenv("OF_THE_AGENT", "secret")
	m := steptest.NewMachine(t, steptest.Options{Programs: map[string]string{
		"app": `echo "$USER $HOME $(pwd) $APP_REGION $N ${OF_THE_AGENT-unset}"; echo "to stderr" >&2`}})
	m.Users("app")
	m.Mkdir("/srv/app", 0)
	converge(t, command(t, "run: [app]\nuser: app\ncwd: /srv/app\nenv: {APP_REGION: eu-central-1, N: 3}"), m.Env(exampleID, "k"))
	cwd, err := filepath.EvalSymlinks(m.Path("/srv/app"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"app /home/app " + cwd + " eu-central-1 3 unset", "to stderr"}
	got := m.Output()
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestLastLineIsInTheError(t *testing.T) {
	m := steptest.NewMachine(t, steptest.Options{Programs: map[string]string{"app": "echo one >&2; echo 'cannot reach db' >&2; exit 7"}})
	err := command(t, "run: [app]").Apply(t.Context(), m.Env(exampleID, "k"))
	var exit *host.ExitError
	if err == nil || err.Error() != "cannot run example: app exited with 7: cannot reach db" || !errors.As(err, &exit) || exit.Code != 7 {
		t.Error(err)
	}
	if got := m.Output(); !slices.Equal(got, []string{"one", "cannot reach db"}) {
		t.Errorf("output %q", got)
	}
}

// A cancelled command is gone with all it started, and has not run.
func TestCancelEndsTheProgram(t *testing.T) {
	m := steptest.NewMachine(t, steptest.Options{Programs: map[string]string{"app": `echo up; sleep 30; echo not this`}})
	ctx, cancel := context.WithCancelCause(t.Context())
	env := m.Env(exampleID, "k")
	line := env.Output
	stop := errors.New("deadline of the launch")
	env.Output = func(s string) { line(s); cancel(stop) }
	began := time.Now()
	err := command(t, "run: [app]").Apply(ctx, env)
	if !errors.Is(err, stop) || time.Since(began) > 3*time.Second {
		t.Errorf("%v after %s (hint %q)", err, time.Since(began), diag.Hint(err))
	}
	if drift, err := command(t, "run: [app]").Check(t.Context(), env); drift == "" || err != nil {
		t.Errorf("counts as run: %q %v", drift, err)
	}
}

// Where success cannot be remembered, it is no success.
func TestStampThatCannotBeWritten(t *testing.T) {
	m := steptest.NewMachine(t, steptest.Options{Programs: map[string]string{"app": ""}})
	if err := os.Mkdir(filepath.Join(m.Base, "stamps.json.new"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := command(t, "run: [app]").Apply(t.Context(), m.Env(exampleID, "k")); err == nil {
		t.Error("no error")
	}
}

func TestPowers(t *testing.T) {
	c := command(t, "run: [app]\nuser: app\non-change: [files./etc/a.b, units.app.service]")
	if got, want := c.Watches(), []step.ID{{Kind: "files", Name: "/etc/a.b"}, {Kind: "units", Name: "app.service"}}; !slices.Equal(got, want) {
		t.Errorf("watches %v", got)
	}
	if got, want := c.Needs(), []step.ID{{Kind: "users", Name: "app"}}; !slices.Equal(got, want) {
		t.Errorf("needs %v", got)
	}
	if command(t, "run: [app]").Needs() != nil || !c.Runs() || c.Timeout != 5*time.Minute {
		t.Errorf("%+v", c)
	}
}

var _ interface {
	step.Named
	step.Watcher
	step.Needer
	step.Runner
} = (*Command)(nil)

func TestFaults(t *testing.T) {
	steptest.Faults(t, Kind(), []steptest.Fault{
		{Name: "nothing to run", Body: "creates: /x", Want: `
			manifest.yaml:1:1: commands.example.run: must name a program`},
		{Name: "a shell line", Body: "run: echo hello\nunless: '{{ .Vars.x }}'", Want: `
			manifest.yaml:1:6: commands.example.run: must be a list: the program and its arguments
			hint: write [prog, arg], or [sh, -c, "a line for the shell"] where a shell is needed
			manifest.yaml:2:9: commands.example.unless: must be a list: the program and its arguments
			hint: write [prog, arg], or [sh, -c, "a line for the shell"] where a shell is needed`},
		{Name: "all at once", Body: `
run: [""]
unless: []
creates: x
cwd: ../x
once: daily
timeout: 0s
env: {"A=B": c}
on-change: [files]
unles: x
`, Want: `
			manifest.yaml:1:6: commands.example.run: must name a program
			manifest.yaml:2:9: commands.example.unless: must name a program
			manifest.yaml:3:10: commands.example.creates: must be an absolute path, is "x"
			manifest.yaml:4:6: commands.example.cwd: must be an absolute path, is "../x"
			manifest.yaml:5:7: commands.example.once: must be one of content, instance, boot, always, is "daily"
			manifest.yaml:6:10: commands.example.timeout: must be more than nothing, is 0s
			manifest.yaml:7:14: commands.example.env.A=B: "A=B" cannot name a variable
			manifest.yaml:8:13: commands.example.on-change[0]: "files" names no step, write kind.name, as files./etc/motd
			manifest.yaml:9:1: commands.example.unles: unknown key, did you mean "unless"?`},
		{Name: "once and a guard", Body: "run: [x]\ncreates: /x\nonce: boot", Want: `
			manifest.yaml:3:7: commands.example.once: creates and unless say already when to run`},
		{Name: "always and on-change", Body: "run: [x]\nonce: always\non-change: [files./x]", Want: `
			manifest.yaml:3:12: commands.example.on-change: a command that always runs needs no change`},
		{Name: "a timeout without a unit", Body: "run: [x]\ntimeout: 30", Want: `
			manifest.yaml:2:10: commands.example.timeout: must be a duration such as 30s or 5m, is "30"`},
		{Name: "templates are not judged yet", Body: `
run: ['{{ .Vars.program }}']
creates: '{{ .Vars.path }}'
once: '{{ .Vars.once }}'
timeout: '{{ .Vars.timeout }}'
`},
	})
}
