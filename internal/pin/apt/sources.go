package apt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/amiagent/amiagent/internal/host"
)

const (
	maxSources = 4 << 20
	// was begins a comment that keeps the line below it as it was; alone, it says
	// that the line below it was not there.
	was = "# amiagent-was:"
)

// source is one address and suite of sources.list(5).
type source struct {
	file       string
	uri, suite string
	components []string
}

// where is the folder that has the suite's InRelease, below the address. A
// suite that ends in "/" is a path, of a flat repository.
func (s source) where() string {
	if strings.HasSuffix(s.suite, "/") {
		return "/" + strings.Trim(s.suite, "/")
	}
	return "/dists/" + s.suite
}

func (s source) host() string {
	u, err := url.Parse(s.uri)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// path is the address's own, without slashes at its ends.
func (s source) path() string {
	u, err := url.Parse(s.uri)
	if err != nil {
		return ""
	}
	return strings.Trim(u.Path, "/")
}

// id names the source for people.
func (s source) id() string { return s.host() + " " + s.suite }

// files are those that apt reads sources from.
func files(h *host.Host) ([]string, error) {
	all := []string{"/etc/apt/sources.list"}
	entries, err := h.ReadDir("/etc/apt/sources.list.d")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read apt's sources: %w", err)
	}
	for _, e := range entries {
		if ext := path.Ext(e.Name()); ext == ".list" || ext == ".sources" {
			all = append(all, "/etc/apt/sources.list.d/"+e.Name())
		}
	}
	return all, nil
}

func read(h *host.Host, file string) (string, error) {
	text, err := h.ReadLimited(file, maxSources)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("cannot read apt's sources: %w", err)
	}
	return string(text), nil
}

// sources are those of binary packages that are on.
func sources(h *host.Host) ([]source, error) {
	names, err := files(h)
	if err != nil {
		return nil, err
	}
	var all []source
	for _, f := range names {
		text, err := read(h, f)
		if err != nil {
			return nil, err
		}
		if path.Ext(f) == ".sources" {
			all = append(all, parse822(f, text)...)
		} else {
			all = append(all, parseList(f, text)...)
		}
	}
	return all, nil
}

var oneLine = regexp.MustCompile(`^(deb)(\s+)(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)(.*)$`)

func parseList(file, text string) []source {
	var all []source
	for line := range strings.Lines(text) {
		if m := oneLine.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			all = append(all, source{file, strings.TrimSuffix(m[4], "/"), m[5], strings.Fields(m[6])})
		}
	}
	return all
}

func parse822(file, text string) []source {
	var all []source
	for _, block := range strings.Split(text, "\n\n") {
		f := fields(strings.Split(block, "\n"))
		if strings.EqualFold(f["enabled"], "no") || !slices.Contains(strings.Fields(f["types"]), "deb") {
			continue
		}
		for _, uri := range strings.Fields(f["uris"]) {
			for _, suite := range strings.Fields(f["suites"]) {
				all = append(all, source{file, strings.TrimSuffix(uri, "/"), suite, strings.Fields(f["components"])})
			}
		}
	}
	return all
}

func fields(lines []string) map[string]string {
	all, last := map[string]string{}, ""
	for _, l := range lines {
		switch {
		case strings.HasPrefix(l, "#"):
		case strings.HasPrefix(l, " ") || strings.HasPrefix(l, "\t"):
			all[last] += " " + strings.TrimSpace(l)
		default:
			name, value, _ := strings.Cut(l, ":")
			last = strings.ToLower(strings.TrimSpace(name))
			all[last] = strings.TrimSpace(value)
		}
	}
	return all
}

// change is what becomes of one address: another address, and options beside it.
type change struct {
	uri     string            // "" leaves it
	options map[string]string // by their names in sources.list: snapshot, check-valid-until
}

// names822 are the options' names in deb822 files.
func names822(option string) string {
	return map[string]string{"snapshot": "Snapshot", "check-valid-until": "Check-Valid-Until"}[option]
}

// rewritten is a sources file with each address changed as decide says, nil for
// no change. What was there stands above each changed line.
func rewritten(file, text string, decide func(uri string) *change) string {
	text = restored(text)
	if path.Ext(file) == ".sources" {
		return rewritten822(text, decide)
	}
	var out []string
	for _, line := range strings.Split(text, "\n") {
		m := oneLine.FindStringSubmatch(line)
		var c *change
		if m != nil {
			c = decide(strings.TrimSuffix(m[4], "/"))
		}
		if c == nil {
			out = append(out, line)
			continue
		}
		options := strings.Fields(m[3])
		for _, name := range sortedKeys(c.options) {
			options = append(options, name+"="+c.options[name])
		}
		uri := m[4]
		if c.uri != "" {
			uri = c.uri
		}
		out = append(out, was+" "+line, strings.TrimRight(fmt.Sprintf("deb [%s] %s %s%s", strings.Join(options, " "), uri, m[5], m[6]), " "))
	}
	return strings.Join(out, "\n")
}

func sortedKeys(m map[string]string) []string {
	var all []string
	for k := range m {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}

// rewritten822 changes whole stanzas: their options hold for all their addresses.
func rewritten822(text string, decide func(uri string) *change) string {
	blocks := strings.Split(text, "\n\n")
	for i, block := range blocks {
		lines := strings.Split(block, "\n")
		f := fields(lines)
		options := map[string]string{}
		address := map[string]string{}
		for _, uri := range strings.Fields(f["uris"]) {
			if c := decide(strings.TrimSuffix(uri, "/")); c != nil {
				maps.Copy(options, c.options)
				if c.uri != "" {
					address[uri] = c.uri
				}
			}
		}
		if len(options) == 0 && len(address) == 0 || strings.EqualFold(f["enabled"], "no") {
			continue
		}
		var out []string
		inURIs := false
		for _, l := range lines {
			next := l
			name, _, _ := strings.Cut(l, ":")
			switch o := name822(options, name); {
			case strings.HasPrefix(l, "#"):
			case strings.EqualFold(strings.TrimSpace(name), "uris"), inURIs && strings.HasPrefix(l, " "), inURIs && strings.HasPrefix(l, "\t"):
				inURIs = true
				next = swapWords(l, address)
			case o != "":
				inURIs = false
				next = names822(o) + ": " + options[o]
				delete(options, o)
			default:
				inURIs = false
			}
			if next != l {
				out = append(out, was+" "+l)
			}
			out = append(out, next)
		}
		end := len(out)
		for end > 0 && out[end-1] == "" {
			end--
		}
		var more []string
		for _, o := range sortedKeys(options) {
			more = append(more, was, names822(o)+": "+options[o])
		}
		blocks[i] = strings.Join(slices.Insert(out, end, more...), "\n")
	}
	return strings.Join(blocks, "\n\n")
}

var word = regexp.MustCompile(`\S+`)

// swapWords replaces words of a line, and leaves its space as it is.
func swapWords(line string, by map[string]string) string {
	return word.ReplaceAllStringFunc(line, func(w string) string {
		if next, ok := by[w]; ok {
			return next
		}
		return w
	})
}

// name822 is the option that a field's name stands for, "" for none of these.
func name822(options map[string]string, field string) string {
	for o := range options {
		if strings.EqualFold(strings.TrimSpace(field), names822(o)) {
			return o
		}
	}
	return ""
}

// restored undoes rewritten.
func restored(text string) string {
	if !strings.Contains(text, was) {
		return text
	}
	lines := strings.Split(text, "\n")
	var out []string
	for i := 0; i < len(lines); i++ {
		old, ours := strings.CutPrefix(lines[i], was)
		if !ours {
			out = append(out, lines[i])
			continue
		}
		if old = strings.TrimPrefix(old, " "); old != "" {
			out = append(out, old)
		}
		i++ // ours, below it
	}
	return strings.Join(out, "\n")
}

// edit rewrites the files that change differs for.
func edit(ctx context.Context, h *host.Host, next func(file, text string) string) error {
	names, err := files(h)
	if err != nil {
		return err
	}
	for _, f := range names {
		text, err := read(h, f)
		if err != nil {
			return err
		}
		if n := next(f, text); n != text {
			if err := write(ctx, h, f, n); err != nil {
				return err
			}
		}
	}
	return nil
}

func write(ctx context.Context, h *host.Host, file, text string) error {
	if err := h.MkdirAll(path.Dir(file)); err != nil {
		return fmt.Errorf("cannot write %s: %w", file, err)
	}
	err := h.WriteFile(ctx, host.File{Path: file, Data: bytes.NewReader([]byte(text)), Mode: 0o644, UID: host.Keep, GID: host.Keep})
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", file, err)
	}
	return nil
}
