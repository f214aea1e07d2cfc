// Package repodata reads package repositories without a package manager: what
// packages a repository offers, in which version, and which advisories go with
// them. So one machine can look at the repositories of another OS, release or
// architecture, and at a release that it does not use yet.
//
// The formats are in the folders below: rpmmd for dnf and yum, debian for apt.
// This package has what they share: the words, and a client that bounds every
// document, before and after unpacking it.
package repodata

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/amiagent/amiagent/internal/fetch"
	"github.com/amiagent/amiagent/internal/fetch/web"
)

// Package is one package that a repository offers.
type Package struct {
	Name    string
	Arch    string // as its repository says it: x86_64, amd64, noarch, all
	Version string // [epoch:]version[-release], an epoch of 0 left out
	// Location is the file's address below the repository's base.
	Location string
	Size     int64  // bytes of the file
	Digest   string // algorithm:hex of the file; "" when the repository has none
}

// Advisory is an errata notice of a repository.
type Advisory struct {
	ID       string    `json:"id"`                 // ALAS2023-2025-1234
	Type     string    `json:"type"`               // security, bugfix, enhancement
	Severity string    `json:"severity,omitempty"` // as the vendor writes it
	Packages []Package `json:"-"`                  // those that have the fix
}

const (
	// MaxDocument bounds mirror lists and the documents at a repository's top.
	MaxDocument = 16 << 20
	// MaxIndex bounds an index after it was unpacked. Debian's main has 55 MB, Amazon Linux's core 60 MB.
	MaxIndex = 1 << 30

	tries = 3
	pause = 300 * time.Millisecond
)

// ErrAbsent is a document that its server does not have, or will not show:
// Amazon's repositories answer 403 for releases that do not exist.
var ErrAbsent = errors.New("not there")

// Client reads documents. It is safe for concurrent use.
type Client struct{ web *web.Client }

// New makes a client with these settings of the network. The addresses come
// from the machine's own files, so its loopback is allowed.
func New(o web.Options) (*Client, error) {
	o.Loopback = true
	if o.Redirects == 0 {
		o.Redirects = 5
	}
	c, err := web.New(o)
	if err != nil {
		return nil, err
	}
	return &Client{c}, nil
}

// Get reads a document of at most limit bytes. ErrAbsent covers 401, 403, 404 and 410.
func (c *Client) Get(ctx context.Context, address string, limit int64) ([]byte, error) {
	var all []byte
	err := c.read(ctx, address, func(r io.Reader) (err error) {
		all, err = io.ReadAll(&bounded{r: r, left: limit})
		return err
	})
	return all, err
}

// Read hands a document's content to read as it comes, unpacked by what its
// first bytes say (gzip, zstd, xz, bzip2 or none), at most limit bytes after
// unpacking. read may be called again from the start when the connection breaks.
func (c *Client) Read(ctx context.Context, address string, limit int64, read func(io.Reader) error) error {
	return c.read(ctx, address, func(r io.Reader) error {
		plain, err := Unpack(r, limit)
		if err != nil {
			return err
		}
		defer plain.Close()
		return read(plain)
	})
}

func (c *Client) read(ctx context.Context, address string, read func(io.Reader) error) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("cannot read %s: only http and https addresses can be read", address)
	}
	for n := 1; ; n++ {
		err := c.once(ctx, address, read)
		if err == nil {
			return nil
		}
		if n == tries || !fetch.IsTransient(err) || ctx.Err() != nil {
			return fmt.Errorf("cannot read %s: %w", address, err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Duration(n) * pause):
		}
	}
}

func (c *Client) once(ctx context.Context, address string, read func(io.Reader) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	resp, err := c.web.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		err := web.Status(resp, "")
		if errors.Is(err, fetch.ErrAbsent) || errors.Is(err, fetch.ErrDenied) {
			return fmt.Errorf("%w: the server answered %d", ErrAbsent, resp.StatusCode)
		}
		return err
	}
	return read(resp.Body)
}

// bounded is a reader that fails, rather than ends, beyond its limit.
type bounded struct {
	r    io.Reader
	left int64
}

// ErrTooLarge is a document beyond what a reader was ready for.
var ErrTooLarge = errors.New("the document is too large")

func (b *bounded) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, ErrTooLarge
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return n, ErrTooLarge
	}
	return n, err
}
