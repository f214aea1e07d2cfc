package identify

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/host"
)

// ImagePath is where bake leaves the identity of an image.
const ImagePath = "/usr/lib/amiagent/image.json"

// imageFormat is the format number of the image identity.
const imageFormat = 1

// readMachine reads the facts of the OS. Files that are not there, as /proc
// under another root, leave their facts unknown.
func readMachine(h *host.Host) *facts.Facts {
	f := facts.New()
	set := func(name, value, source string) {
		if value != "" {
			f.Set(name, value, facts.StageOf(name), source)
		}
	}
	release := osRelease(h)
	set(facts.OSID, release["ID"], "os-release")
	set(facts.OSVersion, release["VERSION_ID"], "os-release")
	set(facts.OSLike, release["ID_LIKE"], "os-release")
	set("os.codename", release["VERSION_CODENAME"], "os-release")

	set(facts.Arch, arch(h), "machine")
	f.Set(facts.PackageFamily, packageFamily(h, f.Distro()), facts.StageOf(facts.PackageFamily), "machine")
	set(facts.Kernel, line(h, "/proc/sys/kernel/osrelease"), "kernel")
	set(facts.BootID, line(h, "/proc/sys/kernel/random/boot_id"), "kernel")
	set(facts.Virt, virt(h), "machine")
	set("block.instance-store", strings.Join(instanceStore(h), " "), "sysfs")
	if id := line(h, "/etc/machine-id"); id != "uninitialized" { // systemd's word for "at next boot"
		set(facts.MachineID, id, "machine-id")
	}
	hostname := line(h, "/proc/sys/kernel/hostname")
	if hostname == "" {
		hostname = line(h, "/etc/hostname")
	}
	set(facts.Hostname, hostname, "machine")
	if err := readImage(h, set); err != nil {
		f.Notes = append(f.Notes, err.Error())
	}
	return f
}

// osRelease reads the file of https://www.freedesktop.org/software/systemd/man/latest/os-release.html
func osRelease(h *host.Host) map[string]string {
	for _, name := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		if b, err := h.ReadLimited(name, maxSmall); err == nil {
			return parseOSRelease(string(b))
		}
	}
	return nil
}

// parseOSRelease reads shell assignments: bare, in single quotes, or in double
// quotes with backslash before what the shell would take as its own.
func parseOSRelease(text string) map[string]string {
	vars := map[string]string{}
	for l := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(l), "=")
		if !ok || strings.HasPrefix(name, "#") {
			continue
		}
		if n := len(value); n >= 2 && value[0] == value[n-1] && (value[0] == '"' || value[0] == '\'') {
			quote := value[0]
			value = value[1 : n-1]
			if quote == '\'' {
				vars[name] = value
				continue
			}
		}
		var b strings.Builder
		for i := 0; i < len(value); i++ {
			if value[i] == '\\' && i+1 < len(value) {
				i++
			}
			b.WriteByte(value[i])
		}
		vars[name] = b.String()
	}
	return vars
}

// arch is the architecture of the root's own programs: a mounted image may
// differ from the machine that bakes it, and a 32-bit userland may run on a
// 64-bit kernel. Without a program to look at, it is the agent's own.
func arch(h *host.Host) string {
	for _, name := range []string{"/bin/sh", "/usr/bin/env", "/sbin/init"} {
		f, err := h.Open(name)
		if err != nil {
			continue
		}
		var head [20]byte
		_, err = io.ReadFull(f, head[:])
		f.Close()
		if err != nil || string(head[:4]) != "\x7fELF" {
			continue
		}
		// e_machine, at offset 18 in both ELF classes; the numbers are those of
		// https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html
		switch binary.LittleEndian.Uint16(head[18:]) {
		case 3:
			return "386"
		case 62:
			return "amd64"
		case 183:
			return "arm64"
		}
	}
	return runtime.GOARCH
}

// packageFamily is the package manager to use: the OS's own where it has it,
// since Debian ships dnf too. "" where there is none that we know.
func packageFamily(h *host.Host, distro string) string {
	apt := func() string {
		if h.HasProgram("apt-get") {
			return "apt"
		}
		return ""
	}
	rpm := func() string {
		switch {
		case h.HasProgram("dnf"):
			// Where dnf 5 is the default, dnf is a link to it.
			if target, err := h.Readlink("/usr/bin/dnf"); err == nil && path.Base(target) == "dnf5" {
				return "dnf5"
			}
			return "dnf"
		case h.HasProgram("dnf5"):
			return "dnf5"
		case h.HasProgram("yum"):
			return "yum"
		}
		return ""
	}
	switch distro {
	case "debian":
		return apt()
	case "amzn", "rhel":
		return rpm()
	}
	if family := apt(); family != "" {
		return family
	}
	return rpm()
}

// instanceStore lists the NVMe disks that belong to the instance itself: they
// are not in the block device mapping.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/nvme-ebs-volumes.html
func instanceStore(h *host.Host) []string {
	entries, err := h.ReadDir("/sys/block")
	if err != nil {
		return nil
	}
	var disks []string
	for _, e := range entries {
		if line(h, "/sys/block/"+e.Name()+"/device/model") == "Amazon EC2 NVMe Instance Storage" {
			disks = append(disks, "/dev/"+e.Name())
		}
	}
	slices.Sort(disks)
	return disks
}

// readImage makes facts of the identity that bake left, one for each value:
// image.name, image.digests.lock, and so on.
func readImage(h *host.Host, set func(name, value, source string)) error {
	b, err := h.ReadLimited(ImagePath, 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var doc map[string]any
	if err == nil {
		err = json.Unmarshal(b, &doc)
	}
	if err != nil {
		return fmt.Errorf("cannot read image identity %s: %w", ImagePath, err)
	}
	if doc["format"] != float64(imageFormat) {
		return fmt.Errorf("cannot read image identity %s: format %v, this agent knows %d", ImagePath, doc["format"], imageFormat)
	}
	delete(doc, "format")
	flatten("image", doc, func(name, value string) { set(name, value, "image") })
	return nil
}

func flatten(prefix string, doc map[string]any, set func(name, value string)) {
	for key, value := range doc {
		name := prefix + "." + key
		switch v := value.(type) {
		case string:
			set(name, v)
		case float64:
			set(name, strconv.FormatFloat(v, 'f', -1, 64))
		case bool:
			set(name, strconv.FormatBool(v))
		case map[string]any:
			flatten(name, v, set)
		}
	}
}
