package yumrepo

import (
	"context"
	"fmt"
	"path"

	"github.com/amiagent/amiagent/internal/host"
)

// CloudConf tells Amazon's cloud-init on Amazon Linux 1 and 2 to install no
// updates at first boot; its default is security updates. Drop-ins are read in
// lexical order, the last wins, and user data wins over them all.
const CloudConf = "/etc/cloud/cloud.cfg.d/95_amiagent-pin.cfg"

// WriteCloudConf writes CloudConf, on machines that have cloud-init.
func WriteCloudConf(ctx context.Context, h *host.Host) error {
	if !h.Exists("/etc/cloud") {
		return nil
	}
	if err := h.MkdirAll(path.Dir(CloudConf)); err != nil {
		return fmt.Errorf("cannot write %s: %w", CloudConf, err)
	}
	return writeIfOther(ctx, h, CloudConf, "# Written by amiagent: package repositories are pinned, so nothing is upgraded at launch.\nrepo_upgrade: none\n")
}

func writeIfOther(ctx context.Context, h *host.Host, file, text string) error {
	if have, err := h.ReadLimited(file, maxFile); err == nil && string(have) == text {
		return nil
	}
	return Write(ctx, h, file, text)
}

// Upgrades tells whether cloud-init is there and was not told by WriteCloudConf.
func Upgrades(h *host.Host) bool { return h.Exists("/etc/cloud") && !h.Exists(CloudConf) }
