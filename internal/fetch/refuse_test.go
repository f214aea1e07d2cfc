package fetch_test

import (
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/fetch"
)

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
	var f *fetch.Failures
	if !errors.As(err, &f) || !errors.Is(f.Of("one"), fetch.ErrAbsent) || f.Of("two") != nil || f.Of("three") == nil {
		t.Errorf("by name: %v", f)
	}
	// What two wanted is told once, and is known of both.
	_, err = w.store.Fetch(t.Context(), []fetch.Request{{Name: "a", Source: w.url + "/gone"}, {Name: "b", Source: w.url + "/gone"}}, nil)
	if !errors.As(err, &f) || f.Of("b") == nil || strings.Count(err.Error(), "cannot") != 1 {
		t.Errorf("got %v", err)
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

func TestKindThatIsNotServed(t *testing.T) {
	w := newWorld(t)
	_, err := w.store.Fetch(t.Context(), []fetch.Request{{Name: "x", Source: "s3://b/k"}}, nil)
	if want := "cannot fetch x from s3://b/k: addresses of s3 are not served here"; err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}
