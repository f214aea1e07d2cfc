package pkgmgr

import (
	"context"
	"errors"
	"maps"
	"regexp"
	"slices"

	"github.com/amiagent/amiagent/internal/host"
)

// This file is what package pin asks of a package manager: everything that is
// installed, and all of it brought to one release.

// All is every installed package, by name. Packages that are there only in part are left out.
func (m *Manager) All(ctx context.Context) ([]Package, error) {
	all, err := m.tool.all(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b Package) int {
		return slices.Compare([]string{a.Name, a.Arch, a.Version}, []string{b.Name, b.Arch, b.Version})
	})
	return all, nil
}

func (r rpm) all(ctx context.Context) ([]Package, error) {
	lines, err := r.query(ctx, []string{"-qa", "--qf", queryFormat + `\n`})
	if err != nil {
		return nil, err
	}
	var all []Package
	for _, f := range lines {
		if p := rpmPackage(f); p.Name != "gpg-pubkey" { // keys, which rpm files among packages
			all = append(all, p)
		}
	}
	return all, nil
}

func (a apt) all(context.Context) ([]Package, error) {
	db, err := dpkgInstalled(a.h)
	if err != nil {
		return nil, err
	}
	seen := map[Package]bool{}
	for _, packages := range db.named {
		for _, p := range packages {
			if p.Broken == "" {
				seen[p] = true
			}
		}
	}
	return slices.Collect(maps.Keys(seen)), nil
}

// Move is what a machine's installed packages should become.
type Move struct {
	// Release is for dnf, which takes one for a single transaction; yum and apt go by their configuration.
	Release string
	// Downgrade lets packages become older.
	Downgrade bool
	// Versions are exact versions to bring about; apt, which cannot go back by itself, needs them for a Downgrade.
	Versions []Want
}

// MoveTo brings every installed package to what the repositories have, in one
// transaction, after reading them anew. A repository that cannot be read is an error, although
// dnf may end with 0 then. It waits for locks as Change does.
func (m *Manager) MoveTo(ctx context.Context, to Move, talk Talk) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.Forget()
	release := m.holdOff(ctx, talk)
	defer release()
	for _, c := range m.tool.move(to) {
		text, err := m.program(ctx, c, talk)
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		if err := m.judge(c, text, err); err != nil {
			return err
		}
	}
	return nil
}

// passedOver is what dnf says, and ends with 0, when it does without a repository.
var passedOver = regexp.MustCompile(`(?m)^Ignoring repositories: .*$`)

// judge tells whether a program that was to read repositories has done so. A
// package's scripts may complain in apt's words, so those count in an update only.
func (m *Manager) judge(c host.Cmd, text string, err error) error {
	var busy *lockError
	switch fault := m.tool.faults(text); {
	case errors.As(err, &busy):
		return err
	case err != nil:
		return explain(text, err)
	case passedOver.MatchString(text), fault != "" && slices.Contains(c.Argv, "update") && m.Name() == "apt":
		return hinted(errors.New(fault), text)
	}
	return nil
}

func (d dnf) move(to Move) []host.Cmd {
	verb := "upgrade"
	if to.Downgrade {
		verb = "distro-sync"
	}
	// Each repository's own word stands above the default, so it is set too.
	args := []string{"--setopt=*.skip_if_unavailable=False", "--refresh"}
	if to.Release != "" {
		args = append(args, "--releasever="+to.Release)
	}
	return []host.Cmd{d.run(append(args, verb)...)}
}

func (y yum) move(to Move) []host.Cmd {
	verb := "update"
	if to.Downgrade {
		verb = "distro-sync"
	}
	// The cache goes by $releasever, not by address.
	return []host.Cmd{y.run("clean", "all"), y.run("--setopt=skip_if_unavailable=0", verb)}
}

func (a apt) move(to Move) []host.Cmd {
	update := a.get("update", "-o", "APT::Update::Error-Mode=any")
	if !to.Downgrade {
		return []host.Cmd{update, a.get("--with-new-pkgs", "upgrade")}
	}
	if len(to.Versions) == 0 {
		return []host.Cmd{update}
	}
	args := []string{"--allow-downgrades", "install"}
	for _, w := range to.Versions {
		args = append(args, w.Name+"="+w.Version)
	}
	return []host.Cmd{update, a.get(args...)}
}

// Refresh reads the repositories of a release anew and changes no package. Every
// repository must be readable. For dnf, release may be one that is not in force.
func (m *Manager) Refresh(ctx context.Context, release string, talk Talk) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var c host.Cmd
	switch t := m.tool.(type) {
	case dnf:
		args := []string{"--setopt=*.skip_if_unavailable=False", "--refresh", "makecache"}
		if release != "" {
			args = append([]string{"--releasever=" + release}, args...)
		}
		c = t.run(args...)
	case yum:
		args := []string{"--setopt=skip_if_unavailable=0", "makecache", "fast"}
		if release != "" {
			args = append([]string{"--releasever=" + release}, args...)
		}
		c = t.run(args...)
	default:
		c = t.refresh()
	}
	text, err := m.program(ctx, c, talk)
	return m.judge(c, text, err)
}
