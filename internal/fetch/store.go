package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/amiagent/amiagent/internal/fetch/unpack"
	"github.com/amiagent/amiagent/internal/host"
)

// DefaultDir is the store's folder inside the root.
const DefaultDir = "/var/lib/amiagent/store"

// Limits bound what is fetched. Zero fields take the default.
type Limits struct {
	Bytes    int64 // of one object as it is fetched; default 64 GiB
	Unpacked unpack.Limits
}

// Options are the parts of a Store. Only Sources has no default.
type Options struct {
	Dir      string // inside the root; default DefaultDir
	Sources  Sources
	Policy   Policy
	Parallel int // fetches at once; default 4
	Limits   Limits
}

// Store keeps what was fetched, under its digest:
//
//	blob/ALGORITHM-HEX[-dFOLDER]              a file; only the agent may read here
//	tree/ALGORITHM-HEX[-sN][-oUID.GID][-dF]   an unpacked tree; everybody may enter
//	ref/HEX.json                              which digest a request came to, and from where
//	tmp/RANDOM/                               what a running process has not finished
//	lock                                      held while tmp is swept
//
// What has its name in blob or tree is whole, verified and on disk, whatever
// happened: a kill, a full disk, a power cut. Several processes may use one
// store at once. It is safe for concurrent use.
type Store struct {
	h   *host.Host
	opt Options

	mu      sync.Mutex
	session *os.File // this process's folder in tmp, locked
	jobs    int
}

// New describes a store. It touches nothing: looking into a store works on a
// read-only file system and as any user who may read it.
func New(h *host.Host, opt Options) *Store {
	if opt.Dir == "" {
		opt.Dir = DefaultDir
	}
	if opt.Parallel <= 0 {
		opt.Parallel = 4
	}
	if opt.Limits.Bytes == 0 {
		opt.Limits.Bytes = 64 << 30
	}
	opt.Policy = opt.Policy.orDefault()
	return &Store{h: h, opt: opt}
}

// recordFormat is the format number of a record. Records of another are as good as absent.
const recordFormat = 1

type record struct {
	Format int       `json:"format"`
	Name   string    `json:"name"`   // the step that asked first
	Source string    `json:"source"` // without secrets
	Digest string    `json:"digest"`
	Size   int64     `json:"size"`
	Origin string    `json:"origin"`
	Time   time.Time `json:"time"`
}

// Lookup finds what was fetched for a request, whole and verified. It reads a
// record and looks whether the item is there; it does not hash again and asks
// nobody. A request without digest finds what it once came to.
func (s *Store) Lookup(req Request) (Item, bool) {
	w, err := read(req)
	if err != nil {
		return Item{}, false
	}
	it, ok := s.lookup(w)
	return it, ok && (req.Size == 0 || strings.HasPrefix(it.Digest, "git:") || it.Size == req.Size)
}

func (s *Store) lookup(w want) (Item, bool) {
	r, recorded := s.recorded(w)
	digest := w.digest
	if digest == "" {
		digest = r.Digest
	}
	if digest == "" {
		return Item{}, false
	}
	// The item itself decides: it may be there without a record, when a process
	// was killed between the two, or when another request brought it.
	it := Item{Digest: digest, Path: path.Join(s.opt.Dir, w.path(digest)), Size: r.Size, Origin: r.Origin}
	st, err := s.h.Lstat(it.Path)
	switch {
	case err != nil, w.req.Unpack != st.IsDir(), !w.req.Unpack && !st.Mode().IsRegular():
		return Item{}, false
	case w.req.Unpack:
		return it, true
	}
	it.Size = st.Size()
	return it, !recorded || st.Size() == r.Size
}

func (s *Store) recorded(w want) (record, bool) {
	var r record
	b, err := s.h.ReadLimited(path.Join(s.opt.Dir, "ref", w.key+".json"), 1<<16)
	if err != nil || json.Unmarshal(b, &r) != nil || r.Format != recordFormat || CheckDigest(r.Digest) != nil {
		return record{}, false
	}
	return r, true
}

// commit gives what an attempt brought its name, durably, and records it.
func (s *Store) commit(w want, g got, dir string) (Item, error) {
	from := filepath.Join(dir, "file")
	if w.req.Unpack {
		from = filepath.Join(dir, "tree")
	}
	to, err := s.h.EntryPath(path.Join(s.opt.Dir, w.path(g.digest)))
	if err != nil {
		return Item{}, err
	}
	// Another process may have been first with the same tree; a file it would replace with itself.
	if err := os.Rename(from, to); err != nil && !errors.Is(err, fs.ErrExist) {
		return Item{}, err
	}
	if err := host.SyncDir(filepath.Dir(to)); err != nil {
		return Item{}, err
	}
	return s.record(w, g)
}

// record writes the record of a request, and of its digest if the request had
// none: the same bytes asked for by digest are then found as well.
func (s *Store) record(w want, g got) (Item, error) {
	r := record{recordFormat, w.req.Name, Redact(w.req.Source), g.digest, g.size, g.origin, time.Now().UTC()}
	keys := []string{w.key}
	if w.digest == "" {
		byDigest := w.req
		byDigest.Digest = g.digest
		if d, err := read(byDigest); err == nil {
			keys = append(keys, d.key)
		}
	}
	b, err := json.Marshal(r)
	if err != nil {
		return Item{}, err
	}
	for _, key := range keys {
		if err := s.h.WriteFile(context.Background(), host.File{
			Path: path.Join(s.opt.Dir, "ref", key+".json"), Data: strings.NewReader(string(b) + "\n"),
			Mode: 0o600, UID: host.Keep, GID: host.Keep,
		}); err != nil {
			return Item{}, err
		}
	}
	return Item{Digest: g.digest, Path: path.Join(s.opt.Dir, w.path(g.digest)), Size: g.size, Origin: g.origin}, nil
}

// open makes the store's folders, sweeps what killed processes left, and
// claims a folder in tmp for this process.
func (s *Store) open() (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session != nil {
		return nil
	}
	defer func() {
		if err != nil {
			err = roomHint(fmt.Errorf("cannot open the store %s: %w", s.opt.Dir, err), s.opt.Dir)
		}
	}()
	for _, f := range []struct {
		name string
		mode fs.FileMode
	}{{"", 0o755}, {"tree", 0o755}, {"blob", 0o700}, {"ref", 0o700}, {"tmp", 0o700}} {
		name := path.Join(s.opt.Dir, f.name)
		if s.h.Exists(name) {
			continue
		}
		if err := s.h.MkdirAll(name); err != nil {
			return err
		}
		if err := s.h.SetMeta(name, f.mode, host.Keep, host.Keep); err != nil {
			return err
		}
	}
	dir, err := s.h.Path(s.opt.Dir)
	if err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	if err := sweep(dir); err != nil {
		return err
	}
	name, err := os.MkdirTemp(filepath.Join(dir, "tmp"), "")
	if err != nil {
		return err
	}
	session, err := os.Open(name)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(session.Fd()), unix.LOCK_EX); err != nil {
		session.Close()
		return err
	}
	s.session = session
	return nil
}

// sweep removes what no living process holds. The kernel drops the lock of a
// folder with its process, however that ended.
func sweep(dir string) error {
	left, err := os.ReadDir(filepath.Join(dir, "tmp"))
	if err != nil {
		return err
	}
	for _, e := range left {
		name := filepath.Join(dir, "tmp", e.Name())
		if f, err := os.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0); err == nil {
			held := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil
			f.Close()
			if held {
				continue
			}
		}
		if err := os.RemoveAll(name); err != nil {
			return err
		}
	}
	// A record is written beside its name; half of one is a temp file there.
	records, err := os.ReadDir(filepath.Join(dir, "ref"))
	for _, e := range records {
		if st, serr := e.Info(); serr == nil && strings.HasPrefix(e.Name(), host.Tmp) && time.Since(st.ModTime()) > time.Hour {
			err = errors.Join(err, os.Remove(filepath.Join(dir, "ref", e.Name())))
		}
	}
	return err
}

// tidy sweeps where nothing is fetched that would. It is a courtesy: a store
// that cannot be written serves all the same.
func (s *Store) tidy() {
	if left, err := s.h.ReadDir(path.Join(s.opt.Dir, "tmp")); err == nil && len(left) > 0 {
		_ = s.open()
	}
}

// Close removes this process's unfinished things. A Store may be used again after it.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session == nil {
		return nil
	}
	err := os.RemoveAll(s.session.Name())
	s.session.Close()
	s.session = nil
	return err
}

// job is an empty folder for one attempt: outside the root, and inside it.
func (s *Store) job() (outside, inside string, err error) {
	if err := s.open(); err != nil {
		return "", "", err
	}
	s.mu.Lock()
	s.jobs++
	outside = filepath.Join(s.session.Name(), fmt.Sprint(s.jobs))
	s.mu.Unlock()
	inside = path.Join(s.opt.Dir, "tmp", filepath.Base(filepath.Dir(outside)), filepath.Base(outside))
	return outside, inside, os.Mkdir(outside, 0o700)
}
