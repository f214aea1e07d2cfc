package mounts

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/step"
)

func (m *Mount) unitFile() string { return path.Join(host.UnitDir, unitName(m.name)) }

// unitText is the mount unit (systemd.mount(5)). It is wanted by
// local-fs.target, not required: a volume that does not come delays a boot by
// systemd's device timeout, but does not leave the machine in emergency mode.
//
// An instance-store volume is another, blank one after a stop, so its unit is
// not enabled: systemd would wait for the old one. The agent starts it.
func (m *Mount) unitText(what string) string {
	options := slices.Clone(m.Options)
	if m.FS == "squashfs" || m.FS == "erofs" {
		options = append(options, "ro")
	}
	if m.image() {
		options = append(options, "loop")
	}
	escape := strings.NewReplacer("%", "%%")
	var b strings.Builder
	fmt.Fprintf(&b, "# Written by amiagent, and written again when it differs.\n[Unit]\nDescription=%s on %s\n",
		escape.Replace(m.volume()), escape.Replace(m.name))
	fmt.Fprintf(&b, "[Mount]\nWhat=%s\nWhere=%s\nType=%s\n", escape.Replace(what), escape.Replace(m.name), m.FS)
	if len(options) > 0 {
		fmt.Fprintf(&b, "Options=%s\n", escape.Replace(strings.Join(options, ",")))
	}
	if m.Ephemeral == nil {
		b.WriteString("[Install]\nWantedBy=local-fs.target\n")
	}
	return b.String()
}

func (m *Mount) unitDrift(h *host.Host, what string) (step.Drift, error) {
	if d, err := m.textDrift(h, what); err != nil || d != "" || m.Ephemeral != nil {
		return d, err
	}
	state, err := h.TreeUnitState(unitName(m.name))
	if err != nil {
		return "", err
	}
	if state != "enabled" {
		return step.Drift(unitName(m.name) + " is " + state + ", want enabled"), nil
	}
	return "", nil
}

func (m *Mount) textDrift(h *host.Host, what string) (step.Drift, error) {
	b, err := h.ReadLimited(m.unitFile(), 1<<20)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return step.Drift(m.unitFile() + " is missing"), nil
	case err != nil:
		return "", err
	case string(b) != m.unitText(what):
		return step.Drift(m.unitFile() + " differs"), nil
	}
	return "", nil
}

// writeUnit writes the unit, its links and the mount point. The links are made
// here, on a running machine too: they need no reload of systemd to count at the next boot.
func (m *Mount) writeUnit(ctx context.Context, h *host.Host, what string) error {
	fail := func(err error) error { return fmt.Errorf("cannot mount %s: %w", m.name, err) }
	for _, dir := range []string{m.name, host.UnitDir} {
		if err := h.MkdirAll(dir); err != nil {
			return fail(err)
		}
	}
	d, err := m.textDrift(h, what)
	if err != nil {
		return fail(err)
	}
	if d != "" {
		err := h.WriteFile(ctx, host.File{Path: m.unitFile(), Data: strings.NewReader(m.unitText(what)), Mode: 0o644, UID: host.Keep, GID: host.Keep})
		if err != nil {
			return fail(err)
		}
	}
	if m.Ephemeral != nil {
		return h.TreeDisable(unitName(m.name))
	}
	return h.TreeEnable(unitName(m.name))
}

// start starts the unit, unless it is mounted already, and sees that it is mounted.
func (m *Mount) start(ctx context.Context, env step.Env) error {
	s, err := env.Host.Systemd(ctx)
	if err != nil {
		return err
	}
	unit := unitName(m.name)
	// A unit that systemd has never looked at is read when it is started.
	if need, err := s.NeedsReload(ctx, unit, nil); err != nil {
		return err
	} else if need {
		if err := s.DaemonReload(ctx); err != nil {
			return err
		}
	}
	if _, mounted, err := mountedAt(env.Host, m.name); err != nil || mounted {
		return err
	}
	if err := s.ResetFailed(ctx, unit); err != nil {
		return err
	}
	release := s.Hold(ctx, unit)
	defer release()
	err = s.Do(ctx, host.Start, unit)
	if behind := (*host.BehindSelfError)(nil); errors.As(err, &behind) {
		return step.Defer(behind.Error())
	}
	if err == nil || ctx.Err() != nil {
		return err
	}
	return diag.WithHint(fmt.Errorf("cannot mount %s: %w%s", m.name, err, m.said(ctx, env, s)),
		"systemctl status '%s'; dmesg | tail", unit)
}

// said is the last line that mount(8) wrote.
func (m *Mount) said(ctx context.Context, env step.Env, s *host.Systemd) string {
	p, err := s.Properties(ctx, unitName(m.name))
	if err != nil {
		return ""
	}
	id, _ := p["InvocationID"].([]byte)
	res, err := env.Host.Run(ctx, host.Cmd{Argv: []string{"journalctl", "--no-pager", "--quiet", "-b", "-o", "cat", "-n", "20",
		fmt.Sprintf("_SYSTEMD_INVOCATION_ID=%x", id)}, Timeout: probeTime})
	if err != nil {
		return ""
	}
	lines := strings.FieldsFunc(string(res.Stdout), func(r rune) bool { return r == '\n' })
	i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "mount: ") })
	if i < 0 {
		return ""
	}
	return fmt.Sprintf("; it said %q", lines[i])
}
