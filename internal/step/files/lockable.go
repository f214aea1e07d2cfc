package files

import "github.com/amiagent/amiagent/internal/step"

// Inputs implements step.Lockable: the bytes at the source, if there is one.
func (f *File) Inputs() []step.Input {
	if f.Source == "" {
		return nil
	}
	req := f.request()
	name, digest := req.Named()
	return []step.Input{{Kind: step.Bytes, Name: name, Want: digest, Request: req}}
}

// Lock implements step.Lockable.
func (f *File) Lock(_ step.Input, to step.Resolution) error {
	req, err := f.request().Held(to.Digest, to.Size, to.Version)
	if err != nil {
		return err
	}
	f.Source, f.Mirrors, f.Digest, f.Size = req.Source, req.Mirrors, req.Digest, req.Size
	return nil
}
