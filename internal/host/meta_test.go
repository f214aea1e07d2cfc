package host_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
)

func withPeople(t *testing.T) (*host.Host, string) {
	t.Helper()
	root := t.TempDir()
	h, err := host.New(root, host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"etc/passwd": fmt.Sprintf("me:x:%d:%d::/:\nother:x:70001:70002::/:/bin/sh\n", os.Geteuid(), os.Getegid()),
		"etc/group":  fmt.Sprintf("mine:x:%d:\nweb:x:70003:\n", os.Getegid()),
	} {
		if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return h, root
}

func TestParseMode(t *testing.T) {
	for text, want := range map[string]fs.FileMode{
		"0644": 0o644, "644": 0o644, "0o600": 0o600, "0": 0,
		"4755": 0o755 | fs.ModeSetuid, "2750": 0o750 | fs.ModeSetgid, "1777": 0o777 | fs.ModeSticky,
	} {
		if got, err := host.ParseMode(text); err != nil || got != want {
			t.Errorf("%q: %v %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "u=rw", "0888", "10644", "-1", "0x1ff", "0644 "} {
		if got, err := host.ParseMode(text); err == nil {
			t.Errorf("%q is taken as %v", text, got)
		}
	}
}

func TestIDs(t *testing.T) {
	h, _ := withPeople(t)
	for _, x := range []struct {
		owner, group string
		uid, gid     int
	}{
		{"", "", host.Keep, host.Keep},
		{"other", "", 70001, 70002},
		{"other", "web", 70001, 70003},
		{"", "web", host.Keep, 70003},
		{"12", "13", 12, 13},
	} {
		uid, gid, err := h.IDs(host.Meta{Owner: x.owner, Group: x.group})
		if err != nil || uid != x.uid || gid != x.gid {
			t.Errorf("%q:%q is %d:%d (%v), want %d:%d", x.owner, x.group, uid, gid, err, x.uid, x.gid)
		}
	}
	if _, _, err := h.IDs(host.Meta{Owner: "nobody"}); !errors.Is(err, host.ErrNoUser) || !strings.Contains(diag.Hint(err), "under users") {
		t.Errorf("%v (hint %q)", err, diag.Hint(err))
	}
	if _, _, err := h.IDs(host.Meta{Group: "nogroup"}); !errors.Is(err, host.ErrNoGroup) || !strings.Contains(diag.Hint(err), "under groups") {
		t.Errorf("%v (hint %q)", err, diag.Hint(err))
	}
}

func TestMetaDrift(t *testing.T) {
	h, root := withPeople(t)
	file := filepath.Join(root, "x")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("x", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		name string
		meta host.Meta
		want string
	}{
		{"/x", host.Meta{Mode: 0o600}, ""},
		{"/x", host.Meta{Mode: 0o600, Owner: "me", Group: "mine"}, ""},
		{"/x", host.Meta{Mode: 0o644 | fs.ModeSetuid}, "mode is 0600, want 4644"},
		{"/x", host.Meta{Mode: 0o600, Owner: "other"}, "owner is me, want other; group is mine, want 70002"},
		{"/x", host.Meta{Mode: 0o600, Group: "web"}, "group is mine, want web"},
		{"/x", host.Meta{Mode: 0o644, Owner: "nobody"}, `mode is 0600, want 0644; no such user: "nobody"`},
		{"/link", host.Meta{Mode: 0o600, Owner: "me"}, ""},
	} {
		st, err := h.Lstat(x.name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := h.MetaDrift(st, x.meta)
		if s := strings.Join(got, "; "); err != nil || s != x.want {
			t.Errorf("%s %+v: %q (%v), want %q", x.name, x.meta, s, err, x.want)
		}
	}
}

func TestExplain(t *testing.T) {
	if host.Explain(nil) != nil {
		t.Error("no error has an explanation")
	}
	for no, want := range map[syscall.Errno]string{
		syscall.ENOSPC: "free some space", syscall.EROFS: "read-only", syscall.EPERM: "immutable",
		syscall.EACCES: "as root?", syscall.ELOOP: "leads to itself", syscall.EIO: "",
	} {
		err := host.Explain(fmt.Errorf("cannot write /x: %w", host.Cause(&fs.PathError{Op: "open", Path: "/x", Err: no})))
		if !errors.Is(err, no) || !strings.Contains(diag.Hint(err), want) || strings.Count(err.Error(), "/x") != 1 {
			t.Errorf("%v (hint %q), want %q", err, diag.Hint(err), want)
		}
	}
	kept := diag.WithHint(syscall.ENOSPC, "my own")
	if got := diag.Hint(host.Explain(kept)); got != "my own" {
		t.Errorf("the hint became %q", got)
	}
	if !host.Missing(&fs.PathError{Err: syscall.ENOTDIR}) || !host.Missing(&fs.PathError{Err: syscall.ENOENT}) || host.Missing(syscall.EACCES) || host.Missing(nil) {
		t.Error("Missing")
	}
	if err := host.Cause(&os.LinkError{Err: syscall.EXDEV}); err != syscall.EXDEV {
		t.Error(err)
	}
}

func TestSameContent(t *testing.T) {
	long := strings.Repeat("0123456789", 30_000)
	for _, x := range []struct {
		a, b string
		want bool
	}{
		{"", "", true}, {"a", "a", true}, {"a", "b", false}, {"", "a", false},
		{long, long, true}, {long + "a", long + "b", false}, {long, long + "a", false}, {long + "a", long, false},
	} {
		got, err := host.SameContent(t.Context(), strings.NewReader(x.a), iotest.OneByteReader(strings.NewReader(x.b)))
		if err != nil || got != x.want {
			t.Errorf("texts of %d and %d bytes: %v %v", len(x.a), len(x.b), got, err)
		}
	}
	broken := errors.New("broken")
	if _, err := host.SameContent(t.Context(), iotest.ErrReader(broken), strings.NewReader("")); !errors.Is(err, broken) {
		t.Error(err)
	}
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	if _, err := host.SameContent(ctx, strings.NewReader(""), strings.NewReader("")); !errors.Is(err, stop) {
		t.Error(err)
	}
}

// The link must lead to its target seen from the machine and from outside its
// root, also where a parent of either is a link itself.
func TestRelativeLink(t *testing.T) {
	h, root := withPeople(t)
	for _, dir := range []string{"var/lib/store/tree", "data/opt/deep", "opt", "data/store/tree2"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"srv": "/data/opt/deep", "var/lib/other": "/data/store"} {
		if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range []struct{ target, name, want string }{
		{"/var/lib/store/tree", "/opt/app", "../var/lib/store/tree"},
		{"/var/lib/store/tree", "/srv/app", "../../../var/lib/store/tree"},
		{"/var/lib/other/tree2", "/srv/app", "../../store/tree2"},
		{"/opt", "/app", "opt"},
	} {
		got, err := h.RelativeLink(x.target, x.name)
		if err != nil || got != x.want {
			t.Errorf("%s from %s: %q %v, want %q", x.target, x.name, got, err, x.want)
		}
	}
}
