package agent

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// How much garbage may lie about, in percent of what is in use (GOGC of package
// runtime). A launch is over before there is much of it, and collecting takes
// processor time from it. An agent at rest makes little, and should stay small.
const (
	launchGarbage = 400
	restGarbage   = 50
)

// hurry makes the process fast, for a launch.
func (a *Agent) hurry() {
	if !a.opt.OwnProcess {
		return
	}
	a.collect(launchGarbage)
	if a.processors > 0 {
		runtime.GOMAXPROCS(a.processors)
	}
}

// rest makes it small: the agent idles for most of its life. For each processor
// that it may use, the runtime keeps memory at hand; one is enough now.
func (a *Agent) rest() {
	if !a.opt.OwnProcess {
		return
	}
	if a.processors == 0 {
		a.processors = runtime.GOMAXPROCS(0)
	}
	runtime.GOMAXPROCS(1)
	a.collect(restGarbage)
	debug.FreeOSMemory()
	_ = releaseText()
}

// collect sets how much garbage may lie about, unless the environment's GOGC has said it.
func (a *Agent) collect(percent int) {
	if a.getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}

// releaseText drops the pages of the program's own text and constants from
// memory. They are clean copies of the file: what is touched again comes back
// from the page cache. Most of an idle Go program's memory is such pages, read
// by a launch that is over.
func releaseText() error {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return err
	}
	defer f.Close()
	var errs error
	for sc := bufio.NewScanner(f); sc.Scan(); {
		// 00400000-00b5c000 r-xp 00000000 fe:00 1234   /usr/bin/amiagent (proc(5))
		line := sc.Text()
		var from, to uintptr
		var perm string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &perm); err != nil || !strings.HasSuffix(line, " "+exe) {
			continue
		}
		if strings.Contains(perm, "w") { // not clean: it holds variables
			continue
		}
		b := unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(nil), from)), to-from)
		if err := unix.Madvise(b, unix.MADV_DONTNEED); err != nil && errs == nil {
			errs = err
		}
	}
	return errs
}
