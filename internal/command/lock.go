package command

import (
	"fmt"

	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/layers"
	"github.com/amiagent/amiagent/internal/lock"
)

// heldBy reads the lock named on the command line; nil when none is.
func heldBy(name string) (*layers.Document, error) {
	if name == "" {
		return nil, nil
	}
	b, err := readLimited(name, lock.MaxBytes)
	if err != nil {
		return nil, usage{fmt.Errorf("cannot read the lock %s: %w", name, host.Cause(err))}
	}
	return &layers.Document{Source: name, File: name, Data: b, Origin: name}, nil
}
