package files

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/step"
)

// checkTimeout bounds the program of the field check.
const checkTimeout = time.Minute

// Apply implements step.Step.
func (f *File) Apply(ctx context.Context, env step.Env) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if err := f.inTheWay(env); err != nil {
		return err
	}
	var err error
	switch f.sort() {
	case absent:
		err = f.remove(env)
	case folder:
		err = f.makeFolder(ctx, env)
	case link:
		err = f.makeLink(ctx, env)
	default:
		err = f.write(ctx, env)
	}
	return host.Explain(err)
}

// inTheWay refuses to replace what may hold somebody's data.
func (f *File) inTheWay(env step.Env) error {
	st, err := env.Host.Lstat(f.path)
	if err != nil {
		return nil // nothing there, or the writing itself will say what is wrong
	}
	have, want := sortOf(st), string(f.sort())
	switch {
	case f.sort() == folder && have == string(link):
		return diag.WithHint(fmt.Errorf("cannot make folder %s: there is a link in the way", f.path),
			"name the folder that the link leads to, or remove the link with an entry that says `absent: true`")
	case f.sort() == folder && have != want:
		return diag.WithHint(fmt.Errorf("cannot make folder %s: there is %s in the way", f.path, have),
			"move it away; it is not removed, for it may hold data")
	case f.sort() != folder && f.sort() != absent && have == string(folder):
		return diag.WithHint(fmt.Errorf("cannot make %s as %s: there is a folder in the way", f.path, want),
			"move the folder away; it is not removed, for it may hold data")
	}
	return nil
}

func (f *File) remove(env step.Env) error {
	err := env.Host.Remove(f.path)
	if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EEXIST) {
		return diag.WithHint(fmt.Errorf("cannot remove %s: the folder is not empty", f.path),
			"empty it first; only files, links and empty folders are removed")
	}
	if err != nil {
		return fmt.Errorf("cannot remove %s: %w", f.path, host.Cause(err))
	}
	return nil
}

func (f *File) makeParent(env step.Env) error {
	dir := path.Dir(f.path)
	if err := env.Host.MkdirAll(dir); err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			dir = pe.Path // the parent that is to blame
		}
		return fmt.Errorf("cannot make folder %s: %w", dir, host.Cause(err))
	}
	return nil
}

func (f *File) makeFolder(ctx context.Context, env step.Env) error {
	uid, gid, err := f.wantedOwner(env)
	if err != nil {
		return err
	}
	if err := f.makeParent(env); err != nil {
		return err
	}
	if err := env.Host.MkdirAll(f.path); err != nil {
		return fmt.Errorf("cannot make folder %s: %w", f.path, host.Cause(err))
	}
	if err := f.setMeta(env, uid, gid); err != nil {
		return err
	}
	return env.Host.Relabel(ctx, f.path)
}

func (f *File) makeLink(ctx context.Context, env step.Env) error {
	uid, gid, err := f.wantedOwner(env)
	if err != nil {
		return err
	}
	if err := f.makeParent(env); err != nil {
		return err
	}
	if to, err := env.Host.Readlink(f.path); err != nil || to != f.Link {
		if err := env.Host.Symlink(f.Link, f.path); err != nil {
			return fmt.Errorf("cannot make link %s: %w", f.path, host.Cause(err))
		}
	}
	if err := f.setMeta(env, uid, gid); err != nil {
		return err
	}
	return env.Host.Relabel(ctx, f.path)
}

func (f *File) setMeta(env step.Env, uid, gid int) error {
	if err := env.Host.SetMeta(f.path, f.meta().Mode, uid, gid); err != nil {
		return fmt.Errorf("cannot set owner and mode of %s: %w", f.path, host.Cause(err))
	}
	return nil
}

// wantedOwner is who shall own it, host.Keep where the body does not say.
func (f *File) wantedOwner(env step.Env) (uid, gid int, err error) {
	uid, gid, err = env.Host.IDs(f.meta())
	if err != nil {
		err = fmt.Errorf("cannot give %s to its owner: %w", f.path, err)
	}
	return uid, gid, err
}

// write writes the content if it differs, else only owner and mode: a file
// that is as it should be keeps its inode and its times.
func (f *File) write(ctx context.Context, env step.Env) error {
	uid, gid, err := f.wantedOwner(env)
	if err != nil {
		return err
	}
	if st, err := env.Host.Lstat(f.path); err == nil && st.Mode().IsRegular() {
		same, err := f.sameContent(ctx, env, st)
		if err == nil && same {
			return f.setMeta(env, uid, gid)
		}
	}
	content, _, err := f.open(env)
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", f.path, err)
	}
	defer content.Close()
	if err := f.makeParent(env); err != nil {
		return err
	}
	file := host.File{Path: f.path, Data: content, Mode: f.meta().Mode, UID: uid, GID: gid}
	if f.CheckBy != nil {
		file.Check = func(ctx context.Context, tmp string) error { return f.check(ctx, env, tmp) }
	}
	if err := env.Host.WriteFile(ctx, file); err != nil {
		return fmt.Errorf("cannot write %s: %w", f.path, host.Cause(err))
	}
	return nil
}

// check runs the manifest's program on the finished file.
func (f *File) check(ctx context.Context, env step.Env, tmp string) error {
	argv := make([]string, len(f.CheckBy))
	for i, a := range f.CheckBy {
		argv[i] = strings.ReplaceAll(a, "%s", tmp)
	}
	_, err := env.Host.Run(ctx, host.Cmd{Argv: argv, Timeout: checkTimeout, Line: env.Output})
	var exit *host.ExitError
	if errors.As(err, &exit) {
		return diag.WithHint(fmt.Errorf("its check refuses it: %w", err), "the file that was there before is still in place")
	}
	return err
}
