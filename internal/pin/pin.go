// Package pin holds a machine's package repositories at a release, so that a
// launch next month installs what a launch today does, and moves them when
// somebody decides to.
//
// What a release is, and how one is held, differs from one operating system to
// the next: a dated release on Amazon Linux 2023, a content id on Amazon Linux
// 2, a moment of a snapshot server on Debian and Ubuntu. Each is a Family, in a
// folder of its own below; package families lists them. A Pin is what they have
// in common: releases are validated before anything is written, the package
// manager itself is asked afterwards, and what was in force before is remembered.
package pin

import (
	"context"
	"errors"
	"fmt"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/pkgmgr"
	"github.com/amiagent/amiagent/internal/repodata"
)

// Words that stand for a release.
const (
	Latest = "latest" // nothing is held: whatever the repositories have
	Image  = "image"  // what this machine was built from, or last moved to by Advance
	Now    = "now"    // what the repositories have at this moment, held from then on
)

// Errors that callers tell apart. Nothing on the machine has changed when one is returned.
var (
	// ErrNoRelease is a release that does not exist for this machine.
	ErrNoRelease = errors.New("no such release")
	// ErrRefused is what is not done without being asked for in so many words.
	ErrRefused = errors.New("refused")
	// ErrUnlisted is a list of releases that nobody publishes.
	ErrUnlisted = errors.New("no list of releases is published")
)

// Release is one release that can be held.
type Release struct {
	Name  string `json:"name"`
	Notes string `json:"notes,omitempty"` // address of the release notes
}

// Repository is one enabled repository, as a release has it.
type Repository struct {
	ID      string `json:"id"`
	Address string `json:"address"`          // what was asked: a mirror list, or the base itself
	Base    string `json:"base,omitempty"`   // where that led
	Digest  string `json:"digest,omitempty"` // of its top document: the identity of all its metadata
	// Floating says why the release does not decide what this repository has; "" when it does.
	Floating string `json:"floating,omitempty"`
}

// State is how a machine's repositories are held, as its files and its package
// database have it. No network is needed to know it.
type State struct {
	Release   string // in force: a release, Latest, or "" when it cannot be told
	How       string // by what it is in force, for people
	Installed string // release of the installed packages; "" where packages do not tell
	Image     string // release the image was built from, where the OS tells it; else ""
	Floating  []Repository
	Odd       []string // what is there and should not be, as an empty variable
}

// Change is an installed package that a release has in another version.
type Change struct {
	Name       string              `json:"name"`
	Arch       string              `json:"arch,omitempty"`
	From       string              `json:"from"`
	To         string              `json:"to"`
	Down       bool                `json:"down,omitempty"` // To is the older one
	Advisories []repodata.Advisory `json:"advisories,omitempty"`
}

// Family is how one line of operating systems holds its repositories. Releases
// given to its methods, Validate apart, have passed Validate; Latest is one of them.
// Methods that ask the network or run programs return soon after ctx ends.
type Family interface {
	// Name is the family's, for people: "Amazon Linux 2023".
	Name() string
	// Validate tells what is wrong with the form of a release.
	Validate(release string) error
	// Compare orders two releases by age; never as strings.
	Compare(a, b string) int
	// State looks at files and the package database.
	State(ctx context.Context) (State, error)
	// Releases are those known, oldest first, or ErrUnlisted.
	Releases(ctx context.Context) ([]Release, error)
	// Resolve reads what every enabled repository has at a release. ErrNoRelease
	// when one that the release decides does not have it. Repositories that float are given, not read.
	// Now gives what there is at this moment; the release is then the name of it.
	Resolve(ctx context.Context, release string) (name string, repos []Repository, err error)
	// Write puts a resolved release in force, whole or not at all. It changes no package.
	Write(ctx context.Context, release string, repos []Repository) error
	// Spoken is the release in force as the package manager itself tells it;
	// Latest when none is. It reads no repository.
	Spoken(ctx context.Context) (string, error)
	// Diff is what of the installed packages a release has in another version.
	Diff(ctx context.Context, release string) ([]Change, error)
	// Unfrozen tells what a pin has to it beside the release and is not as it
	// should be, Options.Repositories above all; "" when all is well. Freeze
	// sees to them, each only after its address was read.
	Unfrozen() (string, error)
	Freeze(ctx context.Context) error
	// Move brings installed packages to a resolved release and puts it in force,
	// in the order that leaves a machine safe when it is cut off in between.
	// Without downgrade no package becomes older.
	Move(ctx context.Context, release string, repos []Repository, downgrade bool, talk pkgmgr.Talk) error
}

// Options are what a Family is made from.
type Options struct {
	Host    *host.Host
	Facts   *facts.Facts
	Client  *repodata.Client
	Manager *pkgmgr.Manager
	// By chooses among the ways that a family has; "" is its usual one.
	By string
	// Repositories are frozen by address, by their id (apt: by their host), where
	// the release does not hold them.
	Repositories map[string]string
}

// Pin holds one machine's repositories. It is not for concurrent use.
type Pin struct {
	Family
	h *host.Host
	f *facts.Facts
}

// New is a Pin by a family.
func New(h *host.Host, f *facts.Facts, family Family) *Pin { return &Pin{family, h, f} }

// Meant is the release that a word or a name of the manifest or the command
// line means. A name is not asked for on the network; its form is checked.
func (p *Pin) Meant(ctx context.Context, word string) (string, error) {
	switch word {
	case Latest, Now:
		return word, nil
	case Image:
		return p.image(ctx)
	}
	if err := p.Validate(word); err != nil {
		return "", err
	}
	return word, nil
}

// image is the release that Image stands for. An Advance stands above what the
// image was built from: the machine's packages are of that release now.
func (p *Pin) image(ctx context.Context) (string, error) {
	rec, err := loadRecord(p.h)
	if err != nil {
		return "", err
	}
	if rec.Chosen != "" {
		return rec.Chosen, nil
	}
	st, err := p.State(ctx)
	if err != nil {
		return "", err
	}
	for _, r := range []string{p.f.Get("image.release"), st.Image, st.Installed} {
		if r != "" {
			return r, nil
		}
	}
	return "", diag.WithHint(errors.New("cannot tell which release this image was built from"),
		"name a release, or hold one in the image build: `amiagent pin set %s --root D`", Now)
}

// Set validates a release and puts it in force. It changes no package. What is
// given is as Meant takes it. accept, if not nil, may refuse what was found
// before anything is written. The result is the release by its name.
func (p *Pin) Set(ctx context.Context, word string, accept func([]Repository) error) (string, error) {
	release, err := p.Meant(ctx, word)
	if err != nil {
		return "", err
	}
	release, repos, err := p.resolve(ctx, release)
	if err != nil {
		return "", err
	}
	if accept != nil {
		if err := accept(repos); err != nil {
			return "", err
		}
	}
	if err := p.Write(ctx, release, repos); err != nil {
		return "", fmt.Errorf("cannot hold release %s: %w", release, err)
	}
	return release, p.verify(ctx, release)
}

// resolve is Resolve, with the nearest release that exists named where one does not.
func (p *Pin) resolve(ctx context.Context, release string) (string, []Repository, error) {
	name, repos, err := p.Resolve(ctx, release)
	if errors.Is(err, ErrNoRelease) {
		err = p.nearest(ctx, release, err)
	}
	return name, repos, err
}

// Differences is Diff, with the nearest release that exists named where this one does not.
func (p *Pin) Differences(ctx context.Context, release string) ([]Change, error) {
	changes, err := p.Diff(ctx, release)
	if errors.Is(err, ErrNoRelease) {
		err = p.nearest(ctx, release, err)
	}
	return changes, err
}

// verify asks the package manager.
func (p *Pin) verify(ctx context.Context, release string) error {
	got, err := p.Spoken(ctx)
	if err != nil {
		return fmt.Errorf("cannot verify that release %s is held: %w", release, err)
	}
	if got != release {
		return diag.WithHint(fmt.Errorf("release %s is not in force: the package manager says %q", release, got),
			"`amiagent pin status` tells what else sets the release")
	}
	return nil
}
