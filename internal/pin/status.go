package pin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/repodata"
)

// reportFormat is the format number of everything that is printed as JSON.
const reportFormat = 1

// Status is how a machine's repositories are held, and what there would be.
type Status struct {
	Format    int          `json:"format"`
	Family    string       `json:"family"`
	Release   string       `json:"release"` // in force; "latest" when none is held
	How       string       `json:"how"`
	Installed string       `json:"installed,omitempty"` // release of the installed packages
	Image     string       `json:"image,omitempty"`     // what the word image means here
	Latest    string       `json:"latest,omitempty"`    // newest that is known
	Notes     string       `json:"notes,omitempty"`     // release notes of Latest
	Behind    *int         `json:"behind,omitempty"`    // releases newer than the one in force
	Floating  []Repository `json:"floating"`
	Odd       []string     `json:"odd"`
	// Advisories are security notices that Latest has for installed packages.
	Advisories []repodata.Advisory `json:"advisories,omitempty"`
	// Unknown says what could not be found out, and why.
	Unknown []string `json:"unknown,omitempty"`
}

// Status looks at the machine, and asks the network what is newer. What the
// network does not tell is in Unknown; an error means that the machine could not be looked at.
func (p *Pin) Status(ctx context.Context) (Status, error) {
	st, err := p.State(ctx)
	if err != nil {
		return Status{}, err
	}
	s := Status{Format: reportFormat, Family: p.Name(), Release: st.Release, How: st.How, Installed: st.Installed,
		Floating: slices.Concat([]Repository{}, st.Floating), Odd: slices.Concat([]string{}, st.Odd)}
	rec, err := loadRecord(p.h)
	if err != nil {
		s.Odd = append(s.Odd, err.Error())
	}
	if rec.Moving != nil {
		s.Odd = append(s.Odd, fmt.Sprintf("a move from %s to %s, begun on %s, did not end: `amiagent pin advance --to %[2]s` finishes it, `amiagent pin rollback` undoes it",
			rec.Moving.From, rec.Moving.To, rec.Moving.At.Format(time.RFC3339)))
	}
	if image, err := p.image(ctx); err == nil {
		s.Image = image
	}
	p.compare(ctx, &s)
	return s, context.Cause(ctx)
}

// compare fills in what is newer.
func (p *Pin) compare(ctx context.Context, s *Status) {
	all, err := p.Releases(ctx)
	if err != nil || len(all) == 0 {
		if err != nil && !errors.Is(err, ErrUnlisted) {
			s.Unknown = append(s.Unknown, "newer releases: "+err.Error())
		}
		return
	}
	newest := all[len(all)-1]
	s.Latest, s.Notes = newest.Name, newest.Notes
	have := s.Release
	if have == Latest {
		have = newest.Name
	}
	if have == "" || p.Validate(have) != nil {
		return // what is no release is neither old nor new
	}
	n := 0
	for _, r := range all {
		if p.Compare(r.Name, have) > 0 {
			n++
		}
	}
	s.Behind = &n
	base := cmp.Or(s.Installed, s.Release)
	if n == 0 && (base == newest.Name || base == Latest) {
		return
	}
	changes, err := p.Diff(ctx, newest.Name)
	if err != nil {
		s.Unknown = append(s.Unknown, "pending security advisories: "+err.Error())
		return
	}
	s.Advisories = Security(changes)
}

// Security are the security notices among changes, each once, the gravest first.
func Security(changes []Change) []repodata.Advisory {
	var all []repodata.Advisory
	for _, c := range changes {
		for _, a := range c.Advisories {
			if a.Type == "security" && !slices.ContainsFunc(all, func(b repodata.Advisory) bool { return a.ID == b.ID }) {
				all = append(all, a)
			}
		}
	}
	slices.SortFunc(all, func(a, b repodata.Advisory) int {
		return cmp.Or(cmp.Compare(grave(a.Severity), grave(b.Severity)), strings.Compare(a.ID, b.ID))
	})
	return all
}

// grave orders the severities of vendors, the gravest first.
func grave(severity string) int {
	words := []string{"critical", "important", "high", "moderate", "medium", "low"}
	if i := slices.Index(words, strings.ToLower(severity)); i >= 0 {
		return i
	}
	return len(words)
}

// BehindText says how far the release in force is behind: "1 release behind".
func (s Status) BehindText() string {
	switch {
	case s.Behind == nil:
		return ""
	case *s.Behind == 0:
		return "up to date"
	case *s.Behind == 1:
		return "1 release behind"
	}
	return fmt.Sprintf("%d releases behind", *s.Behind)
}

// nearest names the release that was most likely meant.
func (p *Pin) nearest(ctx context.Context, release string, err error) error {
	if diag.Hint(err) != "" {
		return err
	}
	all, lerr := p.Releases(ctx)
	if lerr != nil || len(all) == 0 {
		return diag.WithHint(err, "`amiagent pin status` tells what is in force; releases are those of the vendor's release notes")
	}
	best := slices.MinFunc(all, func(a, b Release) int {
		return cmp.Compare(distance(a.Name, release), distance(b.Name, release))
	})
	return diag.WithHint(err, "the nearest release that exists is %s", best.Name)
}

// distance is how far two releases are apart: by their dates where they have
// one, since a wrong minor number with the right date is the common slip.
func distance(a, b string) float64 {
	x, y := Numbers(a), Numbers(b)
	d := 0.0
	for i := range max(len(x), len(y)) {
		var m, n int
		if i < len(x) {
			m = x[i]
		}
		if i < len(y) {
			n = y[i]
		}
		weight := math.Pow(1000, float64(-i))
		if i == 2 { // the date
			m, n, weight = days(m), days(n), 1
		}
		d += weight * math.Abs(float64(m-n))
	}
	return d
}

func days(date int) int {
	t, err := time.Parse("20060102", strconv.Itoa(date))
	if err != nil {
		return date
	}
	return int(t.Unix() / 86400)
}

// Numbers are the numbers of a dotted release; what is none counts as 0.
func Numbers(release string) []int {
	var all []int
	for part := range strings.SplitSeq(release, ".") {
		n, _ := strconv.Atoi(part)
		all = append(all, n)
	}
	return all
}

// CompareDotted orders dotted releases by their numbers: 2023.10.x is newer than 2023.9.x.
func CompareDotted(a, b string) int { return slices.Compare(Numbers(a), Numbers(b)) }
