// Package channel decides which of two locks a launch uses.
//
// A lock says what every moving input of a launch resolved to, so a fleet
// advances by moving from one lock to the next. A channel is the small signed
// file, in S3 or behind HTTPS, that says how far it has moved: it names two
// locks by digest, the stable one and the candidate, and the share of launches
// that take the candidate. Each instance works out by itself, from its instance
// id, whether it belongs to that share. So 5 % of a fleet launches with the
// candidate, then 25 %, then all, and no server of ours is asked.
//
// The package reads and writes the file, chooses, and promotes. It asks nobody
// and touches no machine.
package channel

import (
	"errors"
	"fmt"
	"regexp"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/amiagent/amiagent/internal/decode"
	"github.com/amiagent/amiagent/internal/diag"
)

// Format is the format number of the file.
const Format = 1

// MaxBytes is the most that a channel may have: it is parsed by root.
const MaxBytes = 64 << 10

const (
	maxText     = 1000 // bytes of a text for people
	maxSchedule = 20
	maxHistory  = 20 // entries; a change drops the oldest beyond
)

// ErrRefused is a change that makes no sense for the channel as it stands, or a
// channel older than the one an instance already follows. Exit code 6.
var ErrRefused = errors.New("refused")

// OnFailure says what happens when a launch with the candidate lock fails.
type OnFailure string

const (
	// FailLaunch lets the launch fail. It is the default.
	FailLaunch OnFailure = "fail"
	// FallBack launches again with the stable lock.
	FallBack OnFailure = "stable"
)

// UnmarshalText accepts fail and stable.
func (o *OnFailure) UnmarshalText(b []byte) error {
	switch v := OnFailure(b); v {
	case FailLaunch, FallBack:
		*o = v
		return nil
	}
	return fmt.Errorf("must be %s or %s, is %q", FallBack, FailLaunch, b)
}

// Channel is the whole file.
type Channel struct {
	Format             int        `yaml:"format" json:"format"`
	Name               string     `yaml:"name" json:"name"`         // a part of every wave's hash
	Revision           int        `yaml:"revision" json:"revision"` // counts the changes, from 1
	Stable             string     `yaml:"stable" json:"stable"`     // sha256:HEX of a lock
	Candidate          *Candidate `yaml:"candidate" json:"candidate,omitempty"`
	OnCandidateFailure OnFailure  `yaml:"on-candidate-failure" json:"on_candidate_failure,omitempty"` // "" leaves it to agent.yaml
	Locks              string     `yaml:"locks" json:"locks,omitempty"`                               // where locks lie, see LockAddress
	History            []Change   `yaml:"history" json:"history,omitempty"`                           // newest first
}

// Candidate is a lock on its way to be the stable one: for a share of the
// launches, or for shares that grow by a schedule.
type Candidate struct {
	Lock     string `yaml:"lock" json:"lock"`                   // sha256:HEX
	Share    int    `yaml:"share" json:"share"`                 // percent of the waves; -1 when Schedule says
	Schedule []From `yaml:"schedule" json:"schedule,omitempty"` // shares and times, both rising
	Paused   bool   `yaml:"paused" json:"paused,omitempty"`     // no further launch takes the candidate
	PausedAt Time   `yaml:"paused-at" json:"paused_at,omitzero"`
	// Seed is hashed into the waves in place of Lock, for a candidate that
	// replaces another one midway and should go to the same instances.
	Seed string `yaml:"seed" json:"seed,omitempty"`
}

// From is a share that holds from a time on.
type From struct {
	Share int  `yaml:"share" json:"share"`
	From  Time `yaml:"from" json:"from"`
}

// Change is one entry of the history.
type Change struct {
	At   Time   `yaml:"at" json:"at"`
	By   string `yaml:"by" json:"by,omitempty"`
	What string `yaml:"what" json:"what"`
}

// Time is a time in whole seconds.
type Time struct{ time.Time }

// At is t as a channel keeps it: UTC, in whole seconds.
func At(t time.Time) Time { return Time{t.UTC().Truncate(time.Second)} }

// UnmarshalText reads RFC 3339.
func (t *Time) UnmarshalText(b []byte) error {
	v, err := time.Parse(time.RFC3339, string(b))
	if err != nil || v.Year() < 1 || v.Year() > 9999 || v.UTC().Year() > 9999 || v.UTC().Year() < 1 {
		return fmt.Errorf("must be a time such as 2026-11-23T09:00:00Z, is %q", b)
	}
	*t = At(v)
	return nil
}

// String is RFC 3339 in UTC.
func (t Time) String() string { return t.UTC().Format(time.RFC3339) }

// DecodeNode tells a share of 0 from one that is not given.
func (c *Candidate) DecodeNode(n *yaml.Node, at diag.At) {
	type plain Candidate
	c.Share = -1
	decode.Into(n, (*plain)(c), at)
}

// Parse reads a channel strictly. All faults are in the error, a *diag.Error;
// file is how they name the document.
func Parse(file string, data []byte) (*Channel, error) {
	var list diag.List
	if len(data) > MaxBytes {
		list.Add(diag.Problem{Pos: diag.Pos{File: file}, Message: fmt.Sprintf("a channel has at most %d bytes", MaxBytes)})
		return nil, list.Err()
	}
	root := decode.Parse(file, data, &list)
	if root == nil {
		return nil, list.Err()
	}
	at := decode.At(&list, file, root, "")
	format := field(root, "format")
	switch {
	case format == nil:
		at.Err(diag.WithHint(errors.New("no format number"), "begin the file with the line: format: %d", Format))
		return nil, list.Err()
	case format.Value != fmt.Sprint(Format):
		// Another format may have other keys: their faults would only mislead.
		at.Field("format").Errorf("channel format %q is not known, this agent reads format %d", format.Value, Format)
		return nil, list.Err()
	}
	c := &Channel{}
	decode.Into(root, c, at)
	c.validate(at)
	if err := list.Err(); err != nil {
		return nil, err
	}
	return c, nil
}

func field(n *yaml.Node, name string) *yaml.Node {
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	return nil
}

var (
	digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	nameForm   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
)

// ValidDigest tells whether d names a lock: sha256:HEX in lower case.
func ValidDigest(d string) bool { return digestForm.MatchString(d) }

// ValidName tells whether a channel may be called so.
func ValidName(name string) bool { return nameForm.MatchString(name) }

func (c *Channel) validate(at diag.At) {
	if !ValidName(c.Name) {
		at.Field("name").Errorf("must be up to 64 letters, digits, dots, dashes and underscores, is %q", c.Name)
	}
	if c.Revision < 1 {
		at.Field("revision").Errorf("must be at least 1, is %d", c.Revision)
	}
	digest(c.Stable, at.Field("stable"))
	if c.Candidate != nil {
		c.Candidate.validate(at.Field("candidate"))
		if c.Candidate.Lock == c.Stable && ValidDigest(c.Stable) {
			at.Field("candidate").Field("lock").Errorf("is the stable lock")
		}
	}
	if c.Locks != "" {
		if err := checkLocks(c.Locks); err != nil {
			at.Field("locks").Err(err)
		}
	}
	for i, h := range c.History {
		at := at.Field("history").Index(i)
		if h.At.IsZero() {
			at.Field("at").Errorf("must say when")
		}
		text(h.By, at.Field("by"))
		text(h.What, at.Field("what"))
	}
}

func (c *Candidate) validate(at diag.At) {
	digest(c.Lock, at.Field("lock"))
	text(c.Seed, at.Field("seed"))
	switch {
	case c.Share == -1 && len(c.Schedule) == 0:
		at.Errorf("needs a share in percent, or a schedule")
	case c.Share != -1 && len(c.Schedule) > 0:
		at.Field("share").Errorf("must not stand beside schedule, which says the share by time")
	case c.Share != -1:
		share(c.Share, at.Field("share"))
	}
	if len(c.Schedule) > maxSchedule {
		at.Field("schedule").Errorf("has %d entries, at most are %d", len(c.Schedule), maxSchedule)
	}
	for i, s := range c.Schedule {
		at := at.Field("schedule").Index(i)
		share(s.Share, at.Field("share"))
		if s.From.IsZero() {
			at.Field("from").Errorf("must say when the share begins to hold")
		}
		if i == 0 {
			continue
		}
		before := c.Schedule[i-1]
		if s.Share <= before.Share {
			at.Field("share").Errorf("must be more than the %d before it, is %d", before.Share, s.Share)
		}
		if !s.From.After(before.From.Time) {
			at.Field("from").Errorf("must be later than the %s before it, is %s", before.From, s.From)
		}
	}
	switch {
	case !c.Paused && !c.PausedAt.IsZero():
		at.Field("paused-at").Errorf("has no meaning without paused: true")
	case c.Paused && c.PausedAt.IsZero() && len(c.Schedule) > 0:
		// Else resuming after some days would let the whole schedule loose at once.
		at.Field("paused").Errorf("needs paused-at beside a schedule, so that resuming can move what is left of it")
	}
}

func digest(d string, at diag.At) {
	if !ValidDigest(d) {
		at.Err(diag.WithHint(fmt.Errorf("must be the digest of a lock, sha256: and 64 hex digits in lower case, is %q", d),
			"`sha256sum amiagent.lock` prints the digits"))
	}
}

func share(n int, at diag.At) {
	if n < 0 || n > Waves {
		at.Errorf("must be a percentage from 0 to %d, is %d", Waves, n)
	}
}

// text holds what people write into the file to one short printable line.
func text(s string, at diag.At) {
	if err := checkText(s); err != nil {
		at.Err(err)
	}
}

func checkText(s string) error {
	if len(s) > maxText {
		return fmt.Errorf("must have at most %d bytes, has %d", maxText, len(s))
	}
	if !utf8.ValidString(s) {
		return errors.New("must be valid UTF-8")
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("must be one printable line, has %q", r)
		}
	}
	return nil
}
