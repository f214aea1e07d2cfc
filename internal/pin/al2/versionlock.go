package al2

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/pin"
	"github.com/amiagent/amiagent/internal/pin/yumrepo"
)

// yum-plugin-versionlock (yum-utils, plugins/versionlock): without its list yum ends with an error.
const (
	lockConf = "/etc/yum/pluginconf.d/versionlock.conf"
	lockList = "/etc/yum/pluginconf.d/versionlock.list"
	ours     = "# Written by amiagent: the packages of this machine, held where they are.\n"
)

// locked tells whether our list holds the installed packages.
func (f *Family) locked() (bool, error) {
	text, err := f.Options.Host.ReadLimited(lockList, 4<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot read the version locks: %w", err)
	}
	return strings.HasPrefix(string(text), ours), nil
}

// lockVersions holds every installed package at its version, or lets them all
// go. New packages still come from open repositories.
func (f *Family) lockVersions(ctx context.Context, release string) error {
	h := f.Options.Host
	if release == pin.Latest {
		if mine, err := f.locked(); err != nil || !mine {
			return err
		}
		return yumrepo.Write(ctx, h, lockList, "")
	}
	if !h.Exists(lockConf) {
		return diag.WithHint(fmt.Errorf("%w: versions cannot be locked: the plugin of yum is not installed", pin.ErrRefused),
			"`yum install yum-plugin-versionlock` in the image build, or freeze the repositories, which needs no plugin")
	}
	all, err := f.Manager.All(ctx)
	if err != nil {
		return err
	}
	var lines []string
	for _, p := range all {
		epoch, version, ok := strings.Cut(p.Version, ":")
		if !ok {
			epoch, version = "0", p.Version
		}
		lines = append(lines, fmt.Sprintf("%s:%s-%s.*\n", epoch, p.Name, version))
	}
	slices.Sort(lines)
	return yumrepo.Write(ctx, h, lockList, ours+strings.Join(slices.Compact(lines), ""))
}
