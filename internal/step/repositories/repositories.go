// Package repositories adds third-party package repositories, with their key
// and with checks on.
//
// An entry may say both what an rpm machine needs and what a deb machine
// needs; the part for the machine's own family counts. Files are written whole:
// /etc/yum.repos.d/NAME.repo, or /etc/apt/sources.list.d/NAME.sources in the deb822 format, and
// the key beside the distribution's keys.
//
// A new or changed repository is read once, from a folder of its own, before
// its file takes its name. So a wrong address or key is the failure of this step, with
// the old file still in place, rather than of every package later; and once the file is there, the
// package manager has its metadata, whatever crashed in between. When nothing differs, nothing is read.
package repositories

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/fetch"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/pkgmgr"
	"github.com/amiagent/amiagent/internal/step"
)

//go:embed example.yaml
var example string

// Kind is the manifest's section "repositories".
func Kind() step.Kind {
	return step.Kind{
		Name:    "repositories",
		Doc:     "Third-party package repositories (apt, dnf, yum), with key and checks.",
		Level:   step.LevelRepositories,
		New:     func() step.Step { return &Repository{State: present} },
		Lock:    "packages",
		Example: example,
	}
}

const (
	present = "present"
	absent  = "absent"
	// maxFile bounds what is read of a key or a repository's file.
	maxFile = 1 << 20
)

// Repository is one repository, for one family of machines or for both.
type Repository struct {
	name string

	RPM *RPM `yaml:"rpm"`
	Deb *Deb `yaml:"deb"`
	// Insecure allows packages that nobody signed. Without it a body that turns checks off is a fault.
	Insecure bool   `yaml:"insecure"`
	State    string `yaml:"state"` // present or absent
}

// SetName gives the repository its name: its id, and its files' name.
func (r *Repository) SetName(name string) { r.name = name }

// Fetches is the keys that must be downloaded. Which family the machine is of is
// not known here, so it may be one key too many.
func (r *Repository) Fetches() []fetch.Request {
	if r.State == absent {
		return nil
	}
	var all []fetch.Request
	for _, k := range []*Key{r.RPM.key(), r.Deb.key()} {
		if k.url() && !(len(all) == 1 && all[0].Source == k.URL) {
			all = append(all, k.request(r.name))
		}
	}
	return all
}

// part is what one family makes of a repository.
type part interface {
	key() *Key
	file(name string) string                   // where the repository's file belongs
	keyFile(name string, armoured bool) string // where its key belongs
	text(name, key string) string              // the file's content, for a key at that path; "" for none
	enabled() bool
}

// mine is the part for the machine's family, nil when the entry says nothing for it.
func (r *Repository) mine(env step.Env) (part, error) {
	switch family := env.Facts.Get(facts.PackageFamily); family {
	case "apt":
		if r.State == absent {
			return new(Deb), nil
		}
		if r.Deb != nil {
			return r.Deb, nil
		}
	case "dnf", "dnf5", "yum":
		if r.State == absent {
			return new(RPM), nil
		}
		if r.RPM != nil {
			return r.RPM, nil
		}
	default:
		// The sentence is the manager's own.
		_, err := pkgmgr.New(env.Host, family)
		return nil, err
	}
	return nil, nil
}

// Check compares the files. It asks no repository.
func (r *Repository) Check(_ context.Context, env step.Env) (step.Drift, error) {
	p, err := r.mine(env)
	if err != nil || p == nil {
		return "", err
	}
	if r.State == absent {
		for _, f := range r.own(p) {
			if env.Host.Exists(f) {
				return step.Drift(f + " is there, want it absent"), nil
			}
		}
		return "", nil
	}
	key, drift, err := r.keyInPlace(env, p)
	if err != nil || drift != "" {
		return drift, err
	}
	return differs(env.Host, p.file(r.name), []byte(p.text(r.name, key)))
}

// own are the files that a repository may have on a machine.
func (r *Repository) own(p part) []string {
	all := []string{p.file(r.name), p.keyFile(r.name, true)}
	if other := p.keyFile(r.name, false); other != all[1] {
		all = append(all, other)
	}
	return all
}

// keyInPlace is the path of the key as it should be, or why it is not there.
func (r *Repository) keyInPlace(env step.Env, p part) (string, step.Drift, error) {
	k := p.key()
	switch {
	case k == nil:
		return "", "", nil
	case k.Path != "":
		return k.Path, "", nil
	case k.Text != "":
		f := p.keyFile(r.name, true)
		drift, err := differs(env.Host, f, k.text())
		return f, drift, err
	}
	// Of a key from elsewhere the digest is known, whether it was fetched now or long ago.
	for _, f := range []string{p.keyFile(r.name, true), p.keyFile(r.name, false)} {
		data, err := env.Host.ReadLimited(f, maxFile)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, host.ErrTooLarge):
		case err != nil:
			return "", "", fmt.Errorf("cannot read the key of %s: %w", r.name, err)
		case k.matches(data) && f == p.keyFile(r.name, isArmoured(data)):
			drift, err := modeDrift(env.Host, f)
			return f, drift, err
		}
	}
	return "", "the key is not there, or is another", nil
}

func differs(h *host.Host, file string, want []byte) (step.Drift, error) {
	have, err := h.ReadLimited(file, maxFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return step.Drift(file + " is not there"), nil
	case errors.Is(err, host.ErrTooLarge):
		return step.Drift(file + " differs"), nil
	case err != nil:
		return "", fmt.Errorf("cannot read %s: %w", file, err)
	case !bytes.Equal(have, want):
		return step.Drift(file + " differs"), nil
	}
	return modeDrift(h, file)
}

func modeDrift(h *host.Host, file string) (step.Drift, error) {
	st, err := h.Lstat(file)
	if err == nil && st.Mode().Perm() != 0o644 {
		return step.Drift(fmt.Sprintf("mode of %s is %04o, want 0644", file, st.Mode().Perm())), nil
	}
	return "", err
}

// Apply proves the repository from a folder of its own, then puts key and file in place.
func (r *Repository) Apply(ctx context.Context, env step.Env) error {
	p, err := r.mine(env)
	if err != nil || p == nil {
		return err
	}
	if r.State == absent {
		for _, f := range r.own(p) {
			if err := env.Host.Remove(f); err != nil {
				return fmt.Errorf("cannot remove repository %s: %w", r.name, err)
			}
		}
		return nil
	}
	key, err := r.keyBytes(env, p)
	if err != nil {
		return err
	}
	if p.enabled() {
		if err := r.prove(ctx, env, p, key); err != nil {
			return fmt.Errorf("cannot read repository %s: %w", r.name, err)
		}
	}
	return r.write(ctx, env.Host, p, key, func(f string) string { return f })
}

// write puts the key and then the file that names it where they belong, as seen through where.
func (r *Repository) write(ctx context.Context, h *host.Host, p part, key []byte, where func(string) string) error {
	at := ""
	if k := p.key(); k != nil {
		at = k.Path
	}
	if key != nil {
		at = where(p.keyFile(r.name, isArmoured(key)))
		if err := write(ctx, h, at, key); err != nil {
			return err
		}
	}
	return write(ctx, h, where(p.file(r.name)), []byte(p.text(r.name, at)))
}

// keyBytes is the key to write, nil when there is none to write.
func (r *Repository) keyBytes(env step.Env, p part) ([]byte, error) {
	k := p.key()
	switch {
	case k == nil || k.Path != "":
		return nil, nil
	case k.Text != "":
		return k.text(), nil
	}
	item, ok := env.Store.Lookup(k.request(r.name))
	if !ok {
		return nil, fmt.Errorf("cannot write the key of %s: %s was not fetched", r.name, k.URL)
	}
	data, err := env.Host.ReadLimited(item.Path, maxFile)
	if err != nil {
		return nil, fmt.Errorf("cannot write the key of %s: %w", r.name, err)
	}
	return data, nil
}

// trial is the folder in which a repository is proved. apt reads it as a user
// of its own, so it cannot be private; there is nothing secret in it.
const trial = "/run/amiagent/repositories"

func (r *Repository) prove(ctx context.Context, env step.Env, p part, key []byte) (err error) {
	m, err := step.Memo(env.Shared, pkgmgr.MemoKey, func() (*pkgmgr.Manager, error) {
		return pkgmgr.New(env.Host, env.Facts.Get(facts.PackageFamily))
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, env.Host.RemoveAll(trial)) }()
	where := func(f string) string { return path.Join(trial, r.name, path.Base(f)) }
	if err := r.write(ctx, env.Host, p, key, where); err != nil {
		return err
	}
	return m.Try(ctx, where(p.file(r.name)), pkgmgr.Talk{Output: env.Output, Status: env.Status})
}

func write(ctx context.Context, h *host.Host, file string, data []byte) error {
	if err := h.MkdirAll(path.Dir(file)); err != nil {
		return fmt.Errorf("cannot write %s: %w", file, err)
	}
	err := h.WriteFile(ctx, host.File{Path: file, Data: bytes.NewReader(data), Mode: 0o644, UID: host.Keep, GID: host.Keep})
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", file, err)
	}
	return nil
}

// Validate records faults of the body by field name.
func (r *Repository) Validate(at diag.At) {
	if step.StaticText(r.name) && !isName(r.name) {
		at.Errorf("%q cannot name a repository: use letters, digits, '_', '.' and '-', a letter or digit first", r.name)
	}
	if step.StaticText(r.State) && r.State != present && r.State != absent {
		at.Field("state").Errorf("must be present or absent, is %q", r.State)
	}
	if r.State == absent {
		return
	}
	if r.RPM == nil && r.Deb == nil {
		at.Errorf("needs rpm, deb, or both")
	}
	if r.RPM != nil {
		r.RPM.validate(at.Field("rpm"), r.Insecure)
	}
	if r.Deb != nil {
		r.Deb.validate(at.Field("deb"), r.Insecure)
	}
}

func isName(s string) bool {
	return s != "" && strings.Trim(strings.ToLower(s), "abcdefghijklmnopqrstuvwxyz0123456789._-") == "" && !strings.ContainsAny(s[:1], "._-")
}

// sum is a digest in the form of a manifest, by the algorithm that like names.
func sum(like string, data []byte) string {
	if strings.HasPrefix(like, "sha512:") {
		return fmt.Sprintf("sha512:%x", sha512.Sum512(data))
	}
	return fmt.Sprintf("sha256:%x", sha256.Sum256(data))
}
