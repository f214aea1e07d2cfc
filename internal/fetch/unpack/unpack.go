// Package unpack turns an archive into a folder tree, safely.
//
// The archive is read once, from a stream: tar, plain or compressed with gzip,
// zstd, xz or bzip2; one file compressed by itself; or zip, which needs to
// seek and is spooled to a file that the caller provides. The format is told
// from the content, not from the name.
//
// Nothing of an archive is trusted. Everything is written below one os.Root;
// paths and links that leave the folder, device nodes and fifos are refused;
// setuid, setgid and sticky bits and foreign owners are dropped; bytes, files
// and the length of paths are limited. What was unpacked before a refusal
// stays in the folder: the caller unpacks beside the final name, and removes
// the folder on error.
package unpack

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/amiagent/amiagent/internal/diag"
)

// ErrUnsafe is an archive that would reach outside its folder, or bring what
// no artifact needs: a device node, a fifo.
var ErrUnsafe = errors.New("archive is unsafe")

// ErrLimit is an archive that unpacks to more than its limits.
var ErrLimit = errors.New("archive is too large")

// ErrFormat is content that is no archive, or another than it was said to be.
var ErrFormat = errors.New("not an archive")

// Limits bound what an archive may become. Zero fields take the default.
type Limits struct {
	Bytes int64 // of all files together; default 64 GiB
	Files int   // files, folders and links together; default one million
	Path  int   // bytes of one path or link; default 4096, as Linux has it
}

func (l Limits) orDefault() Limits {
	if l.Bytes == 0 {
		l.Bytes = 64 << 30
	}
	if l.Files == 0 {
		l.Files = 1_000_000
	}
	if l.Path == 0 {
		l.Path = 4096
	}
	return l
}

// Keep as UID or GID leaves everything to whoever unpacks.
const Keep = -1

// Options say what to make of an archive.
type Options struct {
	Name     string // the archive's file name; it names the one file of a .gz, .zst, .xz or .bz2
	Format   string // what the content must be, as "tar.gz"; "": whatever it is
	Strip    int    // leading path elements to drop; what has no more is left out
	Subdir   string // keep only what is below this folder, counted after Strip
	UID, GID int    // owner of everything, or Keep
	Limits   Limits
	// Spool gives an empty file for the formats that must seek. The caller
	// closes and removes it. Nil: such formats are refused.
	Spool func() (*os.File, error)
}

// Stats is what was unpacked.
type Stats struct {
	Files int   // files, folders and links
	Bytes int64 // of all files together
}

// Tree unpacks r into dst, which should be empty. It reads r to its end, so
// that a reader which hashes or checks a trailer has seen everything.
//
// Permission bits of the archive are kept, less the write bits of group and
// others; the owner can always read a file and enter a folder. Modification times of files and folders are
// kept. On cancel it returns the context's cause within one read. Errors are
// ErrUnsafe, ErrLimit, ErrFormat, the reader's or the file system's.
func Tree(ctx context.Context, r io.Reader, dst *os.Root, o Options) (Stats, error) {
	o.Limits = o.Limits.orDefault()
	if o.Subdir != "" {
		o.Subdir = path.Clean(o.Subdir)
		if !fs.ValidPath(o.Subdir) {
			return Stats{}, fmt.Errorf("folder %q leaves the archive: %w", o.Subdir, ErrUnsafe)
		}
	}
	t := newTree(ctx, dst, o)
	if err := t.read(bufio.NewReaderSize(ctxReader{ctx, r}, 64<<10)); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return t.stats, cause
		}
		return t.stats, err
	}
	return t.stats, t.finish()
}

func (t *tree) read(r *bufio.Reader) error {
	outer, err := sniff(r)
	if err != nil {
		return err
	}
	if outer == "zip" {
		if err := t.expect("zip"); err != nil {
			return err
		}
		return t.zip(r)
	}
	plain, inner := r, outer
	if outer != "" && outer != "tar" {
		d, closer, err := decompress(outer, r)
		if err != nil {
			return fmt.Errorf("cannot decompress %s: %w", outer, err)
		}
		defer closer()
		// Headers and padding come on top of the files' own bytes.
		budget := t.o.Limits.Bytes + int64(t.o.Limits.Files)*1024 + 1<<20
		plain = bufio.NewReaderSize(&limited{r: d, left: budget, limit: t.o.Limits.Bytes}, 64<<10)
		if inner, err = sniff(plain); err != nil {
			return fmt.Errorf("cannot decompress %s: %w", outer, err)
		}
	}
	switch {
	case inner == "tar" && outer == "tar":
		err = t.expect("tar")
	case inner == "tar":
		err = t.expect("tar." + outer)
	default:
		err = t.expect(outer)
	}
	if err != nil {
		return err
	}
	switch {
	case inner == "tar":
		err = t.tar(plain)
	case outer == "":
		return diag.WithHint(fmt.Errorf("%w: its content is no tar, zip, gzip, zstd, xz or bzip2", ErrFormat),
			"see what the address really serves; leave out unpack for a plain file")
	default:
		err = t.single(plain)
	}
	if err != nil {
		return err
	}
	if err := drain(plain); err != nil {
		return fmt.Errorf("cannot read the archive's end: %w", err)
	}
	return drain(r)
}

// drain reads to the end. The struct hides WriteTo: bufio's drops an error that
// came together with the last bytes when the target can read for itself.
func drain(r io.Reader) error {
	_, err := io.Copy(io.Discard, struct{ io.Reader }{r})
	return err
}

// expect holds the content against the format that was asked for.
func (t *tree) expect(found string) error {
	want := canonical(t.o.Format)
	if want == "" || want == found {
		return nil
	}
	if found == "" {
		found = "no archive"
	}
	return fmt.Errorf("%w of format %s: its content is %s", ErrFormat, t.o.Format, found)
}

func (t *tree) tar(r io.Reader) error {
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) { // we judge paths ourselves
			return fmt.Errorf("cannot read tar: %w", err)
		}
		e := entry{name: h.Name, link: h.Linkname, mode: fs.FileMode(h.Mode) & fs.ModePerm, time: h.ModTime, body: tr}
		switch h.Typeflag {
		case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
			e.kind = file
		case tar.TypeDir:
			e.kind = folder
		case tar.TypeSymlink:
			e.kind = symlink
		case tar.TypeLink:
			e.kind = hardlink
		case tar.TypeXGlobalHeader: // comments, as git archive writes them
			continue
		case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
			return fmt.Errorf("%q is a device node or a fifo: %w", h.Name, ErrUnsafe)
		default:
			return fmt.Errorf("%q has the unknown tar type %q", h.Name, h.Typeflag)
		}
		if err := t.add(e); err != nil {
			return err
		}
	}
}

// single unpacks one compressed file, named as the archive without its suffix.
func (t *tree) single(r io.Reader) error {
	name := path.Base(t.o.Name)
	if i := strings.LastIndexByte(name, '.'); i > 0 {
		name = name[:i]
	}
	if name == "." || name == "/" || name == ".." {
		name = "content"
	}
	return t.add(entry{name: name, kind: file, mode: 0o644, body: r})
}

// limited fails, rather than ends, when more comes than may: an end would look
// like a whole archive (go-getter's MaxBytes cuts silently).
type limited struct {
	r     io.Reader
	left  int64
	limit int64 // for the message
}

func (l *limited) Read(p []byte) (int, error) {
	if l.left < 0 {
		return 0, tooLarge(l.limit)
	}
	n, err := l.r.Read(p[:min(int64(len(p)), l.left+1)])
	if l.left -= int64(n); l.left < 0 {
		return 0, tooLarge(l.limit)
	}
	return n, err
}

func tooLarge(limit int64) error {
	return fmt.Errorf("%w: it unpacks to more than %d bytes", ErrLimit, limit)
}

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}
