package pin

import (
	"fmt"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/pkgmgr"
	"github.com/amiagent/amiagent/internal/repodata"
)

// The slip that was seen in the wild is a right date with a wrong minor number.
func TestTheNearestReleaseIsTheOneOfTheSameDate(t *testing.T) {
	all := []string{"2023.9.20251117", "2023.10.20260202", "2023.10.20260330", "2023.11.20260413"}
	for want, meant := range map[string]string{
		"2023.10.20260413": "2023.11.20260413",
		"2023.10.20260331": "2023.10.20260330",
		"2023.1.20200101":  "2023.9.20251117",
		"2023.99.20300101": "2023.11.20260413",
		"2023.10.20260203": "2023.10.20260202",
	} {
		best := all[0]
		for _, r := range all {
			if distance(r, want) < distance(best, want) {
				best = r
			}
		}
		if best != meant {
			t.Errorf("%s: nearest is %s, want %s", want, best, meant)
		}
	}
	if distance("2017.09", "2017.05") > distance("2018.03", "2017.05") {
		t.Error("months count for more than years")
	}
}

func TestDottedReleasesAreNumbers(t *testing.T) {
	for _, x := range []struct {
		a, b string
		want int
	}{{"2023.10.1", "2023.9.9", 1}, {"9.10", "9.9", 1}, {"2018.03", "2018.03", 0}, {"2017.09", "2018.03", -1}, {"9", "9.1", -1}} {
		if got := CompareDotted(x.a, x.b); got != x.want {
			t.Errorf("%s and %s: %d", x.a, x.b, got)
		}
	}
}

func TestChangesCarryTheNoticesThatTheySettle(t *testing.T) {
	order := strings.Compare // versions here are single digits
	fix := func(name, version string) []repodata.Package {
		return []repodata.Package{{Name: name, Version: version}, {Name: name, Arch: "i686", Version: version}}
	}
	notices := []repodata.Advisory{
		{ID: "settled-before", Type: "security", Packages: fix("a", "1")},
		{ID: "low", Type: "security", Severity: "low", Packages: fix("a", "2")},
		{ID: "critical", Type: "security", Severity: "Critical", Packages: fix("a", "3")},
		{ID: "later", Type: "security", Packages: fix("a", "4")},
		{ID: "bug", Type: "bugfix", Packages: fix("a", "3")},
		{ID: "other", Type: "security", Packages: fix("b", "3")},
	}
	offered := map[string]string{"a": "3", "b": "1", "same": "1"}
	changes := Compare([]pkgmgr.Package{{Name: "same", Version: "1"}, {Name: "b", Version: "2"}, {Name: "a", Version: "1"}, {Name: "local", Version: "1"}},
		func(p pkgmgr.Package) (string, bool) { v, ok := offered[p.Name]; return v, ok }, order, notices)
	var got []string
	for _, c := range changes {
		ids := []string{}
		for _, a := range c.Advisories {
			ids = append(ids, a.ID)
		}
		got = append(got, fmt.Sprintf("%s %s %s %t %v", c.Name, c.From, c.To, c.Down, ids))
	}
	if want := "a 1 3 false [low critical bug]\nb 2 1 true []"; strings.Join(got, "\n") != want {
		t.Errorf("%s\nwant:\n%s", strings.Join(got, "\n"), want)
	}
	security := Security(append(changes, changes...))
	if len(security) != 2 || security[0].ID != "critical" || security[1].ID != "low" {
		t.Errorf("%+v", security)
	}
}

func TestHowFarBehind(t *testing.T) {
	for n, want := range map[int]string{0: "up to date", 1: "1 release behind", 7: "7 releases behind"} {
		if got := (Status{Behind: &n}).BehindText(); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
	if got := (Status{}).BehindText(); got != "" {
		t.Errorf("unknown: %s", got)
	}
}
