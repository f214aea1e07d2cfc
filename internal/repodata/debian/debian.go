// Package debian reads Debian repositories, as apt uses them: Release or
// InRelease, and the Packages indexes that it lists.
// Format: https://wiki.debian.org/DebianRepository/Format
//
// Signatures are not checked here: what is read tells people what apt would do,
// and apt checks before it does.
package debian

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	version "github.com/knqyf263/go-deb-version"

	"github.com/amiagent/amiagent/internal/repodata"
)

// Release is one suite of a repository at one moment.
type Release struct {
	Base     string // address of the folder that has the indexes: .../dists/trixie, or the folder of a flat repository
	Digest   string // sha256:hex of the file that was read: the identity of all metadata
	Origin   string
	Suite    string
	Codename string
	Date     time.Time // when the repository was last changed; zero if it does not say
	// NotAutomatic is a suite from which nothing is installed unless asked for by name, as backports.
	NotAutomatic bool
	Files        map[string]File
}

// File is a document that a Release lists.
type File struct {
	Digest string // sha256:hex
	Size   int64
}

// Open reads InRelease, or Release where there is none, below base.
func Open(ctx context.Context, c *repodata.Client, base string) (Release, error) {
	base = strings.TrimSuffix(base, "/")
	text, err := c.Get(ctx, base+"/InRelease", repodata.MaxDocument)
	if errors.Is(err, repodata.ErrAbsent) {
		text, err = c.Get(ctx, base+"/Release", repodata.MaxDocument)
	}
	if err != nil {
		return Release{}, err
	}
	r, err := parseRelease(text)
	if err != nil {
		return Release{}, fmt.Errorf("cannot read the Release file below %s: %w", base, err)
	}
	r.Base = base
	return r, nil
}

func parseRelease(text []byte) (Release, error) {
	r := Release{Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(text)), Files: map[string]File{}}
	found := false
	err := Stanzas(bytes.NewReader(unsigned(text)), func(s Stanza) error {
		found = true
		r.Origin, r.Suite, r.Codename = s["Origin"], s["Suite"], s["Codename"]
		r.NotAutomatic = strings.EqualFold(s["NotAutomatic"], "yes")
		if at, err := time.Parse(time.RFC1123, s["Date"]); err == nil {
			r.Date = at.UTC()
		}
		for line := range strings.Lines(s["SHA256"]) {
			f := strings.Fields(line)
			if len(f) != 3 {
				continue
			}
			size, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				return fmt.Errorf("%q is no size", f[1])
			}
			r.Files[f[2]] = File{"sha256:" + f[0], size}
		}
		return nil
	})
	if err == nil && !found {
		err = errors.New("it is empty")
	}
	return r, err
}

// unsigned is the text inside a clear signature (RFC 9580 §7), or all of it.
func unsigned(text []byte) []byte {
	const begin, signature = "-----BEGIN PGP SIGNED MESSAGE-----", "\n-----BEGIN PGP SIGNATURE-----"
	if !bytes.HasPrefix(text, []byte(begin)) {
		return text
	}
	if _, body, ok := bytes.Cut(text, []byte("\n\n")); ok {
		text = body
	}
	text, _, _ = bytes.Cut(text, []byte(signature))
	return bytes.ReplaceAll(text, []byte("\n- "), []byte("\n"))
}

// compressions are the forms of an index that are read, best first.
var compressions = []string{".xz", ".zst", ".gz", ".bz2", ""}

// Packages are the packages of one component for one architecture; component
// "" is a flat repository. An index that the suite does not list has none.
func (r Release) Packages(ctx context.Context, c *repodata.Client, component, arch string) ([]repodata.Package, error) {
	name := "Packages"
	if component != "" {
		name = component + "/binary-" + arch + "/Packages"
	}
	for _, ext := range compressions {
		if _, ok := r.Files[name+ext]; !ok {
			continue
		}
		var all []repodata.Package
		err := c.Read(ctx, r.Base+"/"+name+ext, repodata.MaxIndex, func(in io.Reader) (err error) {
			all, err = parsePackages(in)
			return err
		})
		if errors.Is(err, repodata.ErrAbsent) {
			continue // the plain form is often listed and not there
		}
		return all, err
	}
	return nil, nil
}

func parsePackages(in io.Reader) ([]repodata.Package, error) {
	var all []repodata.Package
	err := Stanzas(in, func(s Stanza) error {
		if s["Package"] == "" || s["Version"] == "" {
			return errors.New("an entry has no name or no version")
		}
		p := repodata.Package{Name: s["Package"], Arch: s["Architecture"], Version: strings.TrimPrefix(s["Version"], "0:"), Location: s["Filename"]}
		if s["SHA256"] != "" {
			p.Digest = "sha256:" + s["SHA256"]
		}
		p.Size, _ = strconv.ParseInt(s["Size"], 10, 64)
		all = append(all, p)
		return nil
	})
	return all, err
}

// Stanza is one paragraph: field to value, further lines of a value kept apart by newlines.
type Stanza map[string]string

// wanted are the fields that are kept of large indexes.
var wanted = []string{"Package", "Version", "Architecture", "Filename", "SHA256", "Size", "Origin", "Suite", "Codename", "Date", "NotAutomatic"}

// Stanzas reads paragraphs in the form of deb822(5). Fields that nobody here wants are passed over.
func Stanzas(in io.Reader, found func(Stanza) error) error {
	sc := bufio.NewScanner(in)
	sc.Buffer(make([]byte, 64<<10), 8<<20)
	s, last := Stanza{}, ""
	end := func() error {
		if len(s) == 0 {
			return nil
		}
		err := found(s)
		s, last = Stanza{}, ""
		return err
	}
	for sc.Scan() {
		line := strings.TrimRight(sc.Text(), " \t\r")
		switch {
		case line == "":
			if err := end(); err != nil {
				return err
			}
		case line[0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			if last != "" {
				s[last] += "\n" + strings.TrimSpace(line)
			}
		default:
			name, value, ok := strings.Cut(line, ":")
			if !ok {
				return fmt.Errorf("%q is no field", line)
			}
			last = ""
			if i := slices.IndexFunc(wanted, func(w string) bool { return strings.EqualFold(w, name) }); i >= 0 {
				last = wanted[i]
				s[last] = strings.TrimSpace(value)
			}
		}
	}
	return cmp.Or(sc.Err(), end())
}

// Compare orders two versions as dpkg does. What is no version is older than all that are.
func Compare(a, b string) int {
	va, errA := version.NewVersion(a)
	vb, errB := version.NewVersion(b)
	switch {
	case errA != nil && errB != nil:
		return strings.Compare(a, b)
	case errA != nil:
		return -1
	case errB != nil:
		return 1
	}
	return va.Compare(vb)
}
