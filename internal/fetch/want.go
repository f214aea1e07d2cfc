package fetch

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/fetch/unpack"
)

// want is a Request read and judged.
type want struct {
	req     Request
	addrs   []Address
	digest  string // what the bytes must be, from the request or the address; "" if nobody knows yet
	variant string // what the unpacked tree differs by, beside the digest
	key     string // the identity: requests of one key share one item and one record
}

// Check tells what is wrong with a request, without asking anybody.
func Check(req Request) error {
	_, err := read(req)
	return err
}

func read(req Request) (want, error) {
	w := want{req: req, digest: req.Digest}
	if err := CheckDigest(req.Digest); err != nil {
		return w, err
	}
	if req.Strip < 0 || req.Size < 0 {
		return w, errors.New("strip and size cannot be negative")
	}
	for _, address := range append([]string{req.Source}, req.Mirrors...) {
		a, err := Parse(address)
		if err != nil {
			return w, err
		}
		if err := w.accept(a); err != nil {
			return w, fmt.Errorf("cannot use address %q: %w", Redact(address), err)
		}
		w.addrs = append(w.addrs, a)
	}
	w.variant = w.variantOf(w.addrs[0])
	identity := w.digest
	if identity == "" {
		identity = req.Source
	}
	sum := sha256.Sum256([]byte(fmt.Sprintf("%q %v %q", identity, req.Unpack, w.variant)))
	w.key = hex.EncodeToString(sum[:])
	return w, nil
}

// accept holds one address against the request and the addresses before it.
func (w *want) accept(a Address) error {
	git := a.Kind == KindGit
	if a.Digest != "" {
		if w.digest != "" && w.digest != a.Digest {
			return fmt.Errorf("it says %s, the request says %s", a.Digest, w.digest)
		}
		w.digest = a.Digest
	}
	if len(w.addrs) > 0 && (git != (w.addrs[0].Kind == KindGit) || a.Subdir != w.addrs[0].Subdir) {
		return errors.New("a mirror must serve the same bytes as the source, under the same //folder")
	}
	switch {
	case git && w.digest != "" && !strings.HasPrefix(w.digest, "git:"):
		return diag.WithHint(errors.New("a repository has a commit, not a digest"), "write ?ref=COMMIT or digest git:COMMIT")
	case !git && strings.HasPrefix(w.digest, "git:"):
		return fmt.Errorf("digest %s needs an address of git", w.digest)
	case git && !w.req.Unpack && a.Subdir == "":
		return diag.WithHint(errors.New("a repository is a tree"), "unpack it, or name a file in it after //")
	case !git && !w.req.Unpack && a.Subdir != "":
		return diag.WithHint(fmt.Errorf("folder %q can only be had by unpacking", a.Subdir), "unpack, or write the path without //")
	case a.Format == "false" && w.req.Unpack:
		return errors.New("archive=false contradicts unpack")
	case a.URL.Scheme == "http" && w.digest == "" && a.Kind != KindS3 && !loopback(a.URL):
		return diag.WithHint(errors.New("http without a digest could bring anything"), "use https, or say the digest")
	}
	return nil
}

// variantOf is short, readable, and different for different trees.
func (w *want) variantOf(a Address) string {
	s := ""
	if w.req.Unpack {
		if w.req.Strip > 0 {
			s += fmt.Sprintf("-s%d", w.req.Strip)
		}
		if w.req.UID != 0 || w.req.GID != 0 {
			s += fmt.Sprintf("-o%d.%d", w.req.UID, w.req.GID)
		}
	}
	if a.Subdir != "" {
		sum := sha256.Sum256([]byte(a.Subdir))
		s += "-d" + hex.EncodeToString(sum[:6])
	}
	return s
}

// path is where the item of a digest lies, below the store's folder.
func (w *want) path(digest string) string {
	folder := "blob/"
	if w.req.Unpack {
		folder = "tree/"
	}
	return folder + strings.Replace(digest, ":", "-", 1) + w.variant
}

func (w *want) unpackOptions(a Address) unpack.Options {
	return unpack.Options{Name: a.Name(), Format: a.Format, Strip: w.req.Strip, Subdir: a.Subdir, UID: w.req.UID, GID: w.req.GID}
}
