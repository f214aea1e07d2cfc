package host

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"syscall"
)

// Process is a running process, as a person would look for it.
type Process struct {
	PID  int    // 0 when it lives in another PID namespace
	Name string // its short name (comm), "" when unknown
}

// String renders "pid 7 (apt-get)".
func (p Process) String() string {
	switch {
	case p.PID <= 0:
		return "a process outside this container"
	case p.Name == "":
		return fmt.Sprintf("pid %d", p.PID)
	}
	return fmt.Sprintf("pid %d (%s)", p.PID, p.Name)
}

// LockHolder is the process that holds a POSIX record lock (fcntl(2), F_GETLK)
// on a file, as dpkg, apt and rpm take them. It takes no lock itself. A file that
// is not there is not locked; neither is one by the calling process.
func (h *Host) LockHolder(name string) (holder Process, held bool, err error) {
	f, err := h.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return Process{}, false, nil
	}
	if err != nil {
		return Process{}, false, err
	}
	defer f.Close()
	lock := syscall.Flock_t{Type: syscall.F_WRLCK}
	if err := syscall.FcntlFlock(f.Fd(), syscall.F_GETLK, &lock); err != nil {
		return Process{}, false, fmt.Errorf("cannot look at the lock on %s: %w", name, err)
	}
	if lock.Type == syscall.F_UNLCK {
		return Process{}, false, nil
	}
	return h.Process(int(lock.Pid)), true, nil
}

// Process names a process of the running kernel, whatever this Host's root is.
func (h *Host) Process(pid int) Process {
	// The root of a tree has no /proc of its own to ask.
	comm, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	if err != nil {
		return Process{PID: pid}
	}
	return Process{PID: pid, Name: string(bytes.TrimSpace(comm))}
}
