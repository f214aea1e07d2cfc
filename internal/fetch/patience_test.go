package fetch_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/fetch"
)

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
