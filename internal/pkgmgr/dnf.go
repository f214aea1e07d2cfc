package pkgmgr

import (
	"context"
	"path"
	"regexp"
	"slices"
	"strings"

	version "github.com/knqyf263/go-rpm-version"

	"github.com/amiagent/amiagent/internal/decode"
	"github.com/amiagent/amiagent/internal/host"
)

// dnf drives dnf 4, and dnf 5 where that is what the machine has.
type dnf struct {
	rpm
	five bool
}

func (d dnf) name() string {
	if d.five {
		return "dnf5"
	}
	return "dnf"
}

func (d dnf) locks() []string {
	if d.five {
		return append(d.rpm.locks(), "/run/dnf/rpmtransaction.lock")
	}
	return d.rpm.locks()
}

// run is dnf. Amazon's defaults skip a repository that cannot be read, and
// then say "Complete!": here that is an error. Removing one package does not
// take those along that were installed for it: nobody asked for that.
func (d dnf) run(args ...string) host.Cmd {
	argv := []string{d.name(), "-y", "--setopt=skip_if_unavailable=False", "--setopt=clean_requirements_on_remove=False"}
	return host.Cmd{Argv: append(argv, args...)}
}

// commands is always one transaction: installing and removing at once takes
// dnf's shell, or dnf 5's do. Only so can curl take the place of curl-minimal,
// of which one must be there at any time. The shell reads its lines from stdin
// and ends with 0 whatever happens; the database tells.
func (d dnf) commands(_ context.Context, wants []Want, download bool) ([]host.Cmd, trouble, error) {
	install, remove := specs(wants)
	switch {
	case download && len(install) == 0:
		return nil, trouble{}, nil
	case download && len(remove) == 0:
		return []host.Cmd{d.run(append([]string{"install", "--downloadonly"}, install...)...)}, trouble{}, nil
	case download:
		// What is to go may stand in the way; nothing is erased by a download.
		return []host.Cmd{d.run(append([]string{"install", "--downloadonly", "--allowerasing"}, install...)...)}, trouble{}, nil
	case len(remove) == 0:
		return []host.Cmd{d.run(append([]string{"install"}, install...)...)}, trouble{}, nil
	case len(install) == 0:
		return []host.Cmd{d.run(append([]string{"remove"}, remove...)...)}, trouble{}, nil
	case d.five:
		args := slices.Concat([]string{"do", "--action=install"}, install, []string{"--action=remove"}, remove)
		return []host.Cmd{d.run(args...)}, trouble{}, nil
	}
	c := d.run("shell")
	c.Stdin = shell(install, nil, remove)
	return []host.Cmd{c}, trouble{}, nil
}

func specs(wants []Want) (install, remove []string) {
	for _, w := range wants {
		if w.Absent {
			remove = append(remove, w.Name)
		} else {
			install = append(install, spec(w))
		}
	}
	return install, remove
}

// shell is the lines of one transaction for `dnf shell` and `yum shell`.
func shell(install, downgrade, remove []string) []byte {
	var b strings.Builder
	for _, l := range []struct {
		verb  string
		specs []string
	}{{"install", install}, {"downgrade", downgrade}, {"remove", remove}} {
		if len(l.specs) > 0 {
			b.WriteString(l.verb + " " + strings.Join(l.specs, " ") + "\n")
		}
	}
	b.WriteString("run\n")
	return []byte(b.String())
}

func (d dnf) refresh() host.Cmd { return d.run("clean", "expire-cache") }

func (d dnf) available(ctx context.Context, name string) ([]string, string) {
	// From the cache alone: this only makes a message better.
	res, err := d.h.Run(ctx, host.Cmd{Argv: []string{d.name(), "-q", "-C", "repoquery", "--qf", `%{name} %{evr}\n`}})
	if err != nil {
		return nil, ""
	}
	return offers(name, string(res.Stdout))
}

// offers finds a name's versions among lines of "name version", or the nearest name.
func offers(name, list string) (versions []string, nearest string) {
	var all []string
	// dnf 4 prints the two characters of \n, dnf 5 takes them for a newline.
	for line := range strings.Lines(strings.ReplaceAll(list, `\n`, "\n")) {
		f := strings.Fields(line)
		switch {
		case len(f) != 2:
		case f[0] == name:
			versions = append(versions, strings.TrimPrefix(f[1], "0:"))
		case len(all) == 0 || all[len(all)-1] != f[0]:
			all = append(all, f[0])
		}
	}
	if len(versions) > 0 {
		slices.SortFunc(versions, func(a, b string) int {
			return version.NewVersion(b).Compare(version.NewVersion(a))
		})
		return slices.Compact(versions), ""
	}
	return nil, decode.Nearest(name, all)
}

// try reads the metadata of the repositories in one file's folder, and keeps
// it: the cache goes by a repository's name and address.
func (d dnf) try(file string) host.Cmd {
	return d.run("--setopt=reposdir="+path.Dir(file), "--setopt=*.skip_if_unavailable=False", "makecache")
}

var rpmFault = regexp.MustCompile(`(?m)^(?:Error: .+|Ignoring repositories: .*)$`)

func (rpm) faults(output string) string {
	return strings.TrimPrefix(rpmFault.FindString(output), "Error: ")
}
