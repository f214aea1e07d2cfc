package steptest

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/fetch"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/step"
)

// Options are the parts of a Machine that seldom differ. The zero Options serve most kinds.
type Options struct {
	Facts    *facts.Facts
	Fetched  map[string]Item   // what the store holds, by source address
	Programs map[string]string // fake programs on PATH: name to shell script
	Live     bool              // the tree counts as the running machine
}

// Machine is a scratch tree with all that a step's Env needs: a host whose
// programs are fakes before the system's own, a store, stamps.
//
// Everything lies below Base, so that another process can open the same
// machine: root/ is its "/", bin/ its fake programs, stamps.json its stamps.
type Machine struct {
	Base   string
	Host   *host.Host
	Facts  *facts.Facts
	Store  step.Store
	Stamps *Stamps

	t      testing.TB
	shared *step.Shared
	mu     sync.Mutex
	output []string
}

// NewMachine makes an empty machine that lives as long as the test.
func NewMachine(t testing.TB, opt Options) *Machine {
	t.Helper()
	base := t.TempDir()
	if err := os.Mkdir(filepath.Join(base, "root"), 0o755); err != nil {
		t.Fatal(err)
	}
	m := openMachine(t, base, opt)
	FakePrograms(t, m.bin(), opt.Programs)
	return m
}

func openMachine(t testing.TB, base string, opt Options) *Machine {
	t.Helper()
	m := &Machine{
		Base: base, Facts: opt.Facts, Stamps: &Stamps{path: filepath.Join(base, "stamps.json")},
		t: t, shared: &step.Shared{},
	}
	if m.Facts == nil {
		m.Facts = facts.New()
	}
	h, err := host.New(m.Root(), host.Options{
		Programs: host.Outside,
		Path:     m.bin() + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		Live:     &opt.Live,
	})
	if err != nil {
		t.Fatal(err)
	}
	m.Host = h
	m.Store = newStore(m, opt.Fetched)
	return m
}

// Root is the folder that is the machine's "/".
func (m *Machine) Root() string { return filepath.Join(m.Base, "root") }

func (m *Machine) bin() string { return filepath.Join(m.Base, "bin") }

// Env is what a step of this machine gets. key stands for the hash that a plan would make.
func (m *Machine) Env(id step.ID, key string) step.Env {
	return step.Env{
		Host: m.Host, Facts: m.Facts, Store: m.Store, Stamps: m.Stamps,
		ID: id, Key: key, Instance: "i-0123456789abcdef0", Boot: "boot-1", Shared: m.shared,
		Output: func(line string) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.output = append(m.output, line)
		},
	}
}

// Output is every line that steps reported so far.
func (m *Machine) Output() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.output)
}

// NextRun forgets what kinds memoised: Shared belongs to one run of the agent.
func (m *Machine) NextRun() { m.shared = &step.Shared{} }

// Log is the argument lists with which the fake programs were run, one a line.
func (m *Machine) Log() []string { return Log(m.t, m.bin()) }

// Path is where a path of the machine lies outside its root, links not followed.
func (m *Machine) Path(name string) string { return filepath.Join(m.Root(), name) }

// Write makes a file with exactly this mode, and its parents.
func (m *Machine) Write(name string, mode fs.FileMode, content string) {
	m.t.Helper()
	m.Mkdir(filepath.Dir(name), 0)
	// A fork at this moment would inherit the open file, and running it would
	// then fail with "text file busy".
	syscall.ForkLock.RLock()
	err := os.WriteFile(m.Path(name), []byte(content), 0o600)
	syscall.ForkLock.RUnlock()
	if err == nil {
		err = os.Chmod(m.Path(name), mode)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// Mkdir makes a folder and its parents; mode 0 means 0755, or as it is.
func (m *Machine) Mkdir(name string, mode fs.FileMode) {
	m.t.Helper()
	err := os.MkdirAll(m.Path(name), 0o755)
	if err == nil && mode != 0 {
		err = os.Chmod(m.Path(name), mode)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// Link makes a symbolic link, and the parents of its name.
func (m *Machine) Link(target, name string) {
	m.t.Helper()
	m.Mkdir(filepath.Dir(name), 0)
	if err := os.Symlink(target, m.Path(name)); err != nil {
		m.t.Fatal(err)
	}
}

// Remove removes whatever is at name.
func (m *Machine) Remove(name string) {
	m.t.Helper()
	if err := os.RemoveAll(m.Path(name)); err != nil {
		m.t.Fatal(err)
	}
}

// Chmod sets the mode of what is at name.
func (m *Machine) Chmod(name string, mode fs.FileMode) {
	m.t.Helper()
	if err := os.Chmod(m.Path(name), mode); err != nil {
		m.t.Fatal(err)
	}
}

// Read is a file's content.
func (m *Machine) Read(name string) string {
	m.t.Helper()
	b, err := os.ReadFile(m.Path(name))
	if err != nil {
		m.t.Fatal(err)
	}
	return string(b)
}

// Users makes the machine know these users and groups. All have the number of
// whoever runs the test, who can then own files and run programs as them.
func (m *Machine) Users(names ...string) {
	m.t.Helper()
	var passwd, group strings.Builder
	for _, n := range names {
		fmt.Fprintf(&passwd, "%s:x:%d:%d::/home/%s:/bin/sh\n", n, os.Geteuid(), os.Getegid(), n)
		fmt.Fprintf(&group, "%s:x:%d:\n", n, os.Getegid())
	}
	m.Write("/etc/passwd", 0o644, passwd.String())
	m.Write("/etc/group", 0o644, group.String())
}

// Stamps are kept in a file, so that they outlive a killed process.
type Stamps struct {
	mu   sync.Mutex
	path string
}

func (s *Stamps) load() (map[string]string, error) {
	m := map[string]string{}
	b, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return nil, err
	}
	return m, json.Unmarshal(b, &m)
}

func (s *Stamps) change(edit func(map[string]string)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.load()
	if err != nil {
		return err
	}
	edit(m)
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(s.path+".new", s.path)
}

// Has implements step.Stamps.
func (s *Stamps) Has(id step.ID, value string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.load()
	got, ok := m[id.String()]
	return err == nil && ok && got == value
}

// Put implements step.Stamps.
func (s *Stamps) Put(id step.ID, value string) error {
	return s.change(func(m map[string]string) { m[id.String()] = value })
}

// Drop implements step.Stamps.
func (s *Stamps) Drop(id step.ID) error {
	return s.change(func(m map[string]string) { delete(m, id.String()) })
}

// Item is what the store holds for one source: a plain file, or a tree of files by path.
type Item struct {
	File string
	Tree map[string]string // a name that ends in "/" is a folder; files below bin/ are executable
}

// storeDir is where the machine keeps fetched bytes.
const storeDir = "/var/lib/amiagent/store"

type store map[string]fetch.Item

// newStore lays the items out as files of the machine, unless they are there already.
func newStore(m *Machine, items map[string]Item) store {
	m.t.Helper()
	s := store{}
	for source, it := range items {
		names := make([]string, 0, len(it.Tree))
		for n := range it.Tree {
			names = append(names, n)
		}
		slices.Sort(names)
		sum := sha256.New()
		sum.Write([]byte(it.File)) // a plain file's digest is that of its bytes
		for _, n := range names {
			fmt.Fprintf(sum, "%q=%q", n, it.Tree[n])
		}
		hex := fmt.Sprintf("%x", sum.Sum(nil))
		kind := "files"
		if it.Tree != nil {
			kind = "trees"
		}
		at := filepath.Join(storeDir, kind, hex)
		s[source] = fetch.Item{Digest: "sha256:" + hex, Path: at, Size: int64(len(it.File)), Origin: source}
		if m.Host.Exists(at) {
			continue
		}
		if it.Tree == nil {
			m.Write(at, 0o600, it.File)
			continue
		}
		m.Mkdir(at, 0)
		for _, n := range names {
			switch {
			case strings.HasSuffix(n, "/"):
				m.Mkdir(filepath.Join(at, n), 0)
			case strings.HasPrefix(n, "bin/"):
				m.Write(filepath.Join(at, n), 0o755, it.Tree[n])
			default:
				m.Write(filepath.Join(at, n), 0o644, it.Tree[n])
			}
		}
	}
	return s
}

// Lookup implements step.Store.
func (s store) Lookup(req fetch.Request) (fetch.Item, bool) {
	it, ok := s[req.Source]
	tree := strings.HasPrefix(it.Path, storeDir+"/trees/")
	if !ok || tree != req.Unpack || req.Digest != "" && req.Digest != it.Digest {
		return fetch.Item{}, false
	}
	return it, true
}
