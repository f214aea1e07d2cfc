package agent

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"go.uber.org/zap"

	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/step"
)

const (
	drainUnit   = "amiagent-drain.service"
	drainDropIn = "/run/systemd/system/" + drainUnit + ".d/50-manifest.conf"
)

// armDrain starts, at READY, the unit whose stop drains this instance. systemd
// stops units in the reverse of their order: ordered after the manifest's units,
// it drains while they still serve. The agent's own stop would come too late.
func (l *launch) armDrain(ctx context.Context) {
	if !l.host.Live() || !l.host.Exists("/usr/lib/systemd/system/"+drainUnit) && !l.host.Exists("/lib/systemd/system/"+drainUnit) {
		return
	}
	if err := l.startDrain(ctx); err != nil {
		l.log.Warn("an orderly shutdown will not drain this instance first", zap.Error(err))
	}
}

func (l *launch) startDrain(ctx context.Context) error {
	var after []string
	for _, n := range l.plan.Nodes {
		if s, ok := n.Body.(step.Server); ok {
			after = append(after, s.Serves()...)
		}
	}
	text := "# Written by amiagent at READY: the units that this instance drains before.\n[Unit]\nAfter=" + strings.Join(after, " ") + "\n"
	if old, err := l.host.ReadLimited(drainDropIn, 1<<16); err != nil || string(old) != text {
		if err := l.host.MkdirAll("/run/systemd/system/" + drainUnit + ".d"); err != nil {
			return err
		}
		if err := l.host.WriteFile(ctx, host.File{Path: drainDropIn, Data: bytes.NewReader([]byte(text)), Mode: 0o644, UID: host.Keep, GID: host.Keep}); err != nil {
			return err
		}
	}
	sd, err := l.host.Systemd(ctx)
	if err != nil {
		return err
	}
	if stale, err := sd.NeedsReload(ctx, drainUnit, []string{drainDropIn}); err == nil && stale {
		if err := sd.DaemonReload(ctx); err != nil {
			return err
		}
	}
	if _, err := sd.Queue(ctx, host.Start, drainUnit); err != nil {
		return fmt.Errorf("cannot start %s: %w", drainUnit, err)
	}
	return nil
}
