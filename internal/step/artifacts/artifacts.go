// Package artifacts puts what was fetched where the machine wants it.
//
// An archive is unpacked into the store, as a tree named by its digest, before
// anything on the machine is changed; its path is then made a link to that tree,
// in one rename. So a new version stands whole beside the old one, and whoever
// opens the path gets the one or the other. The trees belong to the store: they
// are shared, and nobody should write into them.
//
// A plain file is copied whole to its path instead.
package artifacts

import (
	"context"
	_ "embed"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"syscall"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/fetch"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/step"
)

//go:embed example.yaml
var example string

// Kind is the manifest's section "artifacts".
func Kind() step.Kind {
	return step.Kind{
		Name:    "artifacts",
		Doc:     "Fetched archives, unpacked side by side and switched by a link, and fetched files.",
		Level:   step.LevelArtifacts,
		New:     func() step.Step { return new(Artifact) },
		Example: example,
	}
}

// Artifact is one thing to fetch, and where it goes: exactly one of Unpack and File.
type Artifact struct {
	name string

	// Source is a go-getter address, Mirrors are further addresses of the same
	// bytes, tried in order.
	Source  string   `yaml:"source"`
	Mirrors []string `yaml:"mirrors"`
	// Digest is sha256:HEX or sha512:HEX of the bytes as fetched, Size their number.
	Digest string `yaml:"digest"`
	Size   int64  `yaml:"size"`

	// Unpack is a path that becomes a link to the unpacked archive.
	Unpack string `yaml:"unpack"`
	// Strip drops so many leading elements of the paths in the archive.
	Strip int `yaml:"strip"`

	// File is a path that becomes a copy of the fetched file.
	File string `yaml:"file"`
	// Mode is octal, of File only; the default is 0644.
	Mode string `yaml:"mode"`

	// Owner and Group own the file, or all of the tree. Of a tree they are
	// numbers, for it is unpacked before any user is made; the default is root,
	// whose files everybody may read as the archive's modes say.
	Owner string `yaml:"owner"`
	Group string `yaml:"group"`
}

// SetName gives the artifact its name.
func (a *Artifact) SetName(name string) { a.name = name }

// Validate records faults of the body by field name.
func (a *Artifact) Validate(at diag.At) {
	if a.Source == "" {
		at.Field("source").Errorf("must be given")
	}
	switch {
	case a.Unpack == "" && a.File == "":
		at.Errorf("must have one of unpack and file: where it goes")
	case a.Unpack != "" && a.File != "":
		at.Field("file").Errorf("cannot be combined with unpack: it goes to one place")
	}
	for name, p := range map[string]string{"unpack": a.Unpack, "file": a.File} {
		switch {
		case p == "" || !step.StaticText(p):
		case !path.IsAbs(p):
			at.Field(name).Errorf("must be an absolute path, is %q", p)
		case path.Clean(p) != p || p == "/":
			at.Field(name).Errorf("must be a plain path below /, is %q", p)
		}
	}
	a.request().Validate(at)
	if a.File != "" && a.Strip != 0 {
		at.Field("strip").Errorf("is of an archive, and file takes the bytes as they are")
	}
	switch {
	case a.Mode == "" || !step.StaticText(a.Mode):
	case a.Unpack != "":
		at.Field("mode").Errorf("an unpacked tree has the modes of its archive")
	default:
		if _, err := host.ParseMode(a.Mode); err != nil {
			at.Field("mode").Err(err)
		}
	}
	for name, id := range map[string]string{"owner": a.Owner, "group": a.Group} {
		if a.Unpack == "" || id == "" || !step.StaticText(id) {
			continue
		}
		if n, err := strconv.Atoi(id); err != nil || n < 0 {
			at.Field(name).Err(diag.WithHint(fmt.Errorf("must be a number for an unpacked tree, is %q", id),
				"it is unpacked before users are made: give the user a uid and write it here, or leave the tree to root"))
		}
	}
}

func (a *Artifact) request() fetch.Request {
	req := fetch.Request{
		Name: "artifacts." + a.name, Source: a.Source, Mirrors: a.Mirrors, Digest: a.Digest, Size: a.Size,
		Unpack: a.Unpack != "", Strip: a.Strip,
	}
	if req.Unpack {
		req.UID, _ = strconv.Atoi(a.Owner) // Validate has seen that they are numbers, or not there
		req.GID, _ = strconv.Atoi(a.Group)
	}
	return req
}

// Fetches implements step.Fetcher.
func (a *Artifact) Fetches() []fetch.Request { return []fetch.Request{a.request()} }

// Needs implements step.Needer: the owner and the group of a file.
func (a *Artifact) Needs() []step.ID {
	var ids []step.ID
	if a.Owner != "" && a.File != "" {
		ids = append(ids, step.ID{Kind: "users", Name: a.Owner})
	}
	if a.Group != "" && a.File != "" {
		ids = append(ids, step.ID{Kind: "groups", Name: a.Group})
	}
	return ids
}

const notFetched = "is not fetched"

// Check implements step.Step. It hashes nothing: what lies in the store is
// whole and verified, and a file is read only if it was touched since it was copied.
func (a *Artifact) Check(ctx context.Context, env step.Env) (step.Drift, error) {
	item, ok := env.Store.Lookup(a.request())
	if !ok {
		return notFetched, nil
	}
	if a.File != "" {
		return a.checkFile(ctx, env, item)
	}
	want, err := env.Host.RelativeLink(item.Path, a.Unpack)
	if err != nil {
		return "", fmt.Errorf("cannot look at %s: %w", a.Unpack, host.Cause(err))
	}
	st, err := env.Host.Lstat(a.Unpack)
	switch {
	case host.Missing(err):
		return step.Drift(a.Unpack + " is missing"), nil
	case err != nil:
		return "", fmt.Errorf("cannot look at %s: %w", a.Unpack, host.Cause(err))
	case st.Mode()&fs.ModeSymlink == 0:
		return step.Drift(a.Unpack + " is no link"), nil
	}
	have, err := env.Host.Readlink(a.Unpack)
	if err != nil {
		return "", fmt.Errorf("cannot read link %s: %w", a.Unpack, host.Cause(err))
	}
	if have != want {
		return step.Drift(fmt.Sprintf("%s leads to %s, want %s", a.Unpack, short(have), short(want))), nil
	}
	return "", nil
}

// short is what a person needs of a link into the store.
func short(link string) string {
	name := path.Base(link)
	if algorithm, hex, ok := strings.Cut(name, "-"); ok && len(hex) > 12 && (algorithm == "sha256" || algorithm == "sha512" || algorithm == "git") {
		return algorithm + "-" + hex[:12]
	}
	return link
}

// Apply implements step.Step.
func (a *Artifact) Apply(ctx context.Context, env step.Env) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	item, ok := env.Store.Lookup(a.request())
	if !ok {
		return fmt.Errorf("cannot place %s: it %s", a.name, notFetched)
	}
	if a.File != "" {
		return host.Explain(a.copy(ctx, env, item))
	}
	return host.Explain(a.link(ctx, env, item))
}

func (a *Artifact) link(ctx context.Context, env step.Env, item fetch.Item) error {
	if st, err := env.Host.Lstat(a.Unpack); err == nil && st.Mode()&fs.ModeSymlink == 0 {
		return diag.WithHint(fmt.Errorf("cannot make %s a link: something else is there", a.Unpack),
			"move it away; it is not removed, for it may hold data")
	}
	if err := makeParent(env, a.Unpack); err != nil {
		return err
	}
	to, err := env.Host.RelativeLink(item.Path, a.Unpack)
	if err == nil {
		err = env.Host.Symlink(to, a.Unpack)
	}
	if err != nil {
		return fmt.Errorf("cannot make %s a link: %w", a.Unpack, host.Cause(err))
	}
	return env.Host.Relabel(ctx, a.Unpack)
}

func makeParent(env step.Env, name string) error {
	if err := env.Host.MkdirAll(path.Dir(name)); err != nil {
		return fmt.Errorf("cannot make folder %s: %w", path.Dir(name), host.Cause(err))
	}
	return nil
}

func (a *Artifact) meta() host.Meta {
	m := host.Meta{Owner: a.Owner, Group: a.Group, Mode: 0o644}
	if a.Mode != "" {
		m.Mode, _ = host.ParseMode(a.Mode) // Validate has seen that it is one
	}
	return m
}

func (a *Artifact) checkFile(ctx context.Context, env step.Env, item fetch.Item) (step.Drift, error) {
	st, err := env.Host.Lstat(a.File)
	switch {
	case host.Missing(err):
		return step.Drift(a.File + " is missing"), nil
	case err != nil:
		return "", fmt.Errorf("cannot look at %s: %w", a.File, host.Cause(err))
	case !st.Mode().IsRegular():
		return step.Drift(a.File + " is no file"), nil
	}
	var differs []string
	same, err := a.same(ctx, env, item, st)
	if err != nil {
		return "", err
	}
	if !same {
		differs = append(differs, "content differs")
	}
	meta, err := env.Host.MetaDrift(st, a.meta())
	if err != nil {
		return "", err
	}
	return step.Drift(strings.Join(append(differs, meta...), "; ")), nil
}

// fingerprint tells of a file whether it was touched since: the kernel sets the
// change time at every write, and nobody else can.
func fingerprint(item fetch.Item, st fs.FileInfo) string {
	sys := st.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%s inode %d size %d changed %d.%09d", item.Digest, sys.Ino, st.Size(), sys.Ctim.Sec, sys.Ctim.Nsec)
}

// same tells whether the file has the item's content: by the stamp of its
// last copy, else by reading both.
func (a *Artifact) same(ctx context.Context, env step.Env, item fetch.Item, st fs.FileInfo) (bool, error) {
	if env.Stamped(fingerprint(item, st)) {
		return true, nil
	}
	if stored, err := env.Host.Stat(item.Path); err == nil && stored.Size() != st.Size() {
		return false, nil
	}
	have, err := env.Host.Open(a.File)
	if err != nil {
		return false, fmt.Errorf("cannot read %s: %w", a.File, host.Cause(err))
	}
	defer have.Close()
	want, err := env.Host.Open(item.Path)
	if err != nil {
		return false, fmt.Errorf("cannot read %s: %w", item.Path, host.Cause(err))
	}
	defer want.Close()
	same, err := host.SameContent(ctx, have, want)
	if err != nil {
		return false, fmt.Errorf("cannot compare %s: %w", a.File, host.Cause(err))
	}
	return same, nil
}

// copy writes the file if its content differs, else only owner and mode.
func (a *Artifact) copy(ctx context.Context, env step.Env, item fetch.Item) error {
	uid, gid, err := env.Host.IDs(a.meta())
	if err != nil {
		return fmt.Errorf("cannot give %s to its owner: %w", a.File, err)
	}
	same := false
	if st, err := env.Host.Lstat(a.File); err == nil && st.IsDir() {
		return diag.WithHint(fmt.Errorf("cannot write %s: there is a folder in the way", a.File),
			"move the folder away; it is not removed, for it may hold data")
	} else if err == nil && st.Mode().IsRegular() {
		if same, err = a.same(ctx, env, item, st); err != nil {
			return err
		}
	}
	if same {
		err = env.Host.SetMeta(a.File, a.meta().Mode, uid, gid)
	} else {
		err = a.write(ctx, env, item, uid, gid)
	}
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", a.File, host.Cause(err))
	}
	st, err := env.Host.Lstat(a.File)
	if err != nil {
		return fmt.Errorf("cannot look at %s: %w", a.File, host.Cause(err))
	}
	return env.Stamp(fingerprint(item, st))
}

func (a *Artifact) write(ctx context.Context, env step.Env, item fetch.Item, uid, gid int) error {
	if err := env.Host.MkdirAll(path.Dir(a.File)); err != nil {
		return err
	}
	r, err := env.Host.Open(item.Path)
	if err != nil {
		return err
	}
	defer r.Close()
	return env.Host.WriteFile(ctx, host.File{Path: a.File, Data: r, Mode: a.meta().Mode, UID: uid, GID: gid})
}
