package unpack

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

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

func TestNotAnArchive(t *testing.T) {
	_, _, err := unpackTo(t, []byte("<html>Sign in</html>"), Options{})
	wantErr(t, err, "not an archive: its content is no tar, zip, gzip, zstd, xz or bzip2")
	if _, _, err := unpackTo(t, nil, Options{}); !errors.Is(err, ErrFormat) {
		t.Errorf("nothing at all: %v", err)
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

func TestKnownFormats(t *testing.T) {
	for _, ok := range []string{"tar", "tgz", "tar.zst", "zip", "xz"} {
		if err := Known(ok); err != nil {
			t.Error(err)
		}
	}
	wantErr(t, Known("rar"), `unknown archive format "rar", known are tar, tar.gz, tar.zst, tar.xz, tar.bz2, zip, gz, zst, xz, bz2`)
}
