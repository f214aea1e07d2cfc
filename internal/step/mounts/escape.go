package mounts

import (
	"fmt"
	"strings"
)

// unitName is the name of a path's mount unit, which systemd prescribes: the
// path escaped as by `systemd-escape --path --suffix=mount` (systemd.unit(5),
// "string escaping for inclusion in unit names").
func unitName(p string) string { return escapePath(p) + ".mount" }

func escapePath(p string) string {
	p = strings.Trim(p, "/")
	if p == "" {
		return "-"
	}
	var b strings.Builder
	for i := range len(p) {
		c := p[i]
		switch {
		case c == '/':
			b.WriteByte('-')
		case c == '.' && i > 0, c == ':', c == '_',
			'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}

// encodeTag writes a label as udev does in the names of /dev/disk/by-label
// (systemd, src/shared/udev-util.c: encode_devnode_name): letters, digits, some
// signs and whole UTF-8 characters stay, all else is \xNN.
func encodeTag(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r >= 0x80, strings.ContainsRune("#+-.:=@_", r),
			'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, `\x%02x`, r)
		}
	}
	return b.String()
}
