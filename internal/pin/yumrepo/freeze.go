package yumrepo

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/pin"
	"github.com/amiagent/amiagent/internal/repodata"
	"github.com/amiagent/amiagent/internal/repodata/rpmmd"
)

// was begins a line that a freeze has put out of force, kept for unlock. To the
// package managers it is a comment.
const was = "#amiagent-was: "

// body is the range of lines that belong to a section: from below its header to
// the next header or the end.
func body(lines []string, id string) (from, to int, ok bool) {
	for i, line := range lines {
		header := strings.HasPrefix(line, "[") && strings.HasSuffix(strings.TrimRight(line, " \t\r"), "]")
		switch {
		case header && ok:
			return from, i, true
		case header && strings.TrimRight(line, " \t\r") == "["+id+"]":
			from, ok = i+1, true
		}
	}
	return from, len(lines), ok
}

// frozen is a file's text with one section's address replaced by base, and what
// was there kept beside it. A section that was frozen before keeps its original.
func frozen(text, id, base string) string {
	text = thawed(text, id)
	lines := strings.Split(text, "\n")
	from, to, ok := body(lines, id)
	if !ok {
		return text
	}
	out := slices.Clone(lines[:from])
	out = append(out, "baseurl="+base)
	address := false
	for _, line := range lines[from:to] {
		if !strings.HasPrefix(line, " ") && !strings.HasPrefix(line, "\t") { // else it goes on with the field above
			key, _, _ := strings.Cut(line, "=")
			address = slices.Contains([]string{"mirrorlist", "metalink", "baseurl"}, strings.TrimSpace(key))
		}
		if address && strings.TrimSpace(line) != "" {
			line = was + line
		}
		out = append(out, line)
	}
	if !slices.ContainsFunc(out[from:], func(l string) bool { return strings.HasPrefix(l, was) }) {
		return text // it has no address to be replaced
	}
	return strings.Join(append(out, lines[to:]...), "\n")
}

// thawed is a file's text as it was before frozen.
func thawed(text, id string) string {
	lines := strings.Split(text, "\n")
	from, to, ok := body(lines, id)
	if !ok || !slices.ContainsFunc(lines[from:to], func(l string) bool { return strings.HasPrefix(l, was) }) {
		return text
	}
	out := slices.Clone(lines[:from])
	for i, line := range lines[from:to] {
		if i == 0 && strings.HasPrefix(line, "baseurl=") {
			continue
		}
		out = append(out, strings.TrimPrefix(line, was))
	}
	return strings.Join(append(out, lines[to:]...), "\n")
}

// Freeze gives repositories, by id, a fixed address in their files. A file is
// written whole, after all of its sections were changed.
func Freeze(ctx context.Context, h *host.Host, c *Config, bases map[string]string) error {
	return edit(ctx, h, c, func(text, id string) string {
		if base, ok := bases[id]; ok {
			return frozen(text, id, base)
		}
		return text
	})
}

// Thaw undoes Freeze for every repository, those that are off included.
func Thaw(ctx context.Context, h *host.Host, c *Config) error { return edit(ctx, h, c, thawed) }

func edit(ctx context.Context, h *host.Host, c *Config, change func(text, id string) string) error {
	byFile := map[string][]string{}
	for _, r := range c.Repos {
		byFile[r.File] = append(byFile[r.File], r.ID)
	}
	for _, file := range slices.Sorted(maps.Keys(byFile)) {
		text, err := h.ReadLimited(file, maxFile)
		if err != nil {
			return fmt.Errorf("cannot edit %s: %w", file, err)
		}
		next := string(text)
		for _, id := range byFile[file] {
			next = change(next, id)
		}
		if next == string(text) {
			continue
		}
		if err := Write(ctx, h, file, next); err != nil {
			return err
		}
	}
	return nil
}

// Write writes a file of the package manager, whole, readable by all.
func Write(ctx context.Context, h *host.Host, file, text string) error {
	err := h.WriteFile(ctx, host.File{Path: file, Data: bytes.NewReader([]byte(text)), Mode: 0o644, UID: host.Keep, GID: host.Keep})
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", file, err)
	}
	return nil
}

// Original is the address that a frozen repository had, as its file keeps it.
func Original(h *host.Host, r Repo) (Repo, bool) {
	text, err := h.ReadLimited(r.File, maxFile)
	if err != nil {
		return r, false
	}
	back := thawed(string(text), r.ID)
	if back == string(text) {
		return r, false
	}
	for _, s := range ParseINI(r.File, back) {
		if s.ID == r.ID {
			return repo(s)
		}
	}
	return r, false
}

// ByHand holds single repositories at addresses that the operator names. It is
// pin.Freezer for the families of dnf and yum.
type ByHand struct {
	Host   *host.Host
	Client *repodata.Client
	Load   func() (*Config, error)
	Bases  map[string]string
}

// Unfrozen tells which repositories do not have the address they should.
func (b ByHand) Unfrozen() (string, error) {
	if len(b.Bases) == 0 {
		return "", nil
	}
	c, err := b.Load()
	if err != nil {
		return "", err
	}
	for _, id := range slices.Sorted(maps.Keys(b.Bases)) {
		r, err := c.find(id)
		if err != nil {
			return "", err
		}
		if r.Kind != "baseurl" || r.Address != b.Bases[id] {
			return fmt.Sprintf("repository %s is at %s, want %s", id, r.Address, b.Bases[id]), nil
		}
	}
	return "", nil
}

// Freeze reads each address, then writes them.
func (b ByHand) Freeze(ctx context.Context) error {
	if len(b.Bases) == 0 {
		return nil
	}
	c, err := b.Load()
	if err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(b.Bases)) {
		if _, err := c.find(id); err != nil {
			return err
		}
		base, _ := Expand(b.Bases[id], c.Values(""))
		if _, err := rpmmd.Open(ctx, b.Client, base); err != nil {
			return fmt.Errorf("%w: repository %s cannot be frozen: %w", pin.ErrNoRelease, id, err)
		}
	}
	return Freeze(ctx, b.Host, c, b.Bases)
}

func (c *Config) find(id string) (Repo, error) {
	var ids []string
	for _, r := range c.Repos {
		if r.ID == id {
			return r, nil
		}
		ids = append(ids, r.ID)
	}
	return Repo{}, diag.WithHint(fmt.Errorf("cannot freeze repository %s: this machine has none of that name", id),
		"it has %s", strings.Join(ids, ", "))
}
