package layers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/amiagent/amiagent/internal/host"
)

// KeptPath is where the last good layers of this instance lie.
const KeptPath = "/var/lib/amiagent/kept-layers.json"

const keptFormat = 1

type keptFile struct {
	Format   int        `json:"format"`
	Instance string     `json:"instance"`
	Layers   []Document `json:"layers"`
}

// Keep remembers the documents that an instance has converged on. It writes
// nothing when they are those already kept.
func Keep(ctx context.Context, h *host.Host, instance string, docs []Document) error {
	docs = slices.Clone(docs)
	for i := range docs {
		docs[i].Kept = false
	}
	b, err := json.Marshal(keptFile{Format: keptFormat, Instance: instance, Layers: docs})
	if err != nil {
		return fmt.Errorf("cannot keep the layers: %w", err)
	}
	if old, err := h.ReadFile(KeptPath); err == nil && bytes.Equal(old, b) {
		return nil
	}
	if err := h.WriteFile(ctx, host.File{Path: KeptPath, Data: bytes.NewReader(b), Mode: 0o600, UID: host.Keep, GID: host.Keep}); err != nil {
		return fmt.Errorf("cannot keep the layers: %w", host.Cause(err))
	}
	return nil
}

// Kept are the last good documents of this instance: none when it has never
// launched, or when the file is another instance's, baked into an image.
func Kept(h *host.Host, instance string) ([]Document, error) {
	b, err := h.ReadFile(KeptPath)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the kept layers: %w", err)
	}
	var k keptFile
	if err := json.Unmarshal(b, &k); err != nil {
		return nil, fmt.Errorf("cannot read the kept layers: %w", err)
	}
	if k.Format != keptFormat || k.Instance != instance {
		return nil, nil
	}
	return k.Layers, nil
}
