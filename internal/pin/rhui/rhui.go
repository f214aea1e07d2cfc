// Package rhui holds RHEL and what is like it at a minor release, as "9.4".
//
// The mechanism is that of Amazon Linux 2023, the variable releasever, but its
// default is the major version: without the variable a machine follows the newest
// minor. RHEL's repositories on EC2 (RHUI) want the instance's certificate and
// signature, which dnf's own plugin adds, so everything is asked through the
// package manager rather than read directly. A minor that is held receives
// errata only as long as its repositories do, with EUS or E4S.
package rhui

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/pin"
	"github.com/amiagent/amiagent/internal/pin/yumrepo"
	"github.com/amiagent/amiagent/internal/pkgmgr"
	"github.com/amiagent/amiagent/internal/repodata"
	"github.com/amiagent/amiagent/internal/repodata/rpmmd"
)

// Family is pin.Family for RHEL-likes.
type Family struct {
	pin.Options
	yumrepo.ByHand
	dialect yumrepo.Dialect
}

// New is the family on a machine with dnf, dnf5 or yum.
func New(o pin.Options) *Family {
	f := &Family{Options: o, dialect: yumrepo.DialectOf(o.Manager.Name())}
	f.ByHand = yumrepo.ByHand{Host: o.Host, Client: o.Client, Load: f.load, Bases: o.Repositories}
	return f
}

func (f *Family) load() (*yumrepo.Config, error) {
	return yumrepo.Load(f.Options.Host, f.Facts, f.dialect)
}

func (f *Family) varFile() string {
	return path.Join(f.dialect.VarsDirs[len(f.dialect.VarsDirs)-1], "releasever")
}

// major is the machine's own major version.
func (f *Family) major() string {
	major, _, _ := strings.Cut(f.Facts.Get(facts.OSVersion), ".")
	return major
}

// Name is the OS's id and major version.
func (f *Family) Name() string { return strings.TrimSpace(f.Facts.Get(facts.OSID) + " " + f.major()) }

var form = regexp.MustCompile(`^\d{1,2}\.\d{1,2}$`)

// Validate wants MAJOR.MINOR of the machine's own major version.
func (f *Family) Validate(release string) error {
	own := f.major()
	major, _, _ := strings.Cut(release, ".")
	switch {
	case !form.MatchString(release):
		return fmt.Errorf("%q is no minor release of %s: want the form %s.4, or latest or image", release, f.Name(), own)
	case own != "" && own != major:
		return fmt.Errorf("%w: %s is no release of %s; a major version is moved to by an upgrade of its own", pin.ErrNoRelease, release, f.Name())
	}
	return nil
}

// Compare goes by the numbers.
func (f *Family) Compare(a, b string) int { return pin.CompareDotted(a, b) }

var versionID = regexp.MustCompile(`(?m)^VERSION_ID="?([0-9.]+)"?$`)

// State reads the variable and os-release.
func (f *Family) State(context.Context) (pin.State, error) {
	var st pin.State
	c, err := f.load()
	if err != nil {
		return st, err
	}
	if text, err := f.Options.Host.ReadLimited("/etc/os-release", 64<<10); err == nil {
		if m := versionID.FindSubmatch(text); m != nil && form.Match(m[1]) {
			st.Installed = string(m[1])
		}
	}
	v, set := c.Vars["releasever"]
	switch {
	case !set:
		st.Release, st.How = pin.Latest, "no variable names a minor release: the newest is used"
	case strings.TrimSpace(v.Value) == "":
		st.How = v.File + ", which is empty"
		st.Odd = append(st.Odd, v.File+" is empty: it is taken for the release, and no repository is found; remove it, or set a release")
	default:
		st.Release, st.How = v.Value, v.File
		switch {
		case strings.TrimSpace(v.Value) != v.Value:
			st.Odd = append(st.Odd, fmt.Sprintf("%s has white space around the release (%q)", v.File, v.Value))
		case form.MatchString(v.Value) && st.Installed != "" && f.Compare(v.Value, st.Installed) < 0:
			st.Odd = append(st.Odd, fmt.Sprintf("%s says %s, but the installed packages are of %s", v.File, v.Value, st.Installed))
		}
	}
	st.Floating = c.Floating(st.Release)
	return st, nil
}

// Releases are not published in a form that machines can read.
func (f *Family) Releases(context.Context) ([]pin.Release, error) { return nil, pin.ErrUnlisted }

// Resolve has the package manager read every enabled repository at the release.
// The identity of their metadata is not known by that.
func (f *Family) Resolve(ctx context.Context, release string) (string, []pin.Repository, error) {
	if f.Options.Host.Exists("/etc/pki/consumer/cert.pem") {
		return "", nil, diag.WithHint(fmt.Errorf("%w: this machine is registered, so the subscription service decides its release", pin.ErrRefused),
			"`subscription-manager release --set=%s`", release)
	}
	if release == pin.Now {
		return "", nil, diag.WithHint(fmt.Errorf("%w: a minor release is no moment", pin.ErrRefused), "name one, as %s.4", f.major())
	}
	c, err := f.load()
	if err != nil {
		return "", nil, err
	}
	var repos []pin.Repository
	held := false
	for _, r := range c.Enabled() {
		address, _ := c.Address(r, release)
		repos = append(repos, pin.Repository{ID: r.ID, Address: address, Floating: c.Floats(r)})
		held = held || r.ByRelease()
	}
	if release == pin.Latest {
		return release, repos, nil
	}
	if !held {
		return "", nil, diag.WithHint(fmt.Errorf("%w: %s: no enabled repository goes by a release", pin.ErrNoRelease, release), "enable EUS or E4S repositories")
	}
	if err := f.Manager.Refresh(ctx, release, pkgmgr.Talk{}); err != nil {
		if strings.Contains(err.Error(), " 403") || strings.Contains(err.Error(), " 404") {
			err = fmt.Errorf("%w: %s: %w", pin.ErrNoRelease, release, err)
		}
		return "", nil, fmt.Errorf("cannot validate release %s: %w", release, err)
	}
	return release, repos, nil
}

// Write sets the variable, or removes it.
func (f *Family) Write(ctx context.Context, release string, _ []pin.Repository) error {
	if release != pin.Latest {
		return yumrepo.WriteVar(ctx, f.Options.Host, f.varFile(), release)
	}
	for _, dir := range f.dialect.VarsDirs {
		if err := f.Options.Host.Remove(dir + "/releasever"); err != nil {
			return fmt.Errorf("cannot remove the variable releasever: %w", err)
		}
	}
	return nil
}

// Spoken asks the package manager. A major version alone is no release held.
func (f *Family) Spoken(ctx context.Context) (string, error) {
	release, err := yumrepo.Spoken(ctx, f.Options.Host, f.dialect, f.load)
	if major := f.major(); err == nil && (release == major || strings.HasPrefix(release, major+"S")) { // 7Server
		return pin.Latest, nil
	}
	return release, err
}

// Diff asks dnf, which alone can read these repositories.
func (f *Family) Diff(ctx context.Context, release string) ([]pin.Change, error) {
	if f.dialect.Name == "yum" {
		return nil, diag.WithHint(errors.New("cannot tell what would change: yum does not say it in a form that can be read"), "`yum --releasever=%s check-update`", release)
	}
	at := []string{f.dialect.Name, "-q"}
	if release != pin.Latest {
		at = append(at, "--releasever="+release)
	}
	// What is on offer, rather than what dnf would upgrade: a release may be older than the machine.
	res, err := f.Options.Host.Run(ctx, host.Cmd{Argv: append(at[:len(at):len(at)], "repoquery", "--available", "--latest-limit=1", "--qf", `%{name}\t%{arch}\t%{evr}\n`)})
	if err != nil {
		return nil, fmt.Errorf("cannot tell what would change: %w", err)
	}
	offered := map[string]string{}
	// dnf 4 prints \t and \n as they are, and ends the line by itself; dnf 5 takes them for what they mean.
	for line := range strings.Lines(strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(string(res.Stdout))) {
		if p := strings.Split(strings.TrimSpace(line), "\t"); len(p) == 3 {
			offered[p[0]+" "+p[1]] = strings.TrimPrefix(p[2], "0:")
		}
	}
	installed, err := f.Manager.All(ctx)
	if err != nil {
		return nil, err
	}
	notices, err := f.notices(ctx, at)
	if err != nil {
		return nil, err
	}
	return pin.Compare(installed, func(p pkgmgr.Package) (string, bool) {
		v, ok := offered[p.Name+" "+p.Arch]
		return v, ok
	}, rpmmd.Compare, notices), nil
}

// notice is a line of `dnf updateinfo list`: an id, a severity and kind, a package.
var notice = regexp.MustCompile(`(?m)^(\S+)\s+(?:(\w+)/Sec\.|(bugfix|enhancement|security|unknown))\s+(\S+)-((?:\d+:)?[^-\s]+-[^-\s]+)\.[a-z0-9_]+\s*$`)

func (f *Family) notices(ctx context.Context, at []string) ([]repodata.Advisory, error) {
	res, err := f.Options.Host.Run(ctx, host.Cmd{Argv: append(at[:len(at):len(at)], "updateinfo", "list", "--updates")})
	if err != nil {
		return nil, fmt.Errorf("cannot tell the advisories: %w", err)
	}
	var all []repodata.Advisory
	for _, m := range notice.FindAllStringSubmatch(string(res.Stdout), -1) {
		kind := m[3]
		if m[2] != "" {
			kind = "security"
		}
		all = append(all, repodata.Advisory{ID: m[1], Type: kind, Severity: m[2],
			Packages: []repodata.Package{{Name: m[4], Version: strings.TrimPrefix(m[5], "0:")}}})
	}
	return all, nil
}

// Move upgrades by the package manager, then sets the variable.
func (f *Family) Move(ctx context.Context, release string, repos []pin.Repository, downgrade bool, talk pkgmgr.Talk) error {
	if f.dialect.Name != "yum" && release != pin.Latest {
		if err := f.Manager.MoveTo(ctx, pkgmgr.Move{Release: release, Downgrade: downgrade}, talk); err != nil {
			return err
		}
		return f.Write(ctx, release, repos)
	}
	return host.Swapped(ctx, f.Options.Host, []string{f.varFile()}, func() error {
		if err := f.Write(ctx, release, repos); err != nil {
			return err
		}
		return f.Manager.MoveTo(ctx, pkgmgr.Move{Downgrade: downgrade}, talk)
	})
}
