// Package offered finds the versions of packages that a machine's repositories
// offer, by reading the repositories themselves. So packages can be locked for
// another architecture or release than one's own, and for repositories that a
// manifest only adds.
//
// It chooses as the package managers do where nobody interferes: the repository
// with the better priority, then the highest version that is wanted. Excludes,
// modules and apt's preferences are not heeded; the machine's manager will
// refuse at the launch what they forbid.
package offered

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/lock"
	"github.com/amiagent/amiagent/internal/pkgmgr"
	"github.com/amiagent/amiagent/internal/repodata"
	"github.com/amiagent/amiagent/internal/repodata/debian"
	"github.com/amiagent/amiagent/internal/repodata/rpmmd"
	"github.com/amiagent/amiagent/internal/step"
)

// Options say whose repositories are read.
type Options struct {
	Facts  *facts.Facts // of the machine that packages are for
	Client *repodata.Client
	// Host has the files of the OS's own repositories; nil when nothing at hand has them.
	Host *host.Host
	// Files are repositories that the manifest adds.
	Files []step.RepositoryFile
	// Release is what $releasever is, and Bases are where repositories are at
	// the release that the lock pins, by id. Both may be empty.
	Release string
	Bases   map[string]string
}

// Repository is one repository that was read.
type Repository struct {
	ID       string
	Base     string // after mirror list and variables
	Metadata string // sha256:HEX of repomd.xml or InRelease
	priority int    // as dnf's: the lower number goes first
	packages map[string][]string
}

// Repositories are all that were read, for choosing.
type Repositories struct {
	All   []Repository
	order func(a, b string) int
}

// Read reads the indexes of all repositories of a machine, with one try more
// for each mirror. It returns soon after ctx ends.
func Read(ctx context.Context, o Options) (Repositories, error) {
	switch family := o.Facts.Get(facts.PackageFamily); family {
	case "apt":
		all, err := readDeb(ctx, o)
		return Repositories{all, debian.Compare}, err
	case "dnf", "dnf5", "yum":
		all, err := readRPM(ctx, o, family)
		return Repositories{all, rpmmd.Compare}, err
	default:
		return Repositories{}, fmt.Errorf("the package manager of %s is not known", lock.TargetOf(o.Facts))
	}
}

// ErrNotOffered is a package that no repository has in a version that is wanted.
var ErrNotOffered = errors.New("no repository offers it")

// Choose gives the version of a package to lock. want is a version, a glob or "".
func (r Repositories) Choose(name, want string) (lock.Package, error) {
	var best *Repository
	var version string
	var others []string
	for i := range r.All {
		repo := &r.All[i]
		for _, v := range repo.packages[name] {
			if !pkgmgr.Match(want, v) {
				others = append(others, v)
				continue
			}
			if best == nil || repo.priority < best.priority || repo.priority == best.priority && r.order(v, version) > 0 {
				best, version = repo, v
			}
		}
	}
	if best != nil {
		return lock.Package{Version: version, Repository: best.ID}, nil
	}
	if len(others) > 0 {
		slices.SortFunc(others, func(a, b string) int { return r.order(b, a) })
		others = slices.Compact(others)
		return lock.Package{}, diag.WithHint(fmt.Errorf("%w in version %s, only in %s", ErrNotOffered, want, strings.Join(others[:min(len(others), 5)], ", ")),
			"repositories drop old versions; name one that is there, or a glob")
	}
	return lock.Package{}, diag.WithHint(fmt.Errorf("%w: read were %s", ErrNotOffered, r.ids()), "check its name, and that its repository is among `repositories`")
}

func (r Repositories) ids() string {
	ids := map[string]bool{}
	for _, repo := range r.All {
		ids[repo.ID] = true
	}
	if len(ids) == 0 {
		return "none"
	}
	return strings.Join(slices.Sorted(maps.Keys(ids)), ", ")
}
