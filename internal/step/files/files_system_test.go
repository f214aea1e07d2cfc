//go:build system

package files

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/step"
	"github.com/amiagent/amiagent/internal/step/steptest"
)

// These stories need root: other owners, and file systems that refuse.

func TestOwnersOfOthers(t *testing.T) {
	people := func(t *testing.T, m *steptest.Machine) {
		m.Write("/etc/passwd", 0o644, "app:x:4711:4712::/:/bin/sh\n")
		m.Write("/etc/group", 0o644, "app:x:4712:\nweb:x:4713:\n")
	}
	steptest.Run(t, Kind(), []steptest.Case{
		{
			Name: "an owner brings the own group", Entry: "/etc/app", Body: "content: x\nowner: app", Setup: people,
			Want: `/etc/app 0644 4711:4712 "x"`,
			Breaks: []steptest.Break{
				{Name: "given away", Do: func(m *steptest.Machine) {
					if err := m.Host.SetMeta("/etc/app", 0o644, 1, 2); err != nil {
						t.Fatal(err)
					}
				}, Drift: "owner is 1, want app; group is 2, want app"},
			},
		},
		{
			Name: "a group of its own", Entry: "/etc/app", Body: "directory: true\nowner: app\ngroup: web\nmode: '2775'", Setup: people,
			Want: `/etc/app/ 2775 4711:4713`,
		},
		{
			Name: "numbers", Entry: "/etc/app", Body: "link: x\nowner: '5'\ngroup: '6'", Setup: people,
			Want: `/etc/app -> x 5:6`,
		},
		{
			Name: "who is there stays the owner", Entry: "/etc/app", Body: "content: y",
			Setup: func(t *testing.T, m *steptest.Machine) {
				m.Write("/etc/app", 0o644, "x")
				if err := m.Host.SetMeta("/etc/app", 0o644, 5, 6); err != nil {
					t.Fatal(err)
				}
			},
			Want: `/etc/app 0644 5:6 "y"`,
		},
	})
}

// mounted is a machine with a file system of its own at /data.
func mounted(t *testing.T, options string) *steptest.Machine {
	m := steptest.NewMachine(t, steptest.Options{})
	m.Mkdir("/data", 0)
	run(t, "mount", "-t", "tmpfs", "-o", options, "tmpfs", m.Path("/data"))
	t.Cleanup(func() { run(t, "umount", m.Path("/data")) })
	return m
}

func run(t *testing.T, argv ...string) {
	t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%q: %v: %s", argv, err, out)
	}
}

func apply(t *testing.T, m *steptest.Machine, name, text string) error {
	t.Helper()
	return body(t, name, text).Apply(t.Context(), m.Env(step.ID{Kind: "files", Name: name}, "k"))
}

func TestFullDiskLeavesTheOldFile(t *testing.T) {
	m := mounted(t, "size=8k")
	m.Write("/data/app", 0o644, "old")
	err := apply(t, m, "/data/app", "content: "+strings.Repeat("x", 64<<10))
	if err == nil || err.Error() != "cannot write /data/app: no space left on device" || !strings.Contains(diag.Hint(err), "free some space") {
		t.Errorf("%v (hint %q)", err, diag.Hint(err))
	}
	if got := steptest.Changes(map[string]string{"/data": m.Tree()["/data"]}, m.Tree()); got != `/data/app 0644 "old"` {
		t.Errorf("there is:\n%s", got)
	}
}

func TestReadOnlyFileSystem(t *testing.T) {
	m := mounted(t, "ro")
	for text, want := range map[string]string{
		"content: x":      "cannot write /data/app: read-only file system",
		"link: x":         "cannot make link /data/app: read-only file system",
		"directory: true": "cannot make folder /data/app: read-only file system",
	} {
		err := apply(t, m, "/data/app", text)
		if err == nil || err.Error() != want || !strings.Contains(diag.Hint(err), "mounted read-only") {
			t.Errorf("%v (hint %q), want %s", err, diag.Hint(err), want)
		}
	}
}

func TestImmutableFile(t *testing.T) {
	m := mounted(t, "size=1m")
	m.Write("/data/app", 0o644, "old")
	run(t, "chattr", "+i", m.Path("/data/app"))
	t.Cleanup(func() { run(t, "chattr", "-i", m.Path("/data/app")) })
	for text, want := range map[string]string{
		"content: new":              "cannot write /data/app: operation not permitted",
		"content: old\nmode: '600'": "cannot set owner and mode of /data/app: operation not permitted",
		"absent: true":              "cannot remove /data/app: operation not permitted",
	} {
		err := apply(t, m, "/data/app", text)
		if err == nil || err.Error() != want || !strings.Contains(diag.Hint(err), "immutable") {
			t.Errorf("%v (hint %q), want %s", err, diag.Hint(err), want)
		}
	}
	if m.Read("/data/app") != "old" || len(m.Tree()) != 2 {
		t.Errorf("%v", m.Tree())
	}
}
