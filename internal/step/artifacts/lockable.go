package artifacts

import "github.com/amiagent/amiagent/internal/step"

// Inputs implements step.Lockable: the bytes at the source.
func (a *Artifact) Inputs() []step.Input {
	if a.Source == "" {
		return nil
	}
	req := a.request()
	name, digest := req.Named()
	return []step.Input{{Kind: step.Bytes, Name: name, Want: digest, Request: req}}
}

// Lock implements step.Lockable.
func (a *Artifact) Lock(_ step.Input, to step.Resolution) error {
	req, err := a.request().Held(to.Digest, to.Size, to.Version)
	if err != nil {
		return err
	}
	a.Source, a.Mirrors, a.Digest, a.Size = req.Source, req.Mirrors, req.Digest, req.Size
	return nil
}
