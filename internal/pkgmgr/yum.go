package pkgmgr

import (
	"context"
	"path"
	"strings"

	version "github.com/knqyf263/go-rpm-version"

	"github.com/amiagent/amiagent/internal/host"
)

// yum drives yum 3.4, as Amazon Linux 1 and 2 have it. It differs from dnf in
// that unknown packages are passed over with exit code 0, that an older
// version is had by another verb, and that it waits for its lock by itself.
type yum struct{ rpm }

func (yum) name() string { return "yum" }

func (yum) run(args ...string) host.Cmd {
	return host.Cmd{Argv: append([]string{"yum", "-y"}, args...)}
}

func (y yum) commands(ctx context.Context, wants []Want, download bool) ([]host.Cmd, trouble, error) {
	have, err := y.installed(ctx, names(wants))
	if err != nil {
		return nil, trouble{}, err
	}
	var install, downgrade, remove []string
	for _, w := range wants {
		switch {
		case w.Absent:
			remove = append(remove, w.Name)
		case older(w.Version, have.Find(w.Name)):
			downgrade = append(downgrade, yumSpec(w))
		default:
			install = append(install, yumSpec(w))
		}
	}
	if download {
		return y.downloads(install, downgrade), trouble{}, nil
	}
	for _, one := range []struct {
		verb  string
		specs []string
	}{{"install", install}, {"downgrade", downgrade}, {"remove", remove}} {
		if len(one.specs) == len(wants) {
			return []host.Cmd{y.run(append([]string{one.verb}, one.specs...)...)}, trouble{}, nil
		}
	}
	c := y.run("shell")
	c.Stdin = shell(install, downgrade, remove)
	return []host.Cmd{c}, trouble{}, nil
}

func (y yum) downloads(install, downgrade []string) []host.Cmd {
	var cmds []host.Cmd
	if len(install) > 0 {
		cmds = append(cmds, y.run(append([]string{"install", "--downloadonly"}, install...)...))
	}
	if len(downgrade) > 0 {
		cmds = append(cmds, y.run(append([]string{"downgrade", "--downloadonly"}, downgrade...)...))
	}
	return cmds
}

// yumSpec has no epoch: yum knows one only in front of the name.
func yumSpec(w Want) string {
	if _, rest, ok := strings.Cut(w.Version, ":"); ok {
		w.Version = rest
	}
	return spec(w)
}

// older tells whether every installed version is above the wanted one, as far as its first wild card.
func older(want string, have []Package) bool {
	plain := want
	if i := strings.IndexAny(want, "*?["); i >= 0 {
		plain = strings.TrimRight(want[:i], ".-")
	}
	if plain == "" || len(have) == 0 {
		return false
	}
	for _, p := range have {
		v := p.Version
		if !strings.Contains(want, ":") {
			_, v, _ = strings.Cut(":"+v, ":")
			if _, rest, ok := strings.Cut(v, ":"); ok {
				v = rest
			}
		}
		if !version.NewVersion(plain).LessThan(version.NewVersion(v)) {
			return false
		}
	}
	return true
}

func (y yum) refresh() host.Cmd { return y.run("clean", "expire-cache") }

// available says nothing: yum's lists are cut into columns for a terminal.
func (yum) available(context.Context, string) ([]string, string) { return nil, "" }

func (y yum) try(file string) host.Cmd {
	return y.run("--setopt=reposdir="+path.Dir(file), "makecache", "fast")
}
