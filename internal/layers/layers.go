// Package layers reads the sources of a manifest and keeps what was last good.
//
// A layer is a file or folder in the image, an object in S3 or behind HTTPS, an
// SSM parameter, or the instance's user data. What an instance once launched
// from it keeps: when a source is out of reach at a later boot, the kept copy
// serves, and the report says so.
package layers

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/amiagent/amiagent/internal/config"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/manifest"
)

// Document is the bytes of one layer and where they are from.
type Document struct {
	Source string // the layer's address, templates filled in, without credentials
	File   string // how faults name it; for a folder, one of its files
	Data   []byte
	Origin string // with version id or commit, without credentials
	Kept   bool   // the last good copy: the source is out of reach
	Lock   bool   `json:",omitempty"` // no layer, but the lock that layers are held against
	// Varies tells that what it is depends on facts of the launch: its address does, or it is user data.
	Varies bool `json:",omitempty"`
	// Signature is what lay beside a remote document, where signatures are asked for.
	Signature []byte `json:",omitempty"`
}

// Digest is sha256:HEX of the bytes.
func (d Document) Digest() string { return digest("sha256", d.Data) }

func digest(algorithm string, data []byte) string {
	if algorithm == "sha512" {
		sum := sha512.Sum512(data)
		return "sha512:" + hex.EncodeToString(sum[:])
	}
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// ErrDigest is a layer whose bytes are not those that agent.yaml or user data name: refused.
var ErrDigest = errors.New("digest does not match")

// ErrAddress is a document whose address cannot be filled in on this machine.
var ErrAddress = errors.New("cannot resolve")

// ErrNone is a machine without any manifest.
var ErrNone = errors.New("no manifest")

// Options are what reading needs.
type Options struct {
	Host *host.Host
	// Fill renders templates in an address; faults name the layer.
	Fill func(address string) (string, error)
	// Remote reads an s3, https or git address.
	Remote func(ctx context.Context, address string, limit int64) (data []byte, origin string, err error)
	// Parameter reads an SSM parameter.
	Parameter func(ctx context.Context, name string) (string, error)
	// UserData reads the instance's user data; nil data when it has none.
	UserData func(ctx context.Context) ([]byte, error)
	// Kept are the last good documents of this instance.
	Kept []Document
	// Varies tells whether an address, before Fill, depends on facts of the launch. nil: none does.
	Varies func(address string) bool
	// Signed holds the bytes of a remote document against its signature, which
	// lies beside it; nil when there is none. nil: signatures are not asked for.
	Signed func(name string, data, signature []byte) error
	// What is being read, for messages; "": a layer.
	What string
	// Patience is how long a source may take when a kept copy could serve; 0: 10 s.
	Patience time.Duration
}

// Resolve reads all layers in order. Notes tell which of them are kept copies.
func Resolve(ctx context.Context, refs []config.Layer, opt Options) (docs []Document, notes []string, err error) {
	if opt.Patience == 0 {
		opt.Patience = 10 * time.Second
	}
	if opt.What == "" {
		opt.What = "layer"
	}
	r := &reader{opt: opt}
	for _, ref := range refs {
		more, err := r.layer(ctx, ref)
		if err != nil {
			return nil, r.notes, err
		}
		docs = append(docs, more...)
	}
	if len(docs) == 0 {
		tried := make([]string, len(refs))
		for i, ref := range refs {
			tried[i] = ref.Source
		}
		return nil, r.notes, diag.WithHint(fmt.Errorf("%w: none of the layers has one: %s", ErrNone, strings.Join(tried, ", ")),
			"put one in %s, or name its source under layers: in %s", config.ManifestDir, config.Path)
	}
	return docs, r.notes, nil
}

type reader struct {
	opt   Options
	notes []string
}

func (r *reader) layer(ctx context.Context, ref config.Layer) ([]Document, error) {
	address, err := r.opt.Fill(ref.Source)
	if err != nil {
		return nil, diag.WithHint(fmt.Errorf("%w the %s %s: %w", ErrAddress, r.opt.What, ref.Source, err), "%s", diag.Hint(err))
	}
	switch {
	case address == config.UserData:
		return r.userData(ctx, ref)
	case strings.HasPrefix(address, "/"):
		return r.local(address, ref)
	}
	doc, err := r.remote(ctx, address, ref)
	if err != nil || doc == nil {
		return nil, err
	}
	return []Document{*doc}, nil
}

// local reads a file, or the files of a folder that end in .yaml or .yml, by name.
func (r *reader) local(name string, ref config.Layer) ([]Document, error) {
	st, err := r.opt.Host.Stat(name)
	if errors.Is(err, fs.ErrNotExist) && ref.Optional {
		return nil, nil
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	if err != nil {
		return nil, diag.WithHint(fmt.Errorf("cannot read the %s %s: %w", r.opt.What, name, err),
			"create it, or say optional: true of it in %s", config.Path)
	}
	files := []string{name}
	if st.IsDir() {
		if ref.Digest != "" {
			return nil, diag.WithHint(fmt.Errorf("cannot verify the layer %s: it is a folder, and a digest is of one file", name), "name its files as layers, each with its digest")
		}
		entries, err := r.opt.Host.ReadDir(name)
		if err != nil {
			return nil, fmt.Errorf("cannot read the layer %s: %w", name, err)
		}
		files = nil
		for _, e := range entries {
			if ext := path.Ext(e.Name()); ext == ".yaml" || ext == ".yml" {
				files = append(files, path.Join(name, e.Name()))
			}
		}
	}
	var docs []Document
	for _, f := range files {
		b, err := r.opt.Host.ReadLimited(f, manifest.MaxBytes)
		if err != nil {
			return nil, fmt.Errorf("cannot read the %s %s: %w", r.opt.What, f, err)
		}
		docs = append(docs, Document{Source: f, File: f, Data: b, Origin: f, Varies: r.varies(ref)})
	}
	if ref.Digest != "" {
		return docs, r.verify(docs[0], ref.Digest)
	}
	return docs, nil
}

func (r *reader) remote(ctx context.Context, address string, ref config.Layer) (*Document, error) {
	shown := redact(address)
	kept := slices.IndexFunc(r.opt.Kept, func(d Document) bool { return d.Source == shown })
	limited := ctx
	if kept >= 0 {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeoutCause(ctx, r.opt.Patience, fmt.Errorf("no answer in %s", r.opt.Patience))
		defer cancel()
	}
	doc := Document{Source: shown, File: shown, Varies: r.varies(ref)}
	var err error
	if name, ok := strings.CutPrefix(address, "ssm:"); ok {
		var text string
		text, err = r.opt.Parameter(limited, name)
		doc.Data, doc.Origin = []byte(text), shown
	} else {
		doc.Data, doc.Origin, err = r.opt.Remote(limited, address, manifest.MaxBytes)
	}
	if err == nil {
		err = r.verify(doc, ref.Digest)
	}
	if errors.Is(err, ErrDigest) {
		return nil, err
	}
	if err == nil && r.opt.Signed != nil {
		doc.Signature, err = r.signature(limited, address)
		if err == nil {
			if err := r.opt.Signed(shown, doc.Data, doc.Signature); err != nil {
				return nil, err
			}
		}
	}
	if err == nil {
		return &doc, nil
	}
	if kept >= 0 && ctx.Err() == nil {
		doc = r.opt.Kept[kept]
		if r.verify(doc, ref.Digest) == nil && (r.opt.Signed == nil || r.opt.Signed(shown, doc.Data, doc.Signature) == nil) {
			doc.Kept = true
			r.notes = append(r.notes, fmt.Sprintf("the %s %s is out of reach, its last good copy serves: %v", r.opt.What, shown, err))
			return &doc, nil
		}
	}
	if ref.Optional && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return nil, diag.WithHint(fmt.Errorf("cannot read the %s %s: %w", r.opt.What, shown, err), "%s", diag.Hint(err))
}

func (r *reader) verify(d Document, want string) error {
	if want == "" {
		return nil
	}
	algorithm, _, _ := strings.Cut(want, ":")
	if algorithm != "sha256" && algorithm != "sha512" {
		return diag.WithHint(fmt.Errorf("%w: the %s %s: %q is no digest", ErrDigest, r.opt.What, d.Source, want), "write sha256:HEX or sha512:HEX")
	}
	if got := digest(algorithm, d.Data); got != strings.ToLower(want) {
		return diag.WithHint(fmt.Errorf("%w: the %s %s is %s, wanted %s", ErrDigest, r.opt.What, d.Source, got, want),
			"the %s has changed since its digest was written down; look at the change, then update the digest", r.opt.What)
	}
	return nil
}

// redact drops what an address may hold of credentials: user info and all of the query but a version.
func redact(address string) string {
	if scheme, rest, ok := strings.Cut(address, "://"); ok {
		host, path, _ := strings.Cut(rest, "/")
		if _, after, ok := strings.Cut(host, "@"); ok {
			host = after
		}
		address = scheme + "://" + host + "/" + path
	}
	base, query, ok := strings.Cut(address, "?")
	if !ok {
		return address
	}
	var shown []string
	for part := range strings.SplitSeq(query, "&") {
		if k, _, _ := strings.Cut(part, "="); slices.Contains([]string{"versionId", "version", "ref", "archive"}, k) {
			shown = append(shown, part)
		}
	}
	if len(shown) == 0 {
		return base
	}
	return base + "?" + strings.Join(shown, "&")
}
