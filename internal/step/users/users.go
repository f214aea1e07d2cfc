// Package users makes the local users of a machine: those of /etc/passwd,
// their homes, their groups and the SSH keys that let them in.
//
// Accounts are changed by shadow-utils (useradd, usermod, userdel), which lock
// the files, keep shadow and gshadow beside them and know the distribution's
// ranges of numbers. What is there is read from the root's files, never
// through NSS: a user that only a directory service (LDAP, SSSD) knows is not
// there for this kind, and useradd refuses to make it again.
//
// A user is made without a password, so keys or su are the only ways in.
package users

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/step"
)

//go:embed example.yaml
var example string

// Kind is the manifest's section "users".
func Kind() step.Kind {
	return step.Kind{
		Name:    "users",
		Doc:     "Local users of /etc/passwd: home, groups, SSH keys.",
		Level:   step.LevelUsers,
		New:     func() step.Step { return new(User) },
		Lock:    "users",
		Example: example,
	}
}

// User is one local user. A field that is not given is left to the
// distribution when the user is made, and is not looked at afterwards.
type User struct {
	name string

	// UID is the number to have. Files outside the home that carry an old
	// number are not changed with it.
	UID *int `yaml:"uid"`
	// Group is the primary group, a name or a number. Without it a new user
	// gets the group of its own name.
	Group string `yaml:"group"`
	// Groups are further groups to be in. Others that the user is in stay:
	// packages add users to groups too.
	Groups []string `yaml:"groups"`
	// System makes a new user from the range for services, without a shell to
	// log in with unless Shell is given.
	System bool `yaml:"system"`
	// Home is the home folder. Changing it moves no files.
	Home string `yaml:"home"`
	// CreateHome makes the home where it is missing (one that exists stays as it is), from /etc/skel, with the
	// mode HOME_MODE of login.defs or 0700. The default is true, but false for
	// a system user whose Home is not given.
	CreateHome *bool  `yaml:"create-home"`
	Shell      string `yaml:"shell"`
	Comment    string `yaml:"comment"`
	// SSHKeys, when given, is all of ~/.ssh/authorized_keys: a key that is not
	// in it lets nobody in. An empty list is an empty file.
	SSHKeys []string `yaml:"ssh-authorized-keys"`
	// Locked says that no password may let the user in. SSH keys still do.
	Locked bool `yaml:"locked"`
	// Absent says that there must be no such user. Its home and files stay.
	Absent bool `yaml:"absent"`
}

// SetName gives the user its name.
func (u *User) SetName(name string) { u.name = name }

// Needs are the groups that the body names: one that could not be made blocks its users.
func (u *User) Needs() []step.ID {
	var ids []step.ID
	for _, g := range append([]string{u.Group, u.name}, u.Groups...) {
		if g != "" {
			ids = append(ids, step.ID{Kind: "groups", Name: g})
		}
	}
	return ids
}

func (u *User) createsHome() bool {
	if u.CreateHome != nil {
		return *u.CreateHome
	}
	return !u.System || u.Home != ""
}

// keysFile is where sshd looks unless it is told otherwise (sshd_config(5), AuthorizedKeysFile).
var keysFile = host.UserFile{Dir: ".ssh", Name: "authorized_keys"}

// maxKeys is the largest authorized_keys that is read, in bytes.
const maxKeys = 1 << 20

func (u *User) keysText() []byte {
	var b strings.Builder
	for _, k := range u.SSHKeys {
		b.WriteString(strings.TrimSpace(k) + "\n")
	}
	return []byte(b.String())
}

// state is what the root's files say of the user.
type state struct {
	exists bool
	host.User
	groups []host.Group // all of the machine
}

// look finds the user by name alone: the host's own look-up takes "2000" for a number.
func (u *User) look(h *host.Host) (state, error) {
	var s state
	users, err := h.Users()
	if err != nil {
		return s, fmt.Errorf("cannot read users: %w", err)
	}
	if s.groups, err = h.Groups(); err != nil {
		return s, fmt.Errorf("cannot read groups: %w", err)
	}
	for _, have := range users {
		if have.Name == u.name {
			s.exists, s.User = true, have
			break
		}
	}
	return s, nil
}

// group finds a group by name or number among those of the machine.
func (s state) group(name string) (host.Group, bool) {
	gid, err := strconv.Atoi(name)
	for _, g := range s.groups {
		if g.Name == name || err == nil && g.GID == gid {
			return g, true
		}
	}
	return host.Group{}, false
}

// in tells whether the user belongs to a group, by being a member or because
// it is the primary group, whose number is given.
func (s state) in(name string, primary int) bool {
	g, ok := s.group(name)
	return ok && (g.GID == primary || slices.Contains(g.Members, s.Name))
}

// change is one difference of the account: how to say it, and the usermod
// options that remove it.
type change struct {
	says string
	opts []string
}

// changes compares the account itself. It looks at neither home nor keys.
func (u *User) changes(h *host.Host, s state) ([]change, error) {
	var all []change
	add := func(says string, opts ...string) { all = append(all, change{says, opts}) }
	if u.UID != nil && s.UID != *u.UID {
		add(fmt.Sprintf("uid is %d, want %d", s.UID, *u.UID), "--uid", strconv.Itoa(*u.UID))
	}
	primary := s.GID
	if u.Group != "" {
		g, ok := s.group(u.Group)
		if ok {
			primary = g.GID // else a cut-off change would end otherwise than a whole one
		}
		if !ok || g.GID != s.GID {
			add(fmt.Sprintf("primary group is %s, want %s", s.groupName(s.GID), u.Group), "--gid", u.Group)
		}
	}
	if u.Home != "" && s.Home != u.Home {
		add(fmt.Sprintf("home is %s, want %s", s.Home, u.Home), "--home", u.Home)
	}
	if u.Shell != "" && s.Shell != u.Shell {
		add(fmt.Sprintf("shell is %s, want %s", s.Shell, u.Shell), "--shell", u.Shell)
	}
	if u.Comment != "" && s.Comment != u.Comment {
		add(fmt.Sprintf("comment is %q, want %q", s.Comment, u.Comment), "--comment", u.Comment)
	}
	var missing []string
	for _, g := range u.Groups {
		if !s.in(g, primary) {
			missing = append(missing, g)
		}
	}
	if len(missing) > 0 {
		list := strings.Join(missing, ",")
		add("is not in group "+strings.Join(missing, ", "), "--append", "--groups", list)
	}
	if u.Locked {
		open, err := passwordOpens(h, u.name)
		if err != nil {
			return nil, err
		}
		if open {
			add("password is not locked", "--lock")
		}
	}
	return all, nil
}

func (s state) groupName(gid int) string {
	for _, g := range s.groups {
		if g.GID == gid {
			return g.Name
		}
	}
	return strconv.Itoa(gid)
}

// passwordOpens tells whether the shadow file lets a password in. A field that
// begins with "!" or "*" is no password's hash (shadow(5)); an empty one asks for none.
func passwordOpens(h *host.Host, name string) (bool, error) {
	b, err := h.ReadLimited("/etc/shadow", 16<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot tell whether the password is locked: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Split(strings.TrimSpace(line), ":"); len(f) > 1 && f[0] == name {
			return !strings.HasPrefix(f[1], "!") && !strings.HasPrefix(f[1], "*"), nil
		}
	}
	return false, nil
}

// Check compares the root's account files, the home and the keys.
func (u *User) Check(_ context.Context, env step.Env) (step.Drift, error) {
	s, err := u.look(env.Host)
	switch {
	case err != nil:
		return "", err
	case u.Absent && s.exists:
		return "exists, want it absent", nil
	case u.Absent:
		return "", nil
	case !s.exists:
		return "does not exist", nil
	}
	changes, err := u.changes(env.Host, s)
	if err != nil {
		return "", err
	}
	var says []string
	for _, c := range changes {
		says = append(says, c.says)
	}
	want := s.User
	if u.Home != "" {
		want.Home = u.Home
	}
	if u.createsHome() && !env.Host.Exists(want.Home) {
		says = append(says, "home "+want.Home+" does not exist")
	} else if u.SSHKeys != nil {
		if d := u.keysDrift(env.Host, want); d != "" {
			says = append(says, d)
		}
	}
	return step.Drift(strings.Join(says, "; ")), nil
}

// keysDrift takes what cannot be read for drift: Apply then says why, or heals it.
func (u *User) keysDrift(h *host.Host, who host.User) string {
	have, meta, err := h.ReadUserFile(who, keysFile, maxKeys)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "there is no authorized_keys"
	case err != nil:
		return "authorized_keys: " + err.Error()
	case string(have) != string(u.keysText()):
		return "authorized_keys differs"
	case meta != "":
		return "authorized_keys: " + meta
	}
	return ""
}
