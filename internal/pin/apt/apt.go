// Package apt holds Debian and Ubuntu at a moment of their snapshot servers, as
// "20260401T000000Z".
//
// apt 2.7.12 and newer take the moment from their configuration (APT::Snapshot)
// and know the snapshot servers of Debian, Ubuntu and PPAs. It goes into
// apt.conf.d rather than into the sources, because cloud-init writes those anew
// later in the boot. Older ones that have the feature (2.7.1; Ubuntu's 2.4.11
// and 2.0.10) want an option in every source besides; those without it, as
// Debian 12's 2.6, ignore the setting in silence, so they are refused, unless
// the sources are to be rewritten to the snapshot server's own addresses.
// Sources: apt's changelog, apt.conf(5), sources.list(5), and `apt-config dump Acquire::Snapshots`.
package apt

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/pin"
	"github.com/amiagent/amiagent/internal/pkgmgr"
	"github.com/amiagent/amiagent/internal/repodata/debian"
)

const (
	confFile  = "/etc/apt/apt.conf.d/50amiagent-snapshot"
	cloudFile = "/etc/cloud/cloud.cfg.d/95_amiagent-pin.cfg"

	form    = "20060102T150405Z"
	asking  = time.Minute
	byURL   = "url"
	placeID = "@SNAPSHOTID@"
)

// Family is pin.Family for Debian and Ubuntu.
type Family struct {
	pin.Options
	now func() time.Time
}

// New is the family on a machine with apt. o.By may be "url": rewrite the sources.
func New(o pin.Options) *Family { return &Family{Options: o, now: time.Now} }

// Name is the OS's id and version.
func (f *Family) Name() string {
	return strings.TrimSpace(f.Facts.Get("os.id") + " " + f.Facts.Get("os.version"))
}

// ability is what an apt can do about snapshots by itself.
type ability int

const (
	none      ability = iota
	byOption          // where a source has an option that says so
	automatic         // wherever it knows a snapshot server
)

// abilityOf goes by the version, as Debian and Ubuntu have it.
func abilityOf(version string) ability {
	at := func(from, below string) bool {
		return debian.Compare(version, from) >= 0 && (below == "" || debian.Compare(version, below) < 0)
	}
	switch {
	case at("2.7.12~", ""):
		return automatic
	case at("2.7.1~", ""), at("2.4.11~", "2.5~"), at("2.0.10~", "2.1~"):
		return byOption
	}
	return none
}

func (f *Family) ability(ctx context.Context) (ability, string, error) {
	db, err := f.Manager.Installed(ctx, []string{"apt"})
	if err != nil {
		return none, "", err
	}
	have := db.Find("apt")
	if len(have) == 0 {
		return none, "", fmt.Errorf("cannot tell what apt can do: the package apt is not installed")
	}
	return abilityOf(have[0].Version), have[0].Version, nil
}

// Validate wants a moment in UTC.
func (f *Family) Validate(release string) error {
	if _, err := time.Parse(form, release); err != nil || len(release) != len(form) {
		return fmt.Errorf("%q is no moment of a snapshot server: want the form 20260401T000000Z, or latest or image", release)
	}
	return nil
}

// Compare orders moments. Their form is of one length, the highest unit first.
func (f *Family) Compare(a, b string) int { return strings.Compare(a, b) }

// State asks apt for its configuration, and looks at its sources.
func (f *Family) State(ctx context.Context) (pin.State, error) {
	var st pin.State
	spoken, err := f.configured(ctx)
	if err != nil {
		return st, err
	}
	all, err := sources(f.Host)
	if err != nil {
		return st, err
	}
	able, version, err := f.ability(ctx)
	if err != nil {
		return st, err
	}
	byAddress := f.inAddresses(all)
	st.Image = f.serial()
	switch {
	case byAddress != "" && spoken == "":
		st.Release, st.How = byAddress, "the addresses in apt's sources"
	case spoken == "":
		st.Release, st.How = pin.Latest, "no snapshot is set"
	case able == none:
		st.Release, st.How = pin.Latest, "APT::Snapshot is set, and apt "+version+" knows nothing of it"
		st.Odd = append(st.Odd, "apt "+version+" ignores APT::Snapshot; `by: url` holds the sources by their addresses")
	default:
		st.Release, st.How = spoken, "APT::Snapshot in "+f.confWith(spoken)
		if err := f.Validate(spoken); err != nil {
			st.Odd = append(st.Odd, "APT::Snapshot is set, and "+err.Error())
		}
	}
	if st.Release == pin.Latest {
		for _, s := range all {
			st.Floating = append(st.Floating, pin.Repository{ID: s.id(), Address: s.uri, Floating: "no snapshot is set"})
		}
		return st, nil
	}
	st.Floating, _, err = f.split(ctx, st.Release, all)
	return st, err
}

// configured is APT::Snapshot as apt itself reads its configuration.
func (f *Family) configured(ctx context.Context) (string, error) {
	res, err := f.Host.Run(ctx, host.Cmd{Argv: []string{"apt-config", "dump", "--format", "%v%n", "APT::Snapshot"}, Timeout: asking})
	if err != nil {
		return "", fmt.Errorf("cannot ask apt for its snapshot: %w", err)
	}
	return strings.TrimSpace(string(res.Stdout)), nil
}

// confWith is the file that sets the snapshot, as far as that can be seen.
func (f *Family) confWith(release string) string {
	entries, _ := f.Host.ReadDir("/etc/apt/apt.conf.d")
	found := "apt's configuration"
	for _, e := range entries {
		file := "/etc/apt/apt.conf.d/" + e.Name()
		if text, err := f.Host.ReadLimited(file, maxSources); err == nil && strings.Contains(string(text), release) {
			found = file
		}
	}
	return found
}

var inAddress = regexp.MustCompile(`/(\d{8}T\d{6}Z)(?:/|$)`)

// inAddresses is the moment that the sources' own addresses name, if they all name one at most.
func (f *Family) inAddresses(all []source) string {
	found := ""
	for _, s := range all {
		if m := inAddress.FindStringSubmatch(s.uri + "/"); m != nil {
			if found != "" && found != m[1] {
				return ""
			}
			found = m[1]
		}
	}
	return found
}

var serial = regexp.MustCompile(`(?m)^serial: (\d{8})(?:\.\d+)?$`)

// serial is the day on which the vendor built the image, by /etc/cloud/build.info of Ubuntu's images.
func (f *Family) serial() string {
	text, err := f.Host.ReadLimited("/etc/cloud/build.info", 64<<10)
	if err != nil {
		return ""
	}
	if m := serial.FindSubmatch(text); m != nil {
		return string(m[1]) + "T000000Z"
	}
	return ""
}

// Releases are any moment, so there is no list.
func (f *Family) Releases(context.Context) ([]pin.Release, error) { return nil, pin.ErrUnlisted }

// Spoken asks apt.
func (f *Family) Spoken(ctx context.Context) (string, error) {
	st, err := f.State(ctx)
	return st.Release, err
}

// Write sets the snapshot, and what of the sources goes with it.
func (f *Family) Write(ctx context.Context, release string, _ []pin.Repository) error {
	if release == pin.Latest {
		for _, file := range []string{confFile, cloudFile} {
			if err := f.Host.Remove(file); err != nil {
				return fmt.Errorf("cannot unlock: %w", err)
			}
		}
		return edit(ctx, f.Host, func(_, text string) string { return restored(text) })
	}
	able, _, err := f.ability(ctx)
	if err != nil {
		return err
	}
	if f.By != byURL {
		if err := write(ctx, f.Host, confFile, f.conf(release)); err != nil {
			return err
		}
		if able == automatic {
			return nil
		}
	}
	if f.Host.Exists("/etc/cloud") { // which would write the sources anew
		if err := write(ctx, f.Host, cloudFile, "# Written by amiagent: apt's sources are pinned.\napt:\n  preserve_sources_list: true\n"); err != nil {
			return err
		}
	}
	return edit(ctx, f.Host, func(file, text string) string {
		return rewritten(file, text, func(uri string) *change {
			address := f.snapshotOf(uri, release)
			switch {
			case address == "":
				return nil
			case f.By == byURL:
				// A Release file of the past is past its time of validity too.
				return &change{uri: address, options: map[string]string{"check-valid-until": "no"}}
			}
			return &change{options: map[string]string{"snapshot": "yes"}}
		})
	})
}

// servers are snapshot servers by host, where apt itself does not know them.
// https://documentation.ubuntu.com/server/how-to/software/snapshot-service/
func (f *Family) servers() map[string]string {
	all := map[string]string{"ports.ubuntu.com": "https://snapshot.ubuntu.com/ubuntu/" + placeID + "/"}
	for host, address := range f.Repositories {
		all[host] = address
	}
	return all
}

// conf is the text of the file in apt.conf.d.
func (f *Family) conf(release string) string {
	var b strings.Builder
	b.WriteString("// Written by amiagent: package repositories are held at this moment.\n")
	fmt.Fprintf(&b, "APT::Snapshot %q;\n", release)
	servers := f.servers()
	for _, host := range sortedKeys(servers) {
		fmt.Fprintf(&b, "Acquire::Snapshots::URI::Host::%s %q;\n", host, servers[host])
	}
	return b.String()
}

// snapshotOf is a source's address on its snapshot server, "" where none is known.
func (f *Family) snapshotOf(uri, release string) string {
	s := source{uri: uri}
	name, template := s.host(), ""
	switch {
	case f.servers()[name] != "":
		return byTemplate(uri, release, f.servers())
	case slices.Contains([]string{"deb.debian.org", "security.debian.org", "cdn-aws.deb.debian.org", "ftp.debian.org"}, name):
		template = "https://snapshot.debian.org/archive/" + s.path() + "/" + placeID + "/"
	case name == "archive.ubuntu.com", strings.HasSuffix(name, ".archive.ubuntu.com"), name == "security.ubuntu.com":
		template = "https://snapshot.ubuntu.com/ubuntu/" + placeID + "/"
	}
	return strings.ReplaceAll(template, placeID, release)
}

// Move sets the snapshot and upgrades; when that fails, the files go back.
func (f *Family) Move(ctx context.Context, release string, repos []pin.Repository, downgrade bool, talk pkgmgr.Talk) error {
	to := pkgmgr.Move{Downgrade: downgrade}
	if downgrade {
		changes, err := f.Diff(ctx, release)
		if err != nil {
			return err
		}
		for _, c := range changes {
			name := c.Name
			if c.Arch != "all" {
				name += ":" + c.Arch
			}
			to.Versions = append(to.Versions, pkgmgr.Want{Name: name, Version: c.To})
		}
	}
	names, err := files(f.Host)
	if err != nil {
		return err
	}
	return host.Swapped(ctx, f.Host, append(names, confFile, cloudFile), func() error {
		if err := f.Write(ctx, release, repos); err != nil {
			return err
		}
		return f.Manager.MoveTo(ctx, to, talk)
	})
}

// Unfrozen tells whether the servers of Repositories are in apt's configuration.
func (f *Family) Unfrozen() (string, error) {
	if len(f.Repositories) == 0 {
		return "", nil
	}
	text, err := read(f.Host, confFile)
	if err != nil || text == "" {
		return "", err // nothing is held, so nothing is by these
	}
	for _, host := range sortedKeys(f.Repositories) {
		if !strings.Contains(text, fmt.Sprintf("Host::%s %q;", host, f.Repositories[host])) {
			return "the snapshot server of " + host + " is not set", nil
		}
	}
	return "", nil
}

// Freeze has nothing to do: Write sets the servers beside the snapshot.
func (f *Family) Freeze(context.Context) error { return nil }

func refused(version string) error {
	return diag.WithHint(fmt.Errorf("%w: apt %s has no snapshots, and would ignore them in silence", pin.ErrRefused, version),
		"Debian 13 and Ubuntu 24.04 have them; here, `by: url` (--by url) rewrites the sources to the snapshot server's addresses")
}
