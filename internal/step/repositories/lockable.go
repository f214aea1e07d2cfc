package repositories

import (
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/step"
)

// Offers implements step.Offerer: what has packages of its own must be read
// when they are locked, also where the repository is not on the machine yet.
func (r *Repository) Offers(f *facts.Facts) (step.RepositoryFile, bool) {
	if r.State == absent {
		return step.RepositoryFile{}, false
	}
	var p part
	switch f.Get(facts.PackageFamily) {
	case "apt":
		if r.Deb == nil {
			return step.RepositoryFile{}, false
		}
		p = r.Deb
	case "dnf", "dnf5", "yum":
		if r.RPM == nil {
			return step.RepositoryFile{}, false
		}
		p = r.RPM
	default:
		return step.RepositoryFile{}, false
	}
	return step.RepositoryFile{Path: p.file(r.name), Text: p.text(r.name, "")}, p.enabled()
}
