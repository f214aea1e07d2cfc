package rpmmd

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/fetch/web"
	"github.com/amiagent/amiagent/internal/repodata"
)

const repomd = `<?xml version="1.0" encoding="UTF-8"?>
<repomd xmlns="http://linux.duke.edu/metadata/repo" xmlns:rpm="http://linux.duke.edu/metadata/rpm">
  <revision>1795410963</revision>
  <data type="primary">
    <checksum type="sha256">aa11</checksum>
    <open-checksum type="sha256">bb22</open-checksum>
    <location href="repodata/aa11-primary.xml.gz"/>
    <size>600</size>
    <open-size>1000</open-size>
  </data>
  <data type="updateinfo"><checksum type="sha256"> cc33 </checksum><location href="repodata/updateinfo.xml"/></data>
</repomd>`

const primaryXML = `<?xml version="1.0" encoding="UTF-8"?>
<metadata xmlns="http://linux.duke.edu/metadata/common" xmlns:rpm="http://linux.duke.edu/metadata/rpm" packages="3">
<package type="rpm">
  <name>bash</name><arch>x86_64</arch>
  <version epoch="0" ver="5.2.15" rel="1.amzn2023.0.2"/>
  <checksum type="sha256" pkgid="YES">d1</checksum>
  <summary>The GNU Bourne Again shell</summary>
  <size package="1700" installed="8000" archive="8100"/>
  <location href="../blobstore/d1/bash.rpm"/>
  <format><rpm:provides><rpm:entry name="sh"/></rpm:provides></format>
</package>
<package type="rpm"><name>bash</name><arch>src</arch><version epoch="0" ver="5" rel="1"/></package>
<package type="rpm"><name>openssl</name><arch>x86_64</arch><version epoch="1" ver="3.0.8" rel="1.amzn2023"/></package>
</metadata>`

const updateinfoXML = `<updates>
<update author="linux-security@amazon.com" status="final" type="security" version="1.4">
  <id>ALAS2023-2025-1234</id><title>x</title><severity>Important</severity>
  <issued date="2025-11-17 00:00:00"/>
  <pkglist><collection short="amazon-linux-2023"><name>x</name>
    <package name="openssl" arch="x86_64" epoch="1" version="3.0.9" release="1.amzn2023"><filename>x</filename></package>
    <package name="openssl-libs" arch="x86_64" epoch="1" version="3.0.9" release="1.amzn2023"/>
  </collection></pkglist>
</update></updates>`

func client(t *testing.T) *repodata.Client {
	t.Helper()
	c, err := repodata.New(web.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// serve is a server of documents by path, which answers 403 for all others.
func serve(t *testing.T, documents map[string]string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, ok := documents[r.URL.RequestURI()]
		if !ok {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		fmt.Fprint(w, text)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestARepositoryIsReadFromItsMirrorListOn(t *testing.T) {
	documents := map[string]string{
		"/guids/8c97/x86_64/repodata/repomd.xml":          repomd,
		"/guids/8c97/x86_64/repodata/aa11-primary.xml.gz": primaryXML,
		"/guids/8c97/x86_64/repodata/updateinfo.xml":      updateinfoXML,
	}
	base := serve(t, documents)
	documents["/mirrors/2023.9/mirror.list?instance_id=i-1"] = base + "/guids/8c97/x86_64/" // without a newline, as Amazon's
	c := client(t)
	bases, err := Mirrors(t.Context(), c, base+"/mirrors/2023.9/mirror.list?instance_id=i-1")
	if err != nil || len(bases) != 1 {
		t.Fatal(bases, err)
	}
	r, err := Open(t.Context(), c, bases[0])
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(repomd))); r.Digest != want {
		t.Errorf("digest is %s, want %s", r.Digest, want)
	}
	if got := fmt.Sprint(r.Data); got != "map[primary:{repodata/aa11-primary.xml.gz sha256:aa11 600} updateinfo:{repodata/updateinfo.xml sha256:cc33 0}]" {
		t.Error(got)
	}
	all, err := r.Packages(t.Context(), c)
	if got := fmt.Sprint(all); err != nil || got != "[{bash x86_64 5.2.15-1.amzn2023.0.2 ../blobstore/d1/bash.rpm 1700 sha256:d1} {openssl x86_64 1:3.0.8-1.amzn2023  0 }]" {
		t.Error(got, err)
	}
	notices, err := r.Advisories(t.Context(), c)
	if got := fmt.Sprint(notices); err != nil || got != "[{ALAS2023-2025-1234 security Important [{openssl x86_64 1:3.0.9-1.amzn2023  0 } {openssl-libs x86_64 1:3.0.9-1.amzn2023  0 }]}]" {
		t.Error(got, err)
	}
	if _, err := Open(t.Context(), c, base+"/guids/0000/"); !errors.Is(err, repodata.ErrAbsent) {
		t.Errorf("another content id: %v", err)
	}
}

func TestARepositoryWithoutAdvisoriesHasNone(t *testing.T) {
	base := serve(t, map[string]string{"/repodata/repomd.xml": `<repomd></repomd>`})
	r, err := Open(t.Context(), client(t), base)
	if err != nil {
		t.Fatal(err)
	}
	if all, err := r.Advisories(t.Context(), client(t)); err != nil || all != nil {
		t.Errorf("%v, %v", all, err)
	}
	if _, err := r.Packages(t.Context(), client(t)); !errors.Is(err, ErrNone) {
		t.Errorf("no primary index: %v", err)
	}
}

func TestWhatIsNoRepositoryIsAnError(t *testing.T) {
	base := serve(t, map[string]string{
		"/repodata/repomd.xml":     "<html><body>Sign in to this network",
		"/cut/repodata/repomd.xml": repomd[:200],
		"/list":                    "# nothing\n\n",
	})
	for _, b := range []string{base, base + "/cut/"} {
		if r, err := Open(t.Context(), client(t), b); err == nil {
			t.Errorf("%s opens: %v", b, r)
		}
	}
	if _, err := Mirrors(t.Context(), client(t), base+"/list"); err == nil || !strings.Contains(err.Error(), "it names no repository") {
		t.Error(err)
	}
}

func TestMirrorsOfEveryForm(t *testing.T) {
	for text, want := range map[string]string{
		"http://a/x/":                       "http://a/x/",
		"# comment\r\nhttp://a\nhttp://b\n": "http://a http://b",
		`<?xml version="1.0"?><metalink><file name="repomd.xml"><resources>
			<url protocol="rsync" type="rsync">rsync://a/os/repodata/repomd.xml</url>
			<url protocol="https" type="https" preference="100">https://b/os/repodata/repomd.xml</url>
		</resources></file></metalink>`: "https://b/os/",
	} {
		if got := strings.Join(parseMirrors(text), " "); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

// Amazon's releasemd.xml says encoding="utf8", which encoding/xml refuses.
func TestTrapUtf8XML(t *testing.T) {
	for _, label := range []string{"utf8", "UTF-8", "utf-8", "US-ASCII"} {
		var doc struct {
			A string `xml:"a"`
		}
		err := Decoder(strings.NewReader(`<?xml version="1.0" encoding="` + label + `"?><r><a>é</a></r>`)).Decode(&doc)
		if err != nil || doc.A != "é" {
			t.Errorf("%s: %v, %v", label, doc, err)
		}
	}
	if err := Decoder(strings.NewReader(`<?xml version="1.0" encoding="latin1"?><r/>`)).Decode(new(struct{})); err == nil {
		t.Error("an encoding that is not read passes")
	}
}

func TestVersionsAreNotStrings(t *testing.T) {
	for _, x := range []struct {
		a, b string
		want int
	}{{"1.10-1", "1.9-1", 1}, {"1:1.0-1", "2.0-1", 1}, {"1.0-1", "1.0-1", 0}, {"1.0~rc1-1", "1.0-1", -1}, {"1.0-2.amzn2023", "1.0-10.amzn2023", -1}} {
		if got := Compare(x.a, x.b); got != x.want {
			t.Errorf("%s and %s: %d", x.a, x.b, got)
		}
	}
}

// What a server sends must end in packages or an error.
func FuzzPrimary(f *testing.F) {
	f.Add(primaryXML)
	f.Add(updateinfoXML)
	f.Fuzz(func(_ *testing.T, text string) {
		_, _ = primary(strings.NewReader(text))
		_, _ = updateinfo(strings.NewReader(text))
		_ = parseMirrors(text)
	})
}
