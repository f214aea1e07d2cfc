package artifacts

import (
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/amiagent/amiagent/internal/fetch"
	"github.com/amiagent/amiagent/internal/step"
	"github.com/amiagent/amiagent/internal/step/steptest"
)

// release is a store with two versions of an application, and a program.
var release = map[string]steptest.Item{
	"https://a/app-1.tar.gz": {Tree: map[string]string{"bin/app": "#!/bin/sh\n", "version": "1"}},
	"https://a/app-2.tar.gz": {Tree: map[string]string{"bin/app": "#!/bin/sh\n", "version": "2"}},
	"https://a/jq":           {File: "\x7fELF jq"},
}

// tree is where the store has an archive, as the path of the machine.
func tree(t *testing.T, source string) string {
	t.Helper()
	m := steptest.NewMachine(t, steptest.Options{Fetched: release})
	it, ok := m.Store.Lookup(fetch.Request{Source: source, Unpack: true})
	if !ok {
		t.Fatalf("the store has no %s", source)
	}
	return it.Path
}

func TestTrees(t *testing.T) {
	one, two := tree(t, "https://a/app-1.tar.gz"), tree(t, "https://a/app-2.tar.gz")
	short := func(p string) string { return path.Base(p)[:12] }
	steptest.Run(t, Kind(), []steptest.Case{
		{
			Name: "first", Entry: "app", Body: "source: https://a/app-1.tar.gz\nunpack: /opt/app", Fetched: release,
			Drift: "/opt/app is missing", Want: "/opt/ 0755\n/opt/app -> .." + one,
			Breaks: []steptest.Break{
				{Name: "removed", Do: func(m *steptest.Machine) { m.Remove("/opt/app") }, Drift: "/opt/app is missing"},
				{Name: "led elsewhere", Do: func(m *steptest.Machine) {
					m.Remove("/opt/app")
					m.Link("/srv/mine", "/opt/app")
				}, Drift: "/opt/app leads to /srv/mine, want .." + one},
			},
		},
		{
			Name: "next version", Entry: "app", Body: "source: https://a/app-2.tar.gz\nunpack: /opt/app", Fetched: release,
			Setup: func(t *testing.T, m *steptest.Machine) { m.Link(".."+one, "/opt/app") },
			Drift: short(one), Want: "/opt/app -> .." + two,
		},
		{
			Name: "below a link", Entry: "app", Body: "source: https://a/app-1.tar.gz\nunpack: /opt/app", Fetched: release,
			Setup: func(t *testing.T, m *steptest.Machine) { m.Mkdir("/data/big/opt", 0); m.Link("/data/big/opt", "/opt") },
			Want:  "/data/big/opt/app -> ../../.." + one,
		},
		{
			Name: "there already", Entry: "app", Body: "source: https://a/app-1.tar.gz\nunpack: /opt/app", Fetched: release,
			Setup: func(t *testing.T, m *steptest.Machine) { m.Link(".."+one, "/opt/app") }, None: true,
		},
		{
			Name: "somebody's folder in the way", Entry: "app", Body: "source: https://a/app-1.tar.gz\nunpack: /opt/app", Fetched: release,
			Setup: func(t *testing.T, m *steptest.Machine) { m.Write("/opt/app/data", 0o600, "precious") },
			Drift: "/opt/app is no link",
			Error: "cannot make /opt/app a link: something else is there", Hint: "it may hold data",
		},
		{
			Name: "a file in the way of a parent", Entry: "app", Body: "source: https://a/app-1.tar.gz\nunpack: /opt/app", Fetched: release,
			Setup: func(t *testing.T, m *steptest.Machine) { m.Write("/opt", 0o600, "precious") },
			Error: "cannot make folder /opt: not a directory", Hint: "a part of the path is a file",
		},
		{
			Name: "not fetched", Entry: "app", Body: "source: https://a/app-3.tar.gz\nunpack: /opt/app", Fetched: release,
			Drift: "is not fetched", Error: "cannot place app: it is not fetched",
		},
	})
}

func TestShort(t *testing.T) {
	for link, want := range map[string]string{
		"../var/lib/amiagent/store/tree/sha256-0123456789abcdef0123456789abcdef-s1": "sha256-0123456789ab",
		"/opt/app-1.2": "/opt/app-1.2",
		"/srv/sha256":  "/srv/sha256",
	} {
		if got := short(link); got != want {
			t.Errorf("%s is %s, want %s", link, got, want)
		}
	}
}

// Whoever opens the path during a change gets the old version or the new, never nothing.
func TestSwapIsSeenWhole(t *testing.T) {
	m := steptest.NewMachine(t, steptest.Options{Fetched: release})
	env := m.Env(step.ID{Kind: "artifacts", Name: "app"}, "k")
	apply := func(version string) {
		a := artifact(t, "source: https://a/app-"+version+".tar.gz\nunpack: /opt/app")
		if err := a.Apply(t.Context(), env); err != nil {
			t.Error(err)
		}
		if got := m.Read("/opt/app/version"); got != version {
			t.Errorf("there is version %s, want %s", got, version)
		}
	}
	apply("1")
	stop := make(chan struct{})
	var reader sync.WaitGroup
	reads := 0
	reader.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			b, err := os.ReadFile(m.Path("/opt/app/version"))
			if err != nil || string(b) != "1" && string(b) != "2" {
				t.Errorf("a reader found %q, %v", b, err)
				return
			}
			reads++
		}
	})
	for range 20 {
		apply("2")
		apply("1")
	}
	close(stop)
	reader.Wait()
	if reads == 0 {
		t.Error("the reader read nothing")
	}
}

func TestFiles(t *testing.T) {
	steptest.Run(t, Kind(), []steptest.Case{
		{
			Name: "a program", Entry: "jq", Body: "source: https://a/jq\nfile: /usr/bin/jq\nmode: '0755'\nowner: app", Fetched: release,
			Setup: func(t *testing.T, m *steptest.Machine) { m.Users("app") },
			Drift: "/usr/bin/jq is missing", Want: "/usr/ 0755\n/usr/bin/ 0755\n" + `/usr/bin/jq 0755 "\x7fELF jq"`,
			Breaks: []steptest.Break{
				{Name: "removed", Do: func(m *steptest.Machine) { m.Remove("/usr/bin/jq") }, Drift: "is missing"},
				{Name: "changed, same length", Do: func(m *steptest.Machine) { m.Write("/usr/bin/jq", 0o755, "\x7fELF qj") }, Drift: "content differs"},
				{Name: "cut", Do: func(m *steptest.Machine) { m.Write("/usr/bin/jq", 0o755, "\x7fELF") }, Drift: "content differs"},
				{Name: "closed", Do: func(m *steptest.Machine) { m.Chmod("/usr/bin/jq", 0o700) }, Drift: "mode is 0700, want 0755"},
				{Name: "a link instead", Do: func(m *steptest.Machine) {
					m.Remove("/usr/bin/jq")
					m.Link("gojq", "/usr/bin/jq")
				}, Drift: "/usr/bin/jq is no file"},
			},
		},
		{
			Name: "another one before", Entry: "jq", Body: "source: https://a/jq\nfile: /bin/jq", Fetched: release,
			Setup: func(t *testing.T, m *steptest.Machine) { m.Write("/bin/jq", 0o755, "of old") },
			Drift: "content differs; mode is 0755, want 0644", Want: `/bin/jq 0644 "\x7fELF jq"`,
		},
		{
			Name: "there already, by another hand", Entry: "jq", Body: "source: https://a/jq\nfile: /bin/jq", Fetched: release, None: true,
			Setup: func(t *testing.T, m *steptest.Machine) { m.Write("/bin/jq", 0o644, "\x7fELF jq") },
		},
		{
			Name: "a folder in the way", Entry: "jq", Body: "source: https://a/jq\nfile: /bin/jq", Fetched: release,
			Setup: func(t *testing.T, m *steptest.Machine) { m.Mkdir("/bin/jq", 0) },
			Error: "cannot write /bin/jq: there is a folder in the way", Hint: "may hold data",
		},
		{
			Name: "an owner that is nobody", Entry: "jq", Body: "source: https://a/jq\nfile: /bin/jq\nowner: app", Fetched: release,
			Error: `cannot give /bin/jq to its owner: no such user: "app"`, Hint: "add it under users",
		},
		{
			Name: "not fetched", Entry: "jq", Body: "source: https://a/jq-2\nfile: /bin/jq", Fetched: release,
			Error: "cannot place jq: it is not fetched",
		},
	})
}

// A copy that nobody touched is not read again: Check is as cheap as a look at
// it. The proof is a store whose bytes are gone bad, which only reading would show.
func TestCheckOfACopyReadsNothing(t *testing.T) {
	m := steptest.NewMachine(t, steptest.Options{Fetched: release})
	env := m.Env(step.ID{Kind: "artifacts", Name: "jq"}, "k")
	a := artifact(t, "source: https://a/jq\nfile: /bin/jq")
	if err := a.Apply(t.Context(), env); err != nil {
		t.Fatal(err)
	}
	it, _ := m.Store.Lookup(a.request())
	m.Write(it.Path, 0o600, "\x7fELF xx")
	if drift, err := a.Check(t.Context(), env); drift != "" || err != nil {
		t.Errorf("%q %v", drift, err)
	}
	if err := m.Stamps.Drop(env.ID); err != nil {
		t.Fatal(err)
	}
	if drift, err := a.Check(t.Context(), env); drift != "content differs" || err != nil {
		t.Errorf("without the stamp: %q %v", drift, err)
	}
}

func artifact(t *testing.T, text string) *Artifact {
	t.Helper()
	s, err := steptest.Decode(Kind(), "app", text)
	if err != nil {
		t.Fatal(err)
	}
	return s.(*Artifact)
}

func TestFetchesAndNeeds(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a", 64)
	got := artifact(t, "source: https://a/x\nmirrors: [https://b/x]\ndigest: "+digest+"\nsize: 9\nunpack: /opt/x\nstrip: 2\nowner: 990\ngroup: '991'").Fetches()[0]
	if got.Name != "artifacts.app" || got.Source != "https://a/x" || !slices.Equal(got.Mirrors, []string{"https://b/x"}) ||
		got.Digest != digest || got.Size != 9 || !got.Unpack || got.Strip != 2 || got.UID != 990 || got.GID != 991 {
		t.Errorf("%+v", got)
	}
	file := artifact(t, "source: https://a/x\nfile: /x\nowner: app\ngroup: web")
	if got := file.Fetches()[0]; got.Unpack || got.UID != 0 {
		t.Errorf("%+v", got)
	}
	if want := []step.ID{{Kind: "users", Name: "app"}, {Kind: "groups", Name: "web"}}; !slices.Equal(file.Needs(), want) {
		t.Errorf("needs %v", file.Needs())
	}
}

var _ interface {
	step.Named
	step.Fetcher
	step.Needer
} = (*Artifact)(nil)

func TestFaults(t *testing.T) {
	steptest.Faults(t, Kind(), []steptest.Fault{
		{Name: "nothing", Entry: "app", Body: "{}", Want: `
			manifest.yaml:1:1: artifacts.app.source: must be given
			manifest.yaml:1:1: artifacts.app: must have one of unpack and file: where it goes`},
		{Name: "two places", Entry: "app", Body: "source: https://a/x\nunpack: /opt/x\nfile: /opt/y", Want: `
			manifest.yaml:3:7: artifacts.app.file: cannot be combined with unpack: it goes to one place`},
		{Name: "all of a tree", Entry: "app", Body: `
source: https://a/x
unpack: opt/x
strip: -1
size: -1
mode: "0755"
owner: app
sourec: x
`, Want: `
			manifest.yaml:2:9: artifacts.app.unpack: must be an absolute path, is "opt/x"
			manifest.yaml:3:8: artifacts.app.strip: must not be negative, is -1
			manifest.yaml:4:7: artifacts.app.size: must not be negative, is -1
			manifest.yaml:5:7: artifacts.app.mode: an unpacked tree has the modes of its archive
			manifest.yaml:6:8: artifacts.app.owner: must be a number for an unpacked tree, is "app"
			hint: it is unpacked before users are made: give the user a uid and write it here, or leave the tree to root
			manifest.yaml:7:1: artifacts.app.sourec: unknown key, did you mean "source"?`},
		{Name: "all of a file", Entry: "app", Body: `
source: https://a/x
file: /opt/../x
strip: 1
mode: rwx
`, Want: `
			manifest.yaml:2:7: artifacts.app.file: must be a plain path below /, is "/opt/../x"
			manifest.yaml:3:8: artifacts.app.strip: is of an archive, and file takes the bytes as they are
			manifest.yaml:4:7: artifacts.app.mode: must be an octal mode such as "0644", is "rwx"`},
		{Name: "templates are not judged yet", Entry: "app", Body: `
source: '{{ .Vars.source }}'
unpack: '{{ .Vars.path }}'
owner: '{{ .Vars.uid }}'
digest: '{{ .Vars.digest }}'
size: '{{ .Vars.size }}'
`},
	})
}
