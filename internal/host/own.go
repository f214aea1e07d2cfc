package host

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// This file is what the agent needs for files of its own, beside what steps need.

// OpenAppend opens a file for appending, making it with mode perm where it is missing.
func (h *Host) OpenAppend(name string, perm fs.FileMode) (*os.File, error) {
	p, err := h.Path(name)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(p, os.O_WRONLY|os.O_CREATE|os.O_APPEND, perm)
	return f, h.rel(err)
}

// Rename gives a file another name in the same folder, durably, replacing what has that name.
func (h *Host) Rename(from, to string) error {
	a, err := h.EntryPath(from)
	if err != nil {
		return err
	}
	b, err := h.EntryPath(to)
	if err != nil {
		return err
	}
	if err := os.Rename(a, b); err != nil {
		var le *os.LinkError
		if errors.As(err, &le) {
			return &os.LinkError{Op: le.Op, Old: from, New: to, Err: le.Err}
		}
		return err
	}
	return SyncDir(filepath.Dir(b))
}

// Replace makes a file whole or not at all, but not durable: for folders in
// memory such as /run, and for files that change many times a second. Owner and
// mode are set before the content; gid Keep leaves the group. Labels are the folder's.
func (h *Host) Replace(name string, data []byte, perm fs.FileMode, gid int) (err error) {
	defer func() { err = h.rel(err) }()
	target, err := h.EntryPath(name)
	if err != nil {
		return err
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
	if gid != Keep {
		if err := tmp.Chown(-1, gid); err != nil {
			return err
		}
	}
	if err := tmp.Chmod(perm); err != nil {
		return err
	}
	if _, err := tmp.Write(data); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), target)
}
