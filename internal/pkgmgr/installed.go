package pkgmgr

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Package is one installed package.
type Package struct {
	Name    string
	Arch    string
	Version string // [epoch:]version[-release], an epoch of 0 left out
	// Broken is dpkg's word for a package that is there only in part, as
	// "half-configured"; "" for a whole one.
	Broken string
}

// Installed is what a package database says. It is not changed once it is handed out.
type Installed struct {
	named    map[string][]Package // by name, and by name:arch or name.arch
	provided map[string][]Package // by the further names that packages provide
	held     map[string]bool      // names that apt is told not to touch
}

func newInstalled() Installed {
	return Installed{map[string][]Package{}, map[string][]Package{}, map[string]bool{}}
}

// with is both together.
func (i Installed) with(more Installed) Installed {
	all := newInstalled()
	for _, one := range []Installed{i, more} {
		maps.Copy(all.named, one.named)
		maps.Copy(all.provided, one.provided)
		maps.Copy(all.held, one.held)
	}
	return all
}

// Find is the installed packages of a name: several of a kernel, none when it is not installed.
func (i Installed) Find(name string) []Package { return slices.Clone(i.named[name]) }

// Drift says how the machine differs from a want, "" when it does not. A name that is only
// provided by others satisfies a want of any version, as it does for the managers.
func (i Installed) Drift(w Want) string {
	have := i.named[w.Name]
	if w.Absent {
		if len(have) == 0 {
			return ""
		}
		return fmt.Sprintf("%s is installed, want it absent", versions(have))
	}
	if len(have) == 0 {
		if w.Version == "" && slices.ContainsFunc(i.provided[w.Name], func(p Package) bool { return p.Broken == "" }) {
			return ""
		}
		return "not installed"
	}
	var broken string
	for _, p := range have {
		switch {
		case p.Broken != "":
			broken = p.Broken
		case Match(w.Version, p.Version):
			return ""
		}
	}
	if broken != "" {
		return "installed only in part (" + broken + ")"
	}
	return fmt.Sprintf("version is %s, want %s", versions(have), w.Version)
}

func versions(have []Package) string {
	all := make([]string, len(have))
	for i, p := range have {
		all[i] = p.Version
	}
	return strings.Join(all, " and ")
}

// unsatisfied are the wants that are not true yet.
func (i Installed) unsatisfied(wants []Want) []Want {
	var left []Want
	for _, w := range wants {
		if i.Drift(w) != "" {
			left = append(left, w)
		}
	}
	return left
}
