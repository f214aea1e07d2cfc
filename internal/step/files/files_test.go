package files

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/step"
	"github.com/amiagent/amiagent/internal/step/steptest"
)

func etc(t *testing.T, m *steptest.Machine) { m.Mkdir("/etc", 0o755) }

func app(t *testing.T, m *steptest.Machine) { m.Users("app") }

func TestContent(t *testing.T) {
	steptest.Run(t, Kind(), []steptest.Case{
		{
			Name: "a text with braces of its own", Entry: "/etc/motd", Body: `content: "hello {{ name }}\n"`,
			Setup: etc, Drift: "is missing",
			Want: `/etc/motd 0644 "hello {{ name }}\n"`,
			Breaks: []steptest.Break{
				{Name: "removed", Do: func(m *steptest.Machine) { m.Remove("/etc/motd") }, Drift: "is missing"},
				{Name: "edited, same length", Do: func(m *steptest.Machine) { m.Write("/etc/motd", 0o644, "hello {{ nome }}\n") }, Drift: "content differs"},
				{Name: "longer", Do: func(m *steptest.Machine) { m.Write("/etc/motd", 0o644, "hello {{ name }}\n\n") }, Drift: "content differs"},
				{Name: "emptied", Do: func(m *steptest.Machine) { m.Write("/etc/motd", 0o644, "") }, Drift: "content differs"},
				{Name: "opened to all", Do: func(m *steptest.Machine) { m.Chmod("/etc/motd", 0o666) }, Drift: "mode is 0666, want 0644"},
				{Name: "made a link", Do: func(m *steptest.Machine) {
					m.Remove("/etc/motd")
					m.Link("/run/motd", "/etc/motd")
				}, Drift: "is a link, want a file"},
				{Name: "made a socket", Do: func(m *steptest.Machine) {
					m.Remove("/etc/motd")
					socket(t, m.Path("/etc/motd"))
				}, Drift: "is a socket, want a file"},
			},
		},
		{
			Name: "parents that are missing", Entry: "/srv/a/b/c", Body: "content: ''\nmode: '600'",
			Want: "/srv/ 0755\n/srv/a/ 0755\n/srv/a/b/ 0755\n/srv/a/b/c 0600 \"\"",
		},
		{
			Name: "a secret in a template", Entry: "/etc/app.toml", Body: "template: 'password = hunter2'\nmode: '0600'\nowner: app",
			Setup: func(t *testing.T, m *steptest.Machine) {
				m.Users("app")
				m.Write("/etc/app.toml", 0o644, "password = hunter1")
			},
			Drift: "content differs; mode is 0644, want 0600", Secret: "hunter2",
			Want: `/etc/app.toml 0600 "password = hunter2"`,
		},
		{
			Name: "bytes in base64", Entry: "/etc/key", Body: "base64: |\n  AAEC\n  /w==\nmode: '4711'",
			Setup: etc, Want: `/etc/key 4711 "\x00\x01\x02\xff"`,
		},
		{
			Name: "fetched bytes", Entry: "/etc/geo", Body: "source: https://a/geo",
			Fetched: map[string]steptest.Item{"https://a/geo": {File: "the earth"}},
			Setup:   etc, Drift: "is missing", Want: `/etc/geo 0644 "the earth"`,
			Breaks: []steptest.Break{{Name: "edited", Do: func(m *steptest.Machine) { m.Write("/etc/geo", 0o644, "the moon!") }, Drift: "content differs"}},
		},
		{
			Name: "copied from what an artifact brings", Entry: "/etc/rotate", Body: "from: /opt/app/share/rotate",
			Setup: func(t *testing.T, m *steptest.Machine) {
				m.Write("/opt/app-1/share/rotate", 0o600, "weekly")
				m.Link("app-1", "/opt/app")
				m.Mkdir("/etc", 0)
			},
			Want: `/etc/rotate 0644 "weekly"`,
		},
		{
			Name: "more than one piece", Entry: "/etc/long", Body: "content: " + long("a"),
			Setup: func(t *testing.T, m *steptest.Machine) { m.Write("/etc/long", 0o644, long("b")) },
			Drift: "content differs",
		},
		{
			Name: "as it should be", Entry: "/etc/motd", Body: "template: hello\nowner: app\ngroup: app", None: true,
			Setup: func(t *testing.T, m *steptest.Machine) {
				m.Users("app")
				m.Write("/etc/motd", 0o644, "hello")
			},
		},
		{
			Name: "under a link to a folder", Entry: "/var/run/x", Body: "content: x",
			Setup: func(t *testing.T, m *steptest.Machine) {
				m.Mkdir("/run", 0)
				m.Link("/run", "/var/run")
			},
			Want: `/run/x 0644 "x"`,
		},
	})
}

func long(last string) string { return strings.Repeat("x", 200_000) + last }

func socket(t *testing.T, at string) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: at, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

func TestFoldersLinksAndNothing(t *testing.T) {
	steptest.Run(t, Kind(), []steptest.Case{
		{
			Name: "a folder", Entry: "/etc/app", Body: "directory: true\nmode: '2750'\nowner: app",
			Setup: app, Drift: "is missing", Want: "/etc/app/ 2750",
			Breaks: []steptest.Break{
				{Name: "opened", Do: func(m *steptest.Machine) { m.Chmod("/etc/app", 0o777) }, Drift: "mode is 0777, want 2750"},
				{Name: "removed", Do: func(m *steptest.Machine) { m.Remove("/etc/app") }, Drift: "is missing"},
			},
		},
		{
			Name: "a folder with something in it", Entry: "/etc/app", Body: "directory: true", None: true,
			Setup: func(t *testing.T, m *steptest.Machine) { m.Write("/etc/app/x", 0o600, "x") },
		},
		{
			Name: "a link that leads nowhere yet", Entry: "/usr/local/bin/app", Body: "link: /opt/app/bin/app",
			Drift: "is missing", Want: "/usr/ 0755\n/usr/local/ 0755\n/usr/local/bin/ 0755\n/usr/local/bin/app -> /opt/app/bin/app",
			Breaks: []steptest.Break{
				{Name: "led elsewhere", Do: func(m *steptest.Machine) {
					m.Remove("/usr/local/bin/app")
					m.Link("/bin/true", "/usr/local/bin/app")
				}, Drift: "leads to /bin/true, want /opt/app/bin/app"},
				{Name: "a file instead", Do: func(m *steptest.Machine) {
					m.Remove("/usr/local/bin/app")
					m.Write("/usr/local/bin/app", 0o755, "x")
				}, Drift: "is a file, want a link"},
			},
		},
		{
			Name: "a file to go", Entry: "/etc/cron.d/old", Body: "absent: true", Drift: "is there: a file",
			Setup: func(t *testing.T, m *steptest.Machine) { m.Write("/etc/cron.d/old", 0o644, "x") },
			Want:  "/etc/cron.d/old gone",
		},
		{
			Name: "a link to go, not what it leads to", Entry: "/etc/old", Body: "absent: true", Drift: "is there: a link",
			Setup: func(t *testing.T, m *steptest.Machine) { m.Write("/etc/new", 0o644, "x"); m.Link("new", "/etc/old") },
			Want:  "/etc/old gone",
		},
		{
			Name: "an empty folder to go", Entry: "/etc/cron.d", Body: "absent: true",
			Setup: func(t *testing.T, m *steptest.Machine) { m.Mkdir("/etc/cron.d", 0) },
			Want:  "/etc/cron.d gone",
		},
		{Name: "absent already", Entry: "/etc/x", Body: "absent: true", None: true},
		{
			Name: "absent below a file", Entry: "/etc/x/y", Body: "absent: true", None: true,
			Setup: func(t *testing.T, m *steptest.Machine) { m.Write("/etc/x", 0o644, "") },
		},
	})
}

func TestRefusals(t *testing.T) {
	folder := func(t *testing.T, m *steptest.Machine) { m.Write("/etc/motd/keep", 0o644, "data") }
	steptest.Run(t, Kind(), []steptest.Case{
		{
			Name: "a folder in the way of a file", Entry: "/etc/motd", Body: "content: x", Setup: folder,
			Error: "cannot make /etc/motd as a file: there is a folder in the way", Hint: "may hold data",
		},
		{
			Name: "an empty folder in the way of a link", Entry: "/etc/motd", Body: "link: x",
			Setup: func(t *testing.T, m *steptest.Machine) { m.Mkdir("/etc/motd", 0) },
			Error: "cannot make /etc/motd as a link: there is a folder in the way", Hint: "may hold data",
		},
		{
			Name: "a file in the way of a folder", Entry: "/etc/app", Body: "directory: true",
			Setup: func(t *testing.T, m *steptest.Machine) { m.Write("/etc/app", 0o644, "data") },
			Error: "cannot make folder /etc/app: there is a file in the way", Hint: "move it away",
		},
		{
			Name: "a link in the way of a folder", Entry: "/var/run", Body: "directory: true",
			Setup: func(t *testing.T, m *steptest.Machine) { m.Mkdir("/run", 0); m.Link("/run", "/var/run") },
			Error: "cannot make folder /var/run: there is a link in the way", Hint: "name the folder that the link leads to",
		},
		{
			Name: "a folder that is not empty, to go", Entry: "/etc/motd", Body: "absent: true", Setup: folder,
			Error: "cannot remove /etc/motd: the folder is not empty", Hint: "empty it first",
		},
		{
			Name: "a parent that is a file", Entry: "/etc/motd/x", Body: "content: x",
			Setup: func(t *testing.T, m *steptest.Machine) { m.Write("/etc/motd", 0o644, "data") },
			Error: "cannot make folder /etc/motd: not a directory", Hint: "a part of the path is a file",
		},
		{
			Name: "an owner that is nobody", Entry: "/etc/motd", Body: "content: x\nowner: app", Setup: etc,
			Error: `cannot give /etc/motd to its owner: no such user: "app"`, Hint: "add it under users",
		},
		{
			Name: "a group that is none", Entry: "/etc/motd", Body: "content: x\ngroup: web",
			Setup: func(t *testing.T, m *steptest.Machine) { m.Write("/etc/motd", 0o644, "x") },
			Drift: `no such group: "web"`,
			Error: `cannot give /etc/motd to its owner: no such group: "web"`, Hint: "add it under groups",
		},
		{
			Name: "bytes that were not fetched", Entry: "/etc/geo", Body: "source: https://a/geo", Setup: etc,
			Error: "cannot write /etc/geo: source is not fetched",
		},
		{
			Name: "nothing to copy from", Entry: "/etc/rotate", Body: "from: /opt/app/rotate", Setup: etc,
			Error: "cannot write /etc/rotate: /opt/app/rotate, the wanted content, is missing",
		},
		{
			Name: "a folder to copy from", Entry: "/etc/rotate", Body: "from: /opt",
			Setup: func(t *testing.T, m *steptest.Machine) { m.Mkdir("/opt", 0); m.Mkdir("/etc", 0) },
			Error: "cannot write /etc/rotate: cannot copy /opt: it is a folder",
		},
		{
			Name: "a check that says no", Entry: "/etc/app.toml", Body: "template: password = hunter2\ncheck: [app, check-config, '--file=%s']",
			Setup:    func(t *testing.T, m *steptest.Machine) { m.Write("/etc/app.toml", 0o644, "old") },
			Programs: map[string]string{"app": `echo reading >&2; echo "line 1: unknown key" >&2; exit 2`},
			Error:    "cannot write /etc/app.toml: its check refuses it: app exited with 2: line 1: unknown key",
			Hint:     "still in place", Secret: "hunter2",
		},
		{
			Name: "a check that is not there", Entry: "/etc/app.toml", Body: "content: x\ncheck: [nothere, '%s']", Setup: etc,
			Error: "cannot write /etc/app.toml: cannot run nothere: no such program",
		},
	})
}

// The program sees the finished file, beside its place, with its owner and
// mode, while the old one still has the name.
func TestCheckSeesTheFileBeforeItTakesTheName(t *testing.T) {
	steptest.Run(t, Kind(), []steptest.Case{{
		Name: "accepted", Entry: "/etc/app.toml", Body: "content: new\nmode: '0640'\ncheck: [app, -c, '%s']",
		Setup: func(t *testing.T, m *steptest.Machine) { m.Write("/etc/app.toml", 0o600, "old") },
		Programs: map[string]string{"app": `
			f=$AMIAGENT_ROOT$2
			[ "$(cat "$f")" = new ] && [ "$(stat -c %a "$f")" = 640 ] && [ "$(dirname "$2")" = /etc ] &&
			[ "$(cat "$AMIAGENT_ROOT/etc/app.toml")" != new ]`},
		Want: `/etc/app.toml 0640 "new"`,
	}})
}

// What has the right content keeps its inode: who watches the file is not woken by a change of mode.
func TestModeAloneDoesNotRewrite(t *testing.T) {
	m := steptest.NewMachine(t, steptest.Options{Programs: map[string]string{"app": ""}})
	m.Write("/etc/motd", 0o600, "hello")
	before, err := m.Host.Lstat("/etc/motd")
	if err != nil {
		t.Fatal(err)
	}
	f := body(t, "/etc/motd", "content: hello\ncheck: [app, '%s']")
	if err := f.Apply(t.Context(), m.Env(step.ID{Kind: "files", Name: "/etc/motd"}, "k")); err != nil {
		t.Fatal(err)
	}
	after, err := m.Host.Lstat("/etc/motd")
	if err != nil {
		t.Fatal(err)
	}
	if !after.ModTime().Equal(before.ModTime()) || after.Mode() != 0o644 || len(m.Log()) != 0 {
		t.Errorf("written anew: %v, mode %v, programs run %q", after.ModTime(), after.Mode(), m.Log())
	}
}

func TestCancelledCheckReturns(t *testing.T) {
	m := steptest.NewMachine(t, steptest.Options{})
	m.Write("/etc/motd", 0o644, "hello")
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("deadline of the launch")
	cancel(stop)
	_, err := body(t, "/etc/motd", "content: hello").Check(ctx, m.Env(step.ID{Kind: "files", Name: "/etc/motd"}, "k"))
	if !errors.Is(err, stop) {
		t.Error(err)
	}
}

func body(t *testing.T, name, text string) step.Step {
	t.Helper()
	s, err := steptest.Decode(Kind(), name, text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestNeedsAndFetches(t *testing.T) {
	f := body(t, "/etc/app/conf.d/x", "source: https://a/x\ndigest: sha256:"+strings.Repeat("0", 64)+"\nsize: 7\nmirrors: [https://b/x]\nowner: app\ngroup: web").(*File)
	want := []step.ID{{Kind: "users", Name: "app"}, {Kind: "groups", Name: "web"}, {Kind: "files", Name: "/etc/app/conf.d"}, {Kind: "files", Name: "/etc/app"}, {Kind: "files", Name: "/etc"}}
	if got := f.Needs(); !slices.Equal(got, want) {
		t.Errorf("needs %v, want %v", got, want)
	}
	got := f.Fetches()
	if len(got) != 1 || got[0].Source != "https://a/x" || got[0].Size != 7 || len(got[0].Mirrors) != 1 || got[0].Name != "files./etc/app/conf.d/x" || got[0].Unpack {
		t.Errorf("fetches %+v", got)
	}
	if got := body(t, "/etc/x", "from: /opt/x").(*File); got.Fetches() != nil || !slices.Contains(got.Needs(), step.ID{Kind: "files", Name: "/opt/x"}) {
		t.Errorf("fetches %+v, needs %+v", got.Fetches(), got.Needs())
	}
}

var _ interface {
	step.Fetcher
	step.Needer
	step.Named
} = (*File)(nil)

func TestFaults(t *testing.T) {
	steptest.Faults(t, Kind(), []steptest.Fault{
		{Name: "nothing said", Entry: "/etc/motd", Body: `mode: "0600"`, Want: `
			manifest.yaml:1:1: files./etc/motd: must have one of content, template, base64, source, from, link, directory and absent`},
		{Name: "two contents", Entry: "/etc/motd", Body: "content: a\ntemplate: b", Want: `
			manifest.yaml:2:11: files./etc/motd.template: cannot be combined with content: a path is one thing`},
		{Name: "a relative name", Entry: "motd", Body: "content: a", Want: `
			manifest.yaml:1:1: files.motd: the name must be an absolute path, is "motd"`},
		{Name: "a crooked name", Entry: "/etc//motd/../x/", Body: "content: a", Want: `
			manifest.yaml:1:1: files./etc//motd/../x/: the name must be a plain path, write /etc/x`},
		{Name: "the root", Entry: "/", Body: "directory: true", Want: `
			manifest.yaml:1:1: files./: the root folder cannot be an entry`},
		{Name: "all at once", Entry: "/etc/motd", Body: `
base64: "%%%"
mode: u=rw
size: -3
digest: md5:abc
mirrors: [""]
check: [true]
onwer: app
`, Want: `
			manifest.yaml:1:9: files./etc/motd.base64: is not base64: illegal base64 data at input byte 0
			manifest.yaml:2:7: files./etc/motd.mode: must be an octal mode such as "0644", is "u=rw"
			manifest.yaml:3:7: files./etc/motd.size: must not be negative, is -3
			manifest.yaml:3:7: files./etc/motd.size: is of what source fetches, and there is no source
			manifest.yaml:4:9: files./etc/motd.digest: digest "md5:abc": md5 can be forged
			hint: use sha256
			manifest.yaml:4:9: files./etc/motd.digest: is of what source fetches, and there is no source
			manifest.yaml:5:10: files./etc/motd.mirrors: mirrors are of a source, and there is none
			manifest.yaml:5:11: files./etc/motd.mirrors[0]: must not be empty
			manifest.yaml:6:8: files./etc/motd.check: must have %s in its arguments, for the path of the new file
			manifest.yaml:7:1: files./etc/motd.onwer: unknown key, did you mean "owner"?`},
		{Name: "a check of a folder", Entry: "/etc/app", Body: "directory: true\ncheck: [true, '%s']", Want: `
			manifest.yaml:2:8: files./etc/app.check: is run on a file's content, and this is a folder`},
		{Name: "no program", Entry: "/etc/motd", Body: "content: x\ncheck: []", Want: `
			manifest.yaml:2:8: files./etc/motd.check: must name a program`},
		{Name: "a link with a mode", Entry: "/etc/motd", Body: "link: x\nmode: '0777'", Want: `
			manifest.yaml:2:7: files./etc/motd.mode: a link has no mode of its own`},
		{Name: "nothing with an owner", Entry: "/etc/motd", Body: "absent: true\nowner: app", Want: `
			manifest.yaml:2:8: files./etc/motd.owner: what is absent has no owner`},
		{Name: "a relative copy", Entry: "/etc/motd", Body: "from: share/motd", Want: `
			manifest.yaml:1:7: files./etc/motd.from: must be an absolute path on the machine, is "share/motd"`},
		{Name: "a mode of five digits", Entry: "/etc/motd", Body: "content: x\nmode: '10644'", Want: `
			manifest.yaml:2:7: files./etc/motd.mode: must be an octal mode such as "0644", is "10644"`},
		{Name: "templates are not judged yet", Entry: "/etc/motd", Body: `
base64: '{{ tag "X" }}'
mode: '{{ .Vars.mode }}'
owner: '{{ .Vars.owner }}'
`},
	})
}

// A file system that refuses says so in the agent's words, whatever refused.
func TestHintsOfTheFileSystem(t *testing.T) {
	m := steptest.NewMachine(t, steptest.Options{})
	m.Link("loop", "/etc/loop")
	err := body(t, "/etc/loop/x", "content: x").Apply(t.Context(), m.Env(step.ID{Kind: "files", Name: "/etc/loop/x"}, "k"))
	if err == nil || err.Error() != "cannot make folder /etc/loop: too many levels of symbolic links" || diag.Hint(err) != "a link on the path leads to itself" {
		t.Errorf("%v (hint %q)", err, diag.Hint(err))
	}
}
