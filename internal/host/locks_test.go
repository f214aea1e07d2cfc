package host

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// TestHoldALock is no test of its own: this test binary, started again, is the
// other process that a lock needs.
func TestHoldALock(t *testing.T) {
	path := os.Getenv("HOST_TEST_LOCK")
	if path == "" {
		return
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &syscall.Flock_t{Type: syscall.F_WRLCK}); err != nil {
		t.Fatal(err)
	}
	os.Stdout.WriteString("locked\n")
	_, _ = os.Stdin.Read(make([]byte, 1)) // until the test ends
}

func TestTheHolderOfALockIsNamed(t *testing.T) {
	root := t.TempDir()
	h, err := New(root, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, held, err := h.LockHolder("/lock"); held || err != nil {
		t.Errorf("a file that is not there: held %v, %v", held, err)
	}
	if err := os.WriteFile(filepath.Join(root, "lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, held, err := h.LockHolder("/lock"); held || err != nil {
		t.Errorf("a free file: held %v, %v", held, err)
	}

	cmd := exec.Command(os.Args[0], "-test.run=^TestHoldALock$")
	cmd.Env = append(os.Environ(), "HOST_TEST_LOCK="+filepath.Join(root, "lock"))
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(line, err)
	}
	got, held, err := h.LockHolder("/lock")
	if err != nil || !held || got.PID != cmd.Process.Pid || got.Name != "host.test" {
		t.Errorf("holder is %v (held %v, %v), want pid %d (host.test)", got, held, err, cmd.Process.Pid)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, held, _ := h.LockHolder("/lock"); held {
		t.Error("the lock outlives its holder")
	}
}
