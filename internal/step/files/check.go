package files

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/step"
)

// modeBits are those that chmod sets.
const modeBits = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky

// Check implements step.Step. It reads the content in pieces, and never says what is in it.
func (f *File) Check(ctx context.Context, env step.Env) (step.Drift, error) {
	st, err := env.Host.Lstat(f.path)
	switch {
	case missing(err) && f.sort() == absent:
		return "", nil
	case missing(err):
		return "is missing", nil
	case err != nil:
		return "", fmt.Errorf("cannot look at %s: %w", f.path, cause(err))
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
			return "", fmt.Errorf("cannot read %s: %w", f.path, cause(err))
		}
		if to != f.Link {
			differs = append(differs, fmt.Sprintf("leads to %s, want %s", to, f.Link))
		}
	}
	meta, err := f.metaDrift(env, st)
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

// missing tells whether nothing can be at a path: a parent may be a file.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// cause is an error without the operation and the path, for a sentence that has them.
func cause(err error) error {
	switch e := err.(type) {
	case *fs.PathError:
		return e.Err
	case *os.LinkError:
		return e.Err
	}
	return err
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
	case missing(err):
		return nil, 0, fmt.Errorf("%s, the wanted content, %w", from, errNoFrom)
	case err != nil:
		return nil, 0, fmt.Errorf("cannot read %s: %w", from, cause(err))
	case !st.Mode().IsRegular():
		return nil, 0, fmt.Errorf("cannot copy %s: it is %s", from, sortOf(st))
	}
	r, err := env.Host.Open(from)
	if err != nil {
		return nil, 0, fmt.Errorf("cannot read %s: %w", from, cause(err))
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
		return false, fmt.Errorf("cannot read %s: %w", f.path, cause(err))
	}
	defer have.Close()
	same, err := equal(ctx, have, want)
	if err != nil {
		return false, fmt.Errorf("cannot compare %s: %w", f.path, cause(err))
	}
	return same, nil
}

func equal(ctx context.Context, a, b io.Reader) (bool, error) {
	const piece = 64 << 10
	x, y := bufio.NewReaderSize(a, piece), bufio.NewReaderSize(b, piece)
	for {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		p, errP := x.Peek(piece)
		q, errQ := y.Peek(piece)
		if !bytes.Equal(p, q) {
			return false, nil
		}
		for _, err := range []error{errP, errQ} {
			if err != nil && err != io.EOF {
				return false, err
			}
		}
		if errP == io.EOF && errQ == io.EOF {
			return true, nil
		}
		_, _ = x.Discard(len(p)) // they were just peeked at
		_, _ = y.Discard(len(q))
	}
}

// owner are the wanted numbers, host.Keep where the body does not say.
func (f *File) owner(h *host.Host) (uid, gid int, err error) {
	uid, gid = host.Keep, host.Keep
	if f.Owner != "" {
		u, err := h.LookupUser(f.Owner)
		if err != nil {
			return 0, 0, err
		}
		uid, gid = u.UID, u.GID
	}
	if f.Group != "" {
		g, err := h.LookupGroup(f.Group)
		if err != nil {
			return 0, 0, err
		}
		gid = g.GID
	}
	return uid, gid, nil
}

// metaDrift tells how owner, group and mode differ. An owner that does not
// exist yet is drift, so that a plan can be made before the user is.
func (f *File) metaDrift(env step.Env, st fs.FileInfo) ([]string, error) {
	var differs []string
	if have := st.Mode() & modeBits; f.sort() != link && have != f.mode() {
		differs = append(differs, fmt.Sprintf("mode is %s, want %s", octal(have), octal(f.mode())))
	}
	uid, gid, err := f.owner(env.Host)
	if errors.Is(err, host.ErrNoUser) || errors.Is(err, host.ErrNoGroup) {
		return append(differs, err.Error()), nil
	}
	if err != nil {
		return nil, err
	}
	haveUID, haveGID := host.OwnerOf(st)
	if uid != host.Keep && uid != haveUID {
		differs = append(differs, fmt.Sprintf("owner is %s, want %s", userName(env.Host, haveUID), f.Owner))
	}
	if gid != host.Keep && gid != haveGID {
		differs = append(differs, fmt.Sprintf("group is %s, want %s", groupName(env.Host, haveGID), groupName(env.Host, gid)))
	}
	return differs, nil
}

func octal(mode fs.FileMode) string {
	n := uint32(mode.Perm())
	for bit, is := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if mode&is != 0 {
			n |= bit
		}
	}
	return fmt.Sprintf("%04o", n)
}

func userName(h *host.Host, uid int) string {
	u, err := h.LookupUser(fmt.Sprint(uid))
	if err != nil {
		return fmt.Sprint(uid)
	}
	return u.Name
}

func groupName(h *host.Host, gid int) string {
	g, err := h.LookupGroup(fmt.Sprint(gid))
	if err != nil {
		return fmt.Sprint(gid)
	}
	return g.Name
}
