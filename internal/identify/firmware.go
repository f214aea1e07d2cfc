package identify

import (
	"bytes"
	"slices"
	"strings"

	"github.com/amiagent/amiagent/internal/host"
)

// maxSmall bounds the small files of /proc and /sys.
const maxSmall = 64 << 10

// line is the first line of a small file, "" when it cannot be read.
func line(h *host.Host, name string) string {
	b, err := h.ReadLimited(name, maxSmall)
	if err != nil {
		return ""
	}
	first, _, _ := bytes.Cut(b, []byte("\n"))
	return string(bytes.TrimSpace(first))
}

// firmware is what the firmware tells of the machine, without any network.
type firmware struct {
	ec2      bool
	instance string // instance id; Nitro writes it as the board's asset tag
}

// readFirmware tells whether this is an EC2 instance: Nitro names itself as
// the vendor, Xen instances have a UUID that begins with ec2 or a BIOS version
// of Amazon's. The UUID may be byte-swapped, hence the third sign.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/identify_ec2_instances.html
func readFirmware(h *host.Host) firmware {
	const dmi = "/sys/class/dmi/id/"
	var fw firmware
	for _, name := range []string{"/sys/hypervisor/uuid", dmi + "product_uuid"} {
		fw.ec2 = fw.ec2 || strings.HasPrefix(strings.ToLower(line(h, name)), "ec2")
	}
	fw.ec2 = fw.ec2 || line(h, dmi+"sys_vendor") == "Amazon EC2" || line(h, dmi+"bios_vendor") == "Amazon EC2" ||
		strings.HasSuffix(line(h, dmi+"bios_version"), ".amazon")
	if tag := line(h, dmi+"board_asset_tag"); fw.ec2 && strings.HasPrefix(tag, "i-") {
		fw.instance = tag
	}
	return fw
}

// vendors are DMI strings that give a hypervisor away, with systemd's word for
// it. https://www.freedesktop.org/software/systemd/man/latest/systemd-detect-virt.html
var vendors = []struct{ prefix, virt string }{
	{"Amazon EC2", "amazon"},
	{"KVM", "kvm"},
	{"OpenStack", "kvm"},
	{"QEMU", "qemu"},
	{"VMware", "vmware"},
	{"VMW", "vmware"},
	{"innotek GmbH", "oracle"},
	{"VirtualBox", "oracle"},
	{"Oracle Corporation", "oracle"},
	{"Xen", "xen"},
	{"Bochs", "bochs"},
	{"Parallels", "parallels"},
	{"BHYVE", "bhyve"},
	{"Hyper-V", "microsoft"},
	{"Google Compute Engine", "google"},
}

// virt is what the machine runs in, in systemd-detect-virt's words, from files
// alone: a container first, then a hypervisor, "none" for bare metal.
func virt(h *host.Host) string {
	if c := line(h, "/run/systemd/container"); c != "" {
		return c
	}
	if b, err := h.ReadLimited("/proc/1/environ", maxSmall); err == nil {
		for v := range bytes.SplitSeq(b, []byte{0}) {
			if c, ok := bytes.CutPrefix(v, []byte("container=")); ok && len(c) > 0 {
				return string(c)
			}
		}
	}
	switch {
	case h.Exists("/run/.containerenv"):
		return "podman"
	case h.Exists("/.dockerenv"):
		return "docker"
	}
	const dmi = "/sys/class/dmi/id/"
	product := line(h, dmi+"product_name")
	if strings.HasSuffix(product, ".metal") || strings.Contains(product, ".metal-") {
		return "none" // an EC2 instance without a hypervisor
	}
	for _, name := range []string{"product_name", "sys_vendor", "board_vendor", "bios_vendor"} {
		value := line(h, dmi+name)
		for _, v := range vendors {
			if strings.HasPrefix(value, v.prefix) {
				return v.virt
			}
		}
	}
	if line(h, "/sys/hypervisor/type") == "xen" {
		return "xen"
	}
	b, err := h.ReadLimited("/proc/cpuinfo", 4<<20)
	switch {
	case err != nil:
		return ""
	case slices.Contains(strings.Fields(string(b)), "hypervisor"):
		return "vm-other"
	}
	return "none"
}
