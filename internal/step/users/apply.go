package users

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/step"
)

// Apply makes, changes or removes the account, then its home, then its keys.
// Each part is whole or not there, and a repeat goes on where a cut-off one ended.
func (u *User) Apply(ctx context.Context, env step.Env) error {
	s, err := u.look(env.Host)
	if err != nil {
		return err
	}
	if s.exists == u.Absent {
		if s, err = u.toggle(ctx, env, s); err != nil {
			return err
		}
	}
	if u.Absent {
		return nil
	}
	if err := u.usermod(ctx, env, s); err != nil {
		return err
	}
	return u.furnish(ctx, env.Host)
}

// toggle makes a user that is not there, removes one that is, and looks again.
func (u *User) toggle(ctx context.Context, env step.Env, s state) (state, error) {
	argv := []string{"userdel"}
	if !s.exists {
		argv = u.useradd(env.Host, s)
	}
	runErr := u.run(ctx, env, argv...)
	s, err := u.look(env.Host)
	switch {
	case err != nil:
		return s, err
	case s.exists != u.Absent:
		return s, nil // also where a program that outlived its agent came first
	case runErr != nil:
		return s, runErr
	}
	return s, fmt.Errorf("cannot change user %s: %s succeeded, and /etc/passwd is as before", u.name, argv[0])
}

// furnish makes the home and the keys of a user that is there.
func (u *User) furnish(ctx context.Context, h *host.Host) error {
	s, err := u.look(h)
	if err != nil {
		return err
	}
	if u.createsHome() {
		mode, err := homeMode(h)
		if err != nil {
			return err
		}
		if err := h.MakeHome(ctx, s.User, mode); err != nil {
			return fmt.Errorf("cannot make home %s: %w", s.Home, err)
		}
	}
	if u.SSHKeys == nil {
		return nil
	}
	return u.writeKeys(ctx, h, s.User)
}

// useradd never makes the home: MakeHome does, whole, and also where the
// account is there and the home is not.
func (u *User) useradd(h *host.Host, s state) []string {
	argv := []string{"useradd", "--no-create-home"}
	if u.System {
		argv = append(argv, "--system")
	}
	if u.UID != nil {
		argv = append(argv, "--uid", strconv.Itoa(*u.UID))
	}
	group := u.Group
	if _, ok := s.group(u.name); group == "" && ok {
		group = u.name // useradd would refuse to make a group that is there
	}
	if group != "" {
		argv = append(argv, "--gid", group)
	} else {
		argv = append(argv, "--user-group")
	}
	if len(u.Groups) > 0 {
		argv = append(argv, "--groups", strings.Join(u.Groups, ","))
	}
	if u.Home != "" {
		argv = append(argv, "--home-dir", u.Home)
	}
	shell := u.Shell
	if shell == "" && u.System {
		shell = noLogin(h)
	}
	if shell != "" {
		argv = append(argv, "--shell", shell)
	}
	if u.Comment != "" {
		argv = append(argv, "--comment", u.Comment)
	}
	return argv
}

// noLogin is the distribution's shell that lets nobody in.
func noLogin(h *host.Host) string {
	for _, p := range []string{"/usr/sbin/nologin", "/sbin/nologin"} {
		if h.Exists(p) {
			return p
		}
	}
	return "/bin/false"
}

func (u *User) usermod(ctx context.Context, env step.Env, s state) error {
	changes, err := u.changes(env.Host, s)
	if err != nil || len(changes) == 0 {
		return err
	}
	argv := []string{"usermod"}
	for _, c := range changes {
		argv = append(argv, c.opts...)
	}
	return u.run(ctx, env, argv...)
}

func (u *User) run(ctx context.Context, env step.Env, argv ...string) error {
	_, err := env.Host.Run(ctx, host.Cmd{Argv: append(argv, u.name), Line: env.Output})
	return explain(argv[0], err)
}

// explain adds what to try. The codes are those of useradd(8), usermod(8) and userdel(8).
func explain(program string, err error) error {
	if errors.Is(err, host.ErrNoProgram) {
		return diag.WithHint(err, "install the package with the shadow tools: passwd on Debian, shadow-utils on Amazon Linux and RHEL")
	}
	var exit *host.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	switch exit.Code {
	case 1:
		return diag.WithHint(err, "if the user database was locked for longer than 15 s, see who has /etc/passwd.lock, or set on-failure: retry")
	case 6:
		return diag.WithHint(err, "add the group to the manifest's groups, or install the package that makes it first")
	case 8:
		return diag.WithHint(err, "the user has running processes; stop them first, or do this in the image")
	case 9:
		if program == "useradd" {
			return diag.WithHint(err, "the name is not in /etc/passwd, so a directory service (LDAP, SSSD) has it; this kind manages only local users")
		}
	}
	return err
}

// homeMode is HOME_MODE of login.defs (login.defs(5)); older distributions
// have none, and there a home is closed to others.
func homeMode(h *host.Host) (fs.FileMode, error) {
	text, err := h.LoginDefs("HOME_MODE")
	if err != nil || text == "" {
		return 0o700, err
	}
	mode, err := strconv.ParseUint(text, 8, 9)
	if err != nil {
		return 0, fmt.Errorf("cannot read HOME_MODE of /etc/login.defs: %q is no mode", text)
	}
	return fs.FileMode(mode), nil
}

func (u *User) writeKeys(ctx context.Context, h *host.Host, who host.User) error {
	if who.UID != 0 && who.Home == "/" {
		return fmt.Errorf("cannot write the keys of %s: its home is /", u.name)
	}
	err := h.WriteUserFile(ctx, who, keysFile, u.keysText())
	switch {
	case errors.Is(err, host.ErrUnsafe):
		return diag.WithHint(err, "the user controls its home; look at what is there, and remove it by hand")
	case errors.Is(err, fs.ErrNotExist) && !h.Exists(who.Home):
		return diag.WithHint(fmt.Errorf("cannot write the keys of %s: %w", u.name, err),
			"the home %s does not exist, and create-home is not true", who.Home)
	case err != nil:
		return fmt.Errorf("cannot write the keys of %s: %w", u.name, err)
	}
	return nil
}
