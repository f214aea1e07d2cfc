// Package mounts mounts volumes: data volumes and instance-store volumes by
// names that stay the same when the kernel numbers them otherwise, and
// read-only images from files.
//
// Every mount is a systemd mount unit, so it is there early at the next boot,
// units can be ordered after it, and `systemctl status` tells of it. A volume
// is given a file system only if it is blank beyond doubt; one that holds
// anything else is refused, never formatted.
//
// In a tree that is no running machine the unit is written and enabled, unless
// its volume has a name that only the running machine can tell.
package mounts

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/step"
)

//go:embed example.yaml
var example string

// Kind is the manifest's section "mounts".
func Kind() step.Kind {
	return step.Kind{
		Name:    "mounts",
		Doc:     "Volumes and read-only images, mounted by systemd; blank volumes get a file system first.",
		Level:   step.LevelStorage,
		New:     func() step.Step { return &Mount{Wait: 30 * time.Second} },
		Example: example,
	}
}

// Mount is one mounted volume or image; its name is the mount point.
type Mount struct {
	name string

	// Device is a path in /dev, LABEL=, UUID=, PARTLABEL= or PARTUUID=, or, for
	// squashfs and erofs, the path of an image file.
	Device string `yaml:"device"`
	// Ephemeral is an instance-store volume, counted from 0 in the order of
	// their serial numbers. What it holds is lost when the instance stops.
	Ephemeral *int `yaml:"ephemeral"`
	// EBS is an EBS volume by its device name in EC2 (sdf) or its id (vol-...).
	EBS string `yaml:"ebs"`

	FS      string   `yaml:"fs"`      // ext4, xfs, squashfs or erofs
	Label   string   `yaml:"label"`   // given to the file system when it is made
	Options []string `yaml:"options"` // of mount(8)
	// Format is if-blank, the default, or never.
	Format string `yaml:"format"`
	// Owner, Group and Mode are those of the mounted file system's root.
	Owner string        `yaml:"owner"`
	Group string        `yaml:"group"`
	Mode  string        `yaml:"mode"`
	Wait  time.Duration `yaml:"wait"` // how long the device may take to appear
}

const (
	ifBlank = "if-blank"
	never   = "never"
)

// labelMax is how many bytes a label may have: ext4's s_volume_name, XFS's sb_fname.
var labelMax = map[string]int{"ext4": 16, "xfs": 12}

func (m *Mount) image() bool {
	return (m.FS == "squashfs" || m.FS == "erofs") && strings.HasPrefix(m.Device, "/") && !strings.HasPrefix(m.Device, "/dev/")
}

// SetName gives the mount its mount point.
func (m *Mount) SetName(name string) { m.name = name }

// Needs are the owner and the group of the mounted root.
func (m *Mount) Needs() []step.ID {
	var ids []step.ID
	if m.Owner != "" {
		ids = append(ids, step.ID{Kind: "users", Name: m.Owner})
	}
	if m.Group != "" {
		ids = append(ids, step.ID{Kind: "groups", Name: m.Group})
	}
	return ids
}

var (
	ebsName = regexp.MustCompile(`^(/dev/)?(sd|xvd)[a-z]{1,2}[0-9]{0,2}$`)
	ebsID   = regexp.MustCompile(`^vol-?[0-9a-f]{8,17}$`)
	// apiFolders hold the kernel's own file systems.
	apiFolders = []string{"/proc", "/sys", "/dev", "/run"}
	tags       = map[string]string{"LABEL": "by-label", "UUID": "by-uuid", "PARTLABEL": "by-partlabel", "PARTUUID": "by-partuuid"}
)

// Validate records faults of the body by field name.
func (m *Mount) Validate(at diag.At) {
	if step.StaticText(m.name) {
		switch {
		case !path.IsAbs(m.name) || path.Clean(m.name) != m.name:
			at.Errorf("%q is no mount point: write a clean absolute path, as /data", m.name)
		case m.name == "/" || slices.Contains(apiFolders, m.name) || strings.HasPrefix(m.name, "/proc/") || strings.HasPrefix(m.name, "/sys/"):
			at.Errorf("%s belongs to the system, nothing can be mounted there", m.name)
		case strings.ContainsFunc(m.name, func(r rune) bool { return r < ' ' || r == 0x7f }):
			at.Errorf("%q has control characters", m.name)
		}
	}
	m.validateDevice(at)
	if step.StaticText(m.FS) {
		m.validateFS(at)
	}
	for i, o := range m.Options {
		if step.StaticText(o) && (o == "" || strings.ContainsAny(o, "\n\"\\") || strings.TrimSpace(o) != o) {
			at.Field("options").Index(i).Errorf("%q is no option of mount", o)
		}
	}
	if m.Mode != "" && step.StaticText(m.Mode) {
		if _, err := parseMode(m.Mode); err != nil {
			at.Field("mode").Err(err)
		}
	}
	if m.Wait < 0 {
		at.Field("wait").Errorf("must not be negative, is %s", m.Wait)
	}
}

func (m *Mount) validateDevice(at diag.At) {
	given := 0
	for _, g := range []bool{m.Device != "", m.Ephemeral != nil, m.EBS != ""} {
		if g {
			given++
		}
	}
	if given != 1 {
		at.Errorf("needs one of device, ephemeral and ebs, has %d", given)
		return
	}
	switch {
	case m.Ephemeral != nil && *m.Ephemeral < 0:
		at.Field("ephemeral").Errorf("counts from 0, is %d", *m.Ephemeral)
	case m.EBS != "" && step.StaticText(m.EBS) && !ebsName.MatchString(m.EBS) && !ebsID.MatchString(m.EBS):
		at.Field("ebs").Errorf("must be a device name of EC2, as sdf, or a volume, as vol-0123456789abcdef0, is %q", m.EBS)
	case m.Device != "" && step.StaticText(m.Device):
		tag, value, tagged := strings.Cut(m.Device, "=")
		switch {
		case strings.ContainsFunc(m.Device, func(r rune) bool { return r < ' ' || r == 0x7f }) || strings.HasSuffix(m.Device, `\`):
			at.Field("device").Errorf("%q cannot be written in a unit file", m.Device)
		case strings.HasPrefix(m.Device, "/"):
			if !strings.HasPrefix(m.Device, "/dev/") && !m.image() && step.StaticText(m.FS) {
				at.Field("device").Errorf("%s is no device: only images of squashfs and erofs are mounted from files", m.Device)
			}
		case !tagged || tags[tag] == "" || value == "":
			at.Field("device").Errorf("must be a path or LABEL=, UUID=, PARTLABEL=, PARTUUID=, is %q", m.Device)
		}
	}
}

func (m *Mount) validateFS(at diag.At) {
	readOnly := m.FS == "squashfs" || m.FS == "erofs"
	switch {
	case m.FS == "":
		at.Field("fs").Errorf("must be given: ext4, xfs, squashfs or erofs")
		return
	case m.FS != "ext4" && m.FS != "xfs" && !readOnly:
		at.Field("fs").Errorf("must be ext4, xfs, squashfs or erofs, is %q", m.FS)
		return
	}
	if m.Format != "" && m.Format != ifBlank && m.Format != never && step.StaticText(m.Format) {
		at.Field("format").Errorf("must be if-blank or never, is %q", m.Format)
	}
	if readOnly {
		for field, given := range map[string]bool{"format": m.Format == ifBlank, "label": m.Label != "", "owner": m.Owner != "", "group": m.Group != "", "mode": m.Mode != ""} {
			if given {
				at.Field(field).Errorf("%s is read-only, and is what it was made to be", m.FS)
			}
		}
		return
	}
	if limit := labelMax[m.FS]; len(m.Label) > limit && step.StaticText(m.Label) {
		at.Field("label").Errorf("%q is longer than the %d bytes that %s has for it", m.Label, limit, m.FS)
	}
}

// special are the mode bits that Go does not keep where octal notation has them.
var special = map[uint64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky}

const modeBits = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky

func parseMode(s string) (fs.FileMode, error) {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > 0o7777 {
		return 0, fmt.Errorf("must be octal, as \"0750\", is %q", s)
	}
	mode := fs.FileMode(n & 0o777)
	for bit, flag := range special {
		if n&bit != 0 {
			mode |= flag
		}
	}
	return mode, nil
}

func octal(mode fs.FileMode) string {
	n := uint64(mode.Perm())
	for bit, flag := range special {
		if mode&flag != 0 {
			n |= bit
		}
	}
	return fmt.Sprintf("%04o", n)
}

// Check looks at the unit, the mount, and the mounted root.
func (m *Mount) Check(ctx context.Context, env step.Env) (step.Drift, error) {
	h := env.Host
	what, err := m.what(h)
	if errors.Is(err, errNotThere) {
		if !h.Live() {
			return "", nil // only the running machine can tell
		}
		return step.Drift(m.volume() + " is not there"), nil
	}
	if err != nil {
		return "", err
	}
	if d, err := m.unitDrift(h, what); err != nil || d != "" || !h.Live() {
		return d, err
	}
	if d, err := m.mountDrift(h, what); err != nil || d != "" {
		return d, err
	}
	return m.rootDrift(h)
}

// mountDrift tells what is wrong with what is mounted at the mount point.
func (m *Mount) mountDrift(h *host.Host, what string) (step.Drift, error) {
	at, ok, err := mountedAt(h, m.name)
	switch {
	case err != nil:
		return "", err
	case !ok:
		return "is not mounted", nil
	}
	same, err := m.backs(h, at, what)
	switch {
	case err != nil:
		return "", err
	case !same:
		return step.Drift(fmt.Sprintf("%s is mounted there, want %s", at.Source, what)), nil
	case at.FS != m.FS:
		return step.Drift(fmt.Sprintf("is %s, want %s", at.FS, m.FS)), nil
	}
	return "", nil
}

// root gives what owner, group and mode the mounted root should have; Keep and
// false where the manifest says nothing.
func (m *Mount) root(h *host.Host) (uid, gid int, mode fs.FileMode, hasMode bool, err error) {
	uid, gid = host.Keep, host.Keep
	if m.Owner != "" {
		u, err := h.LookupUser(m.Owner)
		if err != nil {
			return 0, 0, 0, false, err
		}
		uid, gid = u.UID, u.GID
	}
	if m.Group != "" {
		g, err := h.LookupGroup(m.Group)
		if err != nil {
			return 0, 0, 0, false, err
		}
		gid = g.GID
	}
	if m.Mode != "" {
		if mode, err = parseMode(m.Mode); err != nil {
			return 0, 0, 0, false, err
		}
	}
	return uid, gid, mode, m.Mode != "", nil
}

func (m *Mount) rootDrift(h *host.Host) (step.Drift, error) {
	uid, gid, mode, hasMode, err := m.root(h)
	if errors.Is(err, host.ErrNoUser) || errors.Is(err, host.ErrNoGroup) {
		return step.Drift(err.Error()), nil
	}
	if err != nil {
		return "", err
	}
	st, err := h.Stat(m.name)
	if err != nil {
		return "", err
	}
	haveUID, haveGID := host.OwnerOf(st)
	switch {
	case uid != host.Keep && haveUID != uid:
		return step.Drift(fmt.Sprintf("owner is %d, want %d (%s)", haveUID, uid, m.Owner)), nil
	case gid != host.Keep && haveGID != gid:
		return step.Drift(fmt.Sprintf("group is %d, want %d", haveGID, gid)), nil
	case hasMode && st.Mode()&modeBits != mode:
		return step.Drift(fmt.Sprintf("mode is %s, want %s", octal(st.Mode()), octal(mode))), nil
	}
	return "", nil
}

// Apply waits for the device, makes a file system if there is none, writes the
// unit and starts it. It never unmounts: what is mounted in the wrong place is
// in use, for all that can be known.
func (m *Mount) Apply(ctx context.Context, env step.Env) error {
	h := env.Host
	if !h.Live() {
		what, err := m.what(h)
		if errors.Is(err, errNotThere) {
			return fmt.Errorf("cannot mount %s: %w", m.name, host.ErrNotLive)
		}
		if err != nil {
			return err
		}
		return m.writeUnit(ctx, h, what)
	}
	what, err := m.await(ctx, env)
	if err != nil {
		return err
	}
	at, mounted, err := mountedAt(h, m.name)
	if err != nil {
		return err
	}
	if mounted {
		if same, err := m.backs(h, at, what); err != nil {
			return err
		} else if !same || at.FS != m.FS {
			return diag.WithHint(fmt.Errorf("cannot mount %s: %s, with %s, is mounted there already", m.name, at.Source, at.FS),
				"see what uses it with `fuser -vm %s`, then umount it", m.name)
		}
	} else if err := m.prepare(ctx, env, what); err != nil {
		return err
	}
	if err := m.writeUnit(ctx, h, what); err != nil {
		return err
	}
	if err := m.start(ctx, env); err != nil {
		return err
	}
	uid, gid, mode, hasMode, err := m.root(h)
	if err != nil {
		return fmt.Errorf("cannot set the owner of %s: %w", m.name, err)
	}
	if uid == host.Keep && gid == host.Keep && !hasMode {
		return nil
	}
	if !hasMode {
		st, err := h.Stat(m.name)
		if err != nil {
			return err
		}
		mode = st.Mode() & modeBits
	}
	return h.SetMeta(m.name, mode, uid, gid)
}
