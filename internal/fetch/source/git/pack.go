package git

import (
	"archive/tar"
	"context"
	"io"
	"io/fs"
	"os"
	"path"
)

// pack streams a working tree as a tar, so that it goes through the one
// unpacker, with its limits and its refusals, like everything else. Repository
// folders are left out, of submodules too. Times are left out: git has none.
func pack(ctx context.Context, root *os.Root, sub string) io.ReadCloser {
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer root.Close()
		t := tar.NewWriter(w)
		err := fs.WalkDir(root.FS(), sub, func(p string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case p == sub:
				return nil
			case path.Base(p) == ".git" && d.IsDir():
				return fs.SkipDir
			case path.Base(p) == ".git":
				return nil
			}
			return packOne(t, root, sub, p, d)
		})
		if err == nil {
			err = t.Close()
		}
		w.CloseWithError(err)
	}()
	return &packed{r, done}
}

func packOne(t *tar.Writer, root *os.Root, sub, p string, d fs.DirEntry) error {
	st, err := d.Info()
	if err != nil {
		return err
	}
	name := p
	if sub != "." {
		name = p[len(sub)+1:]
	}
	link := ""
	if st.Mode()&fs.ModeSymlink != 0 {
		if link, err = root.Readlink(p); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(st, link)
	if err != nil {
		return err
	}
	// What git knows of a file: its bytes, and whether it can be run.
	h = &tar.Header{Typeflag: h.Typeflag, Name: name, Linkname: link, Size: h.Size, Mode: 0o644}
	if st.Mode()&0o100 != 0 {
		h.Mode = 0o755
	}
	if err := t.WriteHeader(h); err != nil || !st.Mode().IsRegular() {
		return err
	}
	f, err := root.Open(p)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(t, f)
	return err
}

// packed ends the packer before the folder under it is removed.
type packed struct {
	*io.PipeReader
	done chan struct{}
}

func (p *packed) Close() error {
	err := p.PipeReader.Close()
	<-p.done
	return err
}
