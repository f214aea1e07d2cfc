package al2023

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/amiagent/amiagent/internal/pin"
	"github.com/amiagent/amiagent/internal/pin/yumrepo"
	"github.com/amiagent/amiagent/internal/repodata"
	"github.com/amiagent/amiagent/internal/repodata/rpmmd"
)

// Releases reads releasemd.xml, which stands beside the mirror lists of the
// machine's own repository. Amazon's own plugin reads the same document.
func (f *Family) Releases(ctx context.Context) ([]pin.Release, error) {
	c, err := f.load()
	if err != nil {
		return nil, err
	}
	address, err := releasesAddress(c)
	if err != nil {
		return nil, err
	}
	text, err := f.Options.Client.Get(ctx, address, repodata.MaxDocument)
	if err != nil {
		return nil, err
	}
	all, err := parseReleases(strings.NewReader(string(text)))
	if err != nil {
		return nil, fmt.Errorf("cannot read the list of releases %s: %w", address, err)
	}
	return slices.DeleteFunc(all, func(r pin.Release) bool { return f.Validate(r.Name) != nil }), nil
}

func releasesAddress(c *yumrepo.Config) (string, error) {
	for _, r := range c.Enabled() {
		if core, _, ok := strings.Cut(r.Address, "/mirrors/"); ok && r.ByRelease() {
			r.Address = core + "/releasemd.xml"
			return c.Address(r, "")
		}
	}
	return "", fmt.Errorf("%w for this machine's repositories", pin.ErrUnlisted)
}

// parseReleases collects every release that the document names, wherever it
// stands: as a release, or as an update of one. Documents have been seen with
// stray releases beside the list, and with releases that have no updates.
func parseReleases(in io.Reader) ([]pin.Release, error) {
	notes := map[string]string{}
	d := rpmmd.Decoder(in)
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		start, ok := t.(xml.StartElement)
		switch {
		case ok && start.Name.Local == "release":
			for _, a := range start.Attr {
				if v := strings.TrimSpace(a.Value); a.Name.Local == "version" && notes[v] == "" {
					notes[v] = ""
				}
			}
		case ok && start.Name.Local == "update":
			var u struct {
				Name    string `xml:"name"`
				Version string `xml:"version_string"`
				Notes   string `xml:"release_notes"`
			}
			if err := d.DecodeElement(&u, &start); err != nil {
				return nil, err
			}
			for _, v := range []string{u.Version, u.Name} {
				if v = strings.TrimSpace(v); v != "" {
					notes[v] = strings.TrimSpace(u.Notes)
					break
				}
			}
		}
	}
	var all []pin.Release
	for name, n := range notes {
		all = append(all, pin.Release{Name: name, Notes: n})
	}
	slices.SortFunc(all, func(a, b pin.Release) int { return pin.CompareDotted(a.Name, b.Name) })
	return all, nil
}
