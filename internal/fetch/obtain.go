package fetch

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/fetch/unpack"
)

// got is what one attempt brought: verified, and without a name yet.
type got struct {
	digest, origin string
	size           int64
}

// obtain makes one attempt at one address. What it brings lies in dir, as
// "file" or "tree", and has been verified; on error dir's content means nothing.
// dir is outside the root. It needs nothing of the store, so that it can run
// in a process of its own.
func obtain(ctx context.Context, sources Sources, w want, a Address, dir string, scratch Scratch, limits Limits, progress func(int64)) (got, error) {
	src, ok := sources[a.Kind]
	if !ok {
		return got{}, fmt.Errorf("addresses of %s are not served here", a.Kind)
	}
	if commit, ok := strings.CutPrefix(w.digest, "git:"); ok {
		a.Ref = commit
	}
	// The source's connection must end with this attempt, also on our own errors.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	obj, err := src.Open(ctx, a, scratch)
	if err != nil {
		return got{}, err
	}
	defer obj.Body.Close()
	if err := before(w, obj, dir, limits); err != nil {
		return got{}, err
	}
	algorithm := "sha256"
	if w.digest != "" {
		algorithm, _, _ = strings.Cut(w.digest, ":")
	}
	in := &intake{ctx: ctx, r: obj.Body, want: obj.Size, limit: limits.Bytes, hash: newHash(algorithm), progress: progress}
	err = keep(ctx, in, w, a, obj, dir, limits)
	if in.err != nil && !errors.Is(in.err, io.EOF) {
		return got{}, in.err // what the reader says explains what the unpacker made of it
	}
	g := got{digest: obj.Digest, origin: obj.Origin, size: in.n}
	if err != nil && !local(err) && w.digest != "" && obj.Digest == "" {
		// Half read, it may be not the archive at all: then the digest is the better account.
		if _, derr := io.Copy(io.Discard, in); derr != nil {
			return got{}, err
		}
	} else if err != nil {
		return got{}, roomHint(err, dir)
	}
	if g.digest == "" {
		g.digest = fmt.Sprintf("%s:%x", algorithm, in.hash.Sum(nil))
	}
	if w.req.Size > 0 && g.size != w.req.Size && !obj.Tree {
		return got{}, sizeError(g.size, w.req.Size)
	}
	if w.digest != "" && g.digest != w.digest {
		return got{}, diag.WithHint(fmt.Errorf("%w: got %s, want %s", ErrDigest, g.digest, w.digest),
			"the object was replaced after its digest was written down: write the new digest if that is meant, else ask who replaced it")
	}
	return g, err
}

// before refuses what need not be downloaded to be refused.
func before(w want, obj Object, dir string, limits Limits) error {
	switch {
	case obj.Tree && !w.req.Unpack:
		return diag.WithHint(errors.New("it is a folder of the repository"), "unpack it, or name a file after //")
	case !obj.Tree && obj.Digest != "" && w.req.Unpack:
		return diag.WithHint(errors.New("it is one file of the repository"), "leave out unpack")
	case w.req.Size > 0 && obj.Size >= 0 && obj.Size != w.req.Size && !obj.Tree:
		return sizeError(obj.Size, w.req.Size)
	case obj.Cuttable && w.digest == "" && w.req.Size == 0:
		return diag.WithHint(fmt.Errorf("%w, perhaps: the server tells neither a length nor an end", ErrTruncated), "say the digest or the size")
	case obj.Size > limits.Bytes:
		return tooLarge(limits.Bytes)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err == nil && obj.Size > 0 {
		if free := fs.Bavail * uint64(fs.Bsize); uint64(obj.Size) > free {
			return roomHint(fmt.Errorf("%w: it has %d bytes, %d are free", syscall.ENOSPC, obj.Size, free), dir)
		}
	}
	return nil
}

func sizeError(got, want int64) error {
	return diag.WithHint(fmt.Errorf("%w: got %d bytes, want %d", ErrSize, got, want), "the object was replaced after its size was written down, or the address is another's")
}

func tooLarge(limit int64) error {
	return fmt.Errorf("it has more than the %d bytes that are allowed", limit)
}

// keep puts the bytes where they will be verified.
func keep(ctx context.Context, in io.Reader, w want, a Address, obj Object, dir string, limits Limits) error {
	if !w.req.Unpack {
		f, err := os.OpenFile(filepath.Join(dir, "file"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := io.CopyBuffer(struct{ io.Writer }{f}, in, make([]byte, 1<<20)); err != nil {
			return err
		}
		return f.Sync()
	}
	tree := filepath.Join(dir, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(tree)
	if err != nil {
		return err
	}
	defer root.Close()
	o := w.unpackOptions(a)
	o.Limits = limits.Unpacked
	if obj.Tree {
		o.Subdir, o.Format = "", "" // the source has seen to the folder
	}
	if os.Geteuid() != 0 && (o.UID == 0 && o.GID == 0 || o.UID == os.Geteuid() && o.GID == os.Getegid()) {
		o.UID, o.GID = unpack.Keep, unpack.Keep // a plain user's scratch root: everything is the user's
	}
	var spool *os.File
	defer func() {
		if spool != nil {
			spool.Close()
		}
	}()
	o.Spool = func() (*os.File, error) {
		f, err := os.OpenFile(filepath.Join(dir, "spool"), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
		spool = f
		return f, err
	}
	if _, err := unpack.Tree(ctx, in, root, o); errors.Is(err, ErrUnsafe) {
		return diag.WithHint(err, "nothing of it was unpacked; ask who made it: an archive holds only what is below its own folder")
	} else if err != nil {
		return err
	}
	// One call for the whole tree; a sync for each file costs many times more.
	d, err := root.Open(".")
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}

// local tells errors of this machine, to which the bytes had no part.
func local(err error) bool {
	for _, e := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EACCES, syscall.EPERM, syscall.EIO, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func roomHint(err error, dir string) error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return diag.WithHint(err, "make room in the file system of the store; df -h and df -i tell what is left")
	case errors.Is(err, syscall.EDQUOT):
		return diag.WithHint(err, "raise the quota of the file system of the store")
	}
	return err
}

// intake counts, bounds and hashes what comes by, and remembers its first error.
type intake struct {
	ctx      context.Context
	r        io.Reader
	want     int64 // -1: unknown
	limit    int64
	n        int64
	hash     hash.Hash
	progress func(int64)
	err      error
}

func (in *intake) Read(p []byte) (int, error) {
	if in.err != nil {
		return 0, in.err
	}
	if in.ctx.Err() != nil {
		in.err = context.Cause(in.ctx)
		return 0, in.err
	}
	n, err := in.r.Read(p)
	in.n += int64(n)
	in.hash.Write(p[:n])
	if in.progress != nil && n > 0 {
		in.progress(int64(n))
	}
	switch {
	case in.n > in.limit:
		err = tooLarge(in.limit)
	case in.want >= 0 && in.n > in.want:
		err = Transient(fmt.Errorf("%w: more than the %d bytes that were announced", ErrSize, in.want), 0)
	case errors.Is(err, io.EOF) && in.want >= 0 && in.n < in.want, errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, ErrTruncated):
		err = Transient(fmt.Errorf("%w: had %d of %s bytes", ErrTruncated, in.n, known(in.want)), 0)
	}
	in.err = err
	return n, err
}

func known(size int64) string {
	if size < 0 {
		return "an unknown number of"
	}
	return fmt.Sprint(size)
}

func loopback(u *url.URL) bool {
	switch u.Hostname() {
	case "localhost", "127.0.0.1", "::1":
		return true
	}
	return false
}
