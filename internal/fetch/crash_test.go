package fetch_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/amiagent/amiagent/internal/fetch"
)

// child is what a process of its own fetches: see fetchInChild.
type child struct {
	Root     string
	CA       []byte
	Requests []fetch.Request
}

// TestMain lets the test binary be the process that is killed.
func TestMain(m *testing.M) {
	if job := os.Getenv("FETCH_TEST_CHILD"); job != "" {
		os.Exit(fetchInChild(job))
	}
	os.Exit(m.Run())
}

func fetchInChild(job string) int {
	var c child
	if err := json.Unmarshal([]byte(job), &c); err != nil {
		panic(err)
	}
	w := &world{t: new(testing.T)}
	w.machine(c.Root, c.CA)
	if _, err := w.store.Fetch(context.Background(), c.Requests, nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := w.store.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func (w *world) start(reqs []fetch.Request) (*exec.Cmd, *bytes.Buffer) {
	w.t.Helper()
	job, err := json.Marshal(child{w.h.Root(), w.ca, reqs})
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "FETCH_TEST_CHILD="+string(job))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	return cmd, &stderr
}

// drip serves data in pieces and tells after each how much has gone out in all.
func drip(data []byte, sent func(int)) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Length", fmt.Sprint(len(data)))
		for piece := range bytesChunks(data, 2000) {
			if _, err := rw.Write(piece); err != nil {
				return
			}
			rw.(http.Flusher).Flush()
			sent(len(piece))
		}
	}
}

func bytesChunks(b []byte, n int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			k := min(n, len(b))
			if !yield(b[:k]) {
				return
			}
			b = b[k:]
		}
	}
}

// A process that is killed in mid-fetch leaves nothing that looks whole; the
// next one finishes, and sweeps what was left.
func TestKilledInMidFetch(t *testing.T) {
	w := newWorld(t)
	noise := make([]byte, 20_000)
	for i := range noise {
		noise[i] = byte(i * i >> 3)
	}
	archive := tgz(t, "a/one", string(noise), "a/two", "2", "a/three", string(noise))
	reqs := []fetch.Request{
		{Name: "file", Source: w.url + "/file", Digest: digest(noise)},
		{Name: "unpinned", Source: w.url + "/file"},
		{Name: "tree", Source: w.url + "/tree", Unpack: true, Strip: 1, Digest: digest(archive)},
	}
	total, killed := 2*len(noise)+len(archive), 0
	for kill := 1000; kill < total+2000; kill += total / 8 {
		if err := w.h.RemoveAll(fetch.DefaultDir); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var victim *exec.Cmd
		var out int
		sent := func(n int) {
			mu.Lock()
			defer mu.Unlock()
			if out += n; victim != nil && out >= kill {
				_ = victim.Process.Kill()
				victim = nil
			}
			time.Sleep(time.Millisecond)
		}
		w.on("/file", drip(noise, sent))
		w.on("/tree", drip(archive, sent))
		mu.Lock()
		cmd, _ := w.start(reqs)
		victim = cmd
		mu.Unlock()
		if cmd.Wait() != nil {
			killed++
		}
		w.onlyWholeThings()

		second, stderr := w.start(reqs)
		if err := second.Wait(); err != nil {
			t.Fatalf("killed after %d bytes, then: %v\n%s", kill, err, stderr)
		}
		w.onlyWholeThings()
		left, _ := w.h.ReadDir(fetch.DefaultDir + "/tmp")
		if len(left) > 0 {
			t.Errorf("killed after %d bytes: %v was left", kill, left)
		}
		for _, r := range reqs {
			if _, ok := w.newStore().Lookup(r); !ok {
				t.Errorf("killed after %d bytes: %s is not there", kill, r.Name)
			}
		}
	}
	if killed < 6 {
		t.Errorf("only %d processes were killed in time", killed)
	}
}

// onlyWholeThings holds every file of the store against its name, and every tree against what it must hold.
func (w *world) onlyWholeThings() {
	w.t.Helper()
	blobs, _ := w.h.ReadDir(fetch.DefaultDir + "/blob")
	for _, b := range blobs {
		got := fmt.Sprintf("sha256-%x", sha256.Sum256([]byte(w.read(fetch.DefaultDir+"/blob/"+b.Name()))))
		if b.Name() != got {
			w.t.Errorf("%s holds bytes of %s", b.Name(), got)
		}
	}
	trees, _ := w.h.ReadDir(fetch.DefaultDir + "/tree")
	for _, tr := range trees {
		dir, _ := w.h.Path(fetch.DefaultDir + "/tree/" + tr.Name())
		var files []string
		_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, _ error) error {
			if st, err := d.Info(); err == nil && !d.IsDir() {
				files = append(files, fmt.Sprint(d.Name(), st.Size()))
			}
			return nil
		})
		if got := strings.Join(files, " "); got != "one20000 three20000 two1" {
			w.t.Errorf("%s holds %s", tr.Name(), got)
		}
	}
}

// Two processes fetch the same things into one store at once: both succeed,
// and neither sweeps what the other is working on.
func TestTwoProcessesFetchTheSame(t *testing.T) {
	w := newWorld(t)
	noise := bytes.Repeat([]byte("noise"), 4000)
	archive := tgz(t, "a/one", string(noise[:20000]), "a/two", "2", "a/three", string(noise[:20000]))
	slowly := func(int) { time.Sleep(5 * time.Millisecond) }
	w.on("/tree", drip(archive, slowly))
	w.on("/file", drip(noise, slowly))
	reqs := []fetch.Request{
		{Name: "tree", Source: w.url + "/tree", Unpack: true, Strip: 1},
		{Name: "file", Source: w.url + "/file"},
	}
	a, aErr := w.start(reqs)
	b, bErr := w.start(reqs)
	for i, p := range []*exec.Cmd{a, b} {
		if err := p.Wait(); err != nil {
			t.Errorf("process %d: %v\n%s%s", i, err, aErr, bErr)
		}
	}
	w.onlyWholeThings()
	for _, folder := range []string{"blob", "tree"} {
		if es, _ := w.h.ReadDir(fetch.DefaultDir + "/" + folder); len(es) != 1 {
			t.Errorf("%s holds %v", folder, es)
		}
	}
	if es, _ := w.h.ReadDir(fetch.DefaultDir + "/tmp"); len(es) != 0 {
		t.Errorf("tmp holds %v", es)
	}
}
