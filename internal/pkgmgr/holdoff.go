package pkgmgr

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/amiagent/amiagent/internal/host"
)

// heldOffPath remembers, for this boot, which units a change holds off. It lies
// beside the masks, below /run: a reboot clears both.
const heldOffPath = "/run/amiagent/held-off.json"

const heldOffFormat = 1

// restoreWithin bounds giving units back after a change that was cancelled.
const restoreWithin = 30 * time.Second

// heldOff is what must be given back.
type heldOff struct {
	Format int      `json:"format"`
	Units  []string `json:"units"`  // masked by us
	Active []string `json:"active"` // stopped by us
}

// HoldOff names the systemd units, timers above all, that must not start while
// this Manager changes packages. They are stopped and masked for just that
// time, and given back after it, also when it fails. A service that is in the
// middle of its work is not cut off: its lock is waited for.
func (m *Manager) HoldOff(units []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.offUnits = slices.Clone(units)
}

// holdOff holds the units off and gives what ends that. What cannot be held off
// is told, and waited for as any other.
func (m *Manager) holdOff(ctx context.Context, talk Talk) (release func()) {
	if len(m.offUnits) == 0 || !m.h.Live() {
		return func() {}
	}
	if err := m.hold(ctx, talk); err != nil {
		talk.output("not held off: " + err.Error())
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), restoreWithin)
		defer cancel()
		if err := GiveBack(ctx, m.h); err != nil {
			talk.output(err.Error())
		}
	}
}

func (m *Manager) hold(ctx context.Context, talk Talk) error {
	if err := GiveBack(ctx, m.h); err != nil { // of a run that was cut off
		return err
	}
	sd, err := m.h.Systemd(ctx)
	if err != nil {
		return err
	}
	states, err := sd.Units(ctx, m.offUnits)
	if err != nil {
		return err
	}
	off := heldOff{Format: heldOffFormat}
	for _, name := range m.offUnits {
		u := states[name]
		if u.Load != "loaded" {
			continue // not there, or masked by somebody who means it
		}
		off.Units = append(off.Units, name)
		if u.Active == "active" {
			off.Active = append(off.Active, name)
		}
	}
	if len(off.Units) == 0 {
		return nil
	}
	talk.status("holding off %s", strings.Join(off.Units, ", "))
	// Remembered first: a crash at any point leaves nothing held that is not in it.
	b, err := json.Marshal(off)
	if err == nil {
		err = m.h.MkdirAll(path.Dir(heldOffPath))
	}
	if err == nil {
		err = m.h.Replace(heldOffPath, append(b, '\n'), 0o600, host.Keep)
	}
	if err != nil {
		return fmt.Errorf("cannot remember what is held off: %w", err)
	}
	// Stopped before they are masked: a timer whose service is masked under it fails.
	var failed []error
	for _, name := range off.Active {
		failed = append(failed, sd.Do(ctx, host.Stop, name))
	}
	return errors.Join(append(failed, sd.MaskUntilReboot(ctx, off.Units))...)
}

// HeldOff are the units that a run holds off, or left so when it was cut off.
func HeldOff(h *host.Host) ([]string, error) {
	off, err := loadHeldOff(h)
	return off.Units, err
}

func loadHeldOff(h *host.Host) (heldOff, error) {
	var off heldOff
	b, err := h.ReadLimited(heldOffPath, 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return off, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &off)
	}
	if err == nil && off.Format != heldOffFormat {
		err = fmt.Errorf("its format is %d, this agent knows %d", off.Format, heldOffFormat)
	}
	if err != nil {
		return heldOff{}, fmt.Errorf("cannot read which units are held off, %s: %w", heldOffPath, err)
	}
	return off, nil
}

// GiveBack ends what a change, by this process or by one that was cut off,
// holds off: units are unmasked, and those that ran run again. It may be repeated.
func GiveBack(ctx context.Context, h *host.Host) error {
	off, err := loadHeldOff(h)
	if err != nil || len(off.Units) == 0 {
		return err
	}
	sd, err := h.Systemd(ctx)
	if err == nil {
		err = sd.UnmaskRuntime(ctx, off.Units)
	}
	if err != nil {
		return fmt.Errorf("cannot give back %s: %w", strings.Join(off.Units, ", "), err)
	}
	var failed []error
	for _, name := range off.Active {
		// Nobody waits for it: it may be ordered after the agent.
		_, err := sd.Queue(ctx, host.Start, name)
		failed = append(failed, err)
	}
	if err := errors.Join(failed...); err != nil {
		return err
	}
	return h.Remove(heldOffPath)
}
