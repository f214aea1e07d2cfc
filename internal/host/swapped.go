package host

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
)

// maxSwapped bounds a configuration file that may have to go back.
const maxSwapped = 4 << 20

// Swapped does work that rewrites files and then runs the package manager, and
// puts the files back as they were when the work fails: what is configured is
// then still what is installed.
func Swapped(ctx context.Context, h *Host, files []string, work func() error) error {
	before := map[string][]byte{}
	for _, f := range files {
		b, err := h.ReadLimited(f, maxSwapped)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		before[f] = b
	}
	err := work()
	if err == nil {
		return nil
	}
	back := context.WithoutCancel(ctx)
	for _, f := range files {
		old, was := before[f]
		if !was {
			err = errors.Join(err, h.Remove(f))
			continue
		}
		if now, rerr := h.ReadLimited(f, maxSwapped); rerr != nil || !bytes.Equal(now, old) {
			err = errors.Join(err, h.WriteFile(back, File{Path: f, Data: bytes.NewReader(old), Mode: 0o644, UID: Keep, GID: Keep}))
		}
	}
	return err
}
