package pin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"time"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
)

// RecordPath is what is remembered of pins, inside the root.
const RecordPath = "/var/lib/amiagent/pin.json"

const recordFormat = 1

// maxHistory is how many moves are remembered.
const maxHistory = 20

// record is what the machine itself cannot show: what was in force before.
type record struct {
	Format int `json:"format"`
	// Chosen is the release of the last move; Image means it from then on.
	Chosen string `json:"chosen,omitempty"`
	// Moving is a move that was begun and not ended.
	Moving  *move  `json:"moving,omitempty"`
	History []move `json:"history,omitempty"` // oldest first
}

// move is one Advance or Rollback.
type move struct {
	From string    `json:"from"`
	To   string    `json:"to"`
	At   time.Time `json:"at"`
}

func loadRecord(h *host.Host) (record, error) {
	b, err := h.ReadLimited(RecordPath, 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return record{Format: recordFormat}, nil
	}
	var r record
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err == nil && r.Format != recordFormat {
		err = fmt.Errorf("its format is %d, this agent knows %d", r.Format, recordFormat)
	}
	if err != nil {
		return record{}, diag.WithHint(fmt.Errorf("cannot read the record of pins %s: %w", RecordPath, err),
			"move it away to forget earlier releases; what is in force is not in it")
	}
	return r, nil
}

func (r record) save(ctx context.Context, h *host.Host) error {
	if n := len(r.History); n > maxHistory {
		r.History = r.History[n-maxHistory:]
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		err = h.MkdirAll(path.Dir(RecordPath))
	}
	if err == nil {
		err = h.WriteFile(ctx, host.File{Path: RecordPath, Data: bytes.NewReader(append(b, '\n')), Mode: 0o644, UID: host.Keep, GID: host.Keep})
	}
	if err != nil {
		return fmt.Errorf("cannot remember the pin: %w", err)
	}
	return nil
}
