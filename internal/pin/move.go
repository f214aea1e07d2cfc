package pin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/pkgmgr"
)

// MoveOptions are what an Advance may do.
type MoveOptions struct {
	DryRun    bool // look and validate, change nothing
	Downgrade bool // packages may become older
	Talk      pkgmgr.Talk
}

// Moved is what an Advance or a Rollback did, or would do.
type Moved struct {
	Format  int      `json:"format"`
	From    string   `json:"from"`
	To      string   `json:"to"`
	DryRun  bool     `json:"dry-run,omitempty"`
	Changes []Change `json:"changes"`
}

// Advance brings the machine's packages to a release, "" for the newest that is
// known: validate, change the packages, hold the release, ask the package
// manager, remember what was. A release that is older than the machine is
// ErrRefused without Downgrade. An Advance that was cut off is finished by another to the same release.
func (p *Pin) Advance(ctx context.Context, to string, o MoveOptions) (Moved, error) {
	st, err := p.State(ctx)
	if err != nil {
		return Moved{}, err
	}
	if to == "" || to == Latest {
		if to, err = p.newest(ctx); err != nil {
			return Moved{}, err
		}
	}
	if to, err = p.Meant(ctx, to); err != nil {
		return Moved{}, err
	}
	from := st.Release
	if from == Latest && st.Installed != "" {
		from = st.Installed
	}
	m := Moved{Format: reportFormat, From: from, To: to, DryRun: o.DryRun}
	for _, have := range []string{from, st.Installed} {
		if have != "" && have != Latest && to != Now && !o.Downgrade && p.Compare(to, have) < 0 {
			return m, diag.WithHint(fmt.Errorf("%w to move from release %s to %s: it is older", ErrRefused, have, to),
				"--downgrade makes packages older; what they have written since may be too new for them")
		}
	}
	name, repos, err := p.resolve(ctx, to)
	if err != nil {
		return m, err
	}
	m.To = name
	if m.Changes, err = p.Diff(ctx, to); err != nil || o.DryRun {
		return m, err
	}
	return m, p.move(ctx, m, repos, o)
}

// move is the part of an Advance that changes the machine.
func (p *Pin) move(ctx context.Context, m Moved, repos []Repository, o MoveOptions) error {
	rec, err := loadRecord(p.h)
	if err != nil {
		return err
	}
	this := move{m.From, m.To, time.Now().UTC().Truncate(time.Second)}
	if rec.Moving != nil && rec.Moving.To == m.To {
		this.From = rec.Moving.From // the earlier try may have got half-way
	}
	rec.Moving = &this
	if err := rec.save(ctx, p.h); err != nil {
		return err
	}
	if err := p.Move(ctx, m.To, repos, o.Downgrade, o.Talk); err != nil {
		return fmt.Errorf("cannot move to release %s: %w", m.To, err)
	}
	if err := p.verify(ctx, m.To); err != nil {
		return err
	}
	rec.Moving, rec.Chosen = nil, m.To
	if this.From != this.To {
		rec.History = append(rec.History, this)
	}
	return rec.save(ctx, p.h)
}

// newest is the newest release that is known.
func (p *Pin) newest(ctx context.Context) (string, error) {
	all, err := p.Releases(ctx)
	if errors.Is(err, ErrUnlisted) {
		return "", diag.WithHint(fmt.Errorf("cannot tell the newest release of %s: %w", p.Name(), err), "name one: --to RELEASE")
	}
	if err != nil {
		return "", err
	}
	if len(all) == 0 {
		return "", fmt.Errorf("cannot tell the newest release of %s: the list of releases is empty", p.Name())
	}
	return all[len(all)-1].Name, nil
}

// Rollback undoes the last move, packages included.
func (p *Pin) Rollback(ctx context.Context, o MoveOptions) (Moved, error) {
	rec, err := loadRecord(p.h)
	if err != nil {
		return Moved{}, err
	}
	var last move
	before := rec.History // once the move is undone, what a further rollback goes by
	switch n := len(rec.History); {
	case rec.Moving != nil:
		last = *rec.Moving
	case n > 0:
		last, before = rec.History[n-1], rec.History[:n-1]
	default:
		return Moved{}, diag.WithHint(fmt.Errorf("%w: there is nothing to roll back to: this machine was not moved by `amiagent pin advance`", ErrRefused),
			"`amiagent pin advance --to RELEASE --downgrade` goes to any release that still exists")
	}
	o.Downgrade = true
	m, err := p.Advance(ctx, last.From, o)
	if err != nil || o.DryRun {
		return m, err
	}
	if rec, err = loadRecord(p.h); err != nil {
		return m, err
	}
	rec.History = before
	return m, rec.save(ctx, p.h)
}
