// Package yumrepo reads and edits what tells dnf and yum where their
// repositories are: the main configuration, the files of /etc/yum.repos.d, and
// the variables in their addresses. From that it opens the repositories as the
// manager would, with the machine's own addresses, at any release.
package yumrepo

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/host"
)

const maxFile = 4 << 20

// Section is one [section] of a file, with the place of its fields' lines.
type Section struct {
	ID     string
	Values map[string]string
	File   string
	Line   int            // of the header, from 0
	Lines  map[string]int // of each field
	End    int            // the line after the section's last
}

// ParseINI reads a file as Python's configparser does, on which yum's and
// dnf 4's readers build: "key = value" or "key: value", further lines of a
// value begin with white space, # and ; begin comments.
func ParseINI(file, text string) []Section {
	var all []Section
	var s *Section
	last := ""
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimRight(line, " \t\r")
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
			continue
		case line[0] == '[' && strings.HasSuffix(line, "]"):
			all = append(all, Section{ID: line[1 : len(line)-1], Values: map[string]string{}, File: file, Line: i, Lines: map[string]int{}, End: i + 1})
			s, last = &all[len(all)-1], ""
			continue
		case s == nil:
			continue
		case line[0] == ' ' || line[0] == '\t':
			if last != "" {
				s.Values[last] += "\n" + strings.TrimSpace(line)
				s.End = i + 1
			}
			continue
		}
		if at := strings.IndexAny(line, "=:"); at > 0 {
			last = strings.TrimSpace(line[:at])
			s.Values[last], s.Lines[last], s.End = strings.TrimSpace(line[at+1:]), i, i+1
		}
	}
	return all
}

// Repo is one repository as its file has it, variables not filled in.
type Repo struct {
	ID       string
	File     string
	Kind     string // mirrorlist, metalink or baseurl
	Address  string
	Enabled  bool
	Priority int
}

// Config is all that the manager knows of repositories.
type Config struct {
	Dialect Dialect
	Main    map[string]string
	Repos   []Repo
	Vars    map[string]Var
	// defaults stand in for variables that images set by other means than files.
	defaults map[string]string
}

// Load reads the configuration of a machine.
func Load(h *host.Host, f *facts.Facts, d Dialect) (*Config, error) {
	c := &Config{Dialect: d, Main: map[string]string{}}
	main, err := h.ReadLimited(d.Conf, maxFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read the configuration of %s: %w", d.Name, err)
	}
	for _, s := range ParseINI(d.Conf, string(main)) {
		if s.ID == "main" {
			c.Main = s.Values
		}
	}
	if dirs := c.Main["varsdir"]; dirs != "" {
		c.Dialect.VarsDirs = words(dirs)
	}
	if c.Vars, err = c.Dialect.Vars(h); err != nil {
		return nil, err
	}
	c.defaults = defaults(f)
	dirs := []string{"/etc/yum.repos.d", "/etc/yum/repos.d", "/etc/distro.repos.d"}
	if given := c.Main["reposdir"]; given != "" {
		dirs = words(given)
	}
	files := []string{d.Conf}
	for _, dir := range dirs {
		entries, err := h.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("cannot read the repositories of %s: %w", d.Name, err)
		}
		for _, e := range entries {
			if path.Ext(e.Name()) == ".repo" {
				files = append(files, path.Join(dir, e.Name()))
			}
		}
	}
	for _, file := range files {
		text, err := h.ReadLimited(file, maxFile)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read the repositories of %s: %w", d.Name, err)
		}
		for _, s := range ParseINI(file, string(text)) {
			if r, ok := repo(s); ok {
				c.Repos = append(c.Repos, r)
			}
		}
	}
	return c, nil
}

func words(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(" \t\n,", r) })
}

func repo(s Section) (Repo, bool) {
	r := Repo{ID: s.ID, File: s.File, Enabled: true, Priority: 99}
	if s.ID == "main" {
		return r, false
	}
	if v, ok := s.Values["enabled"]; ok {
		r.Enabled = isTrue(v)
	}
	if n, err := strconv.Atoi(s.Values["priority"]); err == nil {
		r.Priority = n
	}
	for _, kind := range []string{"metalink", "mirrorlist", "baseurl"} {
		if a := words(s.Values[kind]); r.Address == "" && len(a) > 0 {
			r.Kind, r.Address = kind, a[0]
		}
	}
	return r, r.Address != ""
}

func isTrue(s string) bool {
	return slices.Contains([]string{"1", "yes", "true", "on", "enabled"}, strings.ToLower(s))
}

// defaults are values of variables in Amazon's addresses for a machine that has
// no file with them, as Amazon's images have them.
func defaults(f *facts.Facts) map[string]string {
	domain := "amazonaws.com"
	if strings.HasPrefix(f.Get(facts.Region), "cn-") {
		domain = "amazonaws.com.cn"
	}
	return map[string]string{
		"basearch": BaseArch(f.Get(facts.Arch)), "arch": strings.Replace(BaseArch(f.Get(facts.Arch)), "i386", "i686", 1),
		"awsregion": cmp.Or(f.Get(facts.Region), "us-east-1"), "awsdomain": domain,
		"dualstack": ".dualstack", "mirrorlist": "mirror.list",
		"awsproto": "https", "amazonlinux": "amazonlinux", "product": "core", "target": "latest",
	}
}

// Values are the variables to fill in, with a release.
func (c *Config) Values(release string) map[string]string {
	all := map[string]string{}
	for k, v := range c.defaults {
		all[k] = v
	}
	for k, v := range c.Vars {
		all[k] = v.Value
	}
	major, minor, _ := strings.Cut(release, ".")
	all["releasever"], all["releasever_major"], all["releasever_minor"] = release, major, minor
	return all
}

// Enabled are the repositories in use.
func (c *Config) Enabled() []Repo {
	return slices.DeleteFunc(slices.Clone(c.Repos), func(r Repo) bool { return !r.Enabled })
}

// ByRelease tells whether the release decides what a repository has.
func (r Repo) ByRelease() bool {
	return Uses(r.Address, "releasever", "releasever_minor", "releasever_major")
}

// Frozen tells whether a repository's address names its content, as Amazon's
// mirror lists do with 12 or 64 hexadecimal digits: it can have nothing else, ever.
func (r Repo) Frozen() bool { return r.Kind == "baseurl" && ContentID(r.Address) != "" }

// ContentID is the content id in an address, or "".
func ContentID(address string) string {
	for part := range strings.SplitSeq(address, "/") {
		if (len(part) == 64 || len(part) == 12) && strings.Trim(part, "0123456789abcdef") == "" {
			return part
		}
	}
	return ""
}
