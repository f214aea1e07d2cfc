package step

import (
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/fetch"
)

// InputKind is what sort of thing an Input is.
type InputKind string

// The kinds of input.
const (
	Bytes   InputKind = "bytes"   // what an address brings
	Package InputKind = "package" // a package of the distribution
	Release InputKind = "release" // the release of the distribution's repositories
)

// Input is one thing that a step names and does not hold: it may be another
// tomorrow, under the same name.
type Input struct {
	Kind InputKind
	// Name is the address as it is compared and shown, without secrets; the
	// package's name; "" for the release, of which there is one.
	Name string
	// Want is what the body itself says the input must be: a digest, a version
	// or glob, a release. "" leaves it open.
	Want string
	// Request is how to have it, for Bytes.
	Request fetch.Request
}

// Resolution is what an input was found to be.
type Resolution struct {
	// Digest is of bytes: sha256:HEX, sha512:HEX or git:COMMIT. Size is their
	// number, 0 for a tree of git.
	Digest string
	Size   int64
	// Version is a package's exact version, the name of a release, or the
	// version id of bytes in S3 ("" when their bucket keeps none).
	Version string
	// With is what comes along with a package, by name, with its version, where
	// the lock has the whole transaction.
	With map[string]string
}

// Lockable is a step with inputs that a lock can hold still. Both methods are
// called on a rendered body, before Validate.
type Lockable interface {
	// Inputs are the things that the body names. None is right for a body that holds all it needs.
	Inputs() []Input
	// Lock makes the step take exactly this for one of its Inputs. An error says that the body
	// itself asks for something else, and names both sides.
	Lock(in Input, to Resolution) error
}

// RepositoryFile is a package repository as its file says it: in the format of
// yum.repos.d for dnf and yum, of deb822 sources for apt.
type RepositoryFile struct{ Path, Text string }

// Offerer is a step that adds a package repository, for machines of some facts.
type Offerer interface {
	// Offers is what the machine's package manager will be told; false when
	// the body has nothing for such a machine.
	Offers(f *facts.Facts) (RepositoryFile, bool)
}

// Holder is a step that holds the release of the distribution's repositories,
// with the way of doing it and the repositories that it holds by address.
type Holder interface {
	Holds() (by string, repositories map[string]string)
}
