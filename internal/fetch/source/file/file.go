// Package file serves files of the machine itself: what an image was baked with.
package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/fetch"
	"github.com/amiagent/amiagent/internal/host"
)

type source struct{ h *host.Host }

// New makes the source; paths are inside h's root.
func New(h *host.Host) fetch.Source { return source{h} }

func (s source) Open(_ context.Context, a fetch.Address, _ fetch.Scratch) (fetch.Object, error) {
	// Looked at before it is opened: opening a fifo would wait for its writer.
	st, err := s.h.Stat(a.URL.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fetch.Object{}, fmt.Errorf("%w: %w", fetch.ErrAbsent, err)
	case errors.Is(err, fs.ErrPermission):
		return fetch.Object{}, fmt.Errorf("%w: %w", fetch.ErrDenied, err)
	case err != nil:
		return fetch.Object{}, err
	case st.IsDir():
		return fetch.Object{}, diag.WithHint(errors.New("it is a folder"), "pack it into an archive")
	case !st.Mode().IsRegular():
		return fetch.Object{}, errors.New("it is no regular file")
	}
	f, err := s.h.Open(a.URL.Path)
	if err != nil {
		return fetch.Object{}, err
	}
	return fetch.Object{Body: f, Size: st.Size(), Origin: "file://" + a.URL.Path}, nil
}
