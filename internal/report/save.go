package report

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
)

// Dir is where the agent keeps its reports, inside the root.
const Dir = "/var/lib/amiagent/reports"

const (
	keepReports = 20
	maxReport   = 16 << 20
)

// ErrNone is a machine without a report.
var ErrNone = errors.New("no report yet")

// Save keeps a report as dir/ID.json, mode 0600 in a folder of mode 0700,
// whole and durable, and removes all but the last twenty.
func Save(h *host.Host, dir string, rep Report) error {
	if err := save(h, dir, rep); err != nil {
		return fmt.Errorf("cannot save report %s: %w", rep.ID, err)
	}
	return nil
}

func save(h *host.Host, dir string, rep Report) error {
	if rep.ID == "" || strings.ContainsAny(rep.ID, "/\x00") || strings.HasPrefix(rep.ID, ".") {
		return fmt.Errorf("%q is no report id", rep.ID)
	}
	var b bytes.Buffer
	if err := JSON(&b, rep); err != nil {
		return err
	}
	if err := h.MkdirAll(dir); err != nil {
		return err
	}
	if err := h.SetMeta(dir, 0o700, host.Keep, host.Keep); err != nil {
		return err
	}
	// The oldest go first, so that a disk filled to its end takes a new one again.
	ids, err := List(h, dir)
	if err != nil {
		return err
	}
	ids = slices.DeleteFunc(ids, func(id string) bool { return id == rep.ID })
	for _, id := range ids[:max(0, len(ids)-keepReports+1)] {
		if err := h.Remove(file(dir, id)); err != nil {
			return err
		}
	}
	return h.WriteFile(context.Background(), host.File{
		Path: file(dir, rep.ID), Data: &b, Mode: 0o600, UID: host.Keep, GID: host.Keep,
	})
}

func file(dir, id string) string { return path.Join(dir, id+".json") }

// List gives the ids of the kept reports, oldest first. No folder is no report.
func List(h *host.Host, dir string) ([]string, error) {
	entries, err := h.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var ids []string
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), ".json"); ok && !strings.HasPrefix(id, ".") {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, err
}

// Latest loads the newest report; without one the error is ErrNone.
func Latest(h *host.Host, dir string) (Report, error) {
	ids, err := List(h, dir)
	if err != nil {
		return Report{}, fmt.Errorf("cannot list reports: %w", asRoot(err))
	}
	if len(ids) == 0 {
		return Report{}, ErrNone
	}
	return Load(h, dir, ids[len(ids)-1])
}

// Load loads the report of one launch.
func Load(h *host.Host, dir, id string) (Report, error) {
	b, err := h.ReadLimited(file(dir, id), maxReport)
	if err != nil {
		return Report{}, fmt.Errorf("cannot read report %s: %w", id, asRoot(err))
	}
	rep, err := Parse(b)
	if err != nil {
		return rep, fmt.Errorf("cannot read report %s: %w", id, err)
	}
	return rep, nil
}

// Parse reads a report. A format number that is not ours is refused.
func Parse(b []byte) (Report, error) {
	var rep Report
	if err := json.Unmarshal(b, &rep); err != nil {
		return Report{}, err
	}
	if rep.Format != ReportFormat {
		return Report{}, fmt.Errorf("format %d, this agent knows %d", rep.Format, ReportFormat)
	}
	return rep, nil
}

func asRoot(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return diag.WithHint(err, "run as root")
	}
	return err
}
