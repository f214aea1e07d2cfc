package host

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"github.com/amiagent/amiagent/internal/diag"
)

// Missing tells whether an error means that there is nothing at a path: the
// name is not there, or a parent of it is a file.
func Missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// Cause is an error without the operation and the path, for a sentence that has them.
func Cause(err error) error {
	switch e := err.(type) {
	case *fs.PathError:
		return e.Err
	case *os.LinkError:
		return e.Err
	}
	return err
}

// Explain adds what to try to an error of the file system that has no hint yet.
func Explain(err error) error {
	if err == nil || diag.Hint(err) != "" {
		return err
	}
	for _, x := range []struct {
		no   syscall.Errno
		hint string
	}{
		{syscall.ENOSPC, "free some space, or make the volume larger; what was there before is untouched"},
		{syscall.EDQUOT, "raise the quota, or free some space; what was there before is untouched"},
		{syscall.EROFS, "the file system is mounted read-only; choose a path on another, or see `findmnt` and the kernel log"},
		{syscall.EPERM, "it or its folder may be immutable, see `lsattr -d`; or the agent does not run as root"},
		{syscall.EACCES, "the agent may not do that there; does it run as root?"},
		{syscall.ENOTDIR, "a part of the path is a file"},
		{syscall.ELOOP, "a link on the path leads to itself"},
	} {
		if errors.Is(err, x.no) {
			return diag.WithHint(err, "%s", x.hint)
		}
	}
	return err
}
