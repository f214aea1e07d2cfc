package pkgmgr

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/amiagent/amiagent/internal/step/steptest"
)

// status is entries as dpkg 1.21 writes them.
const status = `Package: dpkg
Essential: yes
Status: install ok installed
Architecture: amd64
Version: 1.21.22
Conffiles:
 /etc/alternatives/README 7be88b21f7e386c8d5a8790c2461c92b
Description: Debian package management system
 This package provides the low-level infrastructure.
 .
 Package: a trap in a description

Package: exim4-daemon-light
Status: install ok installed
Architecture: amd64
Version: 4.96-15
Provides: mail-transport-agent, exim4-localscanapi-4.1 (= 4.96)

Package: nginx
Status: install ok half-configured
Architecture: all
Version: 0:1.22.1-9

Package: telnet
Status: deinstall ok config-files
Architecture: amd64
Version: 0.17

Package: zlib1g
Status: install ok installed
Multi-Arch: same
Architecture: i386
Version: 1:1.2.13

Package: libc6
Status: install ok triggers-pending
Architecture: amd64
Version: 2.36-9

Package: libc6
Status: install ok installed
Architecture: i386
Version: 2.36-8

Package: grub-pc
Status: hold ok installed
Architecture: amd64
Version: 2.06

Package: torn
Status: install reinstreq half-installed
Architecture: amd64
Version: 1
`

func TestDpkgDatabase(t *testing.T) {
	m := steptest.NewMachine(t, steptest.Options{})
	m.Write("/var/lib/dpkg/status", 0o644, status)
	db, err := dpkgInstalled(m.Host)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		want  Want
		drift string
	}{
		{Want{Name: "dpkg"}, ""},
		{Want{Name: "dpkg", Version: "1.21.*"}, ""},
		{Want{Name: "dpkg", Version: "1.22*"}, "version is 1.21.22, want 1.22*"},
		{Want{Name: "dpkg", Absent: true}, "1.21.22 is installed, want it absent"},
		{Want{Name: "mail-transport-agent"}, ""},
		{Want{Name: "mail-transport-agent", Version: "1"}, "not installed"},
		{Want{Name: "mail-transport-agent", Absent: true}, ""},
		{Want{Name: "exim4-localscanapi-4.1"}, ""},
		{Want{Name: "nginx"}, "installed only in part (half-configured)"},
		{Want{Name: "nginx", Absent: true}, "1.22.1-9 is installed, want it absent"},
		{Want{Name: "telnet"}, "not installed"},
		{Want{Name: "telnet", Absent: true}, ""},
		{Want{Name: "zlib1g"}, "not installed"}, // only the foreign one is
		{Want{Name: "zlib1g:i386"}, ""},
		{Want{Name: "libc6", Version: "2.36-9"}, ""},
		{Want{Name: "libc6:i386", Version: "2.36-9"}, "version is 2.36-8, want 2.36-9"},
		{Want{Name: "torn"}, "installed only in part (must be reinstalled)"},
		{Want{Name: "never-heard-of"}, "not installed"},
	} {
		if got := db.Drift(c.want); got != c.drift {
			t.Errorf("drift of %+v is %q, want %q", c.want, got, c.drift)
		}
	}
	if !db.held["grub-pc"] || db.held["dpkg"] {
		t.Errorf("held are %v", db.held)
	}
}

// A dpkg that was killed leaves its last steps in the journal, and the status
// file older than the machine.
func TestDpkgJournalReplacesTheStatusFile(t *testing.T) {
	m := steptest.NewMachine(t, steptest.Options{})
	m.Write("/var/lib/dpkg/status", 0o644, status)
	m.Write("/var/lib/dpkg/updates/0001", 0o644, "Package: exim4-daemon-light\nStatus: install ok unpacked\nArchitecture: amd64\nVersion: 4.97-1\n")
	m.Write("/var/lib/dpkg/updates/0002", 0o644, "Package: exim4-daemon-light\nStatus: install ok half-configured\nArchitecture: amd64\nVersion: 4.97-1\n")
	m.Write("/var/lib/dpkg/updates/tmp.i", 0o644, "Package: half a li")
	db, err := dpkgInstalled(m.Host)
	if err != nil {
		t.Fatal(err)
	}
	want := "installed only in part (half-configured)"
	if got := db.Drift(Want{Name: "exim4-daemon-light"}); got != want {
		t.Errorf("drift is %q, want %q", got, want)
	}
	if got := db.Drift(Want{Name: "mail-transport-agent"}); got != "not installed" {
		t.Errorf("a package that is broken provides its names: drift is %q", got)
	}
}

func TestNoDpkgDatabaseMeansNothingInstalled(t *testing.T) {
	m := steptest.NewMachine(t, steptest.Options{})
	db, err := dpkgInstalled(m.Host)
	if err != nil || db.Drift(Want{Name: "a"}) != "not installed" {
		t.Errorf("%v, %q", err, db.Drift(Want{Name: "a"}))
	}
	m.Write("/var/lib/dpkg/status", 0o644, "this is no database\n")
	if _, err := dpkgInstalled(m.Host); err == nil || !strings.Contains(err.Error(), "/var/lib/dpkg/status") {
		t.Errorf("a file that is no database: %v", err)
	}
}

func FuzzParseStatus(f *testing.F) {
	f.Add(status)
	f.Add("Package: a\r\nStatus: x\n\n\n:\n")
	f.Fuzz(func(t *testing.T, text string) {
		entries := map[string]stanza{}
		if parseStatus(strings.NewReader(text), entries) == nil {
			all := newInstalled()
			for _, s := range entries {
				all.addDpkg(s, "amd64")
			}
		}
	})
}

// A look must not be felt at boot: six hundred packages are usual.
func TestALookAtDpkgIsQuick(t *testing.T) {
	var b strings.Builder
	for i := range 800 {
		fmt.Fprintf(&b, "Package: p%d\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.%d\nDescription: x\n%s\n", i, i, strings.Repeat(" a line of a description\n", 30))
	}
	m := steptest.NewMachine(t, steptest.Options{})
	m.Write("/var/lib/dpkg/status", 0o644, b.String())
	best := time.Hour
	for range 5 {
		began := time.Now()
		db, err := dpkgInstalled(m.Host)
		if err != nil || db.Drift(Want{Name: "p799"}) != "" {
			t.Fatal(err)
		}
		best = min(best, time.Since(began))
	}
	if best > 60*time.Millisecond { // 3 ms on an idle machine; the race detector and company slow it down
		t.Errorf("a look takes %s", best)
	}
	t.Logf("a look at 800 packages takes %s", best)
}
