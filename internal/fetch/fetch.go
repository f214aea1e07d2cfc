// Package fetch brings named bytes to disk, verified or not at all.
//
// A Request names bytes by an address that users know from go-getter, and says
// what they must be: a digest, a size. The Store keeps what was fetched under
// its digest, as a plain file or as an unpacked tree; whatever has its final
// name in the store is whole and verified. Sources (S3, HTTPS, git, files) are
// one folder each and know nothing of digests, archives or the store.
//
// The bytes go by once: from the source through the limit and the hash into
// the unpacker or a file, in a folder that has no meaning to anyone. Only when
// everything that must be true is true do they get a name.
package fetch

import (
	"errors"

	"github.com/amiagent/amiagent/internal/fetch/unpack"
)

// Request names bytes, and what must be true of them.
type Request struct {
	Name    string   `json:"name"`              // the step that wants them, for messages
	Source  string   `json:"source"`            // a go-getter address: s3::https://..., git::..., https://..., a path
	Mirrors []string `json:"mirrors,omitempty"` // further addresses of the same bytes, tried in order
	Digest  string   `json:"digest,omitempty"`  // sha256:HEX or sha512:HEX of the bytes as fetched, git:COMMIT for git; "" accepts what comes first and keeps it
	Size    int64    `json:"size,omitempty"`    // bytes as fetched; 0: not checked
	Unpack  bool     `json:"unpack,omitempty"`  // keep as an unpacked tree
	Strip   int      `json:"strip,omitempty"`   // leading path elements to drop when unpacking
	UID     int      `json:"uid,omitempty"`     // owner of the unpacked tree
	GID     int      `json:"gid,omitempty"`
}

// Item is what the store holds for a request.
type Item struct {
	Digest string // sha256:HEX or sha512:HEX of the bytes as fetched; for git, git:COMMIT
	Path   string // inside the root: a file, or the folder of the tree
	Size   int64  // bytes as fetched
	Origin string // where it came from, without credentials, with version id or commit
}

// Errors that callers tell apart.
var (
	ErrDigest    = errors.New("digest does not match") // refused: exit code 6
	ErrSize      = errors.New("size does not match")   // refused: exit code 6
	ErrAbsent    = errors.New("not there")             // 404
	ErrDenied    = errors.New("access denied")         // 403
	ErrTruncated = errors.New("ended before its last byte")
	ErrUnsafe    = unpack.ErrUnsafe // a path leaves the folder, a device node
)

// Progress takes the bytes had so far and the bytes to come in all (0 when unknown). May be nil.
type Progress func(done, total int64)
