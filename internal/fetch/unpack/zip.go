package unpack

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

// encrypted is bit 0 of the general purpose flags (APPNOTE 4.4.4).
const encrypted = 1

// zip spools the archive, because its table of contents stands at its end.
func (t *tree) zip(r io.Reader) error {
	if t.o.Spool == nil {
		return errors.New("zip cannot be unpacked from a stream")
	}
	f, err := t.o.Spool()
	if err != nil {
		return err
	}
	size, err := io.CopyBuffer(struct{ io.Writer }{f}, r, t.buf)
	if err != nil {
		return err
	}
	z, err := zip.NewReader(f, size)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) { // we judge paths ourselves
		return fmt.Errorf("cannot read zip: %w", err)
	}
	if len(z.File) > t.o.Limits.Files {
		return fmt.Errorf("%w: it has more than %d members", ErrLimit, t.o.Limits.Files)
	}
	for _, m := range z.File {
		if err := t.zipMember(m); err != nil {
			return err
		}
	}
	return nil
}

func (t *tree) zipMember(m *zip.File) error {
	switch {
	case m.Flags&encrypted != 0:
		return fmt.Errorf("cannot unpack %q: it is encrypted", m.Name)
	case strings.Contains(m.Name, `\`):
		return fmt.Errorf("path %q has a backslash: %w", m.Name, ErrUnsafe)
	}
	e := entry{name: m.Name, mode: m.Mode().Perm(), time: m.Modified}
	switch m.Mode().Type() {
	case fs.ModeDir:
		e.kind = folder
		return t.add(e)
	case fs.ModeSymlink:
		e.kind = symlink
	case 0:
	default:
		return fmt.Errorf("%q is a device node or a fifo: %w", m.Name, ErrUnsafe)
	}
	body, err := m.Open()
	if err != nil {
		return fmt.Errorf("cannot unpack %q: %w", m.Name, err)
	}
	defer body.Close()
	if e.kind == symlink {
		text, err := io.ReadAll(io.LimitReader(body, int64(t.o.Limits.Path)+1))
		if err != nil {
			return fmt.Errorf("cannot unpack %q: %w", m.Name, err)
		}
		e.link = string(text)
	}
	e.body = body
	return t.add(e)
}
