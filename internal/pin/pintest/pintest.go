// Package pintest has servers laid out like those of the vendors, for tests of
// pins: Amazon's mirror lists and content-addressed repositories, which answer
// 403 for what does not exist, and snapshot servers of Debian and Ubuntu.
package pintest

import (
	"crypto/sha256"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/fetch/web"
	"github.com/amiagent/amiagent/internal/pin"
	"github.com/amiagent/amiagent/internal/pkgmgr"
	"github.com/amiagent/amiagent/internal/repodata"
	"github.com/amiagent/amiagent/internal/step/steptest"
)

// Server has documents by path. All others are 403, as on S3.
type Server struct {
	URL string

	mu        sync.Mutex
	documents map[string]string
	asked     []string
}

// Serve starts a Server on loopback, until the test ends.
func Serve(t testing.TB) *Server {
	t.Helper()
	s := &Server{documents: map[string]string{}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		text, ok := s.documents[r.URL.Path]
		s.asked = append(s.asked, r.URL.RequestURI())
		s.mu.Unlock()
		if !ok {
			w.Header().Set("Content-Type", "application/xml")
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code></Error>`)
			return
		}
		fmt.Fprint(w, text)
	}))
	t.Cleanup(srv.Close)
	s.URL = srv.URL
	return s
}

// Put sets a document. "" takes it away.
func (s *Server) Put(path, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.documents[path] = text; text == "" {
		delete(s.documents, path)
	}
}

// Asked are the requests since the last call.
func (s *Server) Asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.asked = nil }()
	return slices.Clone(s.asked)
}

// Notice is an advisory: what fixes it, as "name version" lines.
type Notice struct {
	ID, Type, Severity string
	Fixes              string
}

// Repo puts an rpm-md repository below a path that ends in "/". packages are
// lines of "name [epoch:]version-release"; system-release is noarch, others x86_64.
func (s *Server) Repo(path, packages string, notices ...Notice) {
	var primary, updates strings.Builder
	for name, version := range pairs(packages) {
		fmt.Fprintf(&primary, `<package type="rpm"><name>%s</name><arch>%s</arch>%s<checksum type="sha256">%x</checksum><size package="100"/><location href="%[1]s.rpm"/></package>`,
			name, arch(name), attributes("<version %s/>", "ver", "rel", version), sha256.Sum256([]byte(name+version)))
	}
	for _, n := range notices {
		fmt.Fprintf(&updates, `<update type="%s"><id>%s</id><severity>%s</severity><pkglist><collection>`, n.Type, n.ID, n.Severity)
		for name, version := range pairs(n.Fixes) {
			fmt.Fprintf(&updates, `<package name="%s" arch="%s" %s/>`, name, arch(name), attributes("%s", "version", "release", version))
		}
		updates.WriteString(`</collection></pkglist></update>`)
	}
	s.Put(path+"repodata/primary.xml", xml.Header+"<metadata>"+primary.String()+"</metadata>")
	data := `<data type="primary"><location href="repodata/primary.xml"/></data>`
	if len(notices) > 0 {
		s.Put(path+"repodata/updateinfo.xml", xml.Header+"<updates>"+updates.String()+"</updates>")
		data += `<data type="updateinfo"><location href="repodata/updateinfo.xml"/></data>`
	}
	s.Put(path+"repodata/repomd.xml", fmt.Sprintf("%s<repomd><revision>%x</revision>%s</repomd>", xml.Header, sha256.Sum256([]byte(primary.String())), data))
}

func arch(name string) string {
	if name == "system-release" {
		return "noarch"
	}
	return "x86_64"
}

func attributes(format, ver, rel, version string) string {
	epoch := "0"
	if e, rest, ok := strings.Cut(version, ":"); ok {
		epoch, version = e, rest
	}
	v, r, _ := strings.Cut(version, "-")
	return fmt.Sprintf(format, fmt.Sprintf(`epoch="%s" %s="%s" %s="%s"`, epoch, ver, v, rel, r))
}

func pairs(lines string) func(func(string, string) bool) {
	return func(yield func(string, string) bool) {
		for line := range strings.Lines(lines) {
			if f := strings.Fields(line); len(f) == 2 && !yield(f[0], f[1]) {
				return
			}
		}
	}
}

// GUID is a content id of 64 digits, made from a word.
func GUID(word string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(word))) }

// Options are what a family is made from on a scratch machine.
func Options(t testing.TB, m *steptest.Machine) pin.Options {
	t.Helper()
	c, err := repodata.New(web.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := pkgmgr.New(m.Host, m.Facts.Get(facts.PackageFamily))
	if err != nil {
		t.Fatal(err)
	}
	return pin.Options{Host: m.Host, Facts: m.Facts, Client: c, Manager: p}
}

// Facts are facts of an OS in words: id, version, package family.
func Facts(id, version, packages string) *facts.Facts {
	f := facts.New()
	f.Set(facts.OSID, id, facts.Bake, "test")
	f.Set(facts.OSVersion, version, facts.Bake, "test")
	f.Set(facts.PackageFamily, packages, facts.Bake, "test")
	f.Set(facts.Arch, "amd64", facts.Bake, "test")
	return f
}

// RPM writes the database of a scratch machine's fake rpm: "name version-release" a line.
func RPM(m *steptest.Machine, packages string) {
	var b strings.Builder
	for name, version := range pairs(packages) {
		epoch := "0"
		if e, rest, ok := strings.Cut(version, ":"); ok {
			epoch, version = e, rest
		}
		v, r, _ := strings.Cut(version, "-")
		fmt.Fprintf(&b, "%s\t%s\t%s\t%s\t%s\n", name, epoch, v, r, arch(name))
	}
	m.Write("/rpmdb", 0o644, b.String())
}

// Brief is changes as "name from to", with the ids of advisories behind.
func Brief(changes []pin.Change) string {
	var lines []string
	for _, c := range changes {
		line := c.Name + " " + c.From + " " + c.To
		if c.Down {
			line += " down"
		}
		for _, a := range c.Advisories {
			line += " " + a.ID
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

// Told is an error's text and hint, in one line.
func Told(err error, hint string) string {
	switch {
	case err == nil:
		return ""
	case hint == "":
		return err.Error()
	}
	return err.Error() + " | " + hint
}
