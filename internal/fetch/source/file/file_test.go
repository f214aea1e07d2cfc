package file_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/fetch"
	"github.com/amiagent/amiagent/internal/fetch/source/file"
	"github.com/amiagent/amiagent/internal/host"
)

// Paths are the machine's own: links lead where they would lead there, and never outside the root.
func TestFilesOfTheMachine(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "opt"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "opt/a b"), []byte("data"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/opt/a b", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(root, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	h, err := host.New(root, host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	open := func(address string) (fetch.Object, error) {
		a, err := fetch.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		return file.New(h).Open(t.Context(), a, nil)
	}
	for _, address := range []string{"/opt/a%20b", "file:///opt/a%20b", "/link"} {
		obj, err := open(address)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(obj.Body)
		obj.Body.Close()
		if string(b) != "data" || obj.Size != 4 {
			t.Errorf("%s: %q %+v", address, b, obj)
		}
	}
	if _, err := open("/gone"); !errors.Is(err, fetch.ErrAbsent) {
		t.Errorf("absent: %v", err)
	}
	if _, err := open("/opt"); err == nil || err.Error() != "it is a folder" || diag.Hint(err) != "pack it into an archive" {
		t.Errorf("folder: %v", err)
	}
	if _, err := open("/fifo"); err == nil || err.Error() != "it is no regular file" {
		t.Errorf("fifo: %v", err)
	}
	if _, err := open("/dev/zero"); !errors.Is(err, fetch.ErrAbsent) {
		t.Errorf("a file of the machine outside the root: %v", err)
	}
}
