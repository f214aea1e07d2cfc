package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Keep as UID or GID leaves the owner as it is: that of the file in place,
// else that of the agent.
const Keep = -1

// File is what one file should be.
type File struct {
	Path string
	Data io.Reader   // read once, to its end
	Mode fs.FileMode // permission bits, setuid, setgid and sticky
	UID  int         // Keep, or a number
	GID  int
	// Check, if set, is called with the path, inside the root, of the finished
	// file before it takes its name; an error leaves the old file in place.
	Check func(ctx context.Context, path string) error
}

// WriteFile makes the file whole or not at all: written beside its target,
// owner and mode set before the content, synced, checked, renamed, the folder
// synced. The folder must exist. A link at Path is replaced, not followed.
// On error and on cancel the old file stays and nothing is left behind.
func (h *Host) WriteFile(ctx context.Context, f File) (err error) {
	target, err := h.EntryPath(f.Path)
	if err != nil {
		return err
	}
	defer func() { err = h.rel(err) }()
	if st, err := os.Lstat(target); err == nil && st.IsDir() {
		return fmt.Errorf("cannot write %s: it is a folder", f.Path)
	}
	tmp, release, err := createTemp(filepath.Dir(target))
	if err != nil {
		return err
	}
	defer release()
	defer func() {
		if err != nil {
			_ = os.Remove(tmp.Name())
		}
	}()
	defer tmp.Close()
	uid, gid := keepOwner(target, f.UID, f.GID)
	if uid != Keep || gid != Keep {
		if err := tmp.Chown(uid, gid); err != nil {
			return err
		}
	}
	if err := tmp.Chmod(f.Mode); err != nil {
		return err
	}
	if _, err := io.Copy(tmp, ctxReader{ctx, f.Data}); err != nil {
		return err
	}
	// Writing clears setuid and setgid, unless root writes.
	if f.Mode&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
		if err := tmp.Chmod(f.Mode); err != nil {
			return err
		}
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	if f.Check != nil {
		if err := f.Check(ctx, filepath.Join(filepath.Dir(f.Path), filepath.Base(tmp.Name()))); err != nil {
			return err
		}
	}
	if err := os.Rename(tmp.Name(), target); err != nil {
		return err
	}
	if err := SyncDir(filepath.Dir(target)); err != nil {
		return err
	}
	return h.restoreLabel(ctx, f.Path)
}

// keepOwner fills Keep from the file in place. Without one, Keep stays.
func keepOwner(target string, uid, gid int) (int, int) {
	if uid != Keep && gid != Keep {
		return uid, gid
	}
	if st, err := os.Lstat(target); err == nil && os.Geteuid() == 0 {
		sys := st.Sys().(*syscall.Stat_t)
		if uid == Keep {
			uid = int(sys.Uid)
		}
		if gid == Keep {
			gid = int(sys.Gid)
		}
	}
	return uid, gid
}

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

// SyncDir makes renames and removals in a folder durable. dir is outside the root.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Symlink makes name a link to target, replacing what is there in one rename.
// A folder that is not empty is not replaced.
func (h *Host) Symlink(target, name string) (err error) {
	defer func() { err = h.rel(err) }()
	entry, err := h.EntryPath(name)
	if err != nil {
		return err
	}
	tmp := tempLink(entry)
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, entry); err != nil {
		_ = os.Remove(tmp)
		return err
	}
	return SyncDir(filepath.Dir(entry))
}

// MkdirAll makes a folder and its parents with mode 0755 where they are
// missing. It changes nothing that exists.
func (h *Host) MkdirAll(name string) error {
	p, err := h.Path(name)
	if err != nil {
		return err
	}
	return h.rel(os.MkdirAll(p, 0o755))
}

// SetMeta sets owner and mode of what is at name, not following a last link
// for the owner, and not touching a link's mode.
func (h *Host) SetMeta(name string, mode fs.FileMode, uid, gid int) (err error) {
	defer func() { err = h.rel(err) }()
	p, err := h.EntryPath(name)
	if err != nil {
		return err
	}
	if uid != Keep || gid != Keep {
		if err := os.Lchown(p, uid, gid); err != nil {
			return err
		}
	}
	st, err := os.Lstat(p)
	if err != nil || st.Mode()&fs.ModeSymlink != 0 {
		return err
	}
	return os.Chmod(p, mode)
}

// Open opens a file for reading.
func (h *Host) Open(name string) (*os.File, error) {
	p, err := h.Path(name)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(p)
	return f, h.rel(err)
}

// ReadFile reads a whole file. For files of other programs use ReadLimited.
func (h *Host) ReadFile(name string) ([]byte, error) {
	p, err := h.Path(name)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(p)
	return b, h.rel(err)
}

// ErrTooLarge is a file beyond the size that a reader was ready for.
var ErrTooLarge = errors.New("file is too large")

// ReadLimited reads a whole file of at most limit bytes, else ErrTooLarge.
func (h *Host) ReadLimited(name string, limit int64) ([]byte, error) {
	f, err := h.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, h.rel(err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("cannot read %s: %w (limit %d bytes)", name, ErrTooLarge, limit)
	}
	return b, nil
}

// Stat follows links; Lstat does not follow the last.
func (h *Host) Stat(name string) (fs.FileInfo, error) {
	p, err := h.Path(name)
	if err != nil {
		return nil, err
	}
	st, err := os.Stat(p)
	return st, h.rel(err)
}

// Lstat describes the directory entry itself.
func (h *Host) Lstat(name string) (fs.FileInfo, error) {
	p, err := h.EntryPath(name)
	if err != nil {
		return nil, err
	}
	st, err := os.Lstat(p)
	return st, h.rel(err)
}

// Exists tells whether there is anything at name, a dangling link included.
func (h *Host) Exists(name string) bool {
	_, err := h.Lstat(name)
	return err == nil
}

// Readlink is a link's text.
func (h *Host) Readlink(name string) (string, error) {
	p, err := h.EntryPath(name)
	if err != nil {
		return "", err
	}
	s, err := os.Readlink(p)
	return s, h.rel(err)
}

// ReadDir lists a folder by name.
func (h *Host) ReadDir(name string) ([]fs.DirEntry, error) {
	p, err := h.Path(name)
	if err != nil {
		return nil, err
	}
	es, err := os.ReadDir(p)
	return es, h.rel(err)
}

// Remove removes a file, a link or an empty folder, durably. What is not there is no error.
func (h *Host) Remove(name string) error {
	p, err := h.EntryPath(name)
	if err != nil {
		return err
	}
	if err := os.Remove(p); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return h.rel(err)
	}
	return SyncDir(filepath.Dir(p))
}

// RemoveAll removes a tree. What is not there is no error. It refuses "/".
func (h *Host) RemoveAll(name string) error {
	p, err := h.EntryPath(name)
	if err != nil {
		return err
	}
	if p == h.root {
		return fmt.Errorf("refusing to remove %s", name)
	}
	return h.rel(os.RemoveAll(p))
}

// OwnerOf is the numeric owner in a FileInfo of a Host.
func OwnerOf(st fs.FileInfo) (uid, gid int) {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return Keep, Keep
	}
	return int(sys.Uid), int(sys.Gid)
}

// restoreLabel gives a path the SELinux label that the policy wants, where SELinux is on.
func (h *Host) restoreLabel(ctx context.Context, name string) error {
	if !h.Live() {
		return nil // a tree is labelled as a whole, by the image build
	}
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err != nil {
		return nil
	}
	_, err := h.Run(ctx, Cmd{Argv: []string{"restorecon", "-F", name}})
	if errors.Is(err, ErrNoProgram) {
		return nil
	}
	return err
}
