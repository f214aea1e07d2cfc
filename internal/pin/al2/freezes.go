package al2

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"time"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
)

// freezesPath remembers what was frozen together, so that a release can be
// gone back to: the content id of one repository does not tell those of the others.
const freezesPath = "/var/lib/amiagent/pin-al2.json"

const (
	freezesFormat = 1
	maxFreezes    = 50
)

type freezes struct {
	Format  int      `json:"format"`
	Freezes []freeze `json:"freezes"` // oldest first
}

type freeze struct {
	Release      string            `json:"release"`
	At           time.Time         `json:"at"`
	Repositories map[string]string `json:"repositories"` // id to base
}

func loadFreezes(h *host.Host) (freezes, error) {
	f := freezes{Format: freezesFormat}
	b, err := h.ReadLimited(freezesPath, 4<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err == nil && f.Format != freezesFormat {
		err = fmt.Errorf("its format is %d, this agent knows %d", f.Format, freezesFormat)
	}
	if err != nil {
		return freezes{}, diag.WithHint(fmt.Errorf("cannot read what was frozen before, %s: %w", freezesPath, err), "move it away to forget earlier releases")
	}
	return f, nil
}

// of is what a release had, nil when it was never held here.
func (f freezes) of(release string) map[string]string {
	for _, one := range f.Freezes {
		if one.Release == release {
			return one.Repositories
		}
	}
	return nil
}

// age is a release's place in time; one that is not known is the newest.
func (f freezes) age(release string) int {
	for i, one := range f.Freezes {
		if one.Release == release {
			return i
		}
	}
	return len(f.Freezes)
}

func remember(ctx context.Context, h *host.Host, release string, bases map[string]string) error {
	f, err := loadFreezes(h)
	if err != nil {
		return err
	}
	if maps.Equal(f.of(release), bases) {
		return nil
	}
	at := f.age(release)
	one := freeze{release, time.Now().UTC().Truncate(time.Second), bases}
	if at < len(f.Freezes) {
		one.At = f.Freezes[at].At
		f.Freezes[at] = one
	} else {
		f.Freezes = append(f.Freezes, one)
	}
	if n := len(f.Freezes); n > maxFreezes {
		f.Freezes = f.Freezes[n-maxFreezes:]
	}
	b, err := json.MarshalIndent(f, "", "  ")
	if err == nil {
		err = h.MkdirAll(path.Dir(freezesPath))
	}
	if err == nil {
		err = h.WriteFile(ctx, host.File{Path: freezesPath, Data: bytes.NewReader(append(b, '\n')), Mode: 0o644, UID: host.Keep, GID: host.Keep})
	}
	if err != nil {
		return fmt.Errorf("cannot remember what is frozen: %w", err)
	}
	return nil
}
