package pin

import (
	"cmp"
	"slices"

	"github.com/amiagent/amiagent/internal/pkgmgr"
	"github.com/amiagent/amiagent/internal/repodata"
)

// Compare makes the changes that bring installed packages to the versions that
// are offered, by name. Packages that are not offered stay. order compares two
// versions; notices whose fix lies between old and new go with a change.
func Compare(installed []pkgmgr.Package, offered func(pkgmgr.Package) (version string, ok bool), order func(a, b string) int, notices []repodata.Advisory) []Change {
	fixes := map[string][]fix{}
	for i := range notices {
		for _, p := range notices[i].Packages {
			fixes[p.Name] = append(fixes[p.Name], fix{p.Version, &notices[i]})
		}
	}
	var all []Change
	for _, p := range installed {
		to, ok := offered(p)
		if !ok || order(p.Version, to) == 0 {
			continue
		}
		c := Change{Name: p.Name, Arch: p.Arch, From: p.Version, To: to, Down: order(to, p.Version) < 0}
		for _, f := range fixes[p.Name] {
			between := order(f.version, p.Version) > 0 && order(f.version, to) <= 0
			if between && !slices.ContainsFunc(c.Advisories, func(a repodata.Advisory) bool { return a.ID == f.notice.ID }) {
				c.Advisories = append(c.Advisories, *f.notice)
			}
		}
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b Change) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Arch, b.Arch)) })
	return all
}

// fix is a version from which on a notice is settled.
type fix struct {
	version string
	notice  *repodata.Advisory
}
