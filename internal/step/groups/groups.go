// Package groups makes the local groups of a machine: those of /etc/group.
//
// Members are the business of the kind users, which says of each user what it
// belongs to. Changes are made by shadow-utils (groupadd, groupmod, groupdel),
// which lock the group file, keep gshadow beside it and know the
// distribution's ranges of numbers. What is there is read from the root's
// files, never through NSS: a group that only a directory service (LDAP, SSSD)
// knows is not there for this kind, and groupadd refuses to make it again.
package groups

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"regexp"
	"strconv"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/step"
)

//go:embed example.yaml
var example string

// Kind is the manifest's section "groups".
func Kind() step.Kind {
	return step.Kind{
		Name:    "groups",
		Doc:     "Local groups of /etc/group. Membership is set by users.",
		Level:   step.LevelStorage,
		New:     func() step.Step { return new(Group) },
		Lock:    "users",
		Example: example,
	}
}

// Group is one local group.
type Group struct {
	name string

	// GID is the number to have. Nil takes the next free one when the group is
	// made, and any that it has afterwards. Files that carry an old number are
	// not changed with it.
	GID *int `yaml:"gid"`
	// System takes a new group's number from the range for system groups. It
	// says nothing about a group that is there.
	System bool `yaml:"system"`
	// Absent says that there must be no such group. The primary group of a
	// user cannot go before the user, and goes with it: remove the user.
	Absent bool `yaml:"absent"`
}

// SetName gives the group its name.
func (g *Group) SetName(name string) { g.name = name }

// nameRule is what the shadow-utils of some supported distribution accepts;
// stricter ones refuse for themselves. A name of digits alone would be read as
// a number, and ":" or "," would break the file.
var nameRule = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,31}$`)

// maxID is the largest number. The kernel takes twice as many; programs, this
// one on 386 among them, read those as negative.
const maxID = 1<<31 - 1

// Validate records faults of the body by field name.
func (g *Group) Validate(at diag.At) {
	if step.StaticText(g.name) && !nameRule.MatchString(g.name) {
		at.Errorf("%q cannot name a group: use a letter, then letters, digits, '_', '.' or '-', at most 32", g.name)
	}
	if g.GID != nil && (*g.GID < 0 || *g.GID > maxID) {
		at.Field("gid").Errorf("must be between 0 and %d, is %d", maxID, *g.GID)
	}
	if g.Absent && (g.GID != nil || g.System) {
		at.Field("absent").Errorf("an absent group has no other field")
	}
	if g.Absent && g.name == "root" {
		at.Field("absent").Errorf("the group root cannot be removed")
	}
}

// find looks the group up by name alone: the host's own look-up takes "2000" for a number.
func (g *Group) find(h *host.Host) (host.Group, bool, error) {
	all, err := h.Groups()
	if err != nil {
		return host.Group{}, false, fmt.Errorf("cannot read groups: %w", err)
	}
	for _, have := range all {
		if have.Name == g.name {
			return have, true, nil
		}
	}
	return host.Group{}, false, nil
}

// Check compares the root's /etc/group.
func (g *Group) Check(_ context.Context, env step.Env) (step.Drift, error) {
	have, ok, err := g.find(env.Host)
	switch {
	case err != nil:
		return "", err
	case g.Absent && ok:
		return "exists, want it absent", nil
	case g.Absent:
		return "", nil
	case !ok:
		return "does not exist", nil
	case g.GID != nil && have.GID != *g.GID:
		return step.Drift(fmt.Sprintf("gid is %d, want %d", have.GID, *g.GID)), nil
	}
	return "", nil
}

// Apply makes, renumbers or removes the group. The programs replace the group
// file by rename, so a cut-off Apply leaves the old file or the new one.
func (g *Group) Apply(ctx context.Context, env step.Env) error {
	have, ok, err := g.find(env.Host)
	if err != nil {
		return err
	}
	var argv []string
	switch {
	case g.Absent && ok:
		argv = []string{"groupdel"}
	case g.Absent:
		return nil
	case !ok:
		argv = []string{"groupadd"}
		if g.System {
			argv = append(argv, "--system")
		}
		if g.GID != nil {
			argv = append(argv, "--gid", strconv.Itoa(*g.GID))
		}
	case g.GID != nil && have.GID != *g.GID:
		argv = []string{"groupmod", "--gid", strconv.Itoa(*g.GID)}
	default:
		return nil
	}
	if _, err = env.Host.Run(ctx, host.Cmd{Argv: append(argv, g.name), Line: env.Output}); err == nil {
		return nil
	}
	// A program that outlived the agent which started it may just have done the same.
	if drift, checkErr := g.Check(ctx, env); checkErr == nil && drift == "" {
		return nil
	}
	return explain(argv[0], err)
}

// explain adds what to try. The codes are those of groupadd(8) and groupdel(8).
func explain(program string, err error) error {
	var exit *host.ExitError
	if errors.Is(err, host.ErrNoProgram) {
		return diag.WithHint(err, "install the package with the shadow tools: passwd on Debian, shadow-utils on Amazon Linux and RHEL")
	}
	if !errors.As(err, &exit) {
		return err
	}
	switch {
	case exit.Code == 9 && program == "groupadd":
		return diag.WithHint(err, "the name is not in /etc/group, so a directory service (LDAP, SSSD) has it; this kind manages only local groups")
	case exit.Code == 8 && program == "groupdel":
		return diag.WithHint(err, "it is the primary group of a user: remove the user (users: {NAME: {absent: true}}), its own group goes with it")
	case exit.Code == 10:
		return diag.WithHint(err, "another program holds the user database for longer than 15 s: see who has /etc/group.lock, or set on-failure: retry")
	}
	return err
}
