package offered

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/pin/yumrepo"
	"github.com/amiagent/amiagent/internal/step"
)

// readRPM reads the enabled repositories as dnf and yum would.
func readRPM(ctx context.Context, o Options, family string) ([]Repository, error) {
	dialect := yumrepo.DialectOf(family)
	added, err := load(o.Files, o.Facts, dialect)
	if err != nil {
		return nil, err
	}
	config := added
	if o.Host != nil {
		if config, err = yumrepo.Load(o.Host, o.Facts, dialect); err != nil {
			return nil, err
		}
		// A file of the manifest takes the place of one by its name.
		config.Repos = slices.DeleteFunc(config.Repos, func(r yumrepo.Repo) bool {
			return slices.ContainsFunc(added.Repos, func(a yumrepo.Repo) bool { return a.ID == r.ID })
		})
		config.Repos = append(config.Repos, added.Repos...)
	}
	release := o.Release
	if release == "" {
		if release = config.Vars["releasever"].Value; release == "" {
			release = o.Facts.Get(facts.OSVersion)
		}
	}
	var all []Repository
	for _, r := range config.Enabled() {
		if base := o.Bases[r.ID]; base != "" {
			r.Kind, r.Address = "baseurl", base
		}
		opened, err := config.Open(ctx, o.Client, r, release)
		if err != nil {
			return nil, fmt.Errorf("cannot read repository %s: %w", r.ID, err)
		}
		packages, err := opened.Data.Packages(ctx, o.Client)
		if err != nil {
			return nil, fmt.Errorf("cannot read repository %s: %w", r.ID, err)
		}
		repo := Repository{ID: r.ID, Base: opened.Data.Base, Metadata: opened.Data.Digest, priority: r.Priority, packages: map[string][]string{}}
		for _, p := range packages {
			if fits(p.Arch, o.Facts.Get(facts.Arch)) {
				repo.packages[p.Name] = append(repo.packages[p.Name], p.Version)
			}
		}
		all = append(all, repo)
	}
	return all, nil
}

// fits tells whether a package of an rpm architecture installs on a machine.
func fits(arch, goarch string) bool {
	if arch == "noarch" || arch == yumrepo.BaseArch(goarch) {
		return true
	}
	return goarch == "386" && slices.Contains([]string{"i486", "i586", "i686"}, arch)
}

// load reads files that lie nowhere as if they were a machine's.
func load(files []step.RepositoryFile, f *facts.Facts, dialect yumrepo.Dialect) (*yumrepo.Config, error) {
	dir, err := os.MkdirTemp("", "amiagent-lock-")
	if err != nil {
		return nil, fmt.Errorf("cannot read the manifest's repositories: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	for _, file := range files {
		name := filepath.Join(dir, file.Path)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return nil, fmt.Errorf("cannot read the manifest's repositories: %w", err)
		}
		if err := os.WriteFile(name, []byte(file.Text), 0o600); err != nil {
			return nil, fmt.Errorf("cannot read the manifest's repositories: %w", err)
		}
	}
	h, err := host.New(dir, host.Options{})
	if err != nil {
		return nil, err
	}
	return yumrepo.Load(h, f, dialect)
}
