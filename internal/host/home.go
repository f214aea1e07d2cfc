package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// maxSkel bounds what is copied into a new home.
const maxSkel = 16 << 20

// MakeHome makes a user's home with what /etc/skel holds, all of it owned by
// the user, whole or not at all: built beside its place, then renamed. Parents
// that are missing are made with mode 0755. A home that exists is left as it is.
// mode is that of the home itself.
func (h *Host) MakeHome(ctx context.Context, u User, mode fs.FileMode) (err error) {
	if h.Exists(u.Home) {
		return nil
	}
	defer func() { err = h.rel(err) }()
	if err := h.MkdirAll(filepath.Dir(u.Home)); err != nil {
		return err
	}
	home, err := h.EntryPath(u.Home)
	if err != nil {
		return err
	}
	// Always the same name, so that what a crash left is built anew.
	tmp := filepath.Join(filepath.Dir(home), Tmp+"home-"+filepath.Base(home))
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(tmp)
		}
	}()
	skel, err := h.Path("/etc/skel")
	if err != nil {
		return err
	}
	if err := copySkel(ctx, skel, tmp, u); err != nil {
		return err
	}
	if err := chown(tmp, u); err != nil {
		return err
	}
	if err := os.Chmod(tmp, mode); err != nil {
		return err
	}
	if err := SyncDir(tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, home); err != nil {
		return err
	}
	if err := SyncDir(filepath.Dir(home)); err != nil {
		return err
	}
	return h.restoreTree(ctx, u.Home)
}

func copySkel(ctx context.Context, skel, into string, u User) error {
	budget := int64(maxSkel)
	return filepath.WalkDir(skel, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && p == skel {
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || p == skel {
			return err
		}
		rel, err := filepath.Rel(skel, p)
		if err != nil {
			return err
		}
		to := filepath.Join(into, rel)
		st, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case st.Mode()&fs.ModeSymlink != 0:
			text, err := os.Readlink(p)
			if err != nil {
				return err
			}
			if err := os.Symlink(text, to); err != nil {
				return err
			}
		case st.IsDir():
			if err := os.Mkdir(to, st.Mode().Perm()); err != nil {
				return err
			}
		case st.Mode().IsRegular():
			if budget -= st.Size(); budget < 0 {
				return fmt.Errorf("cannot copy /etc/skel: %w (limit %d bytes)", ErrTooLarge, maxSkel)
			}
			if err := copyFile(p, to, st.Mode().Perm()); err != nil {
				return err
			}
		default:
			return nil // devices and sockets have no place in a home
		}
		return chown(to, u)
	})
}

func copyFile(from, to string, mode fs.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	if err := out.Sync(); err != nil {
		return err
	}
	return out.Close()
}

// chown needs no privilege, and asks for none, where the owner is right already.
func chown(p string, u User) error {
	st, err := os.Lstat(p)
	if err != nil {
		return err
	}
	if uid, gid := OwnerOf(st); uid == u.UID && gid == u.GID {
		return nil
	}
	return os.Lchown(p, u.UID, u.GID)
}

// UserFile is a file in a user's home, read or written by an agent with more
// rights than the user.
type UserFile struct {
	Dir  string // one folder below the home, as ".ssh"; made with mode 0700
	Name string // as "authorized_keys"; mode 0600
}

// ErrUnsafe is something in a user's home that the agent does not follow.
var ErrUnsafe = errors.New("is not safe to use")

// ReadUserFile reads a file of at most limit bytes in a user's home, and tells
// why its owner or mode differ from what WriteUserFile leaves ("" when they do not).
func (h *Host) ReadUserFile(u User, f UserFile, limit int64) (data []byte, meta string, err error) {
	defer func() { err = h.rel(err) }()
	root, err := h.openUserDir(u, f.Dir)
	if err != nil {
		return nil, "", err
	}
	defer root.Close()
	before, err := root.Lstat(f.Name)
	if err != nil {
		return nil, "", err
	}
	// A user may put a pipe there at any moment, on which a plain open waits for ever.
	file, err := root.OpenFile(f.Name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, "", err
	}
	defer file.Close()
	st, err := file.Stat()
	if err != nil {
		return nil, "", err
	}
	if !st.Mode().IsRegular() || !os.SameFile(before, st) {
		return nil, "", fmt.Errorf("%s %w: not a plain file", path.Join(u.Home, f.Dir, f.Name), ErrUnsafe)
	}
	data, err = io.ReadAll(io.LimitReader(file, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("cannot read %s: %w (limit %d bytes)", path.Join(u.Home, f.Dir, f.Name), ErrTooLarge, limit)
	}
	switch uid, _ := OwnerOf(st); {
	case uid != u.UID:
		meta = fmt.Sprintf("owner is %d, want %d", uid, u.UID)
	case st.Mode().Perm() != 0o600:
		meta = fmt.Sprintf("mode is %04o, want 0600", st.Mode().Perm())
	}
	return data, meta, err
}

// WriteUserFile writes a file in a user's home, whole or not at all. The user
// owns the home and may change it at any moment, so no link in it is followed:
// an agent running as root that did would write where the user cannot.
func (h *Host) WriteUserFile(ctx context.Context, u User, f UserFile, data []byte) (err error) {
	defer func() { err = h.rel(err) }()
	if err := h.makeUserDir(u, f.Dir); err != nil {
		return err
	}
	root, err := h.openUserDir(u, f.Dir)
	if err != nil {
		return err
	}
	defer root.Close()
	tmp := Tmp + strconv.Itoa(os.Getpid()) + "-" + f.Name
	if err := root.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = root.Remove(tmp)
		}
	}()
	defer file.Close()
	if os.Geteuid() != u.UID {
		if err := file.Chown(u.UID, u.GID); err != nil {
			return err
		}
	}
	if err := file.Chmod(0o600); err != nil {
		return err
	}
	if _, err := file.Write(data); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if err := root.Rename(tmp, f.Name); err != nil {
		return err
	}
	dir, err := root.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return err
	}
	return h.restoreTree(ctx, path.Join(u.Home, f.Dir))
}

func (h *Host) openHome(u User) (*os.Root, error) {
	p, err := h.Path(u.Home)
	if err != nil {
		return nil, err
	}
	return os.OpenRoot(p)
}

// makeUserDir makes a folder of a home, owned by the user. A crash between
// making and giving away is healed by the next call.
func (h *Host) makeUserDir(u User, dir string) error {
	home, err := h.openHome(u)
	if err != nil {
		return err
	}
	defer home.Close()
	if err := home.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	st, err := home.Lstat(dir)
	if err != nil {
		return err
	}
	if uid, _ := OwnerOf(st); st.IsDir() && uid != u.UID && uid == os.Geteuid() {
		return home.Lchown(dir, u.UID, u.GID)
	}
	return nil
}

// openUserDir opens a folder of a home that is a folder and the user's own.
// It holds the folder that was looked at: what the name means later is no matter.
func (h *Host) openUserDir(u User, dir string) (*os.Root, error) {
	home, err := h.openHome(u)
	if err != nil {
		return nil, err
	}
	defer home.Close()
	before, err := home.Lstat(dir)
	if err != nil {
		return nil, err
	}
	name := path.Join(u.Home, dir)
	if !before.IsDir() {
		return nil, fmt.Errorf("%s %w: not a folder", name, ErrUnsafe)
	}
	if uid, _ := OwnerOf(before); uid != u.UID && uid != os.Geteuid() {
		return nil, fmt.Errorf("%s %w: its owner is %d, not %s", name, ErrUnsafe, uid, u.Name)
	}
	root, err := home.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	after, err := root.Stat(".")
	if err == nil && !os.SameFile(before, after) {
		err = fmt.Errorf("%s %w: it changed while it was opened", name, ErrUnsafe)
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	return root, nil
}

// LoginDefs is a setting of the root's /etc/login.defs, "" when it is not set.
func (h *Host) LoginDefs(name string) (string, error) {
	b, err := h.ReadLimited("/etc/login.defs", 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	value := ""
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == name {
			value = f[1]
		}
	}
	return value, nil
}

// restoreTree is restoreLabel for a folder and all below it.
func (h *Host) restoreTree(ctx context.Context, name string) error {
	if !h.Live() {
		return nil
	}
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err != nil {
		return nil
	}
	_, err := h.Run(ctx, Cmd{Argv: []string{"restorecon", "-RF", name}})
	if errors.Is(err, ErrNoProgram) {
		return nil
	}
	return err
}
