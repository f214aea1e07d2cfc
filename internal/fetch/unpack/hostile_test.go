package unpack

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A chain of hostile members, each of which some unpacker has fallen for.
func TestRefusesWhatLeavesTheFolder(t *testing.T) {
	node := func(kind byte) *tar.Header { return &tar.Header{Name: "n", Typeflag: kind, Mode: 0o644} }
	deep := []any{"dir d 0755"}
	for i := range 12 { // longer than os.Root follows
		deep = append(deep, fmt.Sprintf("link d/l%d l%d", i, i+1))
	}
	for name, members := range map[string][]any{
		"parent":                         {"file ../evil 0644 x"},
		"parent in the middle":           {"file a/../../evil 0644 x"},
		"parent that stays inside":       {"file a/../b 0644 x"},
		"absolute":                       {"file /evil 0644 x"},
		"link to parent":                 {"link l ../evil"},
		"link to absolute":               {"link l /etc/passwd"},
		"link without target":            {&tar.Header{Name: "l", Typeflag: tar.TypeSymlink}},
		"write through a link":           {"link l ..", "file l/evil 0644 x"},
		"hard link to parent":            {"hard h ../evil"},
		"hard link to absolute":          {"hard h /etc/passwd"},
		"hard link to a folder":          {"dir d 0755", "hard h d"},
		"links through links":            {"dir a 0755", "link a/root ..", "link escape a/root/.."},
		"a chain too long":               deep,
		"hard link of a link, elsewhere": {"dir a 0755", "dir a/b 0755", "link a/b/up ../..", "hard up2 a/b/up"},
		"fifo":                           {node(tar.TypeFifo)},
		"character device":               {node(tar.TypeChar)},
		"block device":                   {node(tar.TypeBlock)},
	} {
		t.Run(name, func(t *testing.T) {
			dir, _, err := unpackTo(t, tarOf(t, members...), Options{})
			if !errors.Is(err, ErrUnsafe) {
				t.Errorf("got error %v, want %v", err, ErrUnsafe)
			}
			if _, err := os.Lstat(filepath.Join(filepath.Dir(dir), "evil")); err == nil {
				t.Error("a file was written outside the folder")
			}
		})
	}
}

// A link chain that is fine word by word, and leaves the folder when followed:
// only the kernel's own answer tells. os.Root stops the write as well.
func TestRefusesToWriteThroughAChainOfLinks(t *testing.T) {
	dir, _, err := unpackTo(t, tarOf(t, "dir a 0755", "link a/root ..", "link out a/root/..", "file out/evil 0644 x"), Options{})
	if !errors.Is(err, ErrUnsafe) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Lstat(filepath.Join(filepath.Dir(dir), "evil")); err == nil {
		t.Error("a file was written outside the folder")
	}
}

// A few kilobytes that want to be many: each kind of bomb ends at its limit,
// with an error (go-getter's limits cut single files silently).
func TestBombs(t *testing.T) {
	limits := Limits{Bytes: 1 << 20, Files: 100, Path: 200}
	zeros := make([]byte, 20<<20)
	var many []any
	for i := range 200 {
		many = append(many, fmt.Sprintf("file f%d 0644", i))
	}
	var zipped bytes.Buffer
	zw := zip.NewWriter(&zipped)
	w, _ := zw.Create("zeros")
	_, _ = w.Write(zeros)
	_ = zw.Close()
	big := &tar.Header{Name: "big", Typeflag: tar.TypeReg, Mode: 0o644}
	tail := append(tarOf(t, "file a 0644 a"), zeros...)
	for name, data := range map[string][]byte{
		"one file":          compressed(t, "zst", zeros),
		"gzip":              compressed(t, "gz", zeros),
		"tar":               compressed(t, "gz", tarOf(t, big, "file z 0644 "+string(zeros[:2<<20]))),
		"after the archive": compressed(t, "gz", tail),
		"zip":               zipped.Bytes(),
		"many files":        compressed(t, "gz", tarOf(t, many...)),
		"many folders":      tarOf(t, "file "+strings.Repeat("d/", 99)+"x 0644", "file e/"+strings.Repeat("d/", 90)+"x 0644"),
		"long path":         tarOf(t, "file "+strings.Repeat("long/", 60)+"x 0644"),
		"xz dictionary":     {0xfd, '7', 'z', 'X', 'Z', 0, 0, 4, 0xe6, 0xd6, 0xb4, 0x46, 2, 0, 0x21, 1, 40, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := unpackTo(t, data, Options{Limits: limits}); !errors.Is(err, ErrLimit) {
				t.Errorf("got error %v, want %v", err, ErrLimit)
			}
		})
	}
}

// A sparse file says a size that nobody sent.
func TestSparseBomb(t *testing.T) {
	data, err := os.ReadFile("testdata/sparse.tar")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := unpackTo(t, data, Options{Limits: Limits{Bytes: 1 << 20}}); !errors.Is(err, ErrLimit) {
		t.Errorf("got error %v, want %v", err, ErrLimit)
	}
}

func TestTruncatedArchivesAreNotWhole(t *testing.T) {
	plain := tarOf(t, "file a 0644 "+strings.Repeat("a", 5000), "file b 0644 b")
	for _, format := range []string{"gz", "zst", "xz"} {
		whole := compressed(t, format, plain)
		for cut := 1; cut < len(whole)-6; cut += 1 + cut/32 { // every byte of the trailer, then fewer
			if _, _, err := unpackTo(t, whole[:len(whole)-cut], Options{}); err == nil {
				t.Errorf("%s without its last %d bytes was taken for whole", format, cut)
			}
		}
	}
	if _, _, err := unpackTo(t, plain[:3000], Options{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("tar cut in a file: %v", err)
	}
}

// Cancelling stops an extraction, which go-getter's decompressors cannot.
func TestCancelStopsUnpacking(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("deadline of the launch")
	endless := io.MultiReader(bytes.NewReader(tarOf(t, "file a 0644 a")[:1024]), readerFunc(func(p []byte) (int, error) {
		h := tarOf(t, "file b 0644 b")[:1024]
		cancel(stop)
		return copy(p, h), nil
	}))
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if _, err := Tree(ctx, endless, root, Options{UID: Keep, GID: Keep}); !errors.Is(err, stop) {
		t.Errorf("got error %v, want %v", err, stop)
	}
}

// A failing source is reported as such, not as a broken archive.
func TestSourceErrorsPassThrough(t *testing.T) {
	broken := errors.New("connection reset")
	for _, format := range []string{"gz", "zst", "xz"} {
		data := compressed(t, format, tarOf(t, "file a 0644 "+strings.Repeat("a", 100)))
		for _, cut := range []int{0, 5, 40, len(data) / 2, len(data) - 1, len(data)} {
			passesThrough(t, data, cut, broken)
		}
	}
	passesThrough(t, tarOf(t, "file a 0644 a"), 700, broken)
}

func passesThrough(t *testing.T, data []byte, cut int, broken error) {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	r := io.MultiReader(bytes.NewReader(data[:cut]), readerFunc(func([]byte) (int, error) { return 0, broken }))
	if _, err := Tree(t.Context(), r, root, Options{UID: Keep, GID: Keep}); !errors.Is(err, broken) {
		t.Errorf("after %d of %d bytes: got error %v, want %v", cut, len(data), err, broken)
	}
}

// Whatever the bytes: nothing outside the folder changes, no link inside leads
// out, and no mode has a bit that it must not have.
func FuzzTree(f *testing.F) {
	f.Add(tarOf(f, "dir a 0755", "link a/root ..", "link out a/root/..", "file out/evil 0644 x"))
	f.Add(tarOf(f, "file a 06777 x", "hard b a", "link c b", "dir d 0000", "file d/e 0644 e"))
	f.Add(compressed(f, "gz", tarOf(f, "file a 0644 a")))
	f.Add(compressed(f, "xz", tarOf(f, "file a 0644 a")))
	f.Add(compressed(f, "zst", []byte("single")))
	if data, err := os.ReadFile("testdata/sparse.tar"); err == nil {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		dir, _, err := unpackTo(t, data, Options{Name: "x.gz", Limits: Limits{Bytes: 1 << 16, Files: 50}})
		if beside, _ := os.ReadDir(filepath.Dir(dir)); len(beside) != 1 {
			t.Fatalf("something was written beside the folder: %v", beside)
		}
		if err != nil {
			return // the caller removes what is there
		}
		root, rerr := os.OpenRoot(dir)
		if rerr != nil {
			t.Fatal(rerr)
		}
		defer root.Close()
		_ = fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				t.Fatal(err)
			}
			st, err := d.Info()
			if err != nil {
				t.Fatal(err)
			}
			switch st.Mode().Type() {
			case fs.ModeSymlink:
				if _, err := root.Stat(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatalf("link %q: %v", p, err)
				}
			case 0, fs.ModeDir:
				if st.Mode()&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky|0o022) != 0 {
					t.Fatalf("%q has mode %s", p, st.Mode())
				}
			default:
				t.Fatalf("%q is a %s", p, st.Mode().Type())
			}
			return nil
		})
	})
}
