package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	sd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"

	"github.com/amiagent/amiagent/internal/diag"
)

// ErrNotLive is asking a tree for what only a running machine has.
var ErrNotLive = errors.New("this needs the running system, not a tree")

// systemdDoor holds the one connection to systemd.
type systemdDoor struct {
	mu   sync.Mutex
	open *Systemd
}

// Systemd is a connection to the machine's systemd. It is safe for concurrent
// use. Every method returns soon after its context ends; what was asked of
// systemd by then goes on.
type Systemd struct {
	h    *Host
	conn *sd.Conn
	// raw is one of conn's own connections, for the calls that go-systemd has no method for.
	raw  *dbus.Conn
	self string
}

// Systemd gives the connection to systemd, opened on first use and again after
// it was lost (systemd restarts itself when its package is upgraded). For a
// tree it is ErrNotLive. A failure is not remembered.
func (h *Host) Systemd(ctx context.Context) (*Systemd, error) {
	if !h.Live() {
		return nil, fmt.Errorf("cannot reach systemd: %w", ErrNotLive)
	}
	h.sd.mu.Lock()
	defer h.sd.mu.Unlock()
	if h.sd.open != nil {
		if h.sd.open.conn.Connected() {
			return h.sd.open, nil
		}
		h.sd.open.conn.Close()
		h.sd.open = nil
	}
	s := &Systemd{h: h, self: h.ownUnit()}
	if err := s.dial(ctx); err != nil {
		return nil, diag.WithHint(fmt.Errorf("cannot reach systemd: %w", err),
			"is this machine booted with systemd? `systemctl is-system-running` tells")
	}
	h.sd.open = s
	return s, nil
}

// CloseSystemd closes the connection, if there is one. Jobs that somebody waits
// for end in an error. The next call of Systemd opens another.
func (h *Host) CloseSystemd() {
	h.sd.mu.Lock()
	defer h.sd.mu.Unlock()
	if h.sd.open != nil {
		h.sd.open.conn.Close()
		h.sd.open = nil
	}
}

// privateSocket is where systemd itself answers root, with no bus daemon in
// between (systemd, src/shared/bus-util.c: bus_connect_system_systemd).
const privateSocket = "unix:path=/run/systemd/private"

// dial takes the system bus, because systemd lets only clients of a bus Hold a
// unit; it is no slower (0.14 ms a call). Where no bus runs, root goes to systemd itself.
func (s *Systemd) dial(ctx context.Context) error {
	err := s.dialBy(ctx, dbus.SystemBusPrivate, true)
	if err == nil || ctx.Err() != nil || os.Geteuid() != 0 {
		return err
	}
	if s.dialBy(ctx, func(opts ...dbus.ConnOption) (*dbus.Conn, error) {
		return dbus.Dial(privateSocket, opts...)
	}, false) == nil {
		return nil
	}
	return err
}

// dialBy connects and authenticates. ctx bounds only that: the connection lives on.
func (s *Systemd) dialBy(ctx context.Context, open func(...dbus.ConnOption) (*dbus.Conn, error), hello bool) error {
	life, end := context.WithCancel(context.Background())
	detach := context.AfterFunc(ctx, end)
	conn, err := sd.NewConnection(func() (*dbus.Conn, error) {
		c, err := open(dbus.WithContext(life))
		if err != nil {
			return nil, err
		}
		// The number, not the name, so that no user database is asked.
		err = c.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Geteuid()))})
		if err == nil && hello {
			err = c.Hello()
		}
		if err != nil {
			c.Close()
			return nil, err
		}
		if s.raw == nil {
			s.raw = c
		}
		// Calls go out on one connection, ends of jobs come in on another:
		// when one of them goes, so does the other.
		context.AfterFunc(c.Context(), end)
		return c, nil
	})
	if err == nil && !detach() {
		conn.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		end()
		s.raw = nil
		return err
	}
	s.conn = conn
	return nil
}

// Self is the unit that this process belongs to, as "amiagent.service", or ""
// when it belongs to none that systemd knows.
func (s *Systemd) Self() string { return s.self }

func (h *Host) ownUnit() string {
	b, err := h.ReadLimited("/proc/self/cgroup", 1<<20)
	if err != nil {
		return ""
	}
	return unitOfCgroup(string(b))
}

// unitOfCgroup finds the unit in the text of /proc/PID/cgroup: the first part
// of systemd's path that is no slice. The hierarchy is the one of version 2
// ("0::"), else version 1's "name=systemd". The rules are those of systemd's
// src/basic/cgroup-util.c, cg_path_get_unit; cgroups(7) has the file's format.
func unitOfCgroup(text string) string {
	unified := ""
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		switch {
		case f[1] == "name=systemd":
			if u := unitOfPath(f[2]); u != "" {
				return u
			}
		case f[0] == "0" && f[1] == "":
			unified = unitOfPath(f[2])
		}
	}
	return unified
}

func unitOfPath(p string) string {
	for part := range strings.SplitSeq(strings.Trim(p, "/"), "/") {
		// A leading "_" keeps a unit's name apart from the kernel's own files.
		part = strings.TrimPrefix(part, "_")
		if strings.HasSuffix(part, ".slice") {
			continue
		}
		if strings.HasSuffix(part, ".service") || strings.HasSuffix(part, ".scope") {
			return part
		}
		return ""
	}
	return ""
}

const (
	busName      = "org.freedesktop.systemd1"
	busPath      = dbus.ObjectPath("/org/freedesktop/systemd1")
	managerCalls = busName + ".Manager."
)

// call calls a method of systemd's manager; out may be left out.
func (s *Systemd) call(ctx context.Context, method string, args []any, out ...any) error {
	return s.raw.Object(busName, busPath).CallWithContext(ctx, managerCalls+method, 0, args...).Store(out...)
}

// unknownMethod tells whether systemd is too old for a call.
func unknownMethod(err error) bool {
	name := busError(err)
	return name == "org.freedesktop.DBus.Error.UnknownMethod" || name == "org.freedesktop.DBus.Error.UnknownInterface"
}

// busError is the D-Bus name of an error, "" for others.
func busError(err error) string {
	var e dbus.Error
	if errors.As(err, &e) {
		return e.Name
	}
	var p *dbus.Error
	if errors.As(err, &p) {
		return p.Name
	}
	return ""
}

// SystemState is systemd's word for the whole machine: "starting", "running",
// "degraded", "stopping" and others (systemctl(1), is-system-running).
func (s *Systemd) SystemState(ctx context.Context) (string, error) {
	v, err := s.conn.SystemStateContext(ctx)
	if err != nil {
		return "", fmt.Errorf("cannot ask systemd for its state: %w", err)
	}
	state, _ := v.Value.Value().(string)
	return state, nil
}

// DaemonReload makes systemd read all unit files again. It blocks systemd
// itself while it lasts.
func (s *Systemd) DaemonReload(ctx context.Context) error {
	if err := s.conn.ReloadContext(ctx); err != nil {
		return fmt.Errorf("cannot reload systemd's units: %w", err)
	}
	return nil
}

// Reboot begins an orderly reboot and returns. Every unit is stopped, this
// process's own among them.
func (s *Systemd) Reboot(ctx context.Context) error {
	// Manager.Reboot would reboot at once, without stopping anything.
	if _, err := s.conn.StartUnitContext(ctx, "reboot.target", "replace-irreversibly", nil); err != nil {
		return fmt.Errorf("cannot reboot: %w", err)
	}
	return nil
}

// EnableUnit makes the links of a unit's [Install] section. It does not reload
// systemd. A unit without such a section is an error.
func (s *Systemd) EnableUnit(ctx context.Context, unit string) error {
	installs, _, err := s.conn.EnableUnitFilesContext(ctx, []string{unit}, false, false)
	if err != nil {
		return fmt.Errorf("cannot enable %s: %w", unit, err)
	}
	if !installs {
		return noInstall(unit)
	}
	return nil
}

// DisableUnit removes the links of EnableUnit, and all others that pull the unit in by name.
func (s *Systemd) DisableUnit(ctx context.Context, unit string) error {
	if _, err := s.conn.DisableUnitFilesContext(ctx, []string{unit}, false); err != nil {
		return fmt.Errorf("cannot disable %s: %w", unit, err)
	}
	return nil
}

// MaskUnit makes it impossible to start the unit. It does not stop it, and does not reload systemd.
func (s *Systemd) MaskUnit(ctx context.Context, unit string) error {
	if _, err := s.conn.MaskUnitFilesContext(ctx, []string{unit}, false, false); err != nil {
		return fmt.Errorf("cannot mask %s: %w", unit, err)
	}
	return nil
}

// UnmaskUnit undoes MaskUnit.
func (s *Systemd) UnmaskUnit(ctx context.Context, unit string) error {
	if _, err := s.conn.UnmaskUnitFilesContext(ctx, []string{unit}, false); err != nil {
		return fmt.Errorf("cannot unmask %s: %w", unit, err)
	}
	return nil
}

// UnitFileState is "enabled", "disabled", "static", "masked" and others, as
// `systemctl is-enabled` says it, read afresh from the unit files. A unit
// without a file is "".
func (s *Systemd) UnitFileState(ctx context.Context, unit string) (string, error) {
	var state string
	err := s.call(ctx, "GetUnitFileState", []any{unit}, &state)
	switch busError(err) {
	// systemd 219 gives the plain errno, later ones a name of their own.
	case "org.freedesktop.DBus.Error.FileNotFound", "org.freedesktop.systemd1.NoSuchUnit", "System.Error.ENOENT":
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("cannot ask systemd whether %s is enabled: %w", unit, err)
	}
	return state, nil
}

// ResetFailed forgets that a unit failed, and its count of starts.
func (s *Systemd) ResetFailed(ctx context.Context, unit string) error {
	err := s.conn.ResetFailedUnitContext(ctx, unit)
	if busError(err) == "org.freedesktop.systemd1.NoSuchUnit" {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot reset %s: %w", unit, err)
	}
	return nil
}

// Hold keeps what systemd knows of a unit, as how its last run ended, until
// release. Without it systemd forgets a unit that has ended and that nothing
// refers to. Where systemd cannot (before 232, or without a bus), nothing is held.
func (s *Systemd) Hold(ctx context.Context, unit string) (release func()) {
	if err := s.call(ctx, "RefUnit", []any{unit}); err != nil {
		return func() {}
	}
	return func() {
		// The answer is not waited for: the hold ends with the connection anyway.
		s.raw.Object(busName, busPath).Go(managerCalls+"UnrefUnit", dbus.FlagNoReplyExpected, nil, unit)
	}
}
