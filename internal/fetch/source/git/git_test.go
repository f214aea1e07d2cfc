package git_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/fetch"
	"github.com/amiagent/amiagent/internal/fetch/source/git"
	"github.com/amiagent/amiagent/internal/host"
)

// repo is a real repository, made by git itself.
type repo struct {
	t   *testing.T
	dir string
}

func newRepo(t *testing.T) *repo {
	r := &repo{t, t.TempDir()}
	r.git("init", "-q", "-b", "main")
	return r
}

func (r *repo) git(args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", append([]string{"-C", r.dir, "-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "protocol.file.allow=always"}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (r *repo) write(name, content string, mode os.FileMode) {
	r.t.Helper()
	p := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(content), mode); err != nil {
		r.t.Fatal(err)
	}
}

func (r *repo) commit(message string) string {
	r.t.Helper()
	r.git("add", "-A")
	r.git("commit", "-q", "-m", message)
	return r.git("rev-parse", "HEAD")
}

// open opens an address on a new scratch machine and gives what came, one line a thing.
func open(t *testing.T, address string) (string, fetch.Object, error) {
	t.Helper()
	h, err := host.New(t.TempDir(), host.Options{Programs: host.Outside, Path: os.Getenv("PATH")})
	if err != nil {
		t.Fatal(err)
	}
	return openOn(t, h, address)
}

func openOn(t *testing.T, h *host.Host, address string) (string, fetch.Object, error) {
	t.Helper()
	a, err := fetch.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	obj, err := git.New(h).Open(t.Context(), a, func() (string, error) { return "/work", h.MkdirAll("/work") })
	if err != nil {
		return "", obj, err
	}
	defer obj.Body.Close()
	if !obj.Tree {
		b, err := io.ReadAll(obj.Body)
		return string(b), obj, err
	}
	var lines strings.Builder
	for tr := tar.NewReader(obj.Body); ; {
		m, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return lines.String(), obj, nil
		}
		if err != nil {
			return "", obj, err
		}
		content, _ := io.ReadAll(tr)
		fmt.Fprintf(&lines, "%c %04o %s %s%s\n", m.Typeflag, m.Mode, m.Name, m.Linkname, content)
	}
}

func TestBranchTagAndCommit(t *testing.T) {
	r := newRepo(t)
	r.write("bin/app", "#!", 0o755)
	r.write("conf/a", "one", 0o600)
	if err := os.Symlink("conf/a", filepath.Join(r.dir, "link")); err != nil {
		t.Fatal(err)
	}
	first := r.commit("first")
	r.git("tag", "-a", "v1", "-m", "annotated")
	r.git("tag", "light")
	r.write("conf/a", "two", 0o600)
	second := r.commit("second")
	r.git("branch", "feature/x", first)
	r.git("branch", "v1", second) // a branch named as the tag: the tag goes first
	for _, c := range []struct{ ref, commit, content string }{
		{"", second, "two"}, {"main", second, "two"}, {"v1", first, "one"}, {"light", first, "one"},
		{"feature/x", first, "one"}, {"refs/heads/main", second, "two"}, {first, first, "one"},
	} {
		address := "git::file://" + r.dir
		if c.ref != "" {
			address += "?ref=" + c.ref
		}
		tree, obj, err := open(t, address)
		if err != nil {
			t.Errorf("%s: %v", c.ref, err)
			continue
		}
		want := "5 0755 bin \n0 0755 bin/app #!\n5 0755 conf \n0 0644 conf/a " + c.content + "\n2 0755 link conf/a\n"
		if tree != want {
			t.Errorf("%s is\n%swant\n%s", c.ref, tree, want)
		}
		if obj.Digest != "git:"+c.commit || obj.Origin != "git::file://"+r.dir+"?ref="+c.commit {
			t.Errorf("%s: %+v", c.ref, obj)
		}
	}
}

func TestFolderAndFile(t *testing.T) {
	r := newRepo(t)
	r.write("deep/er/a", "data", 0o644)
	r.write("deep/b", "b", 0o644)
	r.commit("first")
	if tree, _, err := open(t, "git::"+r.dir+"//deep/er"); err != nil || tree != "0 0644 a data\n" {
		t.Errorf("%q %v", tree, err)
	}
	if body, obj, err := open(t, "git::"+r.dir+"//deep/er/a?ref=main"); err != nil || body != "data" || obj.Tree || obj.Size != 4 {
		t.Errorf("%q %+v %v", body, obj, err)
	}
	for _, sub := range []string{"gone", ".git/config"} {
		if body, _, err := open(t, "git::"+r.dir+"//"+sub); !errors.Is(err, fetch.ErrAbsent) {
			t.Errorf("%s: %q %v", sub, body, err)
		}
	}
}

// CVE-2025-8959: a link in the repository reads a file outside it through //.
func TestGoGetterCVE20258959LinkOutOfTheRepository(t *testing.T) {
	r := newRepo(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"file": secret, "dir": filepath.Dir(secret), "up": "../../.."} {
		if err := os.Symlink(to, filepath.Join(r.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	r.commit("links")
	for _, sub := range []string{"file", "dir/secret", "dir", "up"} {
		if body, _, err := open(t, "git::"+r.dir+"//"+sub); err == nil {
			t.Errorf("//%s gave %q", sub, body)
		}
	}
}

func TestSubmodulesComeAlong(t *testing.T) {
	inner, r := newRepo(t), newRepo(t)
	inner.write("in", "inner", 0o644)
	inner.commit("inner")
	r.git("submodule", "-q", "add", inner.dir, "sub")
	r.commit("outer")
	tree, _, err := open(t, "git::"+r.dir)
	if err != nil || !strings.Contains(tree, "0 0644 sub/in inner\n") || strings.Contains(tree, "sub/.git") {
		t.Errorf("%s %v", tree, err)
	}
}

func TestRefusals(t *testing.T) {
	r := newRepo(t)
	r.write("a", "a", 0o644)
	r.commit("first")
	empty := newRepo(t)
	for address, want := range map[string]string{
		"git::" + r.dir + "?ref=gone":                       `not there: no branch or tag "gone"`,
		"git::" + empty.dir:                                 "not there: the repository has no HEAD",
		"git::" + r.dir + "/gone":                           "not there: git ls-remote exited with 128: ",
		"git::" + r.dir + "?ref=" + strings.Repeat("a", 40): "not there: the repository does not serve commit " + strings.Repeat("a", 40),
	} {
		_, _, err := open(t, address)
		if !errors.Is(err, fetch.ErrAbsent) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v\nwant %s", address, err, want)
		}
	}
	h, _ := host.New(t.TempDir(), host.Options{Programs: host.Outside, Path: t.TempDir()})
	if _, _, err := openOn(t, h, "git::"+r.dir); !errors.Is(err, host.ErrNoProgram) || diag.Hint(err) == "" {
		t.Errorf("without git: %v", err)
	}
}

// Over HTTPS nobody is asked for a password, the answer's class is kept, and
// the secret of the address is neither told nor seen in argv.
func TestOverHTTP(t *testing.T) {
	r := newRepo(t)
	r.write("a", "data", 0o644)
	first := r.commit("first")
	backend := &cgi.Handler{Path: filepath.Join(r.git("--exec-path"), "git-http-backend"), Env: []string{"GIT_PROJECT_ROOT=" + r.dir, "GIT_HTTP_EXPORT_ALL=1"}}
	status := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		user, password, _ := req.BasicAuth()
		switch {
		case status != 0:
			w.WriteHeader(status)
		case user != "me" || password != "hunter2":
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(401)
		default:
			backend.ServeHTTP(w, req)
		}
	}))
	defer srv.Close()
	withUser := func(user string) string {
		return "git::" + strings.Replace(srv.URL, "//", "//"+user, 1) + "/.git"
	}
	// git as a program on PATH that logs its argv.
	bin, log := t.TempDir(), filepath.Join(t.TempDir(), "log")
	real, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/sh\necho \"$@\" >> %s\nexec %s \"$@\"\n", log, real)
	if err := os.WriteFile(filepath.Join(bin, "git"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	h, err := host.New(t.TempDir(), host.Options{Programs: host.Outside, Path: bin + ":" + os.Getenv("PATH")})
	if err != nil {
		t.Fatal(err)
	}
	tree, obj, err := openOn(t, h, withUser("me:hunter2@"))
	if err != nil || tree != "0 0644 a data\n" || obj.Digest != "git:"+first {
		t.Fatalf("%q %+v %v", tree, obj, err)
	}
	argv, _ := os.ReadFile(log)
	if strings.Contains(string(argv)+obj.Origin, "hunter2") || !bytes.Contains(argv, []byte("fetch")) {
		t.Errorf("the secret was told:\n%s%s", argv, obj.Origin)
	}

	for _, user := range []string{"", "me:wrongword@"} {
		_, _, err := open(t, withUser(user))
		if !errors.Is(err, fetch.ErrDenied) || diag.Hint(err) == "" || strings.Contains(err.Error(), "wrongword") {
			t.Errorf("as %q: %v", user, err)
		}
	}
	for s, class := range map[int]error{404: fetch.ErrAbsent, 403: fetch.ErrDenied} {
		status = s
		if _, _, err := open(t, withUser("me:hunter2@")); !errors.Is(err, class) {
			t.Errorf("%d: %v", s, err)
		}
	}
	for _, s := range []int{429, 500, 503} {
		status = s
		if _, _, err := open(t, withUser("me:hunter2@")); !fetch.IsTransient(err) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%d: %v", s, err)
		}
	}
	srv.Close()
	if _, _, err := open(t, withUser("")); !fetch.IsTransient(err) {
		t.Errorf("server gone: %v", err)
	}
}

// Whatever a repository brings, checking it out runs nothing: no hook, no
// transport that is a program.
func TestRepositoryRunsNothing(t *testing.T) {
	r := newRepo(t)
	mark := filepath.Join(t.TempDir(), "ran")
	r.write(".gitmodules", "[submodule \"x\"]\n\tpath = x\n\turl = ext::sh -c touch% "+mark+"\n", 0o644)
	r.write("a", "a", 0o644)
	r.git("add", "-A")
	r.git("update-index", "--add", "--cacheinfo", "160000,"+strings.Repeat("1", 40)+",x")
	r.git("commit", "-q", "-m", "x")
	if _, _, err := open(t, "git::"+r.dir); err == nil {
		t.Error("a submodule by an unknown transport passed")
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("the repository ran a program")
	}
}

// An old git repeats the address in its errors, and every git may ask at a
// terminal: a fake one tells the first and logs how it was asked not to do the second.
func TestOldGitTellsNoSecret(t *testing.T) {
	bin := t.TempDir()
	log := filepath.Join(bin, "env")
	script := fmt.Sprintf(`#!/bin/sh
env > %s
case "$*" in
*" init --quiet"*) mkdir -p .git; : > .git/config;;
*) sed -n 's/.*url = //p' .git/config >&2; echo "fatal: could not read Password for 'https://me:hunter2@example.com': hunter2" >&2; exit 128;;
esac
`, log)
	if err := os.WriteFile(filepath.Join(bin, "git"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	h, err := host.New(t.TempDir(), host.Options{Programs: host.Outside, Path: bin + ":" + os.Getenv("PATH")})
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = openOn(t, h, "git::https://me:hunter2@example.com/r.git")
	if want := "access denied: git ls-remote exited with 128: fatal: could not read Password for 'https://redacted@example.com': redacted"; err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	env, _ := os.ReadFile(log)
	for _, want := range []string{"GIT_TERMINAL_PROMPT=0\n", "GIT_ALLOW_PROTOCOL=https:ssh\n", "LC_ALL=C.UTF-8\n"} {
		if !bytes.Contains(env, []byte(want)) {
			t.Errorf("git ran without %s", want)
		}
	}
}
