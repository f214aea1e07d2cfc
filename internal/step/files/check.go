package files

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/step"
)

// Check implements step.Step. It reads the content in pieces, and never says what is in it.
func (f *File) Check(ctx context.Context, env step.Env) (step.Drift, error) {
	st, err := env.Host.Lstat(f.path)
	switch {
	case host.Missing(err) && f.sort() == absent:
		return "", nil
	case host.Missing(err):
		return "is missing", nil
	case err != nil:
		return "", fmt.Errorf("cannot look at %s: %w", f.path, host.Cause(err))
	case f.sort() == absent:
		return step.Drift("is there: " + sortOf(st)), nil
	case sortOf(st) != string(f.sort()):
		return step.Drift(fmt.Sprintf("is %s, want %s", sortOf(st), f.sort())), nil
	}
	var differs []string
	switch f.sort() {
	case plain:
		same, err := f.sameContent(ctx, env, st)
		switch {
		case errors.Is(err, errNotFetched), errors.Is(err, errNoFrom):
			differs = append(differs, err.Error())
		case err != nil:
			return "", err
		case !same:
			differs = append(differs, "content differs")
		}
	case link:
		to, err := env.Host.Readlink(f.path)
		if err != nil {
			return "", fmt.Errorf("cannot read %s: %w", f.path, host.Cause(err))
		}
		if to != f.Link {
			differs = append(differs, fmt.Sprintf("leads to %s, want %s", to, f.Link))
		}
	}
	meta, err := env.Host.MetaDrift(st, f.meta())
	if err != nil {
		return "", err
	}
	return step.Drift(strings.Join(append(differs, meta...), "; ")), nil
}

// sortOf says what a directory entry is.
func sortOf(st fs.FileInfo) string {
	switch st.Mode().Type() {
	case 0:
		return string(plain)
	case fs.ModeDir:
		return string(folder)
	case fs.ModeSymlink:
		return string(link)
	case fs.ModeNamedPipe:
		return "a pipe"
	case fs.ModeSocket:
		return "a socket"
	}
	return "a device"
}

var (
	errNotFetched = errors.New("source is not fetched")
	errNoFrom     = errors.New("is missing")
)

// open opens the wanted content and tells its size in bytes.
func (f *File) open(env step.Env) (io.ReadCloser, int64, error) {
	inline := func(b []byte) (io.ReadCloser, int64, error) {
		return io.NopCloser(bytes.NewReader(b)), int64(len(b)), nil
	}
	from := f.From
	switch {
	case f.Content != nil:
		return inline([]byte(*f.Content))
	case f.Template != nil:
		return inline([]byte(*f.Template))
	case f.Base64 != nil:
		b, err := decode64(*f.Base64)
		if err != nil {
			return nil, 0, fmt.Errorf("cannot read base64 of %s: %w", f.path, err)
		}
		return inline(b)
	case f.Source != "":
		item, ok := env.Store.Lookup(f.request())
		if !ok {
			return nil, 0, errNotFetched
		}
		from = item.Path
	}
	st, err := env.Host.Stat(from)
	switch {
	case host.Missing(err):
		return nil, 0, fmt.Errorf("%s, the wanted content, %w", from, errNoFrom)
	case err != nil:
		return nil, 0, fmt.Errorf("cannot read %s: %w", from, host.Cause(err))
	case !st.Mode().IsRegular():
		return nil, 0, fmt.Errorf("cannot copy %s: it is %s", from, sortOf(st))
	}
	r, err := env.Host.Open(from)
	if err != nil {
		return nil, 0, fmt.Errorf("cannot read %s: %w", from, host.Cause(err))
	}
	return r, st.Size(), nil
}

// sameContent compares the file, which is a plain one, with the wanted content.
func (f *File) sameContent(ctx context.Context, env step.Env, st fs.FileInfo) (bool, error) {
	want, size, err := f.open(env)
	if err != nil {
		return false, err
	}
	defer want.Close()
	if st.Size() != size {
		return false, nil
	}
	have, err := env.Host.Open(f.path)
	if err != nil {
		return false, fmt.Errorf("cannot read %s: %w", f.path, host.Cause(err))
	}
	defer have.Close()
	same, err := host.SameContent(ctx, have, want)
	if err != nil {
		return false, fmt.Errorf("cannot compare %s: %w", f.path, host.Cause(err))
	}
	return same, nil
}
