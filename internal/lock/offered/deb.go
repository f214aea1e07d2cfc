package offered

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/repodata/debian"
	"github.com/amiagent/amiagent/internal/step"
)

const maxSources = 4 << 20

// suite is one address and suite of sources.list(5).
type suite struct {
	uri, name  string
	components []string
	archs      []string // nil: all
}

// id is the server and the suite, as `amiagent pin status` shows it.
func (s suite) id() string {
	if u, err := url.Parse(s.uri); err == nil && u.Hostname() != "" {
		return u.Hostname() + " " + s.name
	}
	return s.uri + " " + s.name
}

func (s suite) base() string {
	if strings.HasSuffix(s.name, "/") { // a flat repository
		return strings.TrimSuffix(s.uri+"/"+strings.TrimPrefix(s.name, "./"), "/")
	}
	return s.uri + "/dists/" + s.name
}

// readDeb reads the suites as apt would.
func readDeb(ctx context.Context, o Options) ([]Repository, error) {
	files := slices.Clone(o.Files)
	if o.Host != nil {
		own, err := sourceFiles(o.Host)
		if err != nil {
			return nil, err
		}
		files = append(own, files...)
	}
	arch := o.Facts.Get(facts.Arch)
	if arch == "386" {
		arch = "i386"
	}
	var all []Repository
	for _, s := range suites(files) {
		if s.archs != nil && !slices.Contains(s.archs, arch) {
			continue
		}
		base := s.base()
		if b := o.Bases[s.id()]; b != "" {
			base = b
		}
		release, err := debian.Open(ctx, o.Client, base)
		if err != nil {
			return nil, fmt.Errorf("cannot read repository %s: %w", s.id(), err)
		}
		repo := Repository{ID: s.id(), Base: base, Metadata: release.Digest, packages: map[string][]string{}}
		if release.NotAutomatic {
			repo.priority = 1 // nothing comes from there that another has
		}
		for _, component := range s.components {
			packages, err := release.Packages(ctx, o.Client, component, arch)
			if err != nil {
				return nil, fmt.Errorf("cannot read repository %s: %w", s.id(), err)
			}
			for _, p := range packages {
				if p.Arch == arch || p.Arch == "all" {
					repo.packages[p.Name] = append(repo.packages[p.Name], p.Version)
				}
			}
		}
		all = append(all, repo)
	}
	return all, nil
}

// sourceFiles are the files in which apt finds its sources.
func sourceFiles(h *host.Host) ([]step.RepositoryFile, error) {
	const dir = "/etc/apt/sources.list.d"
	names := []string{"/etc/apt/sources.list"}
	entries, err := h.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read apt's sources: %w", err)
	}
	for _, e := range entries {
		if ext := path.Ext(e.Name()); ext == ".list" || ext == ".sources" {
			names = append(names, path.Join(dir, e.Name()))
		}
	}
	var all []step.RepositoryFile
	for _, name := range names {
		text, err := h.ReadLimited(name, maxSources)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read apt's sources: %w", err)
		}
		all = append(all, step.RepositoryFile{Path: name, Text: string(text)})
	}
	return all, nil
}

// suites reads sources.list(5): one line each, or deb822.
func suites(files []step.RepositoryFile) []suite {
	var all []suite
	for _, f := range files {
		if path.Ext(f.Path) == ".sources" {
			for block := range strings.SplitSeq(f.Text, "\n\n") {
				all = append(all, stanza(block)...)
			}
			continue
		}
		for line := range strings.Lines(f.Text) {
			all = append(all, oneLine(line)...)
		}
	}
	return all
}

var binary = regexp.MustCompile(`^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)([^#]*)`)

func oneLine(line string) []suite {
	m := binary.FindStringSubmatch(line)
	if m == nil {
		return nil
	}
	s := suite{uri: strings.TrimSuffix(m[2], "/"), name: m[3], components: strings.Fields(m[4])}
	for option := range strings.FieldsSeq(m[1]) {
		if v, ok := strings.CutPrefix(option, "arch="); ok {
			s.archs = strings.Split(v, ",")
		}
	}
	return []suite{s.flat()}
}

// flat repositories have one index, without components.
func (s suite) flat() suite {
	if strings.HasSuffix(s.name, "/") {
		s.components = []string{""}
	}
	return s
}

func stanza(block string) []suite {
	fields, last := map[string][]string{}, ""
	for line := range strings.Lines(block) {
		name, value, ok := strings.Cut(line, ":")
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, " "), strings.HasPrefix(line, "\t"):
			fields[last] = append(fields[last], strings.Fields(line)...)
		case ok:
			last = strings.ToLower(strings.TrimSpace(name))
			fields[last] = strings.Fields(value)
		}
	}
	off := len(fields["enabled"]) == 1 && slices.Contains([]string{"no", "false", "0"}, strings.ToLower(fields["enabled"][0]))
	if off || !slices.Contains(fields["types"], "deb") {
		return nil
	}
	var all []suite
	for _, uri := range fields["uris"] {
		for _, name := range fields["suites"] {
			all = append(all, suite{strings.TrimSuffix(uri, "/"), name, fields["components"], fields["architectures"]}.flat())
		}
	}
	return all
}
