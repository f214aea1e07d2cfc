package host_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/host"
)

func scratch(t *testing.T) (*host.Host, string) {
	t.Helper()
	root := t.TempDir()
	h, err := host.New(root, host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return h, root
}

func TestReplaceLeavesOneWholeFile(t *testing.T) {
	h, root := scratch(t)
	for _, text := range []string{"a long first text", "short"} {
		if err := h.Replace("/status", []byte(text), 0o640, host.Keep); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(filepath.Join(root, "status"))
	if err != nil || string(b) != "short" {
		t.Fatalf("got %q, %v", b, err)
	}
	st, _ := os.Stat(filepath.Join(root, "status"))
	if st.Mode().Perm() != 0o640 {
		t.Errorf("mode is %v", st.Mode())
	}
	names, _ := os.ReadDir(root)
	if len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
}

func TestReplaceThatCannotBeDoneLeavesNothing(t *testing.T) {
	h, root := scratch(t)
	if err := os.Mkdir(filepath.Join(root, "status"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := h.Replace("/status", []byte("x"), 0o640, host.Keep); err == nil {
		t.Error("replaced a folder")
	}
	names, _ := os.ReadDir(root)
	if len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
	err := h.Replace("/nowhere/status", []byte("x"), 0o640, host.Keep)
	if !errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), root) {
		t.Errorf("error is %v", err)
	}
}

func TestOpenAppendAddsAndRenameMoves(t *testing.T) {
	h, root := scratch(t)
	for _, line := range []string{"one\n", "two\n"} {
		f, err := h.OpenAppend("/log", 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(line); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	if err := h.Rename("/log", "/log.1"); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(filepath.Join(root, "log.1")); string(b) != "one\ntwo\n" {
		t.Errorf("got %q", b)
	}
	if err := h.Rename("/log", "/log.1"); !errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), root) {
		t.Errorf("error is %v", err)
	}
}
