package steptest

import (
	"bytes"
	"os"
	"path/filepath"
	"time"
)

// patience is how long a background program of a case may live.
const patience = 2 * time.Second

// quiet waits, not for ever, until no program that was started on this machine
// is running: a grandchild that outlives a cancelled Apply would write during
// the next Check, and Check would get the blame. A host tells every program its
// root by the environment.
func (m *Machine) quiet() {
	mark := []byte("AMIAGENT_ROOT=" + m.Root() + "\x00")
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		running := false
		all, _ := filepath.Glob("/proc/[0-9]*/environ")
		for _, p := range all {
			env, _ := os.ReadFile(p)
			running = running || bytes.Contains(env, mark)
		}
		if !running {
			return
		}
	}
}
