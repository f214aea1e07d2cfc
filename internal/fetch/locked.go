package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/amiagent/amiagent/internal/diag"
)

// Named is a request's address as a lock compares and shows it, without
// secrets, and the digest that the request or its address asks for by itself.
// The region and the endpoint of an S3 address do not count: it names the same
// object through whichever of them.
func (r Request) Named() (name, digest string) {
	a, err := Parse(r.Source)
	if err != nil {
		return Redact(r.Source), r.Digest
	}
	if r.Digest != "" {
		return a.String(), r.Digest
	}
	return a.String(), a.Digest
}

// Held is the request for exactly the bytes that a lock names: their digest,
// their size (0: not known) and, in S3, their version ("": not known). A
// request that itself asks for others is an error that names both.
//
// The version is asked for first, so that a launch gets the locked bytes after
// the object was replaced. The address as it was written is a mirror: a role
// may be allowed s3:GetObject and not s3:GetObjectVersion, and the digest holds either way.
func (r Request) Held(digest string, size int64, version string) (Request, error) {
	if _, own := r.Named(); own != "" && own != digest {
		return r, fmt.Errorf("the manifest says %s, the lock has %s", own, digest)
	}
	if r.Size > 0 && size > 0 && r.Size != size {
		return r, fmt.Errorf("the manifest says %d bytes, the lock has %d", r.Size, size)
	}
	r.Digest = digest
	if size > 0 {
		r.Size = size
	}
	a, err := Parse(r.Source)
	if err != nil || a.Kind != KindS3 || version == "" {
		return r, nil // a fault of the address is Validate's to report
	}
	if a.S3.Version != "" {
		if a.S3.Version != version {
			return r, fmt.Errorf("the manifest says version %s, the lock has %s", a.S3.Version, version)
		}
		return r, nil
	}
	r.Mirrors = slices.Insert(slices.Clone(r.Mirrors), 0, r.Source)
	sep := "?"
	if strings.Contains(r.Source, "?") {
		sep = "&"
	}
	r.Source += sep + "versionId=" + url.QueryEscape(version)
	return r, nil
}

// Resolved is what a request stands for at one time.
type Resolved struct {
	Digest  string // as Item.Digest
	Size    int64  // bytes as fetched; 0 for git
	Version string // version id in S3; "" where nothing names exactly these bytes
	Origin  string // without secrets
}

// Resolve finds out what a request stands for now, and keeps nothing of it. The
// bytes are read once for their digest; those of an S3 object whose version is
// still that of known are not, and neither are those of a repository. Several
// tries are made, as by Fetch, and mirrors asked in turn. Bytes that are not
// those the request asks for are an error.
func (s *Store) Resolve(ctx context.Context, req Request, known Resolved) (Resolved, error) {
	w, err := read(req)
	if err != nil {
		return Resolved{}, err
	}
	var out Resolved
	err = s.opt.Policy.retry(ctx, w.addrs[0].String(), func(ctx context.Context) error {
		var errs []error
		for _, a := range w.addrs {
			r, err := s.resolveOnce(ctx, w, a, known)
			if err == nil {
				out = r
				return nil
			}
			errs = append(errs, fmt.Errorf("cannot read %s: %w", a, err))
		}
		return errors.Join(errs...)
	})
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return out, err
}

func (s *Store) resolveOnce(ctx context.Context, w want, a Address, known Resolved) (Resolved, error) {
	src, ok := s.opt.Sources[a.Kind]
	if !ok {
		return Resolved{}, fmt.Errorf("addresses of %s are not served here", a.Kind)
	}
	if commit, ok := strings.CutPrefix(w.digest, "git:"); ok {
		a.Ref = commit
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
		return Resolved{}, err
	}
	defer obj.Body.Close()
	out := Resolved{Origin: obj.Origin, Digest: obj.Digest}
	if obj.Digest != "" {
		return out, nil // the source has verified it
	}
	if a.Kind == KindS3 {
		if o, err := Parse(obj.Origin); err == nil && o.S3.Version != "null" { // the one that a bucket without versions has
			out.Version = o.S3.Version
		}
	}
	if out.Version != "" && out.Version == known.Version && (w.digest == "" || w.digest == known.Digest) {
		out.Digest, out.Size = known.Digest, known.Size
		return out, nil
	}
	if obj.Cuttable && w.digest == "" && w.req.Size == 0 {
		return Resolved{}, diag.WithHint(fmt.Errorf("%w, perhaps: the server tells neither a length nor an end", ErrTruncated), "say the digest or the size")
	}
	algorithm := "sha256"
	if w.digest != "" {
		algorithm, _, _ = strings.Cut(w.digest, ":")
	}
	in := &intake{ctx: ctx, r: obj.Body, want: obj.Size, limit: s.opt.Limits.Bytes, hash: newHash(algorithm)}
	if _, err := io.Copy(io.Discard, in); err != nil {
		return Resolved{}, err
	}
	out.Digest, out.Size = fmt.Sprintf("%s:%x", algorithm, in.hash.Sum(nil)), in.n
	if w.digest != "" && out.Digest != w.digest {
		return Resolved{}, diag.WithHint(fmt.Errorf("%w: got %s, want %s", ErrDigest, out.Digest, w.digest), "the manifest asks for other bytes than the address has: correct the digest in the manifest, or the address")
	}
	if w.req.Size > 0 && out.Size != w.req.Size {
		return Resolved{}, sizeError(out.Size, w.req.Size)
	}
	return out, nil
}
