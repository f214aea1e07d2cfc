package yumrepo

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/pin"
	"github.com/amiagent/amiagent/internal/pkgmgr"
	"github.com/amiagent/amiagent/internal/repodata"
)

// asking bounds a question to a package manager that reads no repository.
const asking = 2 * time.Minute

// Spoken is the release to which a package manager expands $releasever, in its
// own words. It reads files and the package database, no repository.
func Spoken(ctx context.Context, h *host.Host, d Dialect, load func() (*Config, error)) (string, error) {
	switch d.Name {
	case "dnf5":
		return spokenDnf5(ctx, h)
	case "yum":
		return spokenYum(ctx, h)
	}
	c, err := load()
	if err != nil {
		return "", err
	}
	// dnf 4 has no word for it, but shows repositories with their addresses
	// filled in; those that are off are shown without being read.
	res, err := Ask(ctx, h, "dnf", "-q", "-C", "--disablerepo=*", "repoinfo", "--all")
	if err != nil {
		return "", err
	}
	shown := parseRepoinfo(res)
	for _, r := range c.Enabled() {
		if !r.ByRelease() || shown[r.ID] == "" {
			continue
		}
		if release, ok := matchRelease(r.Address, shown[r.ID]); ok {
			return release, nil
		}
	}
	return "", errors.New("cannot tell the release by what dnf shows: no enabled repository goes by one")
}

// Ask is what a package manager prints to a question that reads no repository.
func Ask(ctx context.Context, h *host.Host, argv ...string) (string, error) {
	res, err := h.Run(ctx, host.Cmd{Argv: argv, Timeout: asking})
	if err != nil {
		return "", fmt.Errorf("cannot ask %s for its release: %w", argv[0], err)
	}
	return string(res.Stdout), nil
}

var repoinfo = regexp.MustCompile(`(?m)^(Repo-id|Repo-mirrors|Repo-metalink|Repo-baseurl)\s*: (.*)$`)

// parseRepoinfo reads the blocks of `dnf repoinfo`: address by repository. Its
// lines are kept whole, because a space at the end of an address is one of the traps.
func parseRepoinfo(text string) map[string]string {
	all, id := map[string]string{}, ""
	for _, m := range repoinfo.FindAllStringSubmatch(text, -1) {
		switch {
		case m[1] == "Repo-id":
			id = m[2]
		case all[id] == "":
			all[id] = m[2]
		}
	}
	return all
}

// matchRelease finds what stands for $releasever in an address.
func matchRelease(template, address string) (string, bool) {
	var b strings.Builder
	b.WriteString("^")
	last := 0
	group := false
	for _, at := range variable.FindAllStringIndex(template, -1) {
		b.WriteString(regexp.QuoteMeta(template[last:at[0]]))
		if !group && strings.Trim(template[at[0]:at[1]], "${}") == "releasever" {
			group = true
			b.WriteString("([^/]*)")
		} else {
			b.WriteString(".*")
		}
		last = at[1]
	}
	b.WriteString(regexp.QuoteMeta(template[last:]))
	re, err := regexp.Compile(b.String())
	if err != nil || !group {
		return "", false
	}
	m := re.FindStringSubmatch(address)
	if m == nil {
		return "", false
	}
	return m[1], true
}

var dumped = regexp.MustCompile(`(?m)^releasever = (.*)$`)

// spokenDnf5 asks by --dump-variables (dnf5(8)).
func spokenDnf5(ctx context.Context, h *host.Host) (string, error) {
	text, err := Ask(ctx, h, "dnf5", "--dump-variables")
	if err != nil {
		return "", err
	}
	if m := dumped.FindStringSubmatch(text); m != nil {
		return m[1], nil
	}
	return "", errors.New("cannot tell the release by what dnf5 shows: it knows no releasever")
}

var versioned = regexp.MustCompile(`(?m)^Installed: ([^/\s]*)/`)

// spokenYum asks by `yum version`, which prints "Installed: RELEASEVER/BASEARCH count:hash" (yumcommands.py, VersionCommand).
func spokenYum(ctx context.Context, h *host.Host) (string, error) {
	text, err := Ask(ctx, h, "yum", "-C", "version", "nogroups")
	if err != nil {
		return "", err
	}
	if m := versioned.FindStringSubmatch(text); m != nil {
		return m[1], nil
	}
	return "", errors.New("cannot tell the release by what yum shows")
}

// WriteVar sets a variable: one line, whole. The unfinished file is not in
// the variables' folder, where dnf would take it for a variable.
func WriteVar(ctx context.Context, h *host.Host, file, value string) error {
	if strings.TrimSpace(value) == "" || strings.ContainsAny(value, "\n\r") {
		return fmt.Errorf("cannot write %s: %q is no value", file, value)
	}
	dir := path.Dir(file)
	if err := h.MkdirAll(dir); err != nil {
		return fmt.Errorf("cannot write %s: %w", file, err)
	}
	// The folder above is on the same file system unless somebody mounted one
	// between, which the rename would tell.
	beside := path.Join(path.Dir(dir), ".amiagent-"+path.Base(file))
	if err := Write(ctx, h, beside, value+"\n"); err != nil {
		return err
	}
	if err := h.Rename(beside, file); err != nil {
		_ = h.Remove(beside)
		return fmt.Errorf("cannot write %s: %w", file, err)
	}
	return nil
}

// Diff compares what is installed with what a release has.
func (c *Config) Diff(ctx context.Context, client *repodata.Client, m *pkgmgr.Manager, release string) ([]pin.Change, error) {
	var opened []Opened
	for _, r := range c.Enabled() {
		if c.Floats(r) != "" {
			continue
		}
		o, err := c.Open(ctx, client, r, release)
		if errors.Is(err, repodata.ErrAbsent) && r.ByRelease() {
			return nil, fmt.Errorf("%w: %s for repository %s: %w", pin.ErrNoRelease, release, r.ID, err)
		}
		if err != nil {
			return nil, err
		}
		opened = append(opened, o)
	}
	installed, err := m.All(ctx)
	if err != nil {
		return nil, err
	}
	return Diff(ctx, client, opened, installed)
}
