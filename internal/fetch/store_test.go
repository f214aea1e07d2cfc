package fetch_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/fetch"
)

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
	if want := "it has more than the 5 bytes that are allowed"; err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	if w.h.Exists(fetch.DefaultDir) {
		t.Error("reading a document made a store")
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
