package fetch

import (
	"context"
	"io"
)

// Source serves one kind of address. It is safe for concurrent use, makes one
// attempt (retries are a Policy's), and knows nothing of digests, archives or
// the store.
type Source interface {
	// Open asks for one object. Errors are ErrAbsent and ErrDenied where the
	// source says so, and marked by Transient where another try may help; their
	// text holds no credentials. ctx also bounds reading the body. scratch makes
	// an empty folder for the source's own use; it lives until the body is closed.
	Open(ctx context.Context, a Address, scratch Scratch) (Object, error)
}

// Scratch makes an empty folder and gives its path inside the root.
type Scratch func() (string, error)

// Object is what a source found at an address.
type Object struct {
	Body     io.ReadCloser
	Size     int64  // bytes to come; -1: unknown
	Origin   string // the address without secrets, with version id or commit
	Version  string // what names exactly these bytes at the source: version id, ETag or commit; "" if nothing does
	Digest   string // git:COMMIT, from a source that verifies by itself; else ""
	Tree     bool   // Body is a tar that the source made of a tree
	Cuttable bool   // a broken connection looks like the end, so only a digest or a size can tell
}

// Sources are the sources by kind of address, as {KindS3: s3.New(…)}. A kind
// that is not in it is refused.
type Sources map[string]Source
