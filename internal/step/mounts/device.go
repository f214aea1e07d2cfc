package mounts

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/step"
)

// errNotThere is a volume whose device has no name yet.
var errNotThere = errors.New("the volume is not there")

const (
	byID = "/dev/disk/by-id"
	// The names that udev makes of model and serial number on Nitro instances
	// (Amazon EC2 User Guide, "Map Amazon EBS volumes to NVMe device names" and
	// "Instance store volumes"). An EBS volume's serial is its id without "-".
	ebsPrefix       = "nvme-Amazon_Elastic_Block_Store_"
	ephemeralPrefix = "nvme-Amazon_EC2_NVMe_Instance_Storage_"

	poll = 100 * time.Millisecond
)

// volume names the volume in a sentence, as the manifest does.
func (m *Mount) volume() string {
	switch {
	case m.Ephemeral != nil:
		return fmt.Sprintf("instance-store volume %d", *m.Ephemeral)
	case m.EBS != "":
		return "EBS volume " + m.EBS
	case m.image():
		return "image " + m.Device
	}
	return m.Device
}

// what is the device's path that stays the same over reboots, for What= of the
// unit. Whether there is a device of a fixed path is not looked at; one that
// must be searched for and is not found is errNotThere.
func (m *Mount) what(h *host.Host) (string, error) {
	tag, value, tagged := strings.Cut(m.Device, "=")
	switch {
	case m.Ephemeral != nil:
		return ephemeral(h, *m.Ephemeral)
	case strings.HasPrefix(m.EBS, "vol"):
		return path.Join(byID, ebsPrefix+strings.Replace(m.EBS, "-", "", 1)), nil
	case m.EBS != "":
		return ebsByName(h, m.EBS)
	case strings.HasPrefix(m.Device, "/"):
		return path.Clean(m.Device), nil
	case tagged && tags[tag] != "":
		return path.Join("/dev/disk", tags[tag], encodeTag(value)), nil
	}
	return "", fmt.Errorf("%q names no device", m.Device)
}

// links are udev's names with a prefix for whole devices, each device once, in the order of its name.
func links(h *host.Host, prefix string) ([]string, error) {
	entries, err := h.ReadDir(byID)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []string
	seen := map[string]bool{}
	for _, e := range entries { // by name, so the short name of a device comes before "_1" and "-ns-1"
		if !strings.HasPrefix(e.Name(), prefix) || strings.Contains(e.Name(), "-part") {
			continue
		}
		device, err := h.Path(path.Join(byID, e.Name()))
		if err != nil {
			return nil, err
		}
		if real, err := h.Readlink(path.Join(byID, e.Name())); err == nil {
			device = path.Base(real)
		}
		if !seen[device] {
			seen[device] = true
			all = append(all, path.Join(byID, e.Name()))
		}
	}
	return all, nil
}

func ephemeral(h *host.Host, n int) (string, error) {
	all, err := links(h, ephemeralPrefix)
	if err != nil {
		return "", err
	}
	if n >= len(all) {
		return "", errNotThere
	}
	return all[n], nil
}

// ebsByName finds the volume that EC2 attached under a device name. Amazon
// Linux has links of that name; else the volumes' controllers are asked. On Xen
// instances the kernel's own name is xvdf for sdf.
func ebsByName(h *host.Host, name string) (string, error) {
	letters := deviceLetters(name)
	for _, p := range []string{"/dev/sd" + letters, "/dev/xvd" + letters} {
		if h.Exists(p) {
			return stableName(h, p), nil
		}
	}
	p, err := nvmeByName(h, letters)
	if err != nil {
		return "", err
	}
	return stableName(h, p), nil
}

// deviceLetters are what tells devices apart: "f" of sdf, xvdf and /dev/sdf.
func deviceLetters(name string) string {
	name = strings.TrimPrefix(name, "/dev/")
	return strings.TrimPrefix(strings.TrimPrefix(name, "sd"), "xvd")
}

// stableName is the name by id of a device, else the name given.
func stableName(h *host.Host, p string) string {
	target := path.Base(p)
	if to, err := h.Readlink(p); err == nil {
		target = path.Base(to)
	}
	all, err := links(h, ebsPrefix)
	if err != nil {
		return p
	}
	i := slices.IndexFunc(all, func(l string) bool {
		to, err := h.Readlink(l)
		return err == nil && path.Base(to) == target
	})
	if i < 0 {
		return p
	}
	return all[i]
}

// await waits until the device is there, and gives its stable path.
func (m *Mount) await(ctx context.Context, env step.Env) (string, error) {
	deadline := time.NewTimer(m.Wait)
	defer deadline.Stop()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for told := false; ; {
		what, err := m.what(env.Host)
		if err == nil {
			if _, err = env.Host.Stat(what); err == nil {
				return what, nil
			}
		}
		if !errors.Is(err, errNotThere) && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if !told && env.Status != nil {
			env.Status("waiting for " + m.volume())
			told = true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-deadline.C:
			hint := "is it attached? `lsblk -o NAME,SIZE,SERIAL,MODEL,LABEL` shows what is"
			if m.image() {
				hint = "does the step that brings the file come first? say so with `needs`"
			}
			return "", diag.WithHint(fmt.Errorf("cannot mount %s: %s did not appear within %s", m.name, m.volume(), m.Wait), "%s", hint)
		}
	}
}
