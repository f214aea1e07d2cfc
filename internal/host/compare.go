package host

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"path/filepath"

	securejoin "github.com/cyphar/filepath-securejoin"
)

// SameContent compares two streams to their ends or to the first difference,
// in pieces, so that size is no matter.
func SameContent(ctx context.Context, a, b io.Reader) (bool, error) {
	const piece = 16 << 10 // most files are small
	x, y := bufio.NewReaderSize(a, piece), bufio.NewReaderSize(b, piece)
	for {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		p, errP := x.Peek(piece)
		q, errQ := y.Peek(piece)
		if !bytes.Equal(p, q) {
			return false, nil
		}
		for _, err := range []error{errP, errQ} {
			if err != nil && err != io.EOF {
				return false, err
			}
		}
		if errP == io.EOF && errQ == io.EOF {
			return true, nil
		}
		_, _ = x.Discard(len(p)) // they were just peeked at
		_, _ = y.Discard(len(q))
	}
}

// RelativeLink is the text of a link at name that leads to target, both paths
// of the machine. It takes links among the parents into account, and it holds
// wherever the root is mounted, which an absolute one does not.
func (h *Host) RelativeLink(target, name string) (string, error) {
	to, err := securejoin.SecureJoin(h.root, target)
	if err != nil {
		return "", h.rel(err)
	}
	dir, err := securejoin.SecureJoin(h.root, filepath.Dir(name))
	if err != nil {
		return "", h.rel(err)
	}
	return filepath.Rel(dir, to)
}
