// Package al1 holds the Amazon Linux AMI (Amazon Linux 1) at a release.
//
// It rolls by default: /etc/yum.conf says releasever=latest, whatever was
// launched. Without that line the release is that of the installed package
// system-release; with a release in it, it is that one. Besides, cloud-init
// installs security updates at first boot unless it is told repo_upgrade: none,
// so a pin tells it that. Mechanism: "Using AL1 on AWS", repository configuration.
package al1

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/pin"
	"github.com/amiagent/amiagent/internal/pin/yumrepo"
	"github.com/amiagent/amiagent/internal/pkgmgr"
)

const (
	conf    = "/etc/yum.conf"
	maxConf = 1 << 20

	systemRelease = "system-release"
)

// Family is pin.Family for Amazon Linux 1.
type Family struct {
	pin.Options
	yumrepo.ByHand
}

// New is the family on a machine with yum.
func New(o pin.Options) *Family {
	f := &Family{Options: o}
	f.ByHand = yumrepo.ByHand{Host: o.Host, Client: o.Client, Load: f.load, Bases: o.Repositories}
	return f
}

func (f *Family) load() (*yumrepo.Config, error) {
	return yumrepo.Load(f.Options.Host, f.Facts, yumrepo.DialectOf("yum"))
}

// Name is "Amazon Linux AMI".
func (f *Family) Name() string { return "Amazon Linux AMI" }

var form = regexp.MustCompile(`^20\d\d\.(03|09)$`)

// Validate wants YYYY.03 or YYYY.09.
func (f *Family) Validate(release string) error {
	if form.MatchString(release) {
		return nil
	}
	return fmt.Errorf("%q is no release of %s: want the form 2018.03, or latest or image", release, f.Name())
}

// Compare goes by the numbers.
func (f *Family) Compare(a, b string) int { return pin.CompareDotted(a, b) }

// State reads yum.conf, the variables above it, and the version of system-release.
func (f *Family) State(ctx context.Context) (pin.State, error) {
	var st pin.State
	c, err := f.load()
	if err != nil {
		return st, err
	}
	f.Manager.Forget()
	db, err := f.Manager.Installed(ctx, []string{systemRelease})
	if err != nil {
		return st, err
	}
	if have := db.Find(systemRelease); len(have) > 0 {
		st.Installed, _, _ = strings.Cut(have[0].Version, "-")
	}
	line, given := c.Main["releasever"]
	st.Release, st.How = st.Installed, "the installed system-release; "+conf+" names none"
	switch v, set := c.Vars["releasever"]; {
	case set:
		// yum prefers the file to its configuration and to its command line.
		st.Release, st.How = v.Value, v.File
		st.Odd = append(st.Odd, v.File+" stands above "+conf+" and the command line; remove it, so that one place says the release")
	case given && line == "":
		st.Odd = append(st.Odd, conf+" has an empty releasever; remove the line, or set a release")
		st.Release, st.How = "", conf+", which has an empty releasever"
	case given:
		st.Release, st.How = line, conf
	}
	if st.Release != pin.Latest && yumrepo.Upgrades(f.Options.Host) {
		st.Odd = append(st.Odd, "cloud-init installs updates at first boot: "+yumrepo.CloudConf+" with repo_upgrade: none is not there; `amiagent pin set` writes it")
	}
	st.Floating = c.Floating(st.Release)
	return st, nil
}

// Releases are all there ever were: the last is of March 2018, and support has ended.
func (f *Family) Releases(context.Context) ([]pin.Release, error) {
	var all []pin.Release
	for year := 2012; year <= 2018; year++ {
		for _, month := range []string{"03", "09"} {
			if name := fmt.Sprintf("%d.%s", year, month); name != "2018.09" {
				all = append(all, pin.Release{Name: name, Notes: "https://aws.amazon.com/amazon-linux-ami/" + name + "-release-notes/"})
			}
		}
	}
	return all, nil
}

// Resolve reads mirror list and repository of everything enabled.
func (f *Family) Resolve(ctx context.Context, release string) (string, []pin.Repository, error) {
	if release == pin.Now {
		release = pin.Latest
	}
	c, err := f.load()
	if err != nil {
		return "", nil, err
	}
	repos, err := c.Resolve(ctx, f.Options.Client, release)
	return release, repos, err
}

// Write puts the release into yum.conf, and tells cloud-init not to upgrade.
func (f *Family) Write(ctx context.Context, release string, _ []pin.Repository) error {
	h := f.Options.Host
	if release == pin.Latest {
		if err := h.Remove(yumrepo.CloudConf); err != nil {
			return fmt.Errorf("cannot remove %s: %w", yumrepo.CloudConf, err)
		}
	} else if err := yumrepo.WriteCloudConf(ctx, h); err != nil {
		return err
	}
	for _, file := range []string{"/etc/yum/vars/releasever"} {
		if err := h.Remove(file); err != nil {
			return fmt.Errorf("cannot remove %s: %w", file, err)
		}
	}
	text, err := h.ReadLimited(conf, maxConf)
	if err != nil {
		return diag.WithHint(fmt.Errorf("cannot hold the release: %w", err), "is yum installed?")
	}
	next := withRelease(string(text), release)
	if next == string(text) {
		return nil
	}
	return yumrepo.Write(ctx, h, conf, next)
}

// withRelease is yum.conf with one releasever line in [main], where the first
// one was, or where it was commented out, or at the end of the section.
func withRelease(text, release string) string {
	line := "releasever=" + release
	lines := strings.Split(text, "\n")
	from, to := 0, len(lines)
	for i, l := range lines {
		if strings.TrimSpace(l) == "[main]" {
			from = i + 1
		} else if strings.HasPrefix(l, "[") && i >= from && from > 0 {
			to = i
			break
		}
	}
	if from == 0 {
		return "[main]\n" + line + "\n" + text
	}
	at := -1
	var kept []string
	for i, l := range lines {
		key, _, ok := strings.Cut(l, "=")
		key = strings.ReplaceAll(key, " ", "")
		if ok && i >= from && i < to && (key == "releasever" || key == "#releasever") {
			if at < 0 {
				at = len(kept)
				kept = append(kept, line)
			}
			continue
		}
		kept = append(kept, l)
	}
	if at < 0 {
		kept = slices.Insert(kept, from, line)
	}
	return strings.Join(kept, "\n")
}

// Spoken asks yum.
func (f *Family) Spoken(ctx context.Context) (string, error) {
	return yumrepo.Spoken(ctx, f.Options.Host, yumrepo.DialectOf("yum"), f.load)
}

// Diff reads the indexes of a release, and the database of installed packages.
func (f *Family) Diff(ctx context.Context, release string) ([]pin.Change, error) {
	c, err := f.load()
	if err != nil {
		return nil, err
	}
	return c.Diff(ctx, f.Options.Client, f.Manager, release)
}

// Move writes the release and updates. yum's own --releasever loses against
// what its files say, so the file comes first, and goes back when yum fails.
func (f *Family) Move(ctx context.Context, release string, repos []pin.Repository, downgrade bool, talk pkgmgr.Talk) error {
	return host.Swapped(ctx, f.Options.Host, []string{conf, yumrepo.CloudConf}, func() error {
		if err := f.Write(ctx, release, repos); err != nil {
			return err
		}
		return f.Manager.MoveTo(ctx, pkgmgr.Move{Downgrade: downgrade}, talk)
	})
}

// Unfrozen counts cloud-init too: what it installs at first boot, no pin holds.
func (f *Family) Unfrozen() (string, error) {
	drift, err := f.ByHand.Unfrozen()
	if err != nil || drift != "" {
		return drift, err
	}
	st, err := f.State(context.Background())
	if err == nil && st.Release != pin.Latest && yumrepo.Upgrades(f.Options.Host) {
		drift = "cloud-init is not told to install no updates"
	}
	return drift, err
}
