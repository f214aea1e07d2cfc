package debian

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/fetch/web"
	"github.com/amiagent/amiagent/internal/repodata"
)

const release = `Origin: Debian
Label: Debian
Suite: stable
Codename: trixie
Date: Sat, 09 Aug 2025 10:21:34 UTC
Acquire-By-Hash: yes
MD5Sum:
 0123 100 main/binary-amd64/Packages
SHA256:
 aa11 100 main/binary-amd64/Packages
 bb22 50 main/binary-amd64/Packages.gz
`

const packages = `Package: bash
Source: bash (5.2.37-2)
Version: 0:5.2.37-2+b5
Architecture: amd64
Description: GNU Bourne Again SHell
 continued: no field
Filename: pool/main/b/bash/bash_5.2.37-2+b5_amd64.deb
Size: 1498344
SHA256: c0ffee

Package: tzdata
Version: 2025b-4
Architecture: all
`

func serve(t *testing.T, documents map[string]string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, ok := documents[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, text)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func client(t *testing.T) *repodata.Client {
	t.Helper()
	c, err := repodata.New(web.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func zipped(text string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write([]byte(text))
	_ = w.Close()
	return b.String()
}

func TestASuiteIsReadToItsPackages(t *testing.T) {
	signed := "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n" + release + "- -dash: escaped\n-----BEGIN PGP SIGNATURE-----\n\nwsB\n-----END PGP SIGNATURE-----\n"
	base := serve(t, map[string]string{
		"/dists/trixie/InRelease":                     signed,
		"/dists/trixie/main/binary-amd64/Packages.gz": zipped(packages),
		"/old/Release":                                release,
		"/old/main/binary-amd64/Packages":             packages, // the compressed form is listed and not there
	})
	c := client(t)
	for _, where := range []string{"/dists/trixie/", "/old"} {
		r, err := Open(t.Context(), c, base+where)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%s %s %s %s %d", r.Origin, r.Suite, r.Codename, r.Date.Format("2006-01-02T15:04:05Z07:00"), len(r.Files)); got != "Debian stable trixie 2025-08-09T10:21:34Z 2" {
			t.Error(got)
		}
		all, err := r.Packages(t.Context(), c, "main", "amd64")
		if got := fmt.Sprint(all); err != nil || got != "[{bash amd64 5.2.37-2+b5 pool/main/b/bash/bash_5.2.37-2+b5_amd64.deb 1498344 sha256:c0ffee} {tzdata all 2025b-4  0 }]" {
			t.Error(got, err)
		}
		if all, err := r.Packages(t.Context(), c, "contrib", "amd64"); err != nil || all != nil {
			t.Errorf("a component that is not listed: %v, %v", all, err)
		}
	}
	if _, err := Open(t.Context(), c, base+"/dists/sid"); !errors.Is(err, repodata.ErrAbsent) {
		t.Errorf("a suite that is not there: %v", err)
	}
}

func TestTheIdentityOfASuiteIsOfAllItsBytes(t *testing.T) {
	a, err := parseRelease([]byte(release))
	if err != nil {
		t.Fatal(err)
	}
	b, err := parseRelease([]byte(strings.Replace(release, "aa11", "aa12", 1)))
	if err != nil || a.Digest == b.Digest {
		t.Errorf("%s for both, %v", a.Digest, err)
	}
}

func TestWhatIsNoReleaseIsAnError(t *testing.T) {
	for _, text := range []string{"", "\n\n", "<html>Sign in</html>", "SHA256:\n aa many x\n"} {
		if r, err := parseRelease([]byte(text)); err == nil {
			t.Errorf("%q is read as %v", text, r)
		}
	}
	for _, text := range []string{"Package: a\n", "Version: 1\n", "no field here\n"} {
		if all, err := parsePackages(strings.NewReader(text)); err == nil {
			t.Errorf("%q is read as %v", text, all)
		}
	}
}

func TestVersionsAreOrderedAsDpkgDoes(t *testing.T) {
	for _, x := range []struct {
		a, b string
		want int
	}{{"1.10-1", "1.9-1", 1}, {"1:1.0", "2.0", 1}, {"1.0~rc1-1", "1.0-1", -1}, {"2:1-1ubuntu1", "2:1-1ubuntu1", 0}, {"(none)", "1", -1}} {
		if got := Compare(x.a, x.b); got != x.want {
			t.Errorf("%s and %s: %d", x.a, x.b, got)
		}
	}
}

func FuzzStanzas(f *testing.F) {
	f.Add(release)
	f.Add(packages)
	f.Fuzz(func(_ *testing.T, text string) {
		_, _ = parseRelease([]byte(text))
		_, _ = parsePackages(strings.NewReader(text))
	})
}
