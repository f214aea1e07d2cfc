package fetch_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
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

func (w *world) failsWith(req fetch.Request, suffix string) {
	w.t.Helper()
	if _, err := w.store.Fetch(w.t.Context(), []fetch.Request{req}, nil); err == nil || !strings.HasSuffix(err.Error(), suffix) {
		w.t.Errorf("got %v, want …%s", err, suffix)
	}
}
