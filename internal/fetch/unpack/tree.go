package unpack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

type kind int

const (
	file kind = iota
	folder
	symlink
	hardlink
)

// entry is one member of an archive, whatever its format.
type entry struct {
	name, link string
	kind       kind
	mode       fs.FileMode // permission bits
	time       time.Time
	body       io.Reader
}

// meta is set on a folder when everything is in it: a folder may be read-only,
// and each file put into it changes its time.
type meta struct {
	mode fs.FileMode
	time time.Time
}

type tree struct {
	ctx   context.Context
	root  *os.Root
	o     Options
	stats Stats
	dirs  map[string]meta
	links []string
	buf   []byte
}

func newTree(ctx context.Context, root *os.Root, o Options) *tree {
	return &tree{ctx: ctx, root: root, o: o, dirs: map[string]meta{}, buf: make([]byte, 256<<10)}
}

// place is where a member goes. "." is the tree itself; false: left out by Strip or Subdir.
func (t *tree) place(name string) (string, bool, error) {
	switch {
	case len(name) > t.o.Limits.Path:
		return "", false, fmt.Errorf("%w: a path has %d bytes, at most %d are allowed", ErrLimit, len(name), t.o.Limits.Path)
	case strings.ContainsRune(name, 0), path.IsAbs(name), slices.Contains(strings.Split(name, "/"), ".."):
		return "", false, fmt.Errorf("path %q leaves the folder: %w", name, ErrUnsafe)
	}
	name = path.Clean(name)
	for range t.o.Strip {
		var found bool
		if _, name, found = strings.Cut(name, "/"); !found {
			return "", false, nil
		}
	}
	if t.o.Subdir == "" || t.o.Subdir == "." {
		return name, true, nil
	}
	if name == t.o.Subdir {
		return ".", true, nil
	}
	below, ok := strings.CutPrefix(name, t.o.Subdir+"/")
	return below, ok, nil
}

func (t *tree) add(e entry) error {
	if t.ctx.Err() != nil {
		return context.Cause(t.ctx)
	}
	name, ok, err := t.place(e.name)
	if err != nil || !ok {
		return err
	}
	if _, known := t.dirs[name]; !known || e.kind != folder {
		if err := t.count(); err != nil {
			return err
		}
	}
	if name == "." {
		if e.kind != folder {
			return fmt.Errorf("%q is a file of the archive, not a folder", e.name)
		}
		return nil
	}
	if err := t.parents(path.Dir(name)); err != nil {
		return err
	}
	switch e.kind {
	case folder:
		err = t.folder(name, e)
	case symlink:
		err = t.symlink(name, e.link)
	case hardlink:
		err = t.hardlink(name, e)
	default:
		err = t.file(name, e)
	}
	return err
}

func (t *tree) count() error {
	if t.stats.Files++; t.stats.Files > t.o.Limits.Files {
		return fmt.Errorf("%w: it has more than %d members", ErrLimit, t.o.Limits.Files)
	}
	return nil
}

// parents makes the folders above a member, which an archive need not list.
func (t *tree) parents(dir string) error {
	if _, known := t.dirs[dir]; known || dir == "." {
		return nil
	}
	if err := t.parents(path.Dir(dir)); err != nil {
		return err
	}
	if err := t.root.MkdirAll(dir, 0o755); err != nil {
		return t.refused(dir, err)
	}
	if err := t.count(); err != nil {
		return err
	}
	t.dirs[dir] = meta{mode: 0o755}
	return nil
}

func (t *tree) folder(name string, e entry) error {
	st, err := t.root.Lstat(name)
	if err == nil && !st.IsDir() {
		if err := t.root.Remove(name); err != nil {
			return t.refused(name, err)
		}
	}
	if err := t.root.Mkdir(name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return t.refused(name, err)
	}
	t.dirs[name] = meta{e.mode | 0o700, e.time}
	return nil
}

// fresh makes a directory entry; like tar, a later member replaces an earlier one.
func (t *tree) fresh(name string, create func() error) error {
	err := create()
	if errors.Is(err, fs.ErrExist) {
		if st, err := t.root.Lstat(name); err == nil && st.IsDir() {
			return fmt.Errorf("%q is a folder and a file in one archive", name)
		}
		if err := t.root.Remove(name); err != nil {
			return t.refused(name, err)
		}
		err = create()
	}
	if err != nil {
		return t.refused(name, err)
	}
	return nil
}

func (t *tree) file(name string, e entry) (err error) {
	var f *os.File
	err = t.fresh(name, func() (err error) {
		f, err = t.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	defer func() { err = cmp.Or(err, f.Close()) }()
	body := &limited{r: ctxReader{t.ctx, e.body}, left: t.o.Limits.Bytes - t.stats.Bytes, limit: t.o.Limits.Bytes}
	// The struct hides ReadFrom, which would bring a buffer of its own for each file.
	n, err := io.CopyBuffer(struct{ io.Writer }{f}, body, t.buf)
	t.stats.Bytes += n
	if err != nil {
		return fmt.Errorf("cannot unpack %q: %w", name, err)
	}
	if t.o.UID != Keep || t.o.GID != Keep {
		if err := f.Chown(t.o.UID, t.o.GID); err != nil {
			return err
		}
	}
	if err := f.Chmod(mask(e.mode) | 0o400); err != nil {
		return err
	}
	return t.setTime(name, e.time)
}

// mask keeps what an artifact may ask for: nobody but its owner writes to it.
func mask(m fs.FileMode) fs.FileMode { return m & 0o755 }

func (t *tree) setTime(name string, at time.Time) error {
	if at.IsZero() || at.Unix() < 0 {
		return nil
	}
	return t.root.Chtimes(name, at, at)
}

// symlink makes a link whose target, read as text, stays in the tree. That
// alone is not proof (links that go through links); finish looks again.
func (t *tree) symlink(name, target string) error {
	switch {
	case target == "" || len(target) > t.o.Limits.Path || strings.ContainsRune(target, 0):
		return fmt.Errorf("link %q has no usable target: %w", name, ErrUnsafe)
	case path.IsAbs(target), !fs.ValidPath(path.Join(path.Dir(name), target)):
		return fmt.Errorf("link %q leaves the folder, to %q: %w", name, target, ErrUnsafe)
	}
	if err := t.fresh(name, func() error { return t.root.Symlink(target, name) }); err != nil {
		return err
	}
	t.links = append(t.links, name)
	return t.own(name)
}

func (t *tree) hardlink(name string, e entry) error {
	target, ok, err := t.place(e.link)
	if err != nil {
		return fmt.Errorf("hard link %q: %w", name, err)
	}
	if !ok {
		return fmt.Errorf("%q is a hard link to %q, which is left out", e.name, e.link)
	}
	st, err := t.root.Lstat(target)
	switch {
	case err != nil:
		return t.refused(name, fmt.Errorf("hard link to %q: %w", e.link, err))
	case target == name:
		return nil
	case st.Mode()&fs.ModeSymlink != 0:
		// In another folder the same text names another place, so it is judged anew.
		text, err := t.root.Readlink(target)
		if err != nil {
			return t.refused(name, err)
		}
		return t.symlink(name, text)
	case !st.Mode().IsRegular():
		return fmt.Errorf("hard link %q to %q, which is no file: %w", name, e.link, ErrUnsafe)
	}
	return t.fresh(name, func() error { return t.root.Link(target, name) })
}

func (t *tree) own(name string) error {
	if t.o.UID == Keep && t.o.GID == Keep {
		return nil
	}
	return t.root.Lchown(name, t.o.UID, t.o.GID)
}

// refused gives an error of the root its class: what os.Root refuses without
// a file system saying no is a path that escapes, for which it has no sentinel.
func (t *tree) refused(name string, err error) error {
	if err != nil && strings.Contains(err.Error(), "escapes from parent") {
		return fmt.Errorf("path %q leaves the folder through a link: %w", name, ErrUnsafe)
	}
	return fmt.Errorf("cannot unpack %q: %w", name, err)
}

// finish judges the links as the kernel will follow them, then dresses the folders.
func (t *tree) finish() error {
	if t.stats.Files == 0 {
		what := "is empty"
		if t.o.Strip > 0 || t.o.Subdir != "" {
			what = fmt.Sprintf("has nothing left (strip %d, folder %q)", t.o.Strip, t.o.Subdir)
		}
		return fmt.Errorf("the archive %s", what)
	}
	for _, name := range t.links {
		// A dangling link is fine. Anything else, as a chain longer than
		// os.Root follows, could hide an escape.
		if _, err := t.root.Stat(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			if st, lerr := t.root.Lstat(name); lerr != nil || st.Mode()&fs.ModeSymlink == 0 {
				continue // replaced by a later member
			}
			return fmt.Errorf("link %q cannot be followed inside the folder (%s): %w", name, bare(err), ErrUnsafe)
		}
	}
	// Deepest first, so that a folder's time is set after its subfolders are done.
	for _, dir := range slices.Backward(slices.Sorted(maps.Keys(t.dirs))) {
		if st, err := t.root.Lstat(dir); err != nil || !st.IsDir() {
			continue // reached through a link, or replaced by one
		}
		if err := t.own(dir); err != nil {
			return err
		}
		if err := t.root.Chmod(dir, mask(t.dirs[dir].mode)); err != nil {
			return err
		}
		if err := t.setTime(dir, t.dirs[dir].time); err != nil {
			return err
		}
	}
	if err := t.own("."); err != nil {
		return err
	}
	return t.root.Chmod(".", 0o755)
}

// bare is an error without the path that its text would repeat.
func bare(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
