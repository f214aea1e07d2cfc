package host

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// User is one line of the root's passwd.
type User struct {
	Name        string
	UID, GID    int
	Comment     string
	Home, Shell string
}

// Group is one line of the root's group file.
type Group struct {
	Name    string
	GID     int
	Members []string
}

// ErrNoUser and ErrNoGroup are names that the root does not know.
var (
	ErrNoUser  = errors.New("no such user")
	ErrNoGroup = errors.New("no such group")
)

// Users reads the root's /etc/passwd. Lines that make no sense are passed over.
func (h *Host) Users() ([]User, error) {
	lines, err := h.colonLines("/etc/passwd", 7)
	var users []User
	for _, f := range lines {
		uid, err1 := strconv.Atoi(f[2])
		gid, err2 := strconv.Atoi(f[3])
		if err1 == nil && err2 == nil {
			users = append(users, User{f[0], uid, gid, f[4], f[5], f[6]})
		}
	}
	return users, err
}

// Groups reads the root's /etc/group.
func (h *Host) Groups() ([]Group, error) {
	lines, err := h.colonLines("/etc/group", 4)
	var groups []Group
	for _, f := range lines {
		gid, err := strconv.Atoi(f[2])
		if err == nil {
			members := strings.FieldsFunc(f[3], func(r rune) bool { return r == ',' })
			groups = append(groups, Group{f[0], gid, members})
		}
	}
	return groups, err
}

func (h *Host) colonLines(file string, fields int) ([][]string, error) {
	b, err := h.ReadLimited(file, 16<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out [][]string
	for line := range strings.Lines(string(b)) {
		if f := strings.Split(strings.TrimRight(line, "\n"), ":"); len(f) == fields {
			out = append(out, f)
		}
	}
	return out, nil
}

// LookupUser finds a user by name or by number. A number need not be in passwd.
func (h *Host) LookupUser(name string) (User, error) {
	users, err := h.Users()
	if err != nil {
		return User{}, err
	}
	n, numErr := strconv.Atoi(name)
	for _, u := range users {
		if u.Name == name || numErr == nil && u.UID == n {
			return u, nil
		}
	}
	if numErr == nil && n >= 0 {
		return User{Name: name, UID: n, GID: n, Home: "/"}, nil
	}
	return User{}, fmt.Errorf("%w: %q", ErrNoUser, name)
}

// LookupGroup finds a group by name or by number. A number need not be in the group file.
func (h *Host) LookupGroup(name string) (Group, error) {
	groups, err := h.Groups()
	if err != nil {
		return Group{}, err
	}
	n, numErr := strconv.Atoi(name)
	for _, g := range groups {
		if g.Name == name || numErr == nil && g.GID == n {
			return g, nil
		}
	}
	if numErr == nil && n >= 0 {
		return Group{Name: name, GID: n}, nil
	}
	return Group{}, fmt.Errorf("%w: %q", ErrNoGroup, name)
}

func (h *Host) groupsOf(u User) ([]uint32, error) {
	groups, err := h.Groups()
	ids := []uint32{uint32(u.GID)}
	for _, g := range groups {
		if slices.Contains(g.Members, u.Name) && g.GID != u.GID {
			ids = append(ids, uint32(g.GID))
		}
	}
	return ids, err
}
