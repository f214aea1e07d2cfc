package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
)

// lockFile is held while one convergence is under way, not for the daemon's life.
const lockFile = StateDir + "/lock"

// holder is who holds the lock, for the one who has to wait.
type holder struct {
	PID     int       `json:"pid"`
	Command string    `json:"command"`
	Since   time.Time `json:"since"`
}

// exclusive takes the machine for one convergence. The kernel drops the lock of
// a process that dies.
func (a *Agent) exclusive() (release func(), err error) {
	if !a.one.TryLock() {
		return nil, fmt.Errorf("%w in this process", ErrBusy)
	}
	defer func() {
		if err != nil {
			a.one.Unlock()
		}
	}()
	p, err := a.host.Path(lockFile)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(p, os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, host.Explain(fmt.Errorf("cannot lock the machine by %s: %w", lockFile, host.Cause(err)))
	}
	lock := syscall.Flock_t{Type: syscall.F_WRLCK}
	if err := syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &lock); err != nil {
		defer f.Close()
		if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) {
			return nil, busy(f)
		}
		return nil, fmt.Errorf("cannot lock the machine: %w", err)
	}
	b, _ := json.Marshal(holder{os.Getpid(), a.opt.Command, time.Now().UTC().Truncate(time.Second)})
	// On a full disk the lock holds without telling who holds it.
	_ = f.Truncate(0)
	_, _ = f.WriteAt(b, 0)
	return func() {
		_ = f.Truncate(0)
		f.Close()
		a.one.Unlock()
	}, nil
}

// busy says who holds the lock.
func busy(f *os.File) error {
	var h holder
	b, _ := io.ReadAll(io.LimitReader(f, 4096))
	if json.Unmarshal(b, &h) != nil {
		return ErrBusy
	}
	hint := "try again when it has ended"
	if h.Command == "run" { // the daemon tells what it does
		hint = "wait for it with `amiagent wait`, or see what it does with `amiagent status`"
	}
	return diag.WithHint(fmt.Errorf("%w: pid %d (amiagent %s), since %s", ErrBusy, h.PID, h.Command, h.Since.Format(time.RFC3339)), "%s", hint)
}
