package pkgmgr

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
)

// rpm is what dnf and yum have in common: the database, and the names in messages.
type rpm struct{ h *host.Host }

// queryFormat works from rpm 4.11 (Amazon Linux 2) on, which has no %{EPOCHNUM} in all builds.
const queryFormat = `%{NAME}\t%|EPOCH?{%{EPOCH}}:{0}|\t%{VERSION}\t%{RELEASE}\t%{ARCH}`

var notThere = regexp.MustCompile(`^(package .* is not installed|no package provides .*)$`)

// installed asks rpm for all names at once, and once more, by what packages provide, for
// those that no package has as its name ("vim" is provided by vim-enhanced).
func (r rpm) installed(ctx context.Context, names []string) (Installed, error) {
	all := newInstalled()
	if len(names) == 0 {
		return all, nil
	}
	lines, err := r.query(ctx, append([]string{"-q", "--qf", queryFormat + `\n`}, names...))
	if err != nil {
		return all, err
	}
	for _, f := range lines {
		p := rpmPackage(f)
		for _, n := range []string{p.Name, p.Name + "." + p.Arch} {
			all.named[n] = append(all.named[n], p)
		}
	}
	var others []string
	for _, n := range names {
		if len(all.named[n]) == 0 {
			others = append(others, n)
		}
	}
	if len(others) == 0 {
		return all, nil
	}
	lines, err = r.query(ctx, append([]string{"-q", "--whatprovides", "--qf", queryFormat + `\t[%{PROVIDENAME} ]\n`}, others...))
	if err != nil {
		return all, err
	}
	for _, f := range lines {
		if len(f) > 5 {
			for n := range strings.FieldsSeq(f[5]) {
				all.provided[n] = append(all.provided[n], rpmPackage(f))
			}
		}
	}
	return all, nil
}

func rpmPackage(f []string) Package {
	p := Package{Name: f[0], Arch: f[4], Version: f[2] + "-" + f[3]}
	if f[1] != "0" {
		p.Version = f[1] + ":" + p.Version
	}
	return p
}

// query runs rpm and cuts its lines into fields. Names that are not there are
// no error, though rpm exits with their number.
func (r rpm) query(ctx context.Context, args []string) ([][]string, error) {
	res, err := r.h.Run(ctx, host.Cmd{Argv: append([]string{"rpm"}, args...)})
	var failed *host.ExitError
	if err != nil && !errors.As(err, &failed) {
		return nil, fmt.Errorf("cannot read the rpm database: %w", err)
	}
	var out [][]string
	absent := 0
	for line := range strings.Lines(string(res.Stdout)) {
		line = strings.TrimSuffix(line, "\n")
		if f := strings.Split(line, "\t"); len(f) >= 5 {
			out = append(out, f)
		} else if notThere.MatchString(line) {
			absent++
		}
	}
	if failed != nil && absent == 0 {
		return nil, diag.WithHint(fmt.Errorf("cannot read the rpm database: %w", err),
			"if the database is damaged, `rpm --rebuilddb` may repair it")
	}
	return out, nil
}

func (rpm) locks() []string {
	return []string{"/var/lib/rpm/.rpm.lock", "/usr/lib/sysimage/rpm/.rpm.lock"}
}

// The words are rpm's own, passed on by dnf and yum, which do not wait for this lock.
var rpmBusy = regexp.MustCompile(`(?i)can't create transaction lock on (\S+)|Failed to obtain rpm transaction lock`)

func (rpm) busy(output string) (string, bool) {
	if m := rpmBusy.FindStringSubmatch(output); m != nil {
		return m[1], true
	}
	return "", false
}

var rpmWaiting = regexp.MustCompile(`Waiting for process with pid (\d+) to finish|another copy is running as pid (\d+)`)

func (rpm) waiting(line string) (string, bool) {
	if m := rpmWaiting.FindStringSubmatch(line); m != nil {
		return m[1] + m[2], true
	}
	return "", false
}

// spec is how a want is asked for: dnf and yum know name-version, where the
// version may be a glob and may lack its release.
func spec(w Want) string {
	if w.Version == "" || w.Absent {
		return w.Name
	}
	return w.Name + "-" + w.Version
}

// bySpec finds the wants that a message names.
func bySpec(wants []Want, words []string) []string {
	var found []string
	for _, w := range wants {
		for _, word := range words {
			if word == w.Name || word == spec(w) {
				found = append(found, w.Name)
				break
			}
		}
	}
	return found
}

var (
	rpmUnknown  = regexp.MustCompile(`(?:Unable to find a match:|No match for argument:|No package) (.*)`)
	rpmFiltered = regexp.MustCompile(`All matches were filtered out by (.*) for argument: (\S+)`)
	// A name-version-release.arch, perhaps with an epoch, as solvers print it.
	nevra      = regexp.MustCompile(`([A-Za-z0-9][A-Za-z0-9+._-]*)-(?:\d+:)?[^-\s:]+-[^-\s]+\.[a-z0-9_]+\b`)
	rpmStale   = regexp.MustCompile(`Status code: 40[34]|HTTP Error 40[34]|Cannot download|repomd\.xml does not match`)
	rpmProblem = regexp.MustCompile(`(?m)^(?: Problem.*|  ?- .*|Error: Package: .*|\s+(?:Requires|Conflicting): .*|.*(?:Error unpacking rpm package|scriptlet in rpm package) .*)$`)
)

// read looks for unknown packages, and for wants named in the solver's problems.
func (rpm) read(output string, wants []Want) trouble {
	t := trouble{blame: map[string]error{}, stale: rpmStale.MatchString(output)}
	filtered := map[string]bool{}
	for _, m := range rpmFiltered.FindAllStringSubmatch(output, -1) {
		for _, n := range bySpec(wants, m[2:]) {
			filtered[n] = true
			t.blame[n] = diag.WithHint(fmt.Errorf("every version that matches is left out by %s", m[1]),
				"see exclude= in /etc/dnf/dnf.conf and in the repository's file, and the versionlock plugin")
		}
	}
	for _, m := range rpmUnknown.FindAllStringSubmatch(output, -1) {
		for _, n := range bySpec(wants, strings.Fields(m[1])) {
			if !filtered[n] {
				t.unknown = append(t.unknown, n)
			}
		}
	}
	problems := rpmProblem.FindAllString(output, -1)
	for _, w := range wants {
		for _, p := range problems {
			if m := nevra.FindAllStringSubmatch(p, -1); t.blame[w.Name] == nil && mentions(m, w.Name) {
				t.blame[w.Name] = errors.New(tidy(p))
			}
		}
	}
	return t
}

func mentions(found [][]string, name string) bool {
	for _, m := range found {
		if m[1] == name {
			return true
		}
	}
	return false
}

// tidy makes a message of a line with bullets.
func tidy(line string) string {
	line = strings.TrimLeft(strings.TrimSpace(line), "- ")
	if _, rest, ok := strings.Cut(line, ": "); ok && strings.HasPrefix(line, "Problem") {
		line = rest
	}
	return strings.TrimPrefix(line, "Error: ")
}
