//go:build system

package fetch_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/fetch"
	"github.com/amiagent/amiagent/internal/host"
)

// These need root: to mount, and to give files away.

// A disk that fills up in mid-fetch: a clear error, nothing left, and the
// store works again when there is room.
func TestFullDisk(t *testing.T) {
	w := newWorld(t)
	dir, err := w.h.Path("/var/lib/amiagent")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatalf("this test needs root: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	big := make([]byte, 4<<20)
	w.has("/announced", big)
	w.has("/tree", tgz(t, "zeros", string(big))) // small as it comes, large as it unpacks
	for _, r := range []fetch.Request{
		{Name: "x", Source: w.url + "/announced"},
		{Name: "x", Source: w.url + "/tree", Unpack: true},
		{Name: "x", Source: w.url + "/tree", Unpack: true, Digest: digest(tgz(t, "zeros", string(big)))},
	} {
		err := w.fails(r, syscall.ENOSPC)
		if !strings.Contains(fmt.Sprint(err), "no space left on device") || !strings.HasPrefix(diag.Hint(err), "make room") {
			t.Errorf("got %v, hint %q", err, diag.Hint(err))
		}
	}
	w.has("/small", []byte("small"))
	w.fetch(fetch.Request{Name: "x", Source: w.url + "/small"})
}

// A store on a read-only file system serves what it has and says why it takes nothing new.
func TestReadOnlyFileSystem(t *testing.T) {
	w := newWorld(t)
	w.has("/a", []byte("a"))
	req := fetch.Request{Name: "x", Source: w.url + "/a"}
	it := w.fetch(req)[0]
	_ = w.store.Close()
	dir, _ := w.h.Path("/var/lib/amiagent")
	if err := syscall.Mount(dir, dir, "", syscall.MS_BIND, ""); err != nil {
		t.Fatalf("this test needs root: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	if err := syscall.Mount("", dir, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	w.store = w.newStore()
	if again := w.fetch(req)[0]; again != it {
		t.Errorf("got %+v", again)
	}
	if _, err := w.store.Fetch(t.Context(), []fetch.Request{{Name: "y", Source: w.url + "/b"}}, nil); !errors.Is(err, syscall.EROFS) {
		t.Errorf("got %v", err)
	}
}

// The whole tree belongs to whom the request says, with the folders that the
// archive did not list.
func TestTreeBelongsToItsOwner(t *testing.T) {
	w := newWorld(t)
	w.has("/a", tgz(t, "deep/er/file", "x"))
	mine := fetch.Request{Name: "x", Source: w.url + "/a", Unpack: true}
	theirs := mine
	theirs.UID, theirs.GID = 4321, 1234
	items := w.fetch(mine, theirs)
	if items[0].Path == items[1].Path {
		t.Error("two owners share one tree")
	}
	for i, want := range [][2]int{{0, 0}, {4321, 1234}} {
		root, _ := w.h.Path(items[i].Path)
		_ = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				t.Fatal(err)
			}
			st, _ := d.Info()
			if uid, gid := host.OwnerOf(st); uid != want[0] || gid != want[1] {
				t.Errorf("%s belongs to %d:%d, want %v", p, uid, gid, want)
			}
			return nil
		})
	}
}
