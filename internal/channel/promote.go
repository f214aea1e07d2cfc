package channel

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/amiagent/amiagent/internal/diag"
)

// Promotion is one step of an advance. Which of its fields go together is for
// Promote to say.
type Promotion struct {
	Lock     string // sha256:HEX of a new candidate, or with ToStable of the stable lock; "" means the candidate there is
	Share    int    // percent; -1: not given
	Schedule []From // in place of Share
	ToStable bool   // the lock becomes the stable one, and no candidate is left
	Seed     string // as Candidate.Seed; "" keeps that of the same candidate
	Now      time.Time
	By       string // who, for the history; may be ""
}

// New is a channel whose launches all use one lock.
func New(name, lock string, now time.Time, by string) (*Channel, error) {
	c := &Channel{Format: Format, Name: name}
	if !ValidName(name) {
		return nil, fmt.Errorf("cannot create a channel: its name must be up to 64 letters, digits, dots, dashes and underscores, is %q", name)
	}
	if err := valid(lock, by, ""); err != nil {
		return nil, err
	}
	c.Stable = lock
	c.note(now, by, "create with stable "+lock)
	return c, nil
}

// Promote moves the channel, and says in a clause what changed. The error is
// ErrRefused when the promotion makes no sense for the channel as it stands;
// the channel then stays as it was.
func (c *Channel) Promote(p Promotion) (what string, err error) {
	if err := valid(p.Lock, p.By, p.Seed); err != nil {
		return "", err
	}
	if p.ToStable {
		return c.toStable(p)
	}
	if p.Share == -1 && len(p.Schedule) == 0 {
		return "", diag.WithHint(errors.New("cannot promote: no share is given"), "say how much of the fleet: --share 5, or --schedule 5@+0h,25@+24h,100@+72h; or --to-stable")
	}
	next := Candidate{Lock: p.Lock, Share: p.Share, Schedule: slices.Clone(p.Schedule), Seed: p.Seed}
	old := c.Candidate
	switch {
	case old == nil && p.Lock == "":
		return "", refuse("the channel has no candidate", "name one with --lock LOCKFILE or --digest DIGEST")
	case p.Lock == c.Stable:
		return "", refuse(p.Lock+" is the stable lock already", "a candidate is another lock")
	case old != nil && (p.Lock == "" || p.Lock == old.Lock):
		if old.Paused {
			return "", refuse("the candidate is paused since "+sinceWhen(old), "look at why, then `amiagent channel pause --resume`; another --lock replaces the candidate")
		}
		if next.Lock = old.Lock; p.Seed == "" {
			next.Seed = old.Seed
		}
	}
	if err := next.check(); err != nil {
		return "", fmt.Errorf("cannot promote: %w", err)
	}
	if old != nil && old.equal(next) {
		return "", refuse("nothing would change: "+next.spread()+" of the launches take "+next.Lock+" already", "")
	}
	what = next.spread() + " take candidate " + next.Lock
	if old != nil && old.Lock != next.Lock {
		what += ", which replaces " + old.Lock
	}
	c.Candidate = &next
	c.note(p.Now, p.By, what)
	return what, nil
}

func (c *Channel) toStable(p Promotion) (string, error) {
	if p.Share != -1 || len(p.Schedule) > 0 {
		return "", errors.New("cannot promote: a share has no meaning with --to-stable, all launches take the stable lock")
	}
	lock := p.Lock
	switch {
	case lock == "" && c.Candidate == nil:
		return "", refuse("the channel has no candidate to make stable", "name a lock with --lock LOCKFILE or --digest DIGEST")
	case lock == "" && c.Candidate.Paused:
		return "", refuse("the candidate is paused since "+sinceWhen(c.Candidate), "look at why, then `amiagent channel pause --resume`; or name the lock that is meant")
	case lock == "":
		lock = c.Candidate.Lock
	case lock == c.Stable && c.Candidate == nil:
		return "", refuse(lock+" is the stable lock already", "")
	}
	what := "stable is " + lock + ", was " + c.Stable
	if lock == c.Stable {
		what = "candidate " + c.Candidate.Lock + " is dropped, stable stays " + lock
	} else if c.Candidate != nil && c.Candidate.Lock != lock {
		what += "; candidate " + c.Candidate.Lock + " is dropped"
	}
	c.Stable, c.Candidate = lock, nil
	c.note(p.Now, p.By, what)
	return what, nil
}

// Pause stops further launches from taking the candidate. Who has it keeps it.
func (c *Channel) Pause(now time.Time, by string) (what string, err error) {
	switch {
	case c.Candidate == nil:
		return "", refuse("the channel has no candidate to pause", "")
	case c.Candidate.Paused:
		return "", refuse("the candidate is paused already, since "+sinceWhen(c.Candidate), "")
	}
	if err := valid("", by, ""); err != nil {
		return "", err
	}
	what = fmt.Sprintf("pause candidate %s at %d %%", c.Candidate.Lock, c.Candidate.ShareAt(now))
	c.Candidate.Paused, c.Candidate.PausedAt = true, At(now)
	c.note(now, by, what)
	return what, nil
}

// Resume lets launches take the candidate again: at the share at which it was
// paused, and what was to come of a schedule comes later by the time of the pause.
func (c *Channel) Resume(now time.Time, by string) (what string, err error) {
	k := c.Candidate
	if k == nil || !k.Paused {
		return "", refuse("no candidate is paused", "")
	}
	if err := valid("", by, ""); err != nil {
		return "", err
	}
	paused := At(now).Sub(k.PausedAt.Time)
	if !k.PausedAt.IsZero() && paused < 0 {
		return "", refuse(fmt.Sprintf("the candidate is paused since %s, which is not yet", k.PausedAt), "set the clock")
	}
	k.Schedule = slices.Clone(k.Schedule)
	for i := range k.Schedule {
		if k.Schedule[i].From.After(k.PausedAt.Time) {
			k.Schedule[i].From = At(k.Schedule[i].From.Add(paused))
		}
	}
	k.Paused, k.PausedAt = false, Time{}
	what = fmt.Sprintf("resume candidate %s at %d %%", k.Lock, k.ShareAt(now))
	if n := len(k.Schedule); n > 0 && k.Schedule[n-1].From.After(now) {
		what += fmt.Sprintf(", what was to come is %s later", paused)
	}
	c.note(now, by, what)
	return what, nil
}

// note counts and remembers a change.
func (c *Channel) note(now time.Time, by, what string) {
	c.Revision++
	c.History = slices.Insert(c.History, 0, Change{At: At(now), By: by, What: what})
	c.History = c.History[:min(len(c.History), maxHistory)]
}

func refuse(why, hint string) error {
	err := fmt.Errorf("%w: %s", ErrRefused, why)
	if hint == "" {
		return err
	}
	return diag.WithHint(err, "%s", hint)
}

func sinceWhen(k *Candidate) string {
	if k.PausedAt.IsZero() {
		return "an unknown time"
	}
	return k.PausedAt.String()
}

// valid holds what comes from a command line to what the file may have.
func valid(lock, by, seed string) error {
	if lock != "" && !ValidDigest(lock) {
		return fmt.Errorf("cannot promote: %q is no digest of a lock, which is sha256: and 64 hex digits in lower case", lock)
	}
	for what, s := range map[string]string{"who": by, "the seed": seed} {
		if err := checkText(s); err != nil {
			return fmt.Errorf("cannot promote: %s %w", what, err)
		}
	}
	return nil
}

// check is validate for a candidate made in code.
func (c *Candidate) check() error {
	var list diag.List
	c.validate(diag.NewAt(&list, nil, ""))
	return list.Err()
}

func (c *Candidate) equal(o Candidate) bool {
	return c.Lock == o.Lock && c.Share == o.Share && c.Seed == o.Seed && c.Paused == o.Paused &&
		slices.EqualFunc(c.Schedule, o.Schedule, func(a, b From) bool { return a.Share == b.Share && a.From.Equal(b.From.Time) })
}

// spread is how far the candidate goes, for people.
func (c *Candidate) spread() string {
	if len(c.Schedule) == 0 {
		return fmt.Sprintf("%d %%", c.Share)
	}
	var parts []string
	for _, s := range c.Schedule {
		parts = append(parts, fmt.Sprintf("%d %% from %s", s.Share, s.From))
	}
	return strings.Join(parts, ", ")
}
