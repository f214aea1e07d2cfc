package units

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/step"
)

const maxText = 1 << 20

// texts are the files that the unit says, by path, in a fixed order.
func (u *Unit) texts() (paths []string, text map[string]string) {
	text = map[string]string{}
	add := func(p, s string) {
		if !strings.HasSuffix(s, "\n") {
			s += "\n"
		}
		paths, text[p] = append(paths, p), s
	}
	if u.Content != "" {
		add(path.Join(host.UnitDir, u.name), u.Content)
	}
	for _, name := range slices.Sorted(maps.Keys(u.DropIns)) {
		add(path.Join(host.UnitDir, u.name+".d", strings.TrimSuffix(name, ".conf")+".conf"), u.DropIns[name])
	}
	return paths, text
}

// textDrift is the first of the unit's files that is not as it should be.
func (u *Unit) textDrift(h *host.Host) (step.Drift, error) {
	paths, text := u.texts()
	for _, p := range paths {
		d, err := fileDrift(h, p, text[p])
		if err != nil || d != "" {
			return d, err
		}
	}
	return "", nil
}

func fileDrift(h *host.Host, p, want string) (step.Drift, error) {
	st, err := h.Lstat(p)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return step.Drift(p + " is missing"), nil
	case err != nil:
		return "", err
	case st.Mode()&fs.ModeSymlink != 0:
		to, _ := h.Readlink(p)
		return step.Drift(fmt.Sprintf("%s is a link to %s, want a file", p, to)), nil
	case !st.Mode().IsRegular():
		return step.Drift(p + " is no file"), nil
	case st.Mode().Perm() != 0o644:
		return step.Drift(fmt.Sprintf("mode of %s is %04o, want 0644", p, st.Mode().Perm())), nil
	case st.Size() != int64(len(want)):
		return step.Drift(p + " differs"), nil
	}
	b, err := h.ReadLimited(p, maxText)
	if err != nil {
		return "", err
	}
	if string(b) != want {
		return step.Drift(p + " differs"), nil
	}
	return "", nil
}

// writeTexts writes those of the unit's files that differ, and tells whether it wrote any.
func (u *Unit) writeTexts(ctx context.Context, h *host.Host) (wrote bool, err error) {
	paths, text := u.texts()
	for _, p := range paths {
		d, err := fileDrift(h, p, text[p])
		if err != nil {
			return wrote, err
		}
		if d == "" {
			continue
		}
		if err := h.MkdirAll(path.Dir(p)); err != nil {
			return wrote, fmt.Errorf("cannot write %s: %w", p, err)
		}
		err = h.WriteFile(ctx, host.File{Path: p, Data: strings.NewReader(text[p]), Mode: 0o644, UID: host.Keep, GID: host.Keep})
		if err != nil {
			return wrote, fmt.Errorf("cannot write %s: %w", p, err)
		}
		wrote = true
	}
	return wrote, nil
}
