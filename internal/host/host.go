// Package host is the only door to the machine: every file, program and
// systemd call of the agent goes through a Host, and every Host has a root.
//
// So one code path provisions "/", bakes an image mounted at /mnt, and runs a
// test in a scratch folder. Paths given to a Host are always the machine's own,
// as "/etc/motd"; symbolic links in them are followed as the machine would,
// without leaving the root.
package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
)

// Programs is how a Host runs programs.
type Programs int

const (
	// Inside runs the root's own programs: directly for "/", else by chroot, which needs root.
	Inside Programs = iota
	// Outside runs the programs of PATH outside the root, and tells them the
	// root in AMIAGENT_ROOT. For scratch roots of plain users, and for tests
	// with fake programs.
	Outside
)

// Options are the parts of a Host that seldom differ. The zero Options serve a real machine.
type Options struct {
	Programs Programs
	Path     string   // PATH for programs; default is the usual system path
	Env      []string // further environment for programs, as proxies
	Live     *bool    // whether systemd and the running kernel belong to this root; default: root is "/"
}

// Host is one machine, or one tree that will be a machine. It is safe for concurrent use.
type Host struct {
	root string
	opt  Options
	sd   systemdDoor
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// New opens the machine whose root folder is root; "" means "/".
func New(root string, opt Options) (*Host, error) {
	if root == "" {
		root = "/"
	}
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("cannot open root %s: %w", root, err)
	}
	if st, err := os.Stat(abs); err != nil {
		return nil, fmt.Errorf("cannot open root %s: %w", root, err)
	} else if !st.IsDir() {
		return nil, fmt.Errorf("cannot open root %s: not a folder", root)
	}
	if opt.Path == "" {
		opt.Path = defaultPath
	}
	return &Host{root: abs, opt: opt}, nil
}

// Root is the folder of this machine's "/".
func (h *Host) Root() string { return h.root }

// Live tells whether this root is the running machine: only then are there
// processes, services and kernel settings to look at or to change.
func (h *Host) Live() bool {
	if h.opt.Live != nil {
		return *h.opt.Live
	}
	return h.root == "/"
}

// Path is where the machine's path lies outside the root. Links are followed
// inside the root, the last part included. Parts that do not exist are kept.
func (h *Host) Path(name string) (string, error) {
	if !filepath.IsAbs(name) {
		return "", fmt.Errorf("path %q is not absolute", name)
	}
	if h.root == "/" {
		return filepath.Clean(name), nil
	}
	p, err := securejoin.SecureJoin(h.root, name)
	return p, h.rel(err)
}

// EntryPath is Path, but a link in the last part is not followed: it names the
// directory entry itself, for rename, remove and lstat.
func (h *Host) EntryPath(name string) (string, error) {
	if !filepath.IsAbs(name) {
		return "", fmt.Errorf("path %q is not absolute", name)
	}
	name = filepath.Clean(name)
	if name == "/" {
		return h.root, nil
	}
	dir, err := h.Path(filepath.Dir(name))
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, filepath.Base(name)), nil
}

// rel removes the root from an error's path, so that messages name the machine's paths.
func (h *Host) rel(err error) error {
	var pe *fs.PathError
	if h.root != "/" && errors.As(err, &pe) {
		return &fs.PathError{Op: pe.Op, Path: h.inner(pe.Path), Err: pe.Err}
	}
	return err
}

func (h *Host) inner(p string) string {
	if rest, ok := strings.CutPrefix(p, h.root); ok && h.root != "/" {
		return filepath.Clean("/" + rest)
	}
	return p
}
