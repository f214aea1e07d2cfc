package mounts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/step"
)

const (
	probeTime  = 30 * time.Second
	formatTime = 10 * time.Minute
	// blankSize is how much of a blank device's beginning must be zeros. New
	// EBS and instance-store volumes are zeros throughout.
	blankSize = 1 << 20
)

// holds is what a device holds.
type holds struct {
	fs    string // a file system that blkid knows
	other string // any other signature, in a phrase
	half  bool   // a file system whose making was cut off
}

// prepare sees to it that the device holds the wanted file system. A device is
// formatted only when it is blank: no signature that blkid knows, and zeros
// where signatures lie. What an earlier Apply began to format and did not
// finish, known by a stamp that names the device, counts as blank while it
// holds no complete file system.
func (m *Mount) prepare(ctx context.Context, env step.Env, what string) error {
	if m.image() {
		return nil
	}
	has, blank, err := m.probe(ctx, env.Host, what)
	if err != nil {
		return err
	}
	begun := step.ID{Kind: env.ID.Kind, Name: env.ID.Name + " formatting"}
	resumed := env.Stamps.Has(begun, what) && (has.half || has == holds{})
	refuse := func(hint, format string, args ...any) error {
		return diag.WithHint(fmt.Errorf("cannot mount %s: "+format, append([]any{m.name}, args...)...), "%s", hint)
	}
	switch {
	case has.fs == m.FS && !has.half:
		return env.Stamps.Drop(begun)
	case resumed:
	case has.half:
		return refuse("if nobody needs it: wipefs -a "+what, "%s holds a %s whose making was cut off, and not by this agent", m.volume(), m.FS)
	case has.fs != "":
		return refuse("change `fs`, or name another volume; nothing that holds a file system is formatted", "%s holds %s, want %s", m.volume(), has.fs, m.FS)
	case has.other != "":
		return refuse("name one of its partitions, or another volume; nothing that holds a signature is formatted", "%s holds %s", m.volume(), has.other)
	case !blank:
		return refuse("if nobody needs what it holds: blkdiscard -z "+what, "%s holds data that is no file system known to blkid", m.volume())
	}
	if m.Format == never || (m.FS != "ext4" && m.FS != "xfs") {
		return refuse("", "%s is blank, and `format: never` leaves it so", m.volume())
	}
	if err := env.Stamps.Put(begun, what); err != nil {
		return err
	}
	if env.Status != nil {
		env.Status("making " + m.FS + " on " + m.volume())
	}
	_, err = env.Host.Run(ctx, host.Cmd{Argv: m.mkfs(what, resumed), Timeout: formatTime, Line: env.Output})
	if errors.Is(err, host.ErrNoProgram) {
		err = diag.WithHint(err, "install %s with `packages`", map[string]string{"ext4": "e2fsprogs", "xfs": "xfsprogs"}[m.FS])
		return fmt.Errorf("cannot make %s on %s: %w", m.FS, m.volume(), err)
	}
	if err != nil {
		return fmt.Errorf("cannot make %s on %s: %w", m.FS, m.volume(), err)
	}
	return env.Stamps.Drop(begun)
}

// mkfs is the argument list that makes the file system. Nothing is discarded:
// a blank device has nothing to discard, and on large ones it takes minutes.
func (m *Mount) mkfs(what string, again bool) []string {
	var argv []string
	if m.FS == "ext4" {
		// One -F: no question about whole disks. It still refuses devices in use (mke2fs(8)).
		argv = []string{"mkfs.ext4", "-q", "-F", "-E", "nodiscard"}
	} else {
		argv = []string{"mkfs.xfs", "-q", "-K"}
		if again {
			argv = append(argv, "-f")
		}
	}
	if m.Label != "" {
		argv = append(argv, "-L", m.Label)
	}
	return append(argv, what)
}

// probe tells what a device holds, and, when blkid knows nothing of it, whether
// it begins with zeros. Doubt of any kind is an error.
func (m *Mount) probe(ctx context.Context, h *host.Host, what string) (holds, bool, error) {
	start, err := beginning(h, what)
	if err != nil {
		// blkid(8) gives 2 both for "nothing found" and for "cannot be read".
		return holds{}, false, fmt.Errorf("cannot read %s: %w", m.volume(), err)
	}
	res, err := h.Run(ctx, host.Cmd{Argv: []string{"blkid", "-p", "-o", "export", what}, Timeout: probeTime})
	exit := (*host.ExitError)(nil)
	if err != nil && !errors.As(err, &exit) {
		return holds{}, false, fmt.Errorf("cannot tell what %s holds: %w", m.volume(), err)
	}
	has, err := judge(res.Code, string(res.Stdout))
	if err != nil {
		return holds{}, false, diag.WithHint(fmt.Errorf("cannot tell what %s holds: %w", m.volume(), err), "blkid -p %s; wipefs %s", what, what)
	}
	has.half = has.fs == "xfs" && xfsInProgress(start)
	return has, len(bytes.Trim(start, "\x00")) == 0, nil
}

func beginning(h *host.Host, what string) ([]byte, error) {
	f, err := h.Open(what)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, blankSize))
}

// judge reads the answer of `blkid -p -o export` (blkid(8), "exit status"): 0
// for something found, 2 for nothing, 8 for contradictory signatures.
func judge(code int, out string) (holds, error) {
	switch code {
	case 2:
		return holds{}, nil
	case 8:
		return holds{}, errors.New("it holds the signatures of several file systems")
	case 0:
	default:
		return holds{}, fmt.Errorf("blkid exited with %d", code)
	}
	found := map[string]string{}
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		found[key] = value
	}
	switch {
	case found["TYPE"] != "" && (found["USAGE"] == "filesystem" || found["USAGE"] == ""):
		return holds{fs: found["TYPE"]}, nil
	case found["TYPE"] != "":
		return holds{other: "a " + found["TYPE"] + " signature"}, nil
	case found["PTTYPE"] != "":
		return holds{other: "a partition table (" + found["PTTYPE"] + ")"}, nil
	}
	return holds{}, errors.New("blkid found something and does not say what")
}

// xfsInProgress tells whether mkfs.xfs did not come to its end: it writes the
// superblock first, with sb_inprogress set, and the kernel refuses to mount it
// so (Linux, fs/xfs/libxfs/xfs_format.h, struct xfs_dsb).
func xfsInProgress(start []byte) bool {
	const inProgressAt = 126
	return len(start) > inProgressAt && bytes.HasPrefix(start, []byte("XFSB")) && start[inProgressAt] != 0
}
