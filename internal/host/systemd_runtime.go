package host

import (
	"context"
	"fmt"
)

// MaskUntilReboot is MaskUnit with a mask that lies below /run, so that it is
// gone after a reboot whatever becomes of the one who made it. It reloads systemd.
func (s *Systemd) MaskUntilReboot(ctx context.Context, units []string) error {
	if _, err := s.conn.MaskUnitFilesContext(ctx, units, true, false); err != nil {
		return fmt.Errorf("cannot mask %v: %w", units, err)
	}
	return s.DaemonReload(ctx)
}

// UnmaskRuntime undoes MaskUntilReboot, and leaves masks in /etc alone. It reloads systemd.
func (s *Systemd) UnmaskRuntime(ctx context.Context, units []string) error {
	if _, err := s.conn.UnmaskUnitFilesContext(ctx, units, true); err != nil {
		return fmt.Errorf("cannot unmask %v: %w", units, err)
	}
	return s.DaemonReload(ctx)
}
