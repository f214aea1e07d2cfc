// Package https fetches from web servers.
//
// User and password of an address are sent to its own host only. Nothing a
// server answers changes the address, beside a redirect within the bounds of
// package web; go-getter's X-Terraform-Get is not looked at.
package https

import (
	"context"
	"fmt"
	"net/http"

	"github.com/amiagent/amiagent/internal/fetch"
	"github.com/amiagent/amiagent/internal/fetch/web"
)

// maxRedirects is ample: a download site, its mirror, its CDN.
const maxRedirects = 5

type source struct{ client *web.Client }

// New makes the source. Its error says what is wrong with the settings.
func New(o web.Options) (fetch.Source, error) {
	o.Redirects = maxRedirects
	c, err := web.New(o)
	return &source{c}, err
}

func (s *source) Open(ctx context.Context, a fetch.Address, _ fetch.Scratch) (fetch.Object, error) {
	u := *a.URL
	u.User, u.Fragment = nil, ""
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return fetch.Object{}, fmt.Errorf("cannot ask for it: %w", err)
	}
	if user := a.URL.User; user != nil {
		password, _ := user.Password()
		req.SetBasicAuth(user.Username(), password)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return fetch.Object{}, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return fetch.Object{}, web.Status(resp, "")
	}
	return fetch.Object{
		Body:     resp.Body,
		Size:     resp.ContentLength,
		Origin:   fetch.Redact(resp.Request.URL.String()),
		Version:  resp.Header.Get("ETag"),
		Cuttable: web.Cuttable(resp),
	}, nil
}
