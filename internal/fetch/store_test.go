package fetch_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/fetch"
	"github.com/amiagent/amiagent/internal/fetch/source/file"
	"github.com/amiagent/amiagent/internal/fetch/source/git"
	"github.com/amiagent/amiagent/internal/fetch/source/https"
	"github.com/amiagent/amiagent/internal/fetch/web"
	"github.com/amiagent/amiagent/internal/host"
)

// world is a scratch machine, a web server, and a store that knows both.
type world struct {
	t     testing.TB
	h     *host.Host
	store *fetch.Store
	opt   fetch.Options
	url   string
	ca    []byte // of the web server

	mu    sync.Mutex
	serve map[string]http.HandlerFunc
	asked []string
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, serve: map[string]http.HandlerFunc{}}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		w.asked = append(w.asked, r.URL.Path)
		serve := w.serve[r.URL.Path]
		w.mu.Unlock()
		if serve == nil {
			http.NotFound(rw, r)
			return
		}
		serve(rw, r)
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // killed clients
	srv.StartTLS()
	t.Cleanup(srv.Close)
	w.url = srv.URL
	w.ca = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	w.machine(t.TempDir(), w.ca)
	return w
}

func (w *world) machine(root string, ca []byte) {
	h, err := host.New(root, host.Options{Programs: host.Outside, Path: os.Getenv("PATH")})
	if err != nil {
		w.t.Fatal(err)
	}
	web, err := https.New(web.Options{Loopback: true, CAs: ca, Idle: 200 * time.Millisecond})
	if err != nil {
		w.t.Fatal(err)
	}
	w.h = h
	w.opt = fetch.Options{
		Sources: fetch.Sources{fetch.KindHTTPS: web, fetch.KindFile: file.New(h), fetch.KindGit: git.New(h)},
		Policy:  fetch.Policy{Base: time.Millisecond, Cap: 5 * time.Millisecond, Total: 5 * time.Second},
	}
	w.store = w.newStore()
}

func (w *world) newStore() *fetch.Store {
	s := fetch.New(w.h, w.opt)
	w.t.Cleanup(func() { _ = s.Close() })
	return s
}

func (w *world) has(path string, data []byte) {
	w.on(path, func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write(data) })
}

func (w *world) on(path string, serve http.HandlerFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.serve[path] = serve
}

func (w *world) requests() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := strings.Join(w.asked, " ")
	w.asked = nil
	return s
}

func (w *world) fetch(reqs ...fetch.Request) []fetch.Item {
	w.t.Helper()
	items, err := w.store.Fetch(w.t.Context(), reqs, nil)
	if err != nil {
		w.t.Fatalf("%v\nhint: %s", err, diag.Hint(err))
	}
	return items
}

func (w *world) fails(req fetch.Request, want error) error {
	w.t.Helper()
	items, err := w.store.Fetch(w.t.Context(), []fetch.Request{req}, nil)
	if !errors.Is(err, want) {
		w.t.Errorf("got error %v, want %v", err, want)
	}
	if items[0] != (fetch.Item{}) {
		w.t.Errorf("a failed fetch gave %+v", items[0])
	}
	w.nothingLeft()
	return err
}

// nothingLeft proves that a failure leaves nothing that looks whole, and no litter.
func (w *world) nothingLeft() {
	w.t.Helper()
	for _, folder := range []string{"blob", "tree", "ref"} {
		if es, err := w.h.ReadDir(fetch.DefaultDir + "/" + folder); err == nil && len(es) > 0 {
			w.t.Errorf("%s holds %v", folder, es)
		}
	}
	sessions, _ := w.h.ReadDir(fetch.DefaultDir + "/tmp")
	for _, s := range sessions {
		if es, _ := w.h.ReadDir(fetch.DefaultDir + "/tmp/" + s.Name()); len(es) > 0 {
			w.t.Errorf("tmp/%s holds %v", s.Name(), es)
		}
	}
}

func (w *world) read(path string) string {
	w.t.Helper()
	b, err := w.h.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

func digest(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

func tgz(t testing.TB, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	tw := tar.NewWriter(z)
	for i := 0; i < len(files); i += 2 {
		if err := tw.WriteHeader(&tar.Header{Name: files[i], Mode: 0o755, Size: int64(len(files[i+1])), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(tw, files[i+1])
	}
	_, _ = tw.Close(), z.Close()
	return b.Bytes()
}

// A launch fetches a program and an archive; the next one asks nobody.
func TestFetchedOnceAndKept(t *testing.T) {
	w := newWorld(t)
	program, archive := []byte("#!/bin/sh"), tgz(t, "app/bin/app", "binary", "app/conf", "x=1")
	w.has("/tool", program)
	w.has("/app.tgz", archive)
	reqs := []fetch.Request{
		{Name: "artifacts.tool", Source: w.url + "/tool", Digest: digest(program), Size: int64(len(program))},
		{Name: "artifacts.app", Source: w.url + "/app.tgz", Unpack: true, Strip: 1},
	}
	for _, r := range reqs {
		if _, ok := w.store.Lookup(r); ok {
			t.Error("an empty store has something")
		}
	}
	items := w.fetch(reqs...)
	if got := w.read(items[0].Path); got != string(program) {
		t.Errorf("the program is %q", got)
	}
	if got := w.read(items[1].Path + "/bin/app"); got != "binary" {
		t.Errorf("the app is %q", got)
	}
	if items[1].Digest != digest(archive) || items[1].Size != int64(len(archive)) || items[1].Origin != w.url+"/app.tgz" {
		t.Errorf("the item is %+v", items[1])
	}
	w.requests()

	// Another process, and the servers are gone.
	w.store = w.newStore()
	w.serve = nil
	if again := w.fetch(reqs...); again[0] != items[0] || again[1] != items[1] {
		t.Errorf("second run gave %+v, first %+v", again, items)
	}
	if asked := w.requests(); asked != "" {
		t.Errorf("a second run asked for %s", asked)
	}
	// What came without a digest is found by its digest too, from wherever.
	if it, ok := w.store.Lookup(fetch.Request{Source: "s3://elsewhere/app.tgz", Digest: digest(archive), Unpack: true, Strip: 1}); !ok || it != items[1] {
		t.Errorf("by digest: %+v %v", it, ok)
	}
	// Another strip is another tree.
	if _, ok := w.store.Lookup(fetch.Request{Source: w.url + "/app.tgz", Digest: digest(archive), Unpack: true}); ok {
		t.Error("a tree with another strip was taken")
	}
}

// What has no digest is kept as it first came, though the address serves something newer.
func TestUnpinnedRequestIsKeptOnceResolved(t *testing.T) {
	w := newWorld(t)
	w.has("/latest", []byte("one"))
	req := fetch.Request{Name: "x", Source: w.url + "/latest"}
	first := w.fetch(req)[0]
	w.has("/latest", []byte("two"))
	if again := w.fetch(req)[0]; again != first {
		t.Errorf("kept %+v, then %+v", first, again)
	}
}

// Damage in the store is seen as far as a look can see.
func TestLookupSeesWhatIsMissing(t *testing.T) {
	w := newWorld(t)
	w.has("/a", []byte("data"))
	req := fetch.Request{Name: "x", Source: w.url + "/a"}
	it := w.fetch(req)[0]
	p, _ := w.h.Path(it.Path)
	if err := os.Truncate(p, 1); err != nil {
		t.Fatal(err)
	}
	if _, ok := w.store.Lookup(req); ok {
		t.Error("a file of another length was taken")
	}
	w.fetch(req)
	if got := w.read(it.Path); got != "data" {
		t.Errorf("the repaired file is %q", got)
	}
	if err := os.Remove(p); err != nil {
		t.Fatal(err)
	}
	if _, ok := w.store.Lookup(req); ok {
		t.Error("a missing file was taken")
	}
	if _, ok := w.store.Lookup(fetch.Request{Source: "not an address"}); ok {
		t.Error("an impossible request was found")
	}
}

// A process was killed between giving the item its name and recording it.
func TestItemWithoutRecordIsFoundByDigest(t *testing.T) {
	w := newWorld(t)
	w.has("/a", []byte("data"))
	req := fetch.Request{Name: "x", Source: w.url + "/a", Digest: digest([]byte("data"))}
	w.fetch(req)
	if err := w.h.RemoveAll(fetch.DefaultDir + "/ref"); err != nil {
		t.Fatal(err)
	}
	w.requests()
	w.store = w.newStore()
	if it := w.fetch(req)[0]; it.Size != 4 {
		t.Errorf("got %+v", it)
	}
	if asked := w.requests(); asked != "" {
		t.Errorf("asked for %s", asked)
	}
}

func TestDigestAndSizeAreRefused(t *testing.T) {
	w := newWorld(t)
	w.has("/a", []byte("evil"))
	w.on("/chunked", func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(rw, "ev")
		rw.(http.Flusher).Flush()
		_, _ = io.WriteString(rw, "il")
	})
	good := digest([]byte("good"))
	for _, path := range []string{"/a", "/chunked"} {
		for _, unpack := range []bool{false, true} {
			err := w.fails(fetch.Request{Name: "artifacts.app", Source: w.url + path, Digest: good, Unpack: unpack}, fetch.ErrDigest)
			if want := "cannot fetch artifacts.app from " + w.url + path + ": digest does not match: got " + digest([]byte("evil")) + ", want " + good; err.Error() != want {
				t.Errorf("got %s\nwant %s", err, want)
			}
			if diag.Hint(err) == "" {
				t.Error("no hint")
			}
		}
		err := w.fails(fetch.Request{Name: "x", Source: w.url + path, Size: 5}, fetch.ErrSize)
		if want := "cannot fetch x from " + w.url + path + ": size does not match: got 4 bytes, want 5"; err.Error() != want {
			t.Errorf("got %s\nwant %s", err, want)
		}
	}
	sum := fmt.Sprintf("sha512:%x", sha512.Sum512([]byte("evil")))
	if it := w.fetch(fetch.Request{Name: "x", Source: w.url + "/a", Digest: sum})[0]; it.Digest != sum {
		t.Errorf("sha512: %+v", it)
	}
	// In the store, and asked for with a size that cannot be.
	items, err := w.store.Fetch(t.Context(), []fetch.Request{{Name: "x", Source: w.url + "/a", Digest: sum, Size: 9}}, nil)
	if !errors.Is(err, fetch.ErrSize) || items[0] != (fetch.Item{}) {
		t.Errorf("got %v %v", items, err)
	}
}

// go-getter's defect 1: MaxBytes cuts a chunked body silently. Here too much
// is an error, announced or not.
func TestGoGetterDefect1LimitIsAnError(t *testing.T) {
	w := newWorld(t)
	w.opt.Limits.Bytes = 1000
	w.store = w.newStore()
	w.has("/announced", make([]byte, 1001))
	w.on("/chunked", func(rw http.ResponseWriter, _ *http.Request) {
		for range 1001 {
			_, _ = rw.Write([]byte{0})
			rw.(http.Flusher).Flush()
		}
	})
	for _, path := range []string{"/announced", "/chunked"} {
		_, err := w.store.Fetch(t.Context(), []fetch.Request{{Name: "x", Source: w.url + path}}, nil)
		if err == nil || !strings.HasSuffix(err.Error(), "it has more than the 1000 bytes that are allowed") {
			t.Errorf("%s: %v", path, err)
		}
	}
	w.nothingLeft()
}

// go-getter's defect 2: an old file at the destination is mixed with the new
// body. Here a file that a crash left is swept, and never written into.
func TestGoGetterDefect2StaleTemporaryFiles(t *testing.T) {
	w := newWorld(t)
	w.has("/a", []byte("12345"))
	stale := fetch.DefaultDir + "/tmp/crashed/1"
	if err := w.h.MkdirAll(stale); err != nil {
		t.Fatal(err)
	}
	p, _ := w.h.Path(stale)
	if err := os.WriteFile(p+"/file", bytes.Repeat([]byte("x"), 3000), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := w.read(w.fetch(fetch.Request{Name: "x", Source: w.url + "/a"})[0].Path); got != "12345" {
		t.Errorf("got %q", got)
	}
	if w.h.Exists(fetch.DefaultDir + "/tmp/crashed") {
		t.Error("what the crashed process left is still there")
	}
	// Also when there is nothing to fetch.
	if err := w.h.MkdirAll(stale); err != nil {
		t.Fatal(err)
	}
	w.store = w.newStore()
	w.fetch(fetch.Request{Name: "x", Source: w.url + "/a"})
	if w.h.Exists(fetch.DefaultDir + "/tmp/crashed") {
		t.Error("what the crashed process left is still there")
	}
}

// A connection that breaks is tried again; one that always breaks is an error, not a short file.
func TestTruncatedBodies(t *testing.T) {
	w := newWorld(t)
	w.opt.Policy.Total = 100 * time.Millisecond
	w.store = w.newStore()
	cut := func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(rw, "short")
		rw.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	cutChunked := func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(rw, "short")
		rw.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	for _, serve := range []http.HandlerFunc{cut, cutChunked} {
		w.on("/a", serve)
		err := w.fails(fetch.Request{Name: "x", Source: w.url + "/a"}, fetch.ErrTruncated)
		if !strings.Contains(err.Error(), "gave up after") {
			t.Errorf("it was not tried again: %v", err)
		}
	}
	tries := 0
	w.on("/a", func(rw http.ResponseWriter, r *http.Request) {
		if tries++; tries < 3 {
			cut(rw, r)
		}
		_, _ = io.WriteString(rw, "whole")
	})
	var done int64
	items, err := w.store.Fetch(t.Context(), []fetch.Request{{Name: "x", Source: w.url + "/a"}}, func(d, _ int64) { done = d })
	if err != nil || w.read(items[0].Path) != "whole" || done != 5 {
		t.Errorf("got %+v, progress %d, %v", items, done, err)
	}
}

// The server tells neither length nor end: only a digest can say that it was all.
func TestBodyThatEndsWithTheConnection(t *testing.T) {
	w := newWorld(t)
	w.on("/a", func(rw http.ResponseWriter, _ *http.Request) {
		c, buf, _ := rw.(http.Hijacker).Hijack()
		defer c.Close()
		_, _ = buf.WriteString("HTTP/1.0 200 OK\r\n\r\nhalf?")
		_ = buf.Flush()
	})
	err := w.fails(fetch.Request{Name: "x", Source: w.url + "/a"}, fetch.ErrTruncated)
	if diag.Hint(err) != "say the digest or the size" {
		t.Errorf("hint %q", diag.Hint(err))
	}
	w.fetch(fetch.Request{Name: "x", Source: w.url + "/a", Digest: digest([]byte("half?"))})
}

// Trap 5 of the peers: what is worth another try, and what is not.
func TestTrap5TransientAndFinalAnswers(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		status int
		again  bool
		is     error
	}{
		{408, true, nil}, {429, true, nil}, {500, true, nil}, {502, true, nil}, {503, true, nil}, {504, true, nil},
		{400, false, nil}, {401, false, fetch.ErrDenied}, {403, false, fetch.ErrDenied}, {404, false, fetch.ErrAbsent},
		{410, false, fetch.ErrAbsent}, {416, false, nil}, {501, false, nil}, {204, false, nil},
	} {
		tries := 0
		w.on("/a", func(rw http.ResponseWriter, _ *http.Request) {
			if tries++; tries == 1 {
				rw.WriteHeader(c.status)
				return
			}
			_, _ = fmt.Fprint(rw, c.status)
		})
		_, err := w.store.Fetch(t.Context(), []fetch.Request{{Name: "x", Source: fmt.Sprintf("%s/a?%d", w.url, c.status)}}, nil)
		if (err == nil) != c.again || !c.again && tries != 1 || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%d: %d tries, error %v", c.status, tries, err)
		}
	}
}

// Shortly after boot the credentials of an instance are not known everywhere.
func TestDeniedIsTransientShortlyAfterBoot(t *testing.T) {
	w := newWorld(t)
	w.opt.Policy.DeniedUntil = time.Now().Add(time.Hour)
	told := 0
	w.opt.Policy.OnRetry = func(name string, err error, _ time.Duration) {
		if told++; name != "x" || !errors.Is(err, fetch.ErrDenied) {
			t.Errorf("told of %s: %v", name, err)
		}
	}
	w.store = w.newStore()
	tries := 0
	w.on("/a", func(rw http.ResponseWriter, _ *http.Request) {
		if tries++; tries < 3 {
			rw.WriteHeader(403)
		}
	})
	w.fetch(fetch.Request{Name: "x", Source: w.url + "/a"})
	if told != 2 {
		t.Errorf("told %d times", told)
	}
}

// Trying ends: the total deadline, and the caller's own.
func TestTryingEnds(t *testing.T) {
	w := newWorld(t)
	w.opt.Policy.Total = 50 * time.Millisecond
	w.store = w.newStore()
	w.on("/busy", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Retry-After", "1000")
		rw.WriteHeader(503)
	})
	begin := time.Now()
	w.opt.Policy.Cap = time.Hour // a server may ask for more patience than there is
	if _, err := w.newStore().Fetch(t.Context(), []fetch.Request{{Name: "x", Source: w.url + "/busy"}}, nil); err == nil || !strings.Contains(err.Error(), "gave up after 1 tries") {
		t.Errorf("got %v", err)
	}
	_, err := w.store.Fetch(t.Context(), []fetch.Request{{Name: "x", Source: w.url + "/busy"}}, nil)
	if err == nil || !strings.Contains(err.Error(), "the server answered 503 Service Unavailable (gave up after ") {
		t.Errorf("got %v", err)
	}
	w.on("/hang", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	if _, err = w.store.Fetch(t.Context(), []fetch.Request{{Name: "x", Source: w.url + "/hang"}}, nil); err == nil {
		t.Error("a server that hangs was enough")
	}
	why := errors.New("the launch's deadline passed")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 30*time.Millisecond, why)
	defer cancel()
	w.opt.Policy.Total = time.Hour
	w.store = w.newStore()
	if _, err = w.store.Fetch(ctx, []fetch.Request{{Name: "x", Source: w.url + "/hang"}}, nil); !errors.Is(err, why) {
		t.Errorf("got %v, want the context's cause", err)
	}
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("it took %s", took)
	}
	w.nothingLeft()
}

// A server that falls silent in mid-body.
func TestStallingBody(t *testing.T) {
	w := newWorld(t)
	tries := 0
	w.on("/a", func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Length", "5")
		_, _ = io.WriteString(rw, "wh")
		rw.(http.Flusher).Flush()
		if tries++; tries == 1 {
			<-r.Context().Done()
			return
		}
		_, _ = io.WriteString(rw, "ole")
	})
	if got := w.read(w.fetch(fetch.Request{Name: "x", Source: w.url + "/a"})[0].Path); got != "whole" {
		t.Errorf("got %q", got)
	}
}

func TestMirrorsServeWhenTheSourceDoesNot(t *testing.T) {
	w := newWorld(t)
	data := []byte("data")
	w.has("/replaced", []byte("evil"))
	w.has("/good", data)
	it := w.fetch(fetch.Request{Name: "x", Source: w.url + "/gone", Mirrors: []string{w.url + "/replaced", w.url + "/good"}, Digest: digest(data)})[0]
	if it.Origin != w.url+"/good" {
		t.Errorf("came from %s", it.Origin)
	}
	if got := w.requests(); got != "/gone /replaced /good" {
		t.Errorf("asked for %s", got)
	}
	_, err := w.store.Fetch(t.Context(), []fetch.Request{{Name: "y", Source: w.url + "/gone", Mirrors: []string{w.url + "/gone2"}}}, nil)
	if !errors.Is(err, fetch.ErrAbsent) || strings.Count(err.Error(), "cannot fetch y from") != 2 {
		t.Errorf("both failures are to be told: %v", err)
	}
}

// Every failure is told, and what succeeded beside it stays.
func TestAllFailuresAreTold(t *testing.T) {
	w := newWorld(t)
	w.has("/a", []byte("a"))
	reqs := []fetch.Request{
		{Name: "one", Source: w.url + "/gone"}, {Name: "two", Source: w.url + "/a"}, {Name: "three", Source: "relative"},
	}
	items, err := w.store.Fetch(t.Context(), reqs, nil)
	want := `cannot fetch one from ` + w.url + `/gone: not there: the server answered 404 Not Found
cannot fetch three: cannot use address "relative": a path must be absolute`
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	if items[1].Size != 1 {
		t.Errorf("the good one is %+v", items[1])
	}
}

func TestSameBytesAreFetchedOnce(t *testing.T) {
	w := newWorld(t)
	data := tgz(t, "f", "x")
	w.has("/a", data)
	w.has("/b", data)
	items := w.fetch(
		fetch.Request{Name: "one", Source: w.url + "/a", Digest: digest(data), Unpack: true},
		fetch.Request{Name: "two", Source: w.url + "/a", Digest: digest(data), Unpack: true},
		fetch.Request{Name: "three", Source: w.url + "/b", Digest: digest(data), Unpack: true},
	)
	if items[0] != items[1] || items[0] != items[2] || w.requests() != "/a" {
		t.Errorf("got %+v", items)
	}
}

func TestLargestFirstAndProgress(t *testing.T) {
	w := newWorld(t)
	w.opt.Parallel = 1
	w.store = w.newStore()
	w.has("/small", make([]byte, 10))
	w.has("/large", make([]byte, 1000))
	var done, total int64
	_, err := w.store.Fetch(t.Context(), []fetch.Request{
		{Name: "s", Source: w.url + "/small", Size: 10}, {Name: "l", Source: w.url + "/large", Size: 1000},
	}, func(d, t int64) { done, total = d, t })
	if err != nil || done != 1010 || total != 1010 {
		t.Errorf("progress ended at %d of %d, error %v", done, total, err)
	}
	if got := w.requests(); got != "/large /small" {
		t.Errorf("asked for %s", got)
	}
}

func TestUnsafeArchiveLeavesNothing(t *testing.T) {
	w := newWorld(t)
	w.has("/a.tgz", tgz(t, "ok", "x", "../../evil", "x"))
	err := w.fails(fetch.Request{Name: "x", Source: w.url + "/a.tgz", Unpack: true}, fetch.ErrUnsafe)
	if want := `cannot fetch x from ` + w.url + `/a.tgz: path "../../evil" leaves the folder: archive is unsafe`; err.Error() != want {
		t.Errorf("got %s\nwant %s", err, want)
	}
	// With the right digest it is still unsafe, and says that.
	data := tgz(t, "/abs", "x")
	w.has("/b.tgz", data)
	w.fails(fetch.Request{Name: "x", Source: w.url + "/b.tgz", Unpack: true, Digest: digest(data)}, fetch.ErrUnsafe)
	// Cut, it is cut, whatever the unpacker makes of it.
	w.opt.Policy.Total = 50 * time.Millisecond
	w.store = w.newStore()
	noise := make([]byte, 200_000)
	for i := range noise {
		noise[i] = byte(i * i >> 5 * i)
	}
	whole := tgz(t, "f", string(noise))
	w.on("/c.tgz", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Length", fmt.Sprint(len(whole)))
		_, _ = rw.Write(whole[:len(whole)-10])
		rw.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	err = w.fails(fetch.Request{Name: "x", Source: w.url + "/c.tgz", Unpack: true}, fetch.ErrTruncated)
	want := fmt.Sprintf("cannot fetch x from %s/c.tgz: ended before its last byte: had %d of %d bytes (gave up after ", w.url, len(whole)-10, len(whole))
	if !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %s\nwant %s", err, want)
	}
}

// A plain file takes what the machine has; permissions keep others out.
func TestStoreIsPrivateButForTrees(t *testing.T) {
	w := newWorld(t)
	w.has("/a", tgz(t, "f", "x"))
	plain := w.fetch(fetch.Request{Name: "x", Source: w.url + "/a"})[0]
	tree := w.fetch(fetch.Request{Name: "x", Source: w.url + "/a", Unpack: true})[0]
	for path, want := range map[string]fs.FileMode{
		plain.Path: 0o600, filepath.Dir(plain.Path): fs.ModeDir | 0o700, fetch.DefaultDir + "/ref": fs.ModeDir | 0o700,
		tree.Path: fs.ModeDir | 0o755, filepath.Dir(tree.Path): fs.ModeDir | 0o755, tree.Path + "/f": 0o755,
	} {
		if st, err := w.h.Stat(path); err != nil || st.Mode() != want {
			t.Errorf("%s has mode %v, want %v (%v)", path, st.Mode(), want, err)
		}
	}
}

// Credentials in an address stay out of errors, records and origins.
func TestSecretsOfAddressesAreNotTold(t *testing.T) {
	w := newWorld(t)
	w.has("/a", []byte("a"))
	base := strings.Replace(w.url, "https://", "https://me:hunter2@", 1)
	it := w.fetch(fetch.Request{Name: "x", Source: base + "/a?X-Amz-Signature=hunter2"})[0]
	_, err := w.store.Fetch(t.Context(), []fetch.Request{{Name: "y", Source: base + "/gone?sig=hunter2"}}, nil)
	w.opt.Policy.Total = 30 * time.Millisecond
	w.store = w.newStore()
	_, err2 := w.store.Fetch(t.Context(), []fetch.Request{{Name: "z", Source: "https://me:hunter2@localhost:1/a?sig=hunter2"}}, nil)
	told := it.Origin + fmt.Sprint(err, err2, diag.Hint(err))
	refs, _ := w.h.ReadDir(fetch.DefaultDir + "/ref")
	for _, r := range refs {
		told += w.read(fetch.DefaultDir + "/ref/" + r.Name())
	}
	if strings.Contains(told, "hunter2") || len(refs) == 0 || err == nil || err2 == nil {
		t.Errorf("the secret was told: %s", told)
	}
}

// The file would not fit: said before a byte is written.
func TestTooLargeForTheFileSystem(t *testing.T) {
	w := newWorld(t)
	w.opt.Limits.Bytes = 1 << 62
	w.store = w.newStore()
	w.on("/a", func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Length", fmt.Sprint(int64(1)<<60))
		_, _ = io.WriteString(rw, "x")
		rw.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	_, err := w.store.Fetch(t.Context(), []fetch.Request{{Name: "x", Source: w.url + "/a"}}, nil)
	if err == nil || !strings.Contains(err.Error(), "no space left on device: it has 1152921504606846976 bytes, ") || diag.Hint(err) == "" {
		t.Errorf("got %v", err)
	}
	w.nothingLeft()
}

// A store that cannot be written says so; one that can only be read still serves.
func TestReadOnlyStore(t *testing.T) {
	w := newWorld(t)
	w.has("/a", []byte("a"))
	req := fetch.Request{Name: "x", Source: w.url + "/a"}
	it := w.fetch(req)[0]
	_ = w.store.Close()
	root, _ := w.h.Path("/var/lib/amiagent/store")
	if err := os.Rename(root+"/tmp", root+"/gone"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root+"/tmp", nil, 0o600); err != nil { // stands for what cannot be written
		t.Fatal(err)
	}
	w.store = w.newStore()
	if again := w.fetch(req)[0]; again != it {
		t.Errorf("got %+v", again)
	}
	_, err := w.store.Fetch(t.Context(), []fetch.Request{{Name: "y", Source: w.url + "/b"}}, nil)
	if err == nil || !strings.Contains(err.Error(), "cannot open the store /var/lib/amiagent/store") {
		t.Errorf("got %v", err)
	}
}

func TestReadDocument(t *testing.T) {
	w := newWorld(t)
	w.has("/m.yaml", []byte("amiagent: 1\n"))
	data, origin, err := w.store.ReadDocument(t.Context(), w.url+"/m.yaml", 1000)
	if err != nil || string(data) != "amiagent: 1\n" || origin != w.url+"/m.yaml" {
		t.Errorf("got %q %q %v", data, origin, err)
	}
	good := w.url + "/m.yaml?checksum=" + digest(data)
	if _, _, err := w.store.ReadDocument(t.Context(), good, 1000); err != nil {
		t.Error(err)
	}
	for address, want := range map[string]error{
		w.url + "/m.yaml?checksum=" + digest(nil): fetch.ErrDigest,
		w.url + "/gone": fetch.ErrAbsent,
	} {
		if _, _, err := w.store.ReadDocument(t.Context(), address, 1000); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", address, err, want)
		}
	}
	_, _, err = w.store.ReadDocument(t.Context(), w.url+"/m.yaml", 5)
	if want := "cannot read " + w.url + "/m.yaml: it has more than the 5 bytes that are allowed"; err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	if w.h.Exists(fetch.DefaultDir) {
		t.Error("reading a document made a store")
	}
}

func TestKindThatIsNotServed(t *testing.T) {
	w := newWorld(t)
	_, err := w.store.Fetch(t.Context(), []fetch.Request{{Name: "x", Source: "s3://b/k"}}, nil)
	if want := "cannot fetch x from s3://b/k: addresses of s3 are not served here"; err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

// A branch is resolved once; its commit is the digest, and the tree is kept
// when the branch moves on and when the repository is gone.
func TestRepositoryIsPinnedByItsCommit(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	git := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=t", "-c", "user.email=t@example.com"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "-q", "-b", "main")
	commit := func(content string) string {
		if err := os.WriteFile(dir+"/conf", []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		git("add", "-A")
		git("commit", "-q", "-m", content)
		return git("rev-parse", "HEAD")
	}
	first := commit("one")
	moving := fetch.Request{Name: "artifacts.conf", Source: "git::" + dir + "?ref=main", Unpack: true}
	it := w.fetch(moving)[0]
	if it.Digest != "git:"+first || w.read(it.Path+"/conf") != "one" || w.h.Exists(it.Path+"/.git") {
		t.Errorf("got %+v", it)
	}
	second := commit("two")
	if again := w.fetch(moving)[0]; again != it {
		t.Errorf("the branch moved the artifact: %+v", again)
	}
	pinned := moving
	pinned.Digest = "git:" + second
	if it := w.fetch(pinned)[0]; w.read(it.Path+"/conf") != "two" {
		t.Errorf("pinned to the second commit: %+v", it)
	}
	pinned.Digest = "git:" + first
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if again := w.fetch(pinned)[0]; again.Path != it.Path {
		t.Errorf("by commit: %+v", again)
	}
	// A file of it, as a layer of the manifest would be read.
	dir = t.TempDir()
	git("init", "-q", "-b", "main")
	third := commit("amiagent: 1")
	data, origin, err := w.store.ReadDocument(t.Context(), "git::"+dir+"//conf", 100)
	if err != nil || string(data) != "amiagent: 1" || !strings.HasSuffix(origin, "//conf?ref="+third) {
		t.Errorf("%q %q %v", data, origin, err)
	}
	w.failsWith(fetch.Request{Name: "x", Source: "git::" + dir + "//conf", Unpack: true}, "it is one file of the repository")
	w.failsWith(fetch.Request{Name: "x", Source: "git::" + dir + "?ref=gone", Unpack: true}, `not there: no branch or tag "gone"`)
}

func (w *world) failsWith(req fetch.Request, suffix string) {
	w.t.Helper()
	if _, err := w.store.Fetch(w.t.Context(), []fetch.Request{req}, nil); err == nil || !strings.HasSuffix(err.Error(), suffix) {
		w.t.Errorf("got %v, want …%s", err, suffix)
	}
}
