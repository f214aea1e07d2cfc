package agent

import (
	"context"
	"fmt"

	"github.com/amiagent/amiagent/internal/fetch"
	"github.com/amiagent/amiagent/internal/layers"
	"github.com/amiagent/amiagent/internal/lock"
)

// asLocked gives a layer as the lock has it, where the object at its address has
// moved on and S3 keeps the version that the lock names. So a fleet can launch
// with two locks at once although their layers have one address. In any other
// case it gives what came, for the lock to judge.
func (l *launch) asLocked(ctx context.Context, address string, limit int64, data []byte, origin string) ([]byte, string) {
	want := l.lockedLayer(address, layers.Document{Data: data}.Digest())
	if want == nil {
		return data, origin
	}
	a, err := fetch.Parse(want.Origin)
	if err != nil || a.Kind != fetch.KindS3 {
		return data, origin
	}
	held, err := fetch.Request{Source: address}.Held(want.Digest, 0, a.S3.Version)
	if err != nil || held.Source == address {
		return data, origin
	}
	before, from, err := l.document(ctx, held.Source, limit)
	if err != nil {
		l.rec.Note(fmt.Sprintf("the layer %s has moved on, and the version that the lock names cannot be read: %v", fetch.Redact(address), err))
		return data, origin
	}
	if (layers.Document{Data: before}).Digest() != want.Digest {
		return data, origin
	}
	l.rec.Note(fmt.Sprintf("the layer %s has moved on, the version that the lock names serves", fetch.Redact(address)))
	l.moved = append(l.moved, want.Digest)
	return before, from
}

// lockedLayer is the layer that the lock has for an address, if it is not this digest.
func (l *launch) lockedLayer(address, digest string) *lock.Layer {
	if l.lock == nil {
		return nil
	}
	var other *lock.Layer
	for _, m := range l.lock.Manifests {
		for _, layer := range m.Layers {
			if m.Target != l.lock.target || layer.Source != lockName(address) {
				continue
			}
			if layer.Digest == digest {
				return nil
			}
			other = &layer
		}
	}
	return other
}
