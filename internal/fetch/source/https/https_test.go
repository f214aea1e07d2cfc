package https_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/fetch"
	"github.com/amiagent/amiagent/internal/fetch/source/https"
	"github.com/amiagent/amiagent/internal/fetch/web"
)

func source(t *testing.T) fetch.Source {
	t.Helper()
	s, err := https.New(web.Options{Loopback: true, UserAgent: "amiagent/1"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func open(t *testing.T, address string) (string, fetch.Object, error) {
	t.Helper()
	a, err := fetch.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	obj, err := source(t).Open(t.Context(), a, nil)
	if err != nil {
		return "", obj, err
	}
	defer obj.Body.Close()
	b, err := io.ReadAll(obj.Body)
	return string(b), obj, err
}

// The address goes out as it was written, less what is for the agent; what a
// compressing server does to the bytes is not undone.
func TestAddressAndBody(t *testing.T) {
	var asked *http.Request
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r
		w.Header().Set("ETag", `"v1"`)
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = io.WriteString(w, "as stored")
	}))
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "http://")
	body, obj, err := open(t, "http://me:pw@"+host+"/a%2Fb?sig=x%20y&archive=tgz&z=1")
	if err != nil {
		t.Fatal(err)
	}
	if body != "as stored" || obj.Size != 9 || obj.Version != `"v1"` || obj.Origin != srv.URL+"/a%2Fb?sig=redacted&z=redacted" {
		t.Errorf("%q %+v", body, obj)
	}
	user, password, _ := asked.BasicAuth()
	if asked.RequestURI != "/a%2Fb?sig=x%20y&z=1" || user != "me" || password != "pw" || asked.UserAgent() != "amiagent/1" || asked.Header.Get("Accept-Encoding") != "identity" {
		t.Errorf("asked for %s as %s:%s with %v", asked.RequestURI, user, password, asked.Header)
	}
}

// The origin names where the bytes came from in the end, and a signature that a redirect adds stays out of it.
func TestOriginAfterRedirect(t *testing.T) {
	cdn := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("credentials went to another host")
		}
		_, _ = io.WriteString(w, "x")
	}))
	defer cdn.Close()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, cdn.URL+"/real?token=secret", http.StatusFound)
	}))
	defer srv.Close()
	_, obj, err := open(t, strings.Replace(srv.URL, "//", "//me:pw@", 1)+"/a")
	if err != nil || obj.Origin != cdn.URL+"/real?token=redacted" {
		t.Errorf("%+v %v", obj, err)
	}
}

func TestRefusals(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	_, _, err := open(t, srv.URL+"/gone")
	if !errors.Is(err, fetch.ErrAbsent) || err.Error() != "not there: the server answered 404 Not Found" {
		t.Errorf("got %v", err)
	}
	if _, _, err := open(t, "http://169.254.169.254/latest/user-data"); !errors.Is(err, web.ErrForbidden) {
		t.Errorf("got %v", err)
	}
}
