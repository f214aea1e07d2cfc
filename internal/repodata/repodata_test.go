package repodata_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/amiagent/amiagent/internal/fetch/web"
	"github.com/amiagent/amiagent/internal/repodata"
)

func packed(t *testing.T, how, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch how {
	case "gzip":
		w = gzip.NewWriter(&b)
	case "zstd":
		w, err = zstd.NewWriter(&b)
	case "xz":
		w, err = xz.NewWriter(&b)
	default:
		return []byte(text)
	}
	if err == nil {
		_, err = io.WriteString(w, text)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Names lie: what is in a file is told by its first bytes.
func TestUnpackGoesByTheFirstBytes(t *testing.T) {
	for _, how := range []string{"none", "gzip", "zstd", "xz"} {
		for _, text := range []string{"", "x", strings.Repeat("Package: a\n", 10_000)} {
			r, err := repodata.Unpack(bytes.NewReader(packed(t, how, text)), int64(len(text)))
			if err != nil {
				t.Fatal(how, err)
			}
			got, err := io.ReadAll(r)
			if err != nil || string(got) != text {
				t.Errorf("%s: %d bytes of %d, %v", how, len(got), len(text), err)
			}
			r.Close()
		}
	}
	if _, err := repodata.Unpack(strings.NewReader("\x1f\x8b garbage"), 10); err == nil {
		t.Error("a broken gzip passes")
	}
}

// A few kilobytes from a server must not fill the machine.
func TestUnpackStopsAtTheLimit(t *testing.T) {
	for _, how := range []string{"none", "gzip", "zstd", "xz"} {
		r, err := repodata.Unpack(bytes.NewReader(packed(t, how, strings.Repeat("0", 100_000))), 99_999)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, r)
		r.Close()
		if !errors.Is(err, repodata.ErrTooLarge) || n > 100_000 {
			t.Errorf("%s: read %d bytes, %v", how, n, err)
		}
	}
}

func TestGet(t *testing.T) {
	calls := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls++
		switch r.URL.Path {
		case "/ok":
			io.WriteString(w, "hello")
		case "/flaky":
			if calls < 2 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			io.WriteString(w, "hello")
		case "/denied":
			w.WriteHeader(http.StatusForbidden)
		case "/broken":
			w.WriteHeader(http.StatusBadRequest)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer s.Close()
	c, err := repodata.New(web.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		path, want string
		absent     bool
		error      string
	}{
		{path: "/ok", want: "hello"},
		{path: "/flaky", want: "hello"},
		{path: "/denied", absent: true, error: "cannot read " + s.URL + "/denied: not there: the server answered 403"},
		{path: "/nowhere", absent: true, error: "cannot read " + s.URL + "/nowhere: not there: the server answered 404"},
		{path: "/broken", error: "cannot read " + s.URL + "/broken: the server answered 400 Bad Request"},
	} {
		calls = 0
		got, err := c.Get(t.Context(), s.URL+x.path, 5)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if string(got) != x.want || text != x.error || errors.Is(err, repodata.ErrAbsent) != x.absent {
			t.Errorf("%s: %q, %q, absent %t", x.path, got, text, errors.Is(err, repodata.ErrAbsent))
		}
	}
	if _, err := c.Get(t.Context(), s.URL+"/ok", 4); !errors.Is(err, repodata.ErrTooLarge) {
		t.Errorf("five bytes with a limit of four: %v", err)
	}
	for _, bad := range []string{"file:///etc/passwd", "http://", "$awsproto://x/", ":"} {
		if _, err := c.Get(t.Context(), bad, 5); err == nil || !strings.HasPrefix(err.Error(), "cannot read "+bad+": only http") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
