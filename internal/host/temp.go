package host

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Tmp is the prefix of the names of unfinished files and folders. Those that a
// killed process left are swept by the next write into their folder: the write
// that was cut off is repeated, so there is one.
const Tmp = ".amiagent-tmp-"

// createTemp makes an unfinished file in dir, outside the root, after removing
// those that nobody writes any more. It is known by a lock to be alive until
// release is called, even when it has been closed: a program may be run on it,
// which must not find it open for writing.
func createTemp(dir string) (f *os.File, release func(), err error) {
	sweepTemp(dir)
	for {
		if f, err = os.CreateTemp(dir, Tmp+"*"); err != nil {
			return nil, nil, err
		}
		alive, err := os.Open(f.Name())
		if err == nil {
			// Another's sweep may be at it already, and is waited for. Where there
			// are no locks nobody sweeps either.
			for unix.Flock(int(alive.Fd()), unix.LOCK_SH) == unix.EINTR {
			}
			if st, err := alive.Stat(); err == nil && st.Sys().(*syscall.Stat_t).Nlink > 0 {
				return f, func() { alive.Close() }, nil
			}
			alive.Close()
		}
		f.Close()
		if err != nil && !os.IsNotExist(err) {
			_ = os.Remove(f.Name())
			return nil, nil, err
		}
	}
}

// sweepTemp removes the unfinished files in dir that no process holds. It is a
// courtesy: what cannot be removed stays.
func sweepTemp(dir string) {
	d, err := os.Open(dir)
	if err != nil {
		return
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return
	}
	for _, name := range names {
		if !strings.HasPrefix(name, Tmp) {
			continue
		}
		name = filepath.Join(dir, name)
		f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			continue
		}
		st, err := f.Stat()
		if err == nil && st.Mode().IsRegular() && unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = os.Remove(name)
		}
		f.Close()
	}
}

// tempLink is where a link is made before it takes its name: always the same
// for one name, so that what a crash left is replaced.
func tempLink(entry string) string {
	sum := sha256.Sum256([]byte(filepath.Base(entry)))
	return filepath.Join(filepath.Dir(entry), fmt.Sprintf("%slink-%x", Tmp, sum[:8]))
}
