//go:build system

package pkgmgr

import (
	"testing"

	"github.com/amiagent/amiagent/internal/pkgmgr/pkgmgrtest"
)

// What would come is told, in its version, and does not come.
func (s *system) simulates(text, brings string) {
	s.t.Helper()
	all, err := s.p.Simulate(s.t.Context(), want(text))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := range all {
		all[i].Repository = ""
	}
	if got := brief(all); got != brings {
		s.t.Errorf("%s brings\n%s\nwant\n%s", text, got, brings)
	}
	s.settled("web- lib- extra-")
}

func TestSystemWhatAptWouldBring(t *testing.T) {
	s := newApt(t, pkgmgrtest.Deb{Name: "web", Version: "1:1.2-1", Fields: "Depends: lib (>= 1)\n"},
		pkgmgrtest.Deb{Name: "web", Version: "1:1.3-1", Fields: "Depends: lib (>= 1), extra\n"},
		pkgmgrtest.Deb{Name: "lib", Version: "1.0"}, pkgmgrtest.Deb{Name: "lib", Version: "1.1"}, pkgmgrtest.Deb{Name: "extra", Version: "7"})
	s.is("extra", "", "extra") // reads the lists
	s.is("extra-", "", "extra-")
	s.simulates("web", "extra 7 \nlib 1.1 \nweb 1:1.3-1 ")
	s.simulates("web=1:1.2-1", "lib 1.1 \nweb 1:1.2-1 ")
	s.simulates("web=1:1.2-1 lib=1.0", "lib 1.0 \nweb 1:1.2-1 ")
	if _, err := s.p.Simulate(t.Context(), want("nowhere")); err == nil {
		t.Error("a package that nobody has brings something")
	}
}

func TestSystemWhatDnfWouldBring(t *testing.T) {
	s := newDnf(t, pkgmgrtest.RPM{Name: "web", Version: "1:1.2-1", Fields: "Requires: lib\n"},
		pkgmgrtest.RPM{Name: "web", Version: "1:1.3-1", Fields: "Requires: lib\nRequires: a-package-whose-name-is-so-long-that-it-needs-a-line-of-its-own\n"},
		pkgmgrtest.RPM{Name: "a-package-whose-name-is-so-long-that-it-needs-a-line-of-its-own", Version: "3-1"},
		pkgmgrtest.RPM{Name: "lib", Version: "1.0-1"}, pkgmgrtest.RPM{Name: "lib", Version: "1.1-1"}, pkgmgrtest.RPM{Name: "extra", Version: "7-1"})
	s.simulates("web", "a-package-whose-name-is-so-long-that-it-needs-a-line-of-its-own 3-1 \nlib 1.1-1 \nweb 1:1.3-1 ")
	s.simulates("web=1:1.2-1 lib=1.0-1", "lib 1.0-1 \nweb 1:1.2-1 ")
	if _, err := s.p.Simulate(t.Context(), want("nowhere")); err == nil {
		t.Error("a package that nobody has brings something")
	}
}
