package unpack

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// tarOf writes archives in tests from lines: "file bin/app 0755 content",
// "dir etc 0700", "link lib.so lib.so.1", "hard b a".
func tarOf(t testing.TB, members ...any) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		h, ok := m.(*tar.Header)
		content := ""
		if !ok {
			h, content = header(t, m.(string))
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var stamp = time.Date(2024, 2, 3, 4, 5, 6, 0, time.UTC)

func header(t testing.TB, line string) (*tar.Header, string) {
	t.Helper()
	f := strings.SplitN(line, " ", 4)
	h := &tar.Header{Name: f[1], Mode: 0o644, ModTime: stamp, Uid: 1234, Gid: 1234}
	content := ""
	switch f[0] {
	case "file":
		fmt.Sscanf(f[2], "%o", &h.Mode)
		h.Typeflag = tar.TypeReg
		if len(f) > 3 {
			content = f[3]
		}
		h.Size = int64(len(content))
	case "dir":
		fmt.Sscanf(f[2], "%o", &h.Mode)
		h.Typeflag = tar.TypeDir
	case "link":
		h.Typeflag, h.Linkname = tar.TypeSymlink, f[2]
	case "hard":
		h.Typeflag, h.Linkname = tar.TypeLink, f[2]
	default:
		t.Fatalf("bad member %q", line)
	}
	return h, content
}

// unpackTo unpacks into a new folder and gives the folder and what it holds.
func unpackTo(t testing.TB, data []byte, o Options) (string, string, error) {
	t.Helper()
	if o.UID == 0 && o.GID == 0 {
		o.UID, o.GID = Keep, Keep
	}
	if o.Spool == nil {
		o.Spool = func() (*os.File, error) { return os.CreateTemp(t.TempDir(), "spool") }
	}
	dir := filepath.Join(t.TempDir(), "tree")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	_, err = Tree(t.Context(), bytes.NewReader(data), root, o)
	return dir, show(t, dir), err
}

// show lists a tree, one line a thing: "file 0755 bin/app content".
func show(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		st, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(p)
			fmt.Fprintf(&b, "link %s %s\n", rel, to)
			return err
		case d.IsDir():
			fmt.Fprintf(&b, "dir %04o %s\n", st.Mode()&^fs.ModeDir, rel)
		default:
			content, err := os.ReadFile(p)
			fmt.Fprintf(&b, "file %04o %s %s\n", uint32(st.Mode()), rel, content)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func want(t *testing.T, got, want string) {
	t.Helper()
	if want = strings.TrimLeft(want, "\n"); got != want {
		t.Errorf("tree is\n%s\nwant\n%s", got, want)
	}
}

func compressed(t testing.TB, format string, plain []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch format {
	case "gz":
		w = gzip.NewWriter(&b)
	case "zst":
		w, err = zstd.NewWriter(&b)
	case "xz":
		w, err = xz.NewWriter(&b)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func wantErr(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || err.Error() != want {
		t.Errorf("got error %v\nwant %s", err, want)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
