// Package al2 holds Amazon Linux 2, which has no releases to be held at.
//
// Its mirror lists point to folders named by their content (64 hexadecimal
// digits), which never change. So each enabled repository, extras included, is
// frozen: its mirrorlist is replaced by the address that it leads to, and kept
// beside it for unlock. The name of a release is the content id of the core repository;
// what the others had at that moment is remembered with it. How long Amazon
// keeps old folders is not documented: a frozen one is read again before it is counted on.
//
// The alternative, versionlock, holds the installed packages rather than the repositories.
package al2

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/pin"
	"github.com/amiagent/amiagent/internal/pin/yumrepo"
	"github.com/amiagent/amiagent/internal/pkgmgr"
	"github.com/amiagent/amiagent/internal/repodata"
	"github.com/amiagent/amiagent/internal/repodata/rpmmd"
)

const core = "amzn2-core"

// Family is pin.Family for Amazon Linux 2.
type Family struct {
	pin.Options
	yumrepo.ByHand
}

// New is the family on a machine with yum. o.By may be "versionlock".
func New(o pin.Options) *Family {
	f := &Family{Options: o}
	f.ByHand = yumrepo.ByHand{Host: o.Host, Client: o.Client, Load: f.load, Bases: o.Repositories}
	return f
}

func (f *Family) load() (*yumrepo.Config, error) {
	return yumrepo.Load(f.Options.Host, f.Facts, yumrepo.DialectOf("yum"))
}

// Name is "Amazon Linux 2".
func (f *Family) Name() string { return "Amazon Linux 2" }

var form = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Installed is the release of a machine whose packages are held by versionlock.
const Installed = "installed"

func (f *Family) byVersion() bool { return f.By == "versionlock" }

// Validate wants a content id of the core repository; with versionlock, Installed.
func (f *Family) Validate(release string) error {
	if form.MatchString(release) && !f.byVersion() || release == Installed && f.byVersion() {
		return nil
	}
	return diag.WithHint(fmt.Errorf("%q is no release of %s: it has none but the content ids of its repositories, 64 hexadecimal digits", release, f.Name()),
		"`amiagent pin set now` holds what the repositories have at this moment")
}

// Compare orders releases by when they were first held here; one that was not is newer than all.
func (f *Family) Compare(a, b string) int {
	known, err := loadFreezes(f.Options.Host)
	if err != nil || a == b {
		return 0
	}
	return known.age(a) - known.age(b)
}

// State tells whether everything enabled is frozen.
func (f *Family) State(context.Context) (pin.State, error) {
	var st pin.State
	c, err := f.load()
	if err != nil {
		return st, err
	}
	some := false
	for _, r := range c.Enabled() {
		if r.Frozen() {
			some = true
		} else {
			st.Floating = append(st.Floating, pin.Repository{ID: r.ID, Address: expanded(c, r), Floating: "it is not frozen: its mirror list leads to whatever is newest"})
		}
		if r.ID == core && r.Frozen() {
			st.Release, st.How = yumrepo.ContentID(r.Address), "frozen in "+r.File
		}
	}
	locked, err := f.locked()
	switch {
	case err != nil:
		return st, err
	case st.Release != "":
	case locked:
		st.Release, st.How = Installed, lockList+"; the repositories themselves are open"
	default:
		st.Release, st.How = pin.Latest, "the repositories are not frozen"
		if some {
			st.Odd = append(st.Odd, "some repositories are frozen and "+core+" is not")
		}
	}
	if st.Release != pin.Latest && yumrepo.Upgrades(f.Options.Host) {
		st.Odd = append(st.Odd, "cloud-init installs updates at first boot: "+yumrepo.CloudConf+" with repo_upgrade: none is not there; `amiagent pin set` writes it")
	}
	return st, nil
}

func expanded(c *yumrepo.Config, r yumrepo.Repo) string {
	address, err := c.Address(r, "2")
	if err != nil {
		return r.Address
	}
	return address
}

// Releases are those held here before, and what the mirror list leads to now.
func (f *Family) Releases(ctx context.Context) ([]pin.Release, error) {
	known, err := loadFreezes(f.Options.Host)
	if err != nil {
		return nil, err
	}
	var all []pin.Release
	for _, one := range known.Freezes {
		all = append(all, pin.Release{Name: one.Release})
	}
	now, _, err := f.current(ctx)
	if err != nil {
		return nil, err
	}
	for i, r := range all {
		if r.Name == now {
			all = append(all[:i:i], all[i+1:]...)
			break
		}
	}
	return append(all, pin.Release{Name: now}), nil
}

// current follows every mirror list: where it leads now.
func (f *Family) current(ctx context.Context) (release string, repos []pin.Repository, err error) {
	c, err := f.load()
	if err != nil {
		return "", nil, err
	}
	for _, r := range c.Enabled() {
		if open, ok := yumrepo.Original(f.Options.Host, r); ok {
			r = open
		}
		o, err := c.Open(ctx, f.Options.Client, r, "2")
		if err != nil {
			return "", nil, fmt.Errorf("cannot tell what repository %s has: %w", r.ID, err)
		}
		id := yumrepo.ContentID(o.Data.Base)
		one := pin.Repository{ID: r.ID, Address: o.Address, Base: o.Data.Base, Digest: o.Data.Digest}
		if id == "" {
			one.Floating = "its mirror list leads to no address that names its content"
		}
		if r.ID == core {
			release = id
		}
		repos = append(repos, one)
	}
	if release == "" {
		return "", nil, diag.WithHint(fmt.Errorf("cannot hold %s: repository %s has no address that names its content", f.Name(), core),
			"is it enabled? A mirror of one's own is held by its own address, under `repositories`")
	}
	return release, repos, nil
}

// Resolve gives the addresses that were remembered for a release, each read
// again, or those of this moment.
func (f *Family) Resolve(ctx context.Context, release string) (string, []pin.Repository, error) {
	if f.byVersion() && release != pin.Latest {
		return Installed, nil, nil
	}
	if release == pin.Now {
		return f.current(ctx)
	}
	if release == pin.Latest {
		return release, nil, nil
	}
	known, err := loadFreezes(f.Options.Host)
	if err != nil {
		return "", nil, err
	}
	bases := known.of(release)
	now, repos, err := f.current(ctx)
	if err != nil {
		return "", nil, err
	}
	if now == release && bases == nil {
		return release, repos, nil
	}
	for i, r := range repos {
		base := bases[r.ID]
		if base == "" && r.ID == core {
			base = strings.Replace(r.Base, now, release, 1)
		}
		if base == "" {
			continue // enabled since: what it has now
		}
		opened, err := rpmmd.Open(ctx, f.Options.Client, base)
		if errors.Is(err, repodata.ErrAbsent) {
			return "", nil, diag.WithHint(fmt.Errorf("%w: %s for repository %s: %w", pin.ErrNoRelease, release, r.ID, err),
				"Amazon keeps old contents for a time only; the nearest that exists is that of now, %s", now)
		}
		if err != nil {
			return "", nil, fmt.Errorf("cannot validate release %s: repository %s: %w", release, r.ID, err)
		}
		repos[i].Base, repos[i].Digest = base, opened.Digest
	}
	return release, repos, nil
}

// Write freezes every repository, or restores their mirror lists.
func (f *Family) Write(ctx context.Context, release string, repos []pin.Repository) error {
	h := f.Options.Host
	if f.byVersion() {
		return f.lockVersions(ctx, release)
	}
	c, err := f.load()
	if err != nil {
		return err
	}
	if release == pin.Latest {
		if err := h.Remove(yumrepo.CloudConf); err != nil {
			return fmt.Errorf("cannot remove %s: %w", yumrepo.CloudConf, err)
		}
		return yumrepo.Thaw(ctx, h, c)
	}
	if err := yumrepo.WriteCloudConf(ctx, h); err != nil {
		return err
	}
	bases := map[string]string{}
	for _, r := range repos {
		if r.Floating == "" {
			bases[r.ID] = r.Base
		}
	}
	if err := remember(ctx, h, release, bases); err != nil {
		return err
	}
	return yumrepo.Freeze(ctx, h, c, bases)
}

var repoinfo = regexp.MustCompile(`(?m)^(Repo-id|Repo-baseurl|Repo-mirrors)\s*: (\S*)`)

// Spoken asks yum where the core repository is. Repositories that are off are shown without being read.
func (f *Family) Spoken(ctx context.Context) (string, error) {
	if locked, err := f.locked(); err != nil || locked && f.byVersion() {
		return Installed, err
	}
	text, err := yumrepo.Ask(ctx, f.Options.Host, "yum", "-C", "-v", "--disablerepo=*", "repolist", "all")
	if err != nil {
		return "", err
	}
	id, found := "", false
	for _, m := range repoinfo.FindAllStringSubmatch(text, -1) {
		switch {
		case m[1] == "Repo-id":
			id, _, _ = strings.Cut(m[2], "/") // yum adds the release and the architecture
			found = found || id == core
		case id == core && m[1] == "Repo-baseurl":
			if content := yumrepo.ContentID(m[2]); content != "" {
				return content, nil
			}
		}
	}
	if !found {
		return "", errors.New("cannot tell the release by what yum shows: it knows no repository " + core)
	}
	return pin.Latest, nil
}

// Diff reads the indexes of a release, and the database of installed packages.
func (f *Family) Diff(ctx context.Context, release string) ([]pin.Change, error) {
	if release == pin.Latest {
		release = pin.Now
	}
	_, repos, err := f.Resolve(ctx, release)
	if err != nil {
		return nil, err
	}
	c, err := f.load()
	if err != nil {
		return nil, err
	}
	var opened []yumrepo.Opened
	for _, r := range c.Enabled() {
		for _, at := range repos {
			if at.ID != r.ID || at.Base == "" {
				continue
			}
			data, err := rpmmd.Open(ctx, f.Options.Client, at.Base)
			if err != nil {
				return nil, err
			}
			opened = append(opened, yumrepo.Opened{Repo: r, Address: at.Address, Data: data})
		}
	}
	installed, err := f.Manager.All(ctx)
	if err != nil {
		return nil, err
	}
	return yumrepo.Diff(ctx, f.Options.Client, opened, installed)
}

// Move freezes and updates. yum goes by the files, so they come first, and go back when it fails.
func (f *Family) Move(ctx context.Context, release string, repos []pin.Repository, downgrade bool, talk pkgmgr.Talk) error {
	if f.byVersion() {
		return diag.WithHint(fmt.Errorf("%w: versionlock holds packages where they are", pin.ErrRefused), "unlock, update, and lock again")
	}
	c, err := f.load()
	if err != nil {
		return err
	}
	files := []string{yumrepo.CloudConf}
	for _, r := range c.Enabled() {
		files = append(files, r.File)
	}
	return host.Swapped(ctx, f.Options.Host, files, func() error {
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
