package yumrepo

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/pin"
	"github.com/amiagent/amiagent/internal/pkgmgr"
	"github.com/amiagent/amiagent/internal/repodata"
	"github.com/amiagent/amiagent/internal/repodata/rpmmd"
)

// Opened is a repository at a release, with its metadata at hand.
type Opened struct {
	Repo    Repo
	Address string // as asked, variables filled in
	Data    rpmmd.Repo
}

// Address is where a repository is at a release.
func (c *Config) Address(r Repo, release string) (string, error) {
	address, unknown := Expand(r.Address, c.Values(release))
	if len(unknown) > 0 {
		return "", diag.WithHint(fmt.Errorf("cannot tell where repository %s is: %s has the variable $%s, which nothing sets", r.ID, r.Address, strings.Join(unknown, ", $")),
			"a variable is a file of one line in %s", c.Dialect.VarsDirs[len(c.Dialect.VarsDirs)-1])
	}
	return address, nil
}

// mirrors is how many of a list may be broken before we give up.
const mirrors = 3

// Open reads a repository at a release as the manager would: mirror list, then
// repomd.xml. A server that answers 403 or 404 has no such release: repodata.ErrAbsent.
func (c *Config) Open(ctx context.Context, client *repodata.Client, r Repo, release string) (Opened, error) {
	address, err := c.Address(r, release)
	if err != nil {
		return Opened{}, err
	}
	o := Opened{Repo: r, Address: address}
	bases := []string{address}
	if r.Kind != "baseurl" {
		if bases, err = rpmmd.Mirrors(ctx, client, address); err != nil {
			return o, err
		}
	}
	for _, base := range bases[:min(len(bases), mirrors)] {
		base, _ = Expand(base, c.Values(release)) // AL1's lists hold a literal $basearch
		if o.Data, err = rpmmd.Open(ctx, client, base); err == nil {
			return o, nil
		}
	}
	return o, err
}

// Resolve reads every enabled repository that the release decides, and those
// frozen by address; the others float, with the reason.
func (c *Config) Resolve(ctx context.Context, client *repodata.Client, release string) ([]pin.Repository, error) {
	var all []pin.Repository
	held := 0
	for _, r := range c.Enabled() {
		why := c.Floats(r)
		if why != "" {
			address, _ := Expand(r.Address, c.Values(release))
			all = append(all, pin.Repository{ID: r.ID, Address: address, Floating: why})
			continue
		}
		o, err := c.Open(ctx, client, r, release)
		if errors.Is(err, repodata.ErrAbsent) && r.ByRelease() {
			return nil, fmt.Errorf("%w: %s for repository %s: %w", pin.ErrNoRelease, release, r.ID, err)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot validate release %s: repository %s: %w", release, r.ID, err)
		}
		if r.ByRelease() {
			held++
		}
		all = append(all, pin.Repository{ID: r.ID, Address: o.Address, Base: o.Data.Base, Digest: o.Data.Digest})
	}
	if held == 0 {
		return nil, diag.WithHint(fmt.Errorf("%w: %s: no enabled repository goes by a release", pin.ErrNoRelease, release),
			"the addresses in /etc/yum.repos.d have no $releasever: %s has nothing to hold", c.Dialect.Name)
	}
	return all, nil
}

// Floats says why a release does not decide what a repository has, or "".
func (c *Config) Floats(r Repo) string {
	if r.ByRelease() || r.Frozen() {
		return ""
	}
	return "its address has no release: it has whatever its publisher puts there"
}

// Floating are the enabled repositories that float.
func (c *Config) Floating(release string) []pin.Repository {
	var all []pin.Repository
	for _, r := range c.Enabled() {
		if why := c.Floats(r); why != "" {
			address, _ := Expand(r.Address, c.Values(release))
			all = append(all, pin.Repository{ID: r.ID, Address: address, Floating: why})
		}
	}
	return all
}

// Diff compares what is installed with what the opened repositories have.
// Packages that none of them has are left out: they come from elsewhere.
func Diff(ctx context.Context, client *repodata.Client, opened []Opened, installed []pkgmgr.Package) ([]pin.Change, error) {
	best := map[string]offer{}
	var notices []repodata.Advisory
	for _, o := range opened {
		all, err := o.Data.Packages(ctx, client)
		if err != nil {
			return nil, fmt.Errorf("cannot read what repository %s has: %w", o.Repo.ID, err)
		}
		for _, p := range all {
			key := p.Name + " " + family(p.Arch)
			if have, ok := best[key]; !ok || o.Repo.Priority < have.priority || o.Repo.Priority == have.priority && rpmmd.Compare(p.Version, have.Version) > 0 {
				best[key] = offer{p, o.Repo.Priority}
			}
		}
		more, err := o.Data.Advisories(ctx, client)
		if err != nil {
			return nil, fmt.Errorf("cannot read the advisories of repository %s: %w", o.Repo.ID, err)
		}
		notices = append(notices, more...)
	}
	return pin.Compare(newestOf(installed), func(p pkgmgr.Package) (string, bool) {
		o, ok := best[p.Name+" "+family(p.Arch)]
		if !ok {
			// A package may have become noarch, or stopped to be.
			o, ok = best[p.Name+" "+map[bool]string{true: "", false: "any"}[family(p.Arch) == "any"]]
		}
		return o.Version, ok
	}, rpmmd.Compare, notices), nil
}

type offer struct {
	repodata.Package
	priority int
}

// family makes the packages of a machine's own architecture one word, beside
// those that fit any. A 64-bit repository's 32-bit packages stay apart.
func family(arch string) string {
	switch arch {
	case "noarch":
		return "any"
	case "i386", "i486", "i586", "i686":
		return "x86-32"
	}
	return ""
}

// newestOf leaves the newest of packages that are installed several times, as kernels.
func newestOf(installed []pkgmgr.Package) []pkgmgr.Package {
	at := map[string]int{}
	var all []pkgmgr.Package
	for _, p := range installed {
		key := p.Name + " " + p.Arch
		if i, ok := at[key]; ok {
			if rpmmd.Compare(p.Version, all[i].Version) > 0 {
				all[i] = p
			}
			continue
		}
		at[key] = len(all)
		all = append(all, p)
	}
	return all
}
