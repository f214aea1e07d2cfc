// Package al2023 holds Amazon Linux 2023 and 2027 at a release.
//
// Both have versioned repositories. The release in force is, highest first:
// --releasever on the command line, the variable /etc/dnf/vars/releasever, the
// version of the installed package system-release. So a machine is held without
// any file, by what it was built from (the native lock), and an upgrade to
// another release moves that lock.
// https://docs.aws.amazon.com/linux/al2023/ug/deterministic-upgrades-usage.html
package al2023

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/pin"
	"github.com/amiagent/amiagent/internal/pin/yumrepo"
	"github.com/amiagent/amiagent/internal/pkgmgr"
)

// VarFile is the variable that stands above the native lock.
const VarFile = "/etc/dnf/vars/releasever"

const systemRelease = "system-release"

// Family is pin.Family for Amazon Linux 2023 and 2027.
type Family struct {
	pin.Options
	yumrepo.ByHand
	dialect yumrepo.Dialect
}

// New is the family on a machine whose package manager is o.Manager: dnf or dnf5.
func New(o pin.Options) *Family {
	f := &Family{Options: o, dialect: yumrepo.DialectOf(o.Manager.Name())}
	f.ByHand = yumrepo.ByHand{Host: o.Host, Client: o.Client, Load: f.load, Bases: o.Repositories}
	return f
}

func (f *Family) load() (*yumrepo.Config, error) {
	return yumrepo.Load(f.Options.Host, f.Facts, f.dialect)
}

// Name is "Amazon Linux 2023" or "Amazon Linux 2027".
func (f *Family) Name() string { return "Amazon Linux " + f.Facts.Get(facts.OSVersion) }

var form = regexp.MustCompile(`^20\d\d\.\d+\.\d{8}$`)

// Validate wants YEAR.MINOR.YYYYMMDD, of the machine's own Amazon Linux. Image
// versions have a fourth number, which is no part of a release.
func (f *Family) Validate(release string) error {
	major := f.Facts.Get(facts.OSVersion)
	example := major + ".1.20260105"
	switch parts := strings.Split(release, "."); {
	case form.MatchString(release) && (major == "" || parts[0] == major):
		return nil
	case form.MatchString(release):
		return fmt.Errorf("%w: %s is a release of Amazon Linux %s, this is %s", pin.ErrNoRelease, release, parts[0], f.Name())
	case len(parts) == 4 && form.MatchString(strings.Join(parts[:3], ".")):
		return diag.WithHint(fmt.Errorf("%q is the version of an image, not a release", release), "its release is %s", strings.Join(parts[:3], "."))
	default:
		return fmt.Errorf("%q is no release of %s: want the form %s, or latest or image", release, f.Name(), example)
	}
}

// Compare goes by the numbers: as strings, 2023.9 would be newer than 2023.10.
func (f *Family) Compare(a, b string) int { return pin.CompareDotted(a, b) }

// installed is the version of system-release; "" when there is none.
func (f *Family) installed(ctx context.Context) (string, error) {
	f.Manager.Forget() // others upgrade too
	db, err := f.Manager.Installed(ctx, []string{systemRelease})
	if err != nil {
		return "", err
	}
	have := db.Find(systemRelease)
	if len(have) == 0 {
		return "", nil
	}
	v, _, _ := strings.Cut(have[0].Version, "-")
	if _, rest, ok := strings.Cut(v, ":"); ok {
		v = rest
	}
	return v, nil
}

// State reads variables, repositories and the version of system-release.
func (f *Family) State(ctx context.Context) (pin.State, error) {
	var st pin.State
	c, err := f.load()
	if err != nil {
		return st, err
	}
	if st.Installed, err = f.installed(ctx); err != nil {
		return st, err
	}
	v, set := c.Vars["releasever"]
	switch {
	case !set && st.Installed == "":
		st.How = "nothing: system-release is not installed"
		st.Odd = append(st.Odd, "system-release is not installed and no variable names a release: dnf cannot expand $releasever")
	case !set:
		st.Release, st.How = st.Installed, "locked to the installed system-release"
	default:
		st.Release, st.How = v.Value, v.File
		st.Odd = append(st.Odd, f.odd(v, st.Installed)...)
		if v.Value == "" {
			st.How += ", which is empty"
		}
	}
	st.Floating = c.Floating(st.Release)
	return st, nil
}

// odd tells what a variable has that breaks repositories, mostly in silence.
func (f *Family) odd(v yumrepo.Var, installed string) []string {
	switch trimmed := strings.TrimSpace(v.Value); {
	case v.Value == "":
		return []string{v.File + " is empty: dnf takes that for the release, and finds no repository; remove it, or set a release"}
	case trimmed != v.Value:
		return []string{fmt.Sprintf("%s has white space around the release (%q): dnf puts it into the address", v.File, v.Value)}
	case trimmed == pin.Latest:
		return nil
	case f.Validate(trimmed) != nil:
		return []string{fmt.Sprintf("%s says %q, which is no release of %s", v.File, trimmed, f.Name())}
	case installed != "" && f.Compare(trimmed, installed) < 0:
		return []string{fmt.Sprintf("%s says %s, but the installed packages are of %s: new packages would come from the older release; `amiagent pin set %[3]s` mends it", v.File, trimmed, installed)}
	}
	return nil
}

// Resolve reads the mirror list and the repository of a release.
func (f *Family) Resolve(ctx context.Context, release string) (string, []pin.Repository, error) {
	if release == pin.Now {
		all, err := f.Releases(ctx)
		if err != nil || len(all) == 0 {
			return "", nil, fmt.Errorf("cannot tell the release of this moment: %w", errors.Join(err, pin.ErrUnlisted))
		}
		release = all[len(all)-1].Name
	}
	c, err := f.load()
	if err != nil {
		return "", nil, err
	}
	repos, err := c.Resolve(ctx, f.Options.Client, release)
	return release, repos, err
}

// Write sets the variable. A release that the native lock holds already needs
// none: the variable is removed, so that an upgrade moves the lock and leaves
// nothing stale behind. An empty variable is never written.
func (f *Family) Write(ctx context.Context, release string, _ []pin.Repository) error {
	installed, err := f.installed(ctx)
	if err != nil {
		return err
	}
	if release == installed {
		return f.unset()
	}
	return f.set(ctx, release)
}

// unset removes the variable wherever dnf would read it from.
func (f *Family) unset() error {
	for _, dir := range f.dialect.VarsDirs {
		if err := f.Options.Host.Remove(dir + "/releasever"); err != nil {
			return fmt.Errorf("cannot remove the variable releasever: %w", err)
		}
	}
	return nil
}

func (f *Family) set(ctx context.Context, release string) error {
	return yumrepo.WriteVar(ctx, f.Options.Host, VarFile, release)
}

// Spoken asks dnf to what it expands $releasever.
func (f *Family) Spoken(ctx context.Context) (string, error) {
	return yumrepo.Spoken(ctx, f.Options.Host, f.dialect, f.load)
}

// Diff reads the indexes of a release, and the database of installed packages.
func (f *Family) Diff(ctx context.Context, release string) ([]pin.Change, error) {
	c, err := f.load()
	if err != nil {
		return nil, err
	}
	return c.Diff(ctx, f.Options.Client, f.Manager, release)
}

// Move upgrades by dnf. The variable is brought up to date only after it: were
// it written first, and the upgrade cut off, packages of both releases would
// mix; left as it was for good, it would name the older release.
func (f *Family) Move(ctx context.Context, release string, _ []pin.Repository, downgrade bool, talk pkgmgr.Talk) error {
	if err := f.Manager.MoveTo(ctx, pkgmgr.Move{Release: release, Downgrade: downgrade}, talk); err != nil {
		return err
	}
	installed, err := f.installed(ctx)
	if err != nil {
		return err
	}
	if installed != release {
		return diag.WithHint(fmt.Errorf("the transaction ended well, but system-release is of %s, not of %s", installed, release),
			"is system-release excluded or versionlocked? See /etc/dnf/dnf.conf")
	}
	return f.unset()
}
