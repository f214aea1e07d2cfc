package mounts

import (
	"fmt"
	"path"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/amiagent/amiagent/internal/host"
)

// mounted is one line of /proc/PID/mountinfo.
type mounted struct {
	Device string // major:minor
	Root   string // which part of the file system is mounted
	Point  string
	FS     string
	Source string
}

// parseMountinfo reads the format of proc_pid_mountinfo(5). Lines that make no
// sense are passed over.
func parseMountinfo(text string) []mounted {
	var all []mounted
	for line := range strings.Lines(text) {
		before, after, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		f, g := strings.Split(before, " "), strings.Split(after, " ")
		if !ok || len(f) < 6 || len(g) < 2 {
			continue
		}
		all = append(all, mounted{Device: f[2], Root: unescape(f[3]), Point: unescape(f[4]), FS: g[0], Source: unescape(g[1])})
	}
	return all
}

// unescape undoes the kernel's \040 for a space, \011, \012 and \134.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// mountedAt is what is mounted at a path: the last mount there hides those before.
func mountedAt(h *host.Host, p string) (mounted, bool, error) {
	b, err := h.ReadLimited("/proc/self/mountinfo", 16<<20)
	if err != nil {
		return mounted{}, false, fmt.Errorf("cannot tell what is mounted: %w", err)
	}
	var found mounted
	ok := false
	for _, m := range parseMountinfo(string(b)) {
		if m.Point == p {
			found, ok = m, true
		}
	}
	return found, ok, nil
}

// backs tells whether a mount's file system lies on the device or in the image file.
func (m *Mount) backs(h *host.Host, at mounted, what string) (bool, error) {
	if m.image() {
		// The loop device's file, as the kernel tells it.
		b, err := h.ReadLimited(path.Join("/sys/dev/block", at.Device, "loop/backing_file"), 1<<16)
		if err != nil {
			return at.Source == what, nil // erofs mounted from its file, without a loop device
		}
		return strings.TrimSuffix(string(b), "\n") == what, nil
	}
	st, err := h.Stat(what)
	if err != nil {
		return false, err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return false, fmt.Errorf("cannot tell the number of %s", what)
	}
	return at.Device == fmt.Sprintf("%d:%d", unix.Major(sys.Rdev), unix.Minor(sys.Rdev)), nil
}
