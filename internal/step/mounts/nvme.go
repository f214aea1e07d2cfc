package mounts

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/amiagent/amiagent/internal/host"
)

// An EBS volume's NVMe controller tells the device name under which EC2
// attached it, in the vendor's part of its answer to Identify. The layout is
// that of ebsnvme-id in amazon-ec2-utils, and of the NVMe specification,
// "Identify Controller data structure".
const (
	amazonVendor  = 0x1d0f
	identifySize  = 4096
	modelAt       = 24
	modelEnd      = 64
	vendorPart    = 3072
	vendorNameLen = 32
	ebsModel      = "Amazon Elastic Block Store"
)

// identifyName is the EC2 device name, as "sdf" or "/dev/xvdf", in a
// controller's answer; "" when it is no EBS volume's.
func identifyName(answer []byte) string {
	if len(answer) < identifySize || binary.LittleEndian.Uint16(answer) != amazonVendor {
		return ""
	}
	if string(bytes.TrimRight(answer[modelAt:modelEnd], " \x00")) != ebsModel {
		return ""
	}
	name, _, _ := bytes.Cut(answer[vendorPart:vendorPart+vendorNameLen], []byte{0})
	return string(bytes.TrimSpace(name))
}

// adminCommand is struct nvme_passthru_cmd of linux/nvme_ioctl.h.
type adminCommand struct {
	opcode, flags             uint8
	_                         uint16
	nsid, cdw2, cdw3          uint32
	metadata, addr            uint64
	metadataLen, dataLen      uint32
	cdw10, cdw11, cdw12       uint32
	cdw13, cdw14, cdw15       uint32
	timeoutMillis, resultCode uint32
}

const (
	ioctlAdmin         = 0xc0484e41 // NVME_IOCTL_ADMIN_CMD: _IOWR('N', 0x41, 72 bytes)
	identifyOpcode     = 0x06
	identifyController = 1
)

// identify asks the controller of an NVMe device who it is. It needs root.
func identify(h *host.Host, device string) ([]byte, error) {
	f, err := h.Open(device)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	answer := make([]byte, identifySize)
	var pin runtime.Pinner
	pin.Pin(&answer[0])
	defer pin.Unpin()
	c := adminCommand{
		opcode: identifyOpcode, cdw10: identifyController, dataLen: identifySize,
		addr: uint64(uintptr(unsafe.Pointer(&answer[0]))),
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), ioctlAdmin, uintptr(unsafe.Pointer(&c))); errno != 0 {
		return nil, fmt.Errorf("cannot identify %s: %w", device, errno)
	}
	return answer, nil
}

var nvmeDevice = regexp.MustCompile(`^nvme[0-9]+n1$`)

// nvmeByName finds the NVMe device of an EBS volume by the letters of its EC2 device name.
func nvmeByName(h *host.Host, letters string) (string, error) {
	entries, err := h.ReadDir("/dev")
	if errors.Is(err, fs.ErrNotExist) {
		return "", errNotThere
	}
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if !nvmeDevice.MatchString(e.Name()) {
			continue
		}
		p := path.Join("/dev", e.Name())
		answer, err := identify(h, p)
		if err != nil {
			continue // another maker's device, or one that goes as we look
		}
		if name := identifyName(answer); name != "" && deviceLetters(name) == letters {
			return p, nil
		}
	}
	return "", errNotThere
}
