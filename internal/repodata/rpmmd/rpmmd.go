// Package rpmmd reads rpm-md repositories, as dnf and yum use them: the mirror
// list, repodata/repomd.xml, the primary index and the advisories (updateinfo).
// Formats: https://github.com/rpm-software-management/createrepo_c, and the
// examples in its tests.
package rpmmd

import (
	"context"
	"crypto/sha256"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	version "github.com/knqyf263/go-rpm-version"

	"github.com/amiagent/amiagent/internal/repodata"
)

// Repo is one repository at one moment: its base, and what its repomd.xml says.
type Repo struct {
	Base   string // address of the folder that has repodata/
	Digest string // sha256:hex of repomd.xml: the identity of all metadata
	Data   map[string]Data
}

// Data is one document of the metadata.
type Data struct {
	Location string // below Base
	Digest   string // algorithm:hex, as published
	Size     int64
}

// Mirrors reads a mirror list, plain text with one base a line, or a metalink.
// There is one address at least.
func Mirrors(ctx context.Context, c *repodata.Client, address string) ([]string, error) {
	text, err := c.Get(ctx, address, repodata.MaxDocument)
	if err != nil {
		return nil, err
	}
	bases := parseMirrors(string(text))
	if len(bases) == 0 {
		return nil, fmt.Errorf("cannot use %s: it names no repository", address)
	}
	return bases, nil
}

func parseMirrors(text string) []string {
	var bases []string
	if strings.HasPrefix(strings.TrimSpace(text), "<") {
		for _, part := range strings.Split(text, "<url ")[1:] {
			_, rest, _ := strings.Cut(part, ">")
			address, _, _ := strings.Cut(rest, "<")
			if base, ok := strings.CutSuffix(strings.TrimSpace(address), "repodata/repomd.xml"); ok && strings.HasPrefix(base, "http") {
				bases = append(bases, base)
			}
		}
		return bases
	}
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			bases = append(bases, line)
		}
	}
	return bases
}

// Open reads a repository's repomd.xml.
func Open(ctx context.Context, c *repodata.Client, base string) (Repo, error) {
	r := Repo{Base: base, Data: map[string]Data{}}
	address := r.address("repodata/repomd.xml")
	text, err := c.Get(ctx, address, repodata.MaxDocument)
	if err != nil {
		return r, err
	}
	var doc struct {
		XMLName xml.Name `xml:"repomd"`
		Data    []struct {
			Type     string `xml:"type,attr"`
			Checksum struct {
				Type string `xml:"type,attr"`
				Sum  string `xml:",chardata"`
			} `xml:"checksum"`
			Location struct {
				Href string `xml:"href,attr"`
			} `xml:"location"`
			Size int64 `xml:"size"`
		} `xml:"data"`
	}
	if err := Decoder(strings.NewReader(string(text))).Decode(&doc); err != nil {
		return r, fmt.Errorf("cannot read %s: %w", address, err)
	}
	for _, d := range doc.Data {
		r.Data[d.Type] = Data{d.Location.Href, d.Checksum.Type + ":" + strings.TrimSpace(d.Checksum.Sum), d.Size}
	}
	r.Digest = fmt.Sprintf("sha256:%x", sha256.Sum256(text))
	return r, nil
}

func (r Repo) address(below string) string {
	// The base may have a query, as a signature; the path goes before it.
	u, err := url.Parse(r.Base)
	if err != nil {
		return strings.TrimSuffix(r.Base, "/") + "/" + below
	}
	return u.JoinPath(below).String()
}

// ErrNone is metadata that a repository does not have.
var ErrNone = errors.New("the repository has no such metadata")

func (r Repo) read(ctx context.Context, c *repodata.Client, kind string, read func(io.Reader) error) error {
	d, ok := r.Data[kind]
	if !ok {
		return fmt.Errorf("cannot read %s of %s: %w", kind, r.Base, ErrNone)
	}
	return c.Read(ctx, r.address(d.Location), repodata.MaxIndex, read)
}

// Packages are all packages of the primary index, source packages left out.
func (r Repo) Packages(ctx context.Context, c *repodata.Client) ([]repodata.Package, error) {
	var all []repodata.Package
	err := r.read(ctx, c, "primary", func(in io.Reader) (err error) {
		all, err = primary(in)
		return err
	})
	return all, err
}

type evr struct {
	Epoch   string `xml:"epoch,attr"`
	Version string `xml:"ver,attr"`
	Release string `xml:"rel,attr"`
}

func (v evr) String() string {
	s := v.Version + "-" + v.Release
	if v.Epoch != "" && v.Epoch != "0" {
		s = v.Epoch + ":" + s
	}
	return s
}

func primary(in io.Reader) ([]repodata.Package, error) {
	var all []repodata.Package
	err := each(in, "package", func(d *xml.Decoder, start xml.StartElement) error {
		var p struct {
			Name     string `xml:"name"`
			Arch     string `xml:"arch"`
			Version  evr    `xml:"version"`
			Checksum struct {
				Type string `xml:"type,attr"`
				Sum  string `xml:",chardata"`
			} `xml:"checksum"`
			Size struct {
				Package int64 `xml:"package,attr"`
			} `xml:"size"`
			Location struct {
				Href string `xml:"href,attr"`
			} `xml:"location"`
		}
		if err := d.DecodeElement(&p, &start); err != nil {
			return err
		}
		if p.Arch == "src" {
			return nil
		}
		digest := ""
		if p.Checksum.Sum != "" {
			digest = p.Checksum.Type + ":" + strings.TrimSpace(p.Checksum.Sum)
		}
		all = append(all, repodata.Package{Name: p.Name, Arch: p.Arch, Version: p.Version.String(),
			Location: p.Location.Href, Size: p.Size.Package, Digest: digest})
		return nil
	})
	return all, err
}

// Advisories are the notices of updateinfo.xml. A repository without any has none.
func (r Repo) Advisories(ctx context.Context, c *repodata.Client) ([]repodata.Advisory, error) {
	var all []repodata.Advisory
	err := r.read(ctx, c, "updateinfo", func(in io.Reader) (err error) {
		all, err = updateinfo(in)
		return err
	})
	if errors.Is(err, ErrNone) {
		return nil, nil
	}
	return all, err
}

func updateinfo(in io.Reader) ([]repodata.Advisory, error) {
	var all []repodata.Advisory
	err := each(in, "update", func(d *xml.Decoder, start xml.StartElement) error {
		var u struct {
			Type     string `xml:"type,attr"`
			ID       string `xml:"id"`
			Severity string `xml:"severity"`
			Packages []struct {
				Name    string `xml:"name,attr"`
				Arch    string `xml:"arch,attr"`
				Epoch   string `xml:"epoch,attr"`
				Version string `xml:"version,attr"`
				Release string `xml:"release,attr"`
			} `xml:"pkglist>collection>package"`
		}
		if err := d.DecodeElement(&u, &start); err != nil {
			return err
		}
		a := repodata.Advisory{ID: u.ID, Type: u.Type, Severity: u.Severity}
		for _, p := range u.Packages {
			v := evr{p.Epoch, p.Version, p.Release}.String()
			a.Packages = append(a.Packages, repodata.Package{Name: p.Name, Arch: p.Arch, Version: v})
		}
		all = append(all, a)
		return nil
	})
	return all, err
}

// each calls found for every element of a name, wherever it stands.
func each(in io.Reader, name string, found func(*xml.Decoder, xml.StartElement) error) error {
	d := Decoder(in)
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if start, ok := t.(xml.StartElement); ok && start.Name.Local == name {
			if err := found(d, start); err != nil {
				return err
			}
		}
	}
}

// Decoder reads XML as vendors publish it: Amazon's releasemd.xml declares
// encoding="utf8", without the hyphen, which encoding/xml refuses by itself.
func Decoder(in io.Reader) *xml.Decoder {
	d := xml.NewDecoder(in)
	d.CharsetReader = func(label string, in io.Reader) (io.Reader, error) {
		switch strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(label)) {
		case "utf8", "usascii", "ascii":
			return in, nil
		}
		return nil, fmt.Errorf("encoding %q is not supported", label)
	}
	return d
}

// Compare orders two versions as rpm does: epoch, version, release, by segments.
func Compare(a, b string) int { return version.NewVersion(a).Compare(version.NewVersion(b)) }
