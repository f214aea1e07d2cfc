package host

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/amiagent/amiagent/internal/diag"
)

// modeBits are those that chmod sets.
const modeBits = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky

var specialBits = map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky}

// ParseMode reads the octal notation of chmod(1), with setuid, setgid and sticky as its fourth digit.
func ParseMode(s string) (fs.FileMode, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(s, "0o"), 8, 12)
	if err != nil {
		return 0, fmt.Errorf("must be an octal mode such as \"0644\", is %q", s)
	}
	mode := fs.FileMode(n).Perm()
	for bit, is := range specialBits {
		if uint32(n)&bit != 0 {
			mode |= is
		}
	}
	return mode, nil
}

func octal(mode fs.FileMode) string {
	n := uint32(mode.Perm())
	for bit, is := range specialBits {
		if mode&is != 0 {
			n |= bit
		}
	}
	return fmt.Sprintf("%04o", n)
}

// Meta is who should own a file, a folder or a link, and its mode.
type Meta struct {
	Owner string      // name or number; "" leaves the owner as it is
	Group string      // name or number; "" is the owner's own group, or leaves it as it is
	Mode  fs.FileMode // not of a link, which has none
}

// IDs are the wanted numbers, Keep where the Meta does not say. Names that the
// root does not know are ErrNoUser and ErrNoGroup.
func (h *Host) IDs(m Meta) (uid, gid int, err error) {
	uid, gid = Keep, Keep
	if m.Owner != "" {
		u, err := h.LookupUser(m.Owner)
		if err != nil {
			return 0, 0, diag.WithHint(err, "add it under users, or the package that brings it")
		}
		uid, gid = u.UID, u.GID
	}
	if m.Group != "" {
		g, err := h.LookupGroup(m.Group)
		if err != nil {
			return 0, 0, diag.WithHint(err, "add it under groups, or the package that brings it")
		}
		gid = g.GID
	}
	return uid, gid, nil
}

// MetaDrift tells how owner, group and mode of what is there differ from what
// they should be: "mode is 0600, want 0644". An owner that does not exist yet
// differs, so that a plan can be made before the user is.
func (h *Host) MetaDrift(st fs.FileInfo, want Meta) ([]string, error) {
	var differs []string
	if have := st.Mode() & modeBits; st.Mode()&fs.ModeSymlink == 0 && have != want.Mode {
		differs = append(differs, fmt.Sprintf("mode is %s, want %s", octal(have), octal(want.Mode)))
	}
	uid, gid, err := h.IDs(want)
	if errors.Is(err, ErrNoUser) || errors.Is(err, ErrNoGroup) {
		return append(differs, err.Error()), nil
	}
	if err != nil {
		return nil, err
	}
	haveUID, haveGID := OwnerOf(st)
	if uid != Keep && uid != haveUID {
		differs = append(differs, fmt.Sprintf("owner is %s, want %s", h.userName(haveUID), h.userName(uid)))
	}
	if gid != Keep && gid != haveGID {
		differs = append(differs, fmt.Sprintf("group is %s, want %s", h.groupName(haveGID), h.groupName(gid)))
	}
	return differs, nil
}

func (h *Host) userName(uid int) string {
	u, err := h.LookupUser(strconv.Itoa(uid))
	if err != nil {
		return strconv.Itoa(uid)
	}
	return u.Name
}

func (h *Host) groupName(gid int) string {
	g, err := h.LookupGroup(strconv.Itoa(gid))
	if err != nil {
		return strconv.Itoa(gid)
	}
	return g.Name
}
