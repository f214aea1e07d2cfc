package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/amiagent/amiagent/internal/diag"
)

// ReadDocument reads a small document, as a layer of the manifest, through the
// same sources and with the same patience, into memory. More than limit bytes
// are an error. Errors leave it to the caller to name the address. A checksum= in the address is held against what came. origin
// is where it came from, without secrets, with version id or commit.
func (s *Store) ReadDocument(ctx context.Context, address string, limit int64) (data []byte, origin string, err error) {
	w, err := read(Request{Name: "document", Source: address})
	if err != nil {
		return nil, "", err
	}
	a := w.addrs[0]
	err = s.opt.Policy.retry(ctx, a.String(), func(ctx context.Context) error {
		data, origin, err = s.readOnce(ctx, w, a, limit)
		return err
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil, "", context.Cause(ctx)
		}
		return nil, "", err
	}
	return data, origin, nil
}

func (s *Store) readOnce(ctx context.Context, w want, a Address, limit int64) ([]byte, string, error) {
	src, ok := s.opt.Sources[a.Kind]
	if !ok {
		return nil, "", fmt.Errorf("addresses of %s are not served here", a.Kind)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var used string
	defer func() { _ = os.RemoveAll(used) }()
	obj, err := src.Open(ctx, a, func() (string, error) { // only git asks for it
		outside, inside, err := s.job()
		used = outside
		return inside, err
	})
	if err != nil {
		return nil, "", err
	}
	defer obj.Body.Close()
	if obj.Tree {
		return nil, "", diag.WithHint(errors.New("it is a folder of the repository"), "name a file after //")
	}
	if obj.Cuttable && w.digest == "" {
		return nil, "", diag.WithHint(fmt.Errorf("%w, perhaps: the server tells neither a length nor an end", ErrTruncated), "add checksum=sha256:HEX to the address")
	}
	algorithm := "sha256"
	if w.digest != "" && obj.Digest == "" {
		algorithm, _ = splitDigest(w.digest)
	}
	in := &intake{ctx: ctx, r: obj.Body, want: obj.Size, limit: limit, hash: newHash(algorithm)}
	data, err := io.ReadAll(in)
	if err != nil {
		return nil, "", err
	}
	if digest := fmt.Sprintf("%s:%x", algorithm, in.hash.Sum(nil)); w.digest != "" && obj.Digest == "" && digest != w.digest {
		return nil, "", diag.WithHint(fmt.Errorf("%w: got %s, want %s", ErrDigest, digest, w.digest), "the document was replaced after its digest was written down")
	}
	return data, obj.Origin, nil
}
