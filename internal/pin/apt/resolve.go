package apt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/pin"
	"github.com/amiagent/amiagent/internal/pkgmgr"
	"github.com/amiagent/amiagent/internal/repodata"
	"github.com/amiagent/amiagent/internal/repodata/debian"
)

// Resolve reads the Release file of every source at that moment, from where apt itself would.
func (f *Family) Resolve(ctx context.Context, release string) (string, []pin.Repository, error) {
	able, version, err := f.ability(ctx)
	if err != nil {
		return "", nil, err
	}
	if release == pin.Latest {
		return release, nil, nil
	}
	if able == none && f.By != byURL {
		return "", nil, refused(version)
	}
	now := f.now().UTC().Format(form)
	if release == pin.Now {
		release = now
	}
	if release > now {
		return "", nil, diag.WithHint(fmt.Errorf("%w: %s is in the future", pin.ErrNoRelease, release), "the nearest moment that exists is now, %s", now)
	}
	all, err := sources(f.Host)
	if err != nil {
		return "", nil, err
	}
	floating, held, err := f.split(ctx, release, all)
	if err != nil {
		return "", nil, err
	}
	if len(floating) > 0 && f.By != byURL && !f.listed() {
		// Some servers are known to apt only by what a Release file says of its origin.
		if err := f.Manager.Refresh(ctx, "", pkgmgr.Talk{}); err != nil {
			return "", nil, err
		}
		if floating, held, err = f.split(ctx, release, all); err != nil {
			return "", nil, err
		}
	}
	if len(held) == 0 {
		return "", nil, diag.WithHint(fmt.Errorf("%w: no source of this machine has a snapshot server that is known", pin.ErrRefused),
			"name one under `repositories`: the source's host, and an address with %s in it", placeID)
	}
	for i, r := range held {
		opened, err := debian.Open(ctx, f.Client, r.Base)
		if errors.Is(err, repodata.ErrAbsent) {
			return "", nil, diag.WithHint(fmt.Errorf("%w: %s for %s: %w", pin.ErrNoRelease, release, r.ID, err),
				"the snapshot server may be younger than that, or not have this suite")
		}
		if err != nil {
			return "", nil, fmt.Errorf("cannot validate release %s: %s: %w", release, r.ID, err)
		}
		held[i].Digest = opened.Digest
	}
	return release, append(held, floating...), nil
}

// listed tells whether apt has read its sources before.
func (f *Family) listed() bool {
	entries, _ := f.Host.ReadDir("/var/lib/apt/lists")
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return strings.HasSuffix(e.Name(), "Release") })
}

// split parts the sources by whether they have a snapshot at that moment.
func (f *Family) split(ctx context.Context, release string, all []source) (floating, held []pin.Repository, err error) {
	var bases []string
	known := map[string]string{}
	if f.By != byURL {
		if bases, err = f.bases(ctx, release); err != nil {
			return nil, nil, err
		}
		if known, err = f.known(ctx); err != nil {
			return nil, nil, err
		}
	}
	for _, s := range all {
		base := f.baseOf(s, release, bases, all, known)
		one := pin.Repository{ID: s.id(), Address: s.uri + s.where(), Base: base}
		if base == "" {
			one.Floating = "no snapshot server is known for it"
			floating = append(floating, one)
			continue
		}
		held = append(held, one)
	}
	return floating, held, nil
}

// baseOf is where a source's suite is at that moment, of the bases that apt
// named. apt does not say which base is for which source. Where several sources
// have a suite of one name, and not all have a base, those count as held whose server is known by its host.
func (f *Family) baseOf(s source, release string, bases []string, all []source, servers map[string]string) string {
	if strings.Contains(s.uri+"/", "/"+release+"/") {
		return s.uri + s.where()
	}
	if f.By == byURL {
		if a := f.snapshotOf(s.uri, release); a != "" {
			return strings.TrimSuffix(a, "/") + s.where()
		}
		return ""
	}
	fits := slices.DeleteFunc(slices.Clone(bases), func(b string) bool { return !strings.HasSuffix(b, s.where()) })
	alike := slices.DeleteFunc(slices.Clone(all), func(o source) bool { return o.where() != s.where() })
	known := strings.TrimSuffix(byTemplate(s.uri, release, servers), "/") + s.where()
	switch {
	case slices.Contains(fits, known):
		return known
	case len(fits) == 0, len(fits) < len(alike) && len(alike) > 1:
		return ""
	case len(fits) == 1:
		return fits[0]
	}
	return fits[slices.IndexFunc(alike, func(o source) bool { return o.uri == s.uri })%len(fits)]
}

var printed = regexp.MustCompile(`(?m)^'(\S+)/InRelease' `)

// bases are the suites' folders that apt would read from snapshot servers.
func (f *Family) bases(ctx context.Context, release string) ([]string, error) {
	argv := []string{"apt-get", "-o", "APT::Snapshot=" + release}
	servers := f.servers()
	for _, name := range sortedKeys(servers) {
		argv = append(argv, "-o", "Acquire::Snapshots::URI::Host::"+name+"="+servers[name])
	}
	res, err := f.Host.Run(ctx, host.Cmd{Argv: append(argv, "update", "--print-uris"), Timeout: asking})
	if err != nil {
		return nil, fmt.Errorf("cannot ask apt where its sources have snapshots: %w", err)
	}
	var all []string
	for _, m := range printed.FindAllStringSubmatch(string(res.Stdout), -1) {
		if strings.Contains(m[1], "/"+release+"/") {
			all = append(all, m[1])
		}
	}
	return all, nil
}

var server = regexp.MustCompile(`(?m)^Acquire::Snapshots::URI::Host::(\S+) "(.*)";$`)

// known are the snapshot servers by host that apt itself knows, and ours. A
// host that begins with a dot stands for all below it.
func (f *Family) known(ctx context.Context) (map[string]string, error) {
	res, err := f.Host.Run(ctx, host.Cmd{Argv: []string{"apt-config", "dump", "Acquire::Snapshots::URI::Host"}, Timeout: asking})
	if err != nil {
		return nil, fmt.Errorf("cannot ask apt for its snapshot servers: %w", err)
	}
	all := f.servers()
	for _, m := range server.FindAllStringSubmatch(string(res.Stdout), -1) {
		all[m[1]] = m[2]
	}
	return all, nil
}

// byTemplate fills in the server of an address's host, "" for none.
func byTemplate(uri, release string, servers map[string]string) string {
	s := source{uri: uri}
	template := servers[s.host()]
	for name, t := range servers {
		if template == "" && strings.HasPrefix(name, ".") && strings.HasSuffix(s.host(), name) {
			template = t
		}
	}
	return strings.NewReplacer(placeID, release, "@PATH@", s.path()).Replace(template)
}

// Diff reads the indexes of the suites at that moment.
func (f *Family) Diff(ctx context.Context, release string) ([]pin.Change, error) {
	if release == pin.Latest {
		release = pin.Now
	}
	_, repos, err := f.Resolve(ctx, release)
	if err != nil {
		return nil, err
	}
	best := map[string]string{}
	for _, r := range repos {
		if r.Base == "" {
			continue
		}
		suite, err := debian.Open(ctx, f.Client, r.Base)
		if err != nil {
			return nil, err
		}
		if suite.NotAutomatic {
			continue
		}
		components := f.components(r)
		if len(components) == 0 {
			components = []string{""} // a flat repository
		}
		for _, component := range components {
			all, err := suite.Packages(ctx, f.Client, component, f.Facts.Get("arch"))
			if err != nil {
				return nil, fmt.Errorf("cannot read what %s has: %w", r.ID, err)
			}
			for _, p := range all {
				key := p.Name + ":" + p.Arch
				if have, ok := best[key]; !ok || debian.Compare(p.Version, have) > 0 {
					best[key] = p.Version
				}
			}
		}
	}
	installed, err := f.Manager.All(ctx)
	if err != nil {
		return nil, err
	}
	return pin.Compare(installed, func(p pkgmgr.Package) (string, bool) {
		v, ok := best[p.Name+":"+p.Arch]
		return v, ok
	}, debian.Compare, nil), nil
}

// components are those that this machine uses of a suite.
func (f *Family) components(r pin.Repository) []string {
	all, err := sources(f.Host)
	if err != nil {
		return nil
	}
	var names []string
	for _, s := range all {
		if s.id() == r.ID {
			names = append(names, s.components...)
		}
	}
	return names
}
