// Package stamps remembers what a machine cannot show of itself: that a command
// ran, that a service has read its file.
//
// A stamp is one small file for one step, written whole and durably after
// success. It holds the value that the step gave, usually its key with an
// instance or boot id; another value, a file that makes no sense or no file at
// all mean "not done", so the worst that a lost stamp costs is doing it again.
package stamps

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/step"
)

// Dir is where the agent keeps its stamps, inside the root.
const Dir = "/var/lib/amiagent/stamps"

const (
	format  = 1
	maxSize = 64 << 10
)

// Store is a folder of stamps. It is safe for concurrent use; of two
// concurrent Puts for one step either wins.
type Store struct {
	host *host.Host
	dir  string
}

var _ step.Stamps = (*Store)(nil)

type stamp struct {
	Format int    `json:"format"`
	ID     string `json:"id"`
	Value  string `json:"value"`
}

// Open makes the folder, mode 0700, where it is missing.
func Open(h *host.Host, dir string) (*Store, error) {
	if err := h.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("cannot open stamps: %w", err)
	}
	if err := h.SetMeta(dir, 0o700, host.Keep, host.Keep); err != nil {
		return nil, fmt.Errorf("cannot open stamps: %w", err)
	}
	return &Store{h, dir}, nil
}

// file names a step's stamp by kind and digest: a step's name may be a path, or
// longer than a file's name can be.
func (s *Store) file(id step.ID) string {
	sum := sha256.Sum256([]byte(id.String()))
	kind := strings.Map(func(r rune) rune {
		if r == '/' || r == 0 {
			return '_'
		}
		return r
	}, id.Kind)
	return path.Join(s.dir, fmt.Sprintf("%.40s-%s", kind, hex.EncodeToString(sum[:16])))
}

// Has tells whether the step's stamp has this value. What cannot be read is no stamp.
func (s *Store) Has(id step.ID, value string) bool {
	b, err := s.host.ReadLimited(s.file(id), maxSize)
	if err != nil {
		return false
	}
	var st stamp
	if err := json.Unmarshal(b, &st); err != nil {
		return false
	}
	return st == stamp{format, id.String(), value}
}

// Put records the value durably, in place of an earlier one.
func (s *Store) Put(id step.ID, value string) error {
	b, err := json.Marshal(stamp{format, id.String(), value})
	if err == nil && len(b) >= maxSize {
		err = fmt.Errorf("its value has %d bytes", len(value))
	}
	if err == nil {
		err = s.host.WriteFile(context.Background(), host.File{
			Path: s.file(id), Data: bytes.NewReader(append(b, '\n')),
			Mode: 0o600, UID: host.Keep, GID: host.Keep,
		})
	}
	if err != nil {
		return fmt.Errorf("cannot stamp %s: %w", id, err)
	}
	return nil
}

// Drop removes the step's stamp durably. No stamp is no error.
func (s *Store) Drop(id step.ID) error {
	if err := s.host.Remove(s.file(id)); err != nil {
		return fmt.Errorf("cannot drop the stamp of %s: %w", id, err)
	}
	return nil
}
