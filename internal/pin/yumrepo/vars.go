package yumrepo

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"github.com/amiagent/amiagent/internal/host"
)

// maxVar bounds a variable's file; more of it than one line is not read anyway.
const maxVar = 64 << 10

// Dialect is what differs between the package managers in how they read variables.
type Dialect struct {
	Name string
	Conf string // the main configuration
	// VarsDirs are read in order; a later one wins.
	VarsDirs []string
	// Links tells whether a symbolic link may be a variable.
	Links bool
}

// The dialects, by the programs' sources: dnf 4.14 (dnf/conf/substitutions.py),
// dnf 5 (libdnf5/conf/vars.cpp), yum 3.4.3 (yum/config.py, getvars).
func dialects() []Dialect {
	return []Dialect{
		{Name: "dnf", Conf: "/etc/dnf/dnf.conf", VarsDirs: []string{"/etc/yum/vars", "/etc/dnf/vars"}, Links: true},
		{Name: "dnf5", Conf: "/etc/dnf/dnf.conf", VarsDirs: []string{"/usr/share/dnf5/vars.d", "/etc/dnf/vars"}, Links: true},
		{Name: "yum", Conf: "/etc/yum.conf", VarsDirs: []string{"/etc/yum/vars"}},
	}
}

// DialectOf is the dialect of a package manager by its name: dnf, dnf5 or yum.
func DialectOf(name string) Dialect {
	all := dialects()
	return all[max(0, slices.IndexFunc(all, func(d Dialect) bool { return d.Name == name }))]
}

// Var is a variable as a file sets it.
type Var struct {
	Value string
	File  string
}

// Vars are the variables that files set. Only the first line of a file counts,
// and nothing is trimmed but its end: an empty file is a variable that is
// empty, not one that is unset.
func (d Dialect) Vars(h *host.Host) (map[string]Var, error) {
	vars := map[string]Var{}
	for _, dir := range d.VarsDirs {
		entries, err := h.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read the variables of %s: %w", d.Name, err)
		}
		for _, e := range entries {
			if e.IsDir() || !d.Links && e.Type()&fs.ModeSymlink != 0 {
				continue
			}
			file := dir + "/" + e.Name()
			text, err := h.ReadLimited(file, maxVar)
			if errors.Is(err, fs.ErrNotExist) { // a dangling link
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("cannot read the variables of %s: %w", d.Name, err)
			}
			line, _, _ := strings.Cut(string(text), "\n")
			vars[e.Name()] = Var{strings.TrimSuffix(line, "\r"), file}
		}
	}
	return vars, nil
}

var variable = regexp.MustCompile(`\$(?:\{(\w+)\}|(\w+))`)

// Expand fills in variables, and names those that it does not know, which stay as they are.
func Expand(text string, vars map[string]string) (out string, unknown []string) {
	out = variable.ReplaceAllStringFunc(text, func(ref string) string {
		name := strings.Trim(ref, "${}")
		v, ok := vars[name]
		if !ok {
			if !slices.Contains(unknown, name) {
				unknown = append(unknown, name)
			}
			return ref
		}
		return v
	})
	return out, unknown
}

// Uses tells whether a text has one of these variables.
func Uses(text string, names ...string) bool {
	for _, m := range variable.FindAllStringSubmatch(text, -1) {
		if slices.Contains(names, m[1]+m[2]) {
			return true
		}
	}
	return false
}

// BaseArch is dnf's and yum's $basearch for an architecture by its Go name.
func BaseArch(goarch string) string {
	switch goarch {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	case "386":
		return "i386"
	}
	return goarch
}
