package host_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/amiagent/amiagent/internal/host"
)

func tree(t *testing.T) (*host.Host, string) {
	t.Helper()
	root := t.TempDir()
	for _, d := range []string{"etc", "usr/bin", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h, err := host.New(root, host.Options{Programs: host.Outside, Path: filepath.Join(root, "usr/bin") + ":/usr/bin:/bin"})
	if err != nil {
		t.Fatal(err)
	}
	return h, root
}

func TestLinksStayInsideTheRoot(t *testing.T) {
	h, root := tree(t)
	for link, target := range map[string]string{"etc/abs": "/usr/bin", "etc/up": "../../../../../../usr", "etc/loopless": "abs"} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"/etc/abs/x":        "usr/bin/x",
		"/etc/up/bin":       "usr/bin",
		"/etc/loopless":     "usr/bin",
		"/../../etc/passwd": "etc/passwd",
	} {
		got, err := h.Path(name)
		if err != nil || got != filepath.Join(root, want) {
			t.Errorf("Path(%s) = %s, %v, want %s in the root", name, got, err, want)
		}
	}
	if entry, _ := h.EntryPath("/etc/abs"); entry != filepath.Join(root, "etc/abs") {
		t.Errorf("EntryPath follows the last link: %s", entry)
	}
	if _, err := h.Path("etc/passwd"); err == nil {
		t.Error("a relative path is taken")
	}
}

func write(h *host.Host, name, text string, check func(context.Context, string) error) error {
	return h.WriteFile(context.Background(), host.File{Path: name, Data: strings.NewReader(text), Mode: 0o640, UID: host.Keep, GID: host.Keep, Check: check})
}

// left lists what stands in a folder, so that a forgotten temporary file shows.
func left(t *testing.T, dir string) string {
	t.Helper()
	es, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range es {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func TestAFileAppearsWholeOrNotAtAll(t *testing.T) {
	h, root := tree(t)
	if err := write(h, "/etc/motd", "old\n", nil); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]host.File{
		"the reader breaks": {Data: io.MultiReader(strings.NewReader("half"), errReader{})},
		"the check refuses": {Data: strings.NewReader("new"), Check: func(context.Context, string) error { return errors.New("no") }},
	} {
		f.Path, f.Mode, f.UID, f.GID = "/etc/motd", 0o644, host.Keep, host.Keep
		if err := h.WriteFile(context.Background(), f); err == nil {
			t.Errorf("%s: no error", name)
		}
		if b, _ := h.ReadFile("/etc/motd"); string(b) != "old\n" {
			t.Errorf("%s: the old file is gone, there is %q", name, b)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := h.WriteFile(ctx, host.File{Path: "/etc/motd", Data: strings.NewReader("x"), Mode: 0o644, UID: host.Keep, GID: host.Keep}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled write: %v", err)
	}
	if got := left(t, filepath.Join(root, "etc")); got != "motd" {
		t.Errorf("left behind: %s", got)
	}
	err := write(h, "/etc/motd", "new\n", func(_ context.Context, path string) error {
		b, err := h.ReadFile(path)
		if string(b) != "new\n" {
			return fmt.Errorf("check saw %q %v", b, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	st, _ := h.Stat("/etc/motd")
	if st.Mode().Perm() != 0o640 {
		t.Errorf("mode is %v", st.Mode())
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("broken wire") }

func TestErrorsNameTheMachinesPaths(t *testing.T) {
	h, root := tree(t)
	err := write(h, "/nowhere/motd", "x", nil)
	if err == nil || strings.Contains(err.Error(), root) || !strings.Contains(err.Error(), "/nowhere/") {
		t.Errorf("error: %v", err)
	}
	if _, err := h.ReadFile("/etc/none"); !errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), root) {
		t.Errorf("error: %v", err)
	}
	if err := write(h, "/etc", "x", nil); err == nil || err.Error() != "cannot write /etc: it is a folder" {
		t.Errorf("error: %v", err)
	}
}

func TestALinkIsSwappedInOneRename(t *testing.T) {
	h, root := tree(t)
	for _, target := range []string{"a", "b"} {
		if err := h.Symlink(target, "/etc/current"); err != nil {
			t.Fatal(err)
		}
		if got, _ := h.Readlink("/etc/current"); got != target {
			t.Errorf("link is %q", got)
		}
	}
	if got := left(t, filepath.Join(root, "etc")); got != "current" {
		t.Errorf("left behind: %s", got)
	}
}

func TestReadLimited(t *testing.T) {
	h, _ := tree(t)
	if err := write(h, "/etc/f", "12345", nil); err != nil {
		t.Fatal(err)
	}
	if b, err := h.ReadLimited("/etc/f", 5); err != nil || len(b) != 5 {
		t.Error(b, err)
	}
	if _, err := h.ReadLimited("/etc/f", 4); !errors.Is(err, host.ErrTooLarge) {
		t.Error(err)
	}
}

func TestRemoveRefusesTheRoot(t *testing.T) {
	h, _ := tree(t)
	for _, name := range []string{"/", "/etc/..", "//"} {
		if err := h.RemoveAll(name); err == nil {
			t.Errorf("RemoveAll(%q) went through", name)
		}
	}
}

func script(t *testing.T, root, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(root, "usr/bin", name), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestRunReportsCodeOutputAndLines(t *testing.T) {
	h, root := tree(t)
	script(t, root, "tool", "echo out $1; echo err >&2; echo part | tr -d '\\n'; exit 3\n")
	var lines []string
	res, err := h.Run(t.Context(), host.Cmd{Argv: []string{"tool", "x y"}, Line: func(s string) { lines = append(lines, s) }})
	var ee *host.ExitError
	if !errors.As(err, &ee) || ee.Code != 3 || res.Code != 3 {
		t.Fatalf("%+v %v", res, err)
	}
	if string(res.Stdout) != "out x y\npart" || len(lines) != 3 {
		t.Errorf("stdout %q, lines %q", res.Stdout, lines)
	}
}

// What a program says last must come last, whichever stream it uses: it is why it failed.
func TestOneStreamKeepsTheOrderOfWriting(t *testing.T) {
	h, root := tree(t)
	script(t, root, "talk", "seq 1 12000; echo err >&2; seq 1 12000; echo last words >&2; exit 1\n")
	for range 5 {
		var lines []string
		_, err := h.Run(t.Context(), host.Cmd{Argv: []string{"talk"}, OneStream: true, Line: func(s string) { lines = append(lines, s) }})
		if err == nil || err.Error() != "talk exited with 1: last words" {
			t.Fatal(err)
		}
		if len(lines) != 24002 || lines[12000] != "err" || lines[len(lines)-1] != "last words" {
			t.Fatalf("%d lines, %q, %q", len(lines), lines[12000], lines[len(lines)-1])
		}
	}
}

func TestRunGivesACleanEnvironmentAndNoTerminal(t *testing.T) {
	t.Setenv("SECRET_OF_THE_AGENT", "x")
	h, root := tree(t)
	script(t, root, "show", "env; read line || echo nothing to read; [ -t 0 ] || echo no tty\n")
	res, err := h.Run(t.Context(), host.Cmd{Argv: []string{"show"}, Env: []string{"MINE=1"}})
	out := string(res.Stdout)
	if err != nil || strings.Contains(out, "SECRET_OF_THE_AGENT") || !strings.Contains(out, "MINE=1") ||
		!strings.Contains(out, "AMIAGENT_ROOT="+root) || !strings.Contains(out, "nothing to read") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestRunEndsTheWholeGroupOnTimeout(t *testing.T) {
	h, root := tree(t)
	script(t, root, "slow", "sleep 60 & echo $! > "+root+"/tmp/child; wait\n")
	begin := time.Now()
	_, err := h.Run(t.Context(), host.Cmd{Argv: []string{"slow"}, Timeout: 200 * time.Millisecond})
	if !errors.Is(err, host.ErrTimeout) || time.Since(begin) > 5*time.Second {
		t.Fatalf("%v after %s", err, time.Since(begin))
	}
	if err.Error() != "slow: timed out after 200ms" {
		t.Errorf("error: %v", err)
	}
	var pid int
	b, _ := os.ReadFile(root + "/tmp/child")
	fmt.Sscan(string(b), &pid)
	for range 100 {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") { // gone, or waiting for init to notice
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the child of the program lives on")
}

// A hook of CodeDeploy failed with code 6 ("outputs left open") when a child kept its output.
func TestPeersTrap10_ChildHoldingTheOutputNeitherHangsNorFails(t *testing.T) {
	h, root := tree(t)
	script(t, root, "daemonize", "sleep 30 & echo $! > "+root+"/tmp/child; echo started\n")
	begin := time.Now()
	res, err := h.Run(t.Context(), host.Cmd{Argv: []string{"daemonize"}})
	if err != nil || string(res.Stdout) != "started\n" || time.Since(begin) > 5*time.Second {
		t.Errorf("%q %v after %s", res.Stdout, err, time.Since(begin))
	}
	var pid int
	b, _ := os.ReadFile(root + "/tmp/child")
	if fmt.Sscan(string(b), &pid); pid > 0 {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

func TestRunKeepsOutputWithinLimits(t *testing.T) {
	h, root := tree(t)
	script(t, root, "chatty", "head -c 40000000 /dev/zero | tr '\\0' x; echo; echo last words >&2\n")
	res, err := h.Run(t.Context(), host.Cmd{Argv: []string{"chatty"}})
	if err != nil || len(res.Stdout) != host.MaxOutput || len(res.Tail) > host.MaxTail {
		t.Errorf("%d bytes of stdout, %d of tail, %v", len(res.Stdout), len(res.Tail), err)
	}
}

func TestAProgramThatIsNotThere(t *testing.T) {
	h, root := tree(t)
	for _, argv := range [][]string{{"no-such-tool"}, {"/usr/bin/no-such-tool"}} {
		if _, err := h.Run(t.Context(), host.Cmd{Argv: argv}); !errors.Is(err, host.ErrNoProgram) && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v: %v", argv, err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "usr/bin/plain"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if h.HasProgram("plain") {
		t.Error("a file that cannot be run counts as a program")
	}
	if _, err := h.Run(t.Context(), host.Cmd{}); err == nil {
		t.Error("no program given, and no error")
	}
}

func TestUsersAndGroupsComeFromTheRoot(t *testing.T) {
	h, root := tree(t)
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\napp:x:990:991:App:/srv/app:/bin/false\nbroken line\n+nis\n",
		"etc/group":  "root:x:0:\napp:x:991:\nweb:x:992:app,other\n",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	u, err := h.LookupUser("app")
	if err != nil || u.UID != 990 || u.Home != "/srv/app" {
		t.Errorf("%+v %v", u, err)
	}
	if u, err := h.LookupUser("4711"); err != nil || u.UID != 4711 {
		t.Errorf("a number need not be in passwd: %+v %v", u, err)
	}
	if _, err := h.LookupUser("nobody-here"); !errors.Is(err, host.ErrNoUser) {
		t.Error(err)
	}
	if g, err := h.LookupGroup("web"); err != nil || g.GID != 992 || len(g.Members) != 2 {
		t.Errorf("%+v %v", g, err)
	}
	if _, err := h.LookupGroup("none"); !errors.Is(err, host.ErrNoGroup) {
		t.Error(err)
	}
}

func TestARootThatIsNotThere(t *testing.T) {
	if _, err := host.New("/no/such/root", host.Options{}); err == nil || !strings.Contains(err.Error(), "/no/such/root") {
		t.Error(err)
	}
	f := filepath.Join(t.TempDir(), "file")
	_ = os.WriteFile(f, nil, 0o644)
	if _, err := host.New(f, host.Options{}); err == nil {
		t.Error("a file is taken for a root")
	}
}

// What comes between the two halves of a line on the other stream is a line of its own.
func TestRunKeepsLinesOfTheTwoStreamsApart(t *testing.T) {
	h, root := tree(t)
	script(t, root, "tool", "printf 'half a '; sleep 0.05; echo err >&2; sleep 0.05; echo line\n")
	var lines []string
	if _, err := h.Run(t.Context(), host.Cmd{Argv: []string{"tool"}, Line: func(s string) { lines = append(lines, s) }}); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(lines, "|"); got != "err|half a line" {
		t.Errorf("lines %q", got)
	}
}
