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

// An application as CI packs it: folders, links, hard links, a read-only
// folder, bits that an artifact has no business to bring.
func TestUnpacksAnApplication(t *testing.T) {
	dir, got, err := unpackTo(t, tarOf(t,
		"dir app-1 0775",
		"dir app-1/ro 0555",
		"file app-1/ro/data 0444 D",
		"file app-1/bin/app 06755 #!",
		"file app-1/all 0666 W",
		"file app-1/none 0000 N",
		"file app-1/lib/lib.so.1 0644 so",
		"link app-1/lib/lib.so lib.so.1",
		"link app-1/current ./lib/../bin",
		"hard app-1/bin/app2 app-1/bin/app",
		"hard app-1/lib/same app-1/lib/lib.so",
	), Options{Strip: 1})
	if err != nil {
		t.Fatal(err)
	}
	want(t, got, `
file 0644 all W
dir 0755 bin
file 0755 bin/app #!
file 0755 bin/app2 #!
link current ./lib/../bin
dir 0755 lib
link lib/lib.so lib.so.1
file 0644 lib/lib.so.1 so
link lib/same lib.so.1
file 0400 none N
dir 0755 ro
file 0444 ro/data D
`)
	a, _ := os.Stat(filepath.Join(dir, "bin/app"))
	b, _ := os.Stat(filepath.Join(dir, "bin/app2"))
	if !os.SameFile(a, b) {
		t.Error("a hard link became a copy")
	}
	if ro, _ := os.Stat(filepath.Join(dir, "ro")); !ro.ModTime().Equal(stamp) || !a.ModTime().Equal(stamp) {
		t.Errorf("modification times are %s and %s, want %s", ro.ModTime(), a.ModTime(), stamp)
	}
}

// go-getter's defect 3 (its issue 60, open since 2017): links in tar become
// empty regular files, without an error.
func TestGoGetterDefect3LinksAreLinks(t *testing.T) {
	_, got, err := unpackTo(t, tarOf(t, "file lib.so.1 0644 code", "link lib.so lib.so.1", "hard copy.so lib.so.1"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	want(t, got, `
file 0644 copy.so code
link lib.so lib.so.1
file 0644 lib.so.1 code
`)
}

func TestEveryFormatByContent(t *testing.T) {
	plain := tarOf(t, "file app/hello 0644 hello")
	bz2, err := os.ReadFile("testdata/app.tar.bz2")
	if err != nil {
		t.Fatal(err)
	}
	var zipped bytes.Buffer
	zw := zip.NewWriter(&zipped)
	w, _ := zw.Create("app/hello")
	_, _ = io.WriteString(w, "hello")
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	for format, data := range map[string][]byte{
		"tar":     plain,
		"tar.gz":  compressed(t, "gz", plain),
		"tar.zst": compressed(t, "zst", plain),
		"tar.xz":  compressed(t, "xz", plain),
		"tar.bz2": bz2,
		"zip":     zipped.Bytes(),
	} {
		for _, said := range []string{"", format} {
			_, got, err := unpackTo(t, data, Options{Format: said, Name: "misleading.zip"})
			if err != nil {
				t.Errorf("%s: %v", format, err)
			}
			if format != "zip" {
				want(t, got, "dir 0755 app\nfile 0644 app/hello hello\n")
			} else if !strings.HasSuffix(got, "app/hello hello\n") {
				t.Errorf("zip gave %s", got)
			}
		}
		if _, _, err := unpackTo(t, data, Options{Format: "gz"}); !errors.Is(err, ErrFormat) {
			t.Errorf("%s passed for gz: %v", format, err)
		}
	}
	for _, format := range []string{"gz", "zst", "xz"} {
		_, got, err := unpackTo(t, compressed(t, format, []byte("program")), Options{Name: "tool-1.2." + format, Format: format})
		if err != nil {
			t.Error(err)
		}
		want(t, got, "file 0644 tool-1.2 program\n")
	}
}

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

func TestLaterMembersReplaceEarlierOnes(t *testing.T) {
	_, got, err := unpackTo(t, tarOf(t,
		"file a 0644 old", "file a 0644 new",
		"link b a", "file b 0644 not through the link",
		"link d .", "dir d 0755", "file d/x 0644 x",
	), Options{})
	if err != nil {
		t.Fatal(err)
	}
	want(t, got, `
file 0644 a new
file 0644 b not through the link
dir 0755 d
file 0644 d/x x
`)
	if _, _, err := unpackTo(t, tarOf(t, "dir d 0755", "file d 0644 x"), Options{}); err == nil {
		t.Error("a file replaced a folder")
	}
}

func TestStripAndSubdir(t *testing.T) {
	data := tarOf(t, "dir app-1 0755", "file README 0644 r", "file app-1/conf/a 0644 a", "file app-1/conf.d/b 0644 b", "hard app-1/conf/c app-1/conf/a")
	_, got, err := unpackTo(t, data, Options{Strip: 1, Subdir: "conf"})
	if err != nil {
		t.Fatal(err)
	}
	want(t, got, "file 0644 a a\nfile 0644 c a\n")

	_, _, err = unpackTo(t, data, Options{Strip: 5})
	wantErr(t, err, `the archive has nothing left (strip 5, folder "")`)
	_, _, err = unpackTo(t, data, Options{Subdir: "../x"})
	wantErr(t, err, `folder "../x" leaves the archive: archive is unsafe`)
	_, _, err = unpackTo(t, tarOf(t, "file a 0644 a", "file d/x 0644 x", "hard d/h a"), Options{Subdir: "d"})
	wantErr(t, err, `"d/h" is a hard link to "a", which is left out`)
	_, _, err = unpackTo(t, tarOf(t), Options{})
	wantErr(t, err, "the archive is empty")
}

func wantErr(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || err.Error() != want {
		t.Errorf("got error %v\nwant %s", err, want)
	}
}

func TestNotAnArchive(t *testing.T) {
	_, _, err := unpackTo(t, []byte("<html>Sign in</html>"), Options{})
	wantErr(t, err, "not an archive: its content is no tar, zip, gzip, zstd, xz or bzip2")
	if _, _, err := unpackTo(t, nil, Options{}); !errors.Is(err, ErrFormat) {
		t.Errorf("nothing at all: %v", err)
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
		for cut := 1; cut < len(whole)-6; cut++ {
			if _, _, err := unpackTo(t, whole[:len(whole)-cut], Options{}); err == nil {
				t.Errorf("%s without its last %d bytes was taken for whole", format, cut)
			}
		}
	}
	if _, _, err := unpackTo(t, plain[:3000], Options{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("tar cut in a file: %v", err)
	}
}

func TestLongNamesOfPAXAndGNU(t *testing.T) {
	long := strings.Repeat("d/", 80) + strings.Repeat("n", 200)
	for _, format := range []tar.Format{tar.FormatPAX, tar.FormatGNU} {
		h, _ := header(t, "file "+long+" 0644")
		h.Format = format
		dir, _, err := unpackTo(t, tarOf(t, h), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(dir, long)); err != nil {
			t.Error(err)
		}
	}
}

func TestZipMembers(t *testing.T) {
	pack := func(change func(*zip.FileHeader), name, content string) []byte {
		var b bytes.Buffer
		zw := zip.NewWriter(&b)
		h := &zip.FileHeader{Name: name, Modified: stamp}
		h.SetMode(0o755)
		change(h)
		w, err := zw.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(w, content)
		if err := zw.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	none := func(*zip.FileHeader) {}
	_, got, err := unpackTo(t, pack(none, "bin/app", "#!"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	want(t, got, "dir 0755 bin\nfile 0755 bin/app #!\n")

	link := func(h *zip.FileHeader) { h.SetMode(fs.ModeSymlink | 0o777) }
	if _, got, err = unpackTo(t, pack(link, "l", "bin/app"), Options{}); err != nil {
		t.Fatal(err)
	}
	want(t, got, "link l bin/app\n")

	for name, data := range map[string][]byte{
		"slip":      pack(none, "../evil", "x"),
		"absolute":  pack(none, "/evil", "x"),
		"backslash": pack(none, `..\evil`, "x"),
		"link":      pack(link, "l", "../evil"),
		"device":    pack(func(h *zip.FileHeader) { h.SetMode(fs.ModeDevice | 0o644) }, "n", ""),
	} {
		if _, _, err := unpackTo(t, data, Options{}); !errors.Is(err, ErrUnsafe) {
			t.Errorf("%s: got error %v, want %v", name, err, ErrUnsafe)
		}
	}
	// go-getter once panicked on a zip with a password (CVE-2022-30323).
	_, _, err = unpackTo(t, pack(func(h *zip.FileHeader) { h.Flags |= encrypted }, "secret", "x"), Options{})
	wantErr(t, err, `cannot unpack "secret": it is encrypted`)
	if _, _, err = unpackTo(t, pack(none, "a", "x")[:60], Options{}); err == nil {
		t.Error("half a zip was taken for whole")
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

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

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

func TestKnownFormats(t *testing.T) {
	for _, ok := range []string{"tar", "tgz", "tar.zst", "zip", "xz"} {
		if err := Known(ok); err != nil {
			t.Error(err)
		}
	}
	wantErr(t, Known("rar"), `unknown archive format "rar", known are tar, tar.gz, tar.zst, tar.xz, tar.bz2, zip, gz, zst, xz, bz2`)
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
