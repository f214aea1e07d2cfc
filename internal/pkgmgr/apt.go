package pkgmgr

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/amiagent/amiagent/internal/decode"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
)

// apt drives apt-get, and dpkg where apt-get asks for it.
type apt struct{ h *host.Host }

// quiet keeps every known asker from asking: debconf, needrestart (which may
// also restart services on its own, hence "l": list only), apt-listchanges,
// apt-listbugs and ucf, which has conffiles of its own.
var quiet = []string{
	"DEBIAN_FRONTEND=noninteractive", "DEBIAN_PRIORITY=critical",
	"NEEDRESTART_MODE=l", "NEEDRESTART_SUSPEND=1",
	"APT_LISTCHANGES_FRONTEND=none", "APT_LISTBUGS_FRONTEND=none",
	"UCF_FORCE_CONFFOLD=1",
}

// conffiles: a changed configuration file stays, an unchanged one is updated.
var conffiles = []string{"--force-confdef", "--force-confold"}

func (apt) name() string { return "apt" }

func (apt) locks() []string {
	return []string{dpkgDir + "lock-frontend", dpkgDir + "lock", "/var/cache/apt/archives/lock", "/var/lib/apt/lists/lock"}
}

func (a apt) installed(context.Context, []string) (Installed, error) { return dpkgInstalled(a.h) }

// get is apt-get. The lock of the lists is taken without waiting whatever
// Lock::Timeout says, and older apts know no such option: the Manager waits besides.
func (apt) get(args ...string) host.Cmd {
	argv := []string{"apt-get", "-y", "-q", "-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=60"}
	for _, c := range conffiles {
		argv = append(argv, "-o", "Dpkg::Options::="+c)
	}
	return host.Cmd{Argv: append(argv, args...), Env: quiet}
}

// commands is one apt-get, which installs a=1.2 and removes b- in one
// transaction. Versions are resolved before: apt's own globs do not match past an epoch.
func (a apt) commands(ctx context.Context, wants []Want, download bool) ([]host.Cmd, trouble, error) {
	args := []string{"install"}
	if download {
		args = []string{"--download-only", "install"}
	}
	var t trouble
	var specs []string
	policy, err := a.policy(ctx, versioned(wants))
	if err != nil {
		return nil, t, err
	}
	if len(policy) > 0 {
		args = slices.Insert(args, 0, "--allow-downgrades")
	}
	// dpkg goes on with nothing before they are whole again, and apt-get takes
	// them for installed: without the option it leaves them as they are.
	db, err := dpkgInstalled(a.h)
	if err != nil {
		return nil, t, err
	}
	torn := db.torn()
	if len(torn) > 0 {
		args = slices.Insert(args, 0, "--reinstall")
	}
	for _, name := range torn {
		if !slices.ContainsFunc(wants, func(w Want) bool { return w.Name == name }) {
			specs = append(specs, name)
		}
	}
	for _, w := range wants {
		switch {
		case w.Absent:
			specs = append(specs, w.Name+"-")
		case w.Version == "":
			specs = append(specs, w.Name)
		default:
			v := policy[w.Name].pick(w.Version)
			if v == "" {
				t.unknown = append(t.unknown, w.Name)
				continue
			}
			specs = append(specs, w.Name+"="+v)
		}
	}
	return []host.Cmd{a.get(append(args, specs...)...)}, t, nil
}

func versioned(wants []Want) []string {
	var all []string
	for _, w := range wants {
		if w.Version != "" && !w.Absent {
			all = append(all, w.Name)
		}
	}
	return all
}

// offer is what apt's policy says of one package.
type offer struct {
	candidate string
	versions  []string // best first
}

// pick is the version to ask for: the one that apt prefers if it matches, else the best that does.
func (o offer) pick(want string) string {
	if o.candidate != "" && Match(want, o.candidate) {
		return o.candidate
	}
	for _, v := range o.versions {
		if Match(want, v) {
			return v
		}
	}
	return ""
}

// policy reads `apt-cache policy`, which heeds pins and priorities. Names that
// apt does not know are not in it.
func (a apt) policy(ctx context.Context, names []string) (map[string]offer, error) {
	if len(names) == 0 {
		return nil, nil
	}
	res, err := a.h.Run(ctx, host.Cmd{Argv: append([]string{"apt-cache", "policy"}, names...)})
	if err != nil {
		return nil, fmt.Errorf("cannot ask apt for versions: %w", err)
	}
	return parsePolicy(string(res.Stdout)), nil
}

// parsePolicy reads blocks of this shape, where the number after a version is
// its priority, and deeper lines say where the version comes from:
//
//	dnf:
//	  Installed: (none)
//	  Candidate: 4.14.0-3
//	  Version table:
//	 *** 4.14.0-3 500
//	        500 http://deb.debian.org/debian bookworm/main amd64 Packages
func parsePolicy(text string) map[string]offer {
	all := map[string]offer{}
	name := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		f := strings.Fields(line)
		switch {
		case len(f) == 0:
		case line[0] != ' ':
			name = strings.TrimSuffix(line, ":")
			all[name] = offer{}
		case f[0] == "Candidate:" && len(f) == 2 && f[1] != "(none)":
			o := all[name]
			o.candidate = f[1]
			all[name] = o
		case strings.HasPrefix(line, " *** ") && len(f) >= 2:
			o := all[name]
			o.versions = append(o.versions, f[1])
			all[name] = o
		case strings.HasPrefix(line, "     ") && line[5] != ' ' && len(f) >= 1:
			o := all[name]
			o.versions = append(o.versions, f[0])
			all[name] = o
		}
	}
	return all
}

func (a apt) available(ctx context.Context, name string) ([]string, string) {
	policy, err := a.policy(ctx, []string{name})
	if o := policy[name]; err != nil || len(o.versions) > 0 {
		return o.versions, ""
	}
	res, err := a.h.Run(ctx, host.Cmd{Argv: []string{"apt-cache", "pkgnames", name[:1]}})
	if err != nil {
		return nil, ""
	}
	return nil, decode.Nearest(name, strings.Fields(string(res.Stdout)))
}

var (
	aptBusy    = regexp.MustCompile(`Could not get lock|Unable to lock directory|Unable to acquire the dpkg frontend lock|is another process using it\?`)
	aptWaiting = regexp.MustCompile(`It is held by process (\d+)`)
	aptUnknown = regexp.MustCompile(`Unable to locate package (\S+)|Couldn't find any package by (?:glob|regex) '([^']+)'|Package '?([^'\s]+)'? has no installation candidate|Version '[^']*' for '([^']+)' was not found`)
	aptStale   = regexp.MustCompile(`404 +Not Found|Hash Sum mismatch|File has unexpected size`)
	aptUnmet   = regexp.MustCompile(`(?m)^ (\S+) : ((?:Pre-?Depends|Depends|Conflicts|Breaks): .*)$`)
	dpkgFailed = regexp.MustCompile(`dpkg: error processing (?:package|archive) (\S+) \(--\w+\):\s+(.*)`)
)

func (apt) busy(output string) (string, bool) { return "", aptBusy.MatchString(output) }

func (apt) waiting(line string) (string, bool) {
	if m := aptWaiting.FindStringSubmatch(line); m != nil {
		return m[1], true
	}
	return "", false
}

func (apt) refresh() host.Cmd { return apt{}.get("update") }

func (a apt) read(output string, wants []Want) trouble {
	t := trouble{blame: map[string]error{}, stale: aptStale.MatchString(output)}
	for _, m := range aptUnknown.FindAllStringSubmatch(output, -1) {
		t.unknown = append(t.unknown, byName(wants, strings.Join(m[1:], ""))...)
	}
	for _, m := range aptUnmet.FindAllStringSubmatch(output, -1) {
		for _, n := range byName(wants, m[1]) {
			t.blame[n] = errors.New("apt says " + m[2])
		}
	}
	for _, m := range dpkgFailed.FindAllStringSubmatch(output, -1) {
		name := m[1]
		if strings.Contains(name, "/") {
			name, _, _ = strings.Cut(path.Base(name), "_")
		}
		for _, n := range byName(wants, name) {
			t.blame[n] = errors.New("dpkg: " + strings.TrimSpace(m[2]))
		}
	}
	switch {
	case strings.Contains(output, "dpkg was interrupted"):
		t.repair = &host.Cmd{Argv: slices.Concat([]string{"dpkg"}, conffiles, []string{"--configure", "-a"}), Env: quiet}
	case strings.Contains(output, "--fix-broken install"):
		fix := apt{}.get("--fix-broken", "install")
		t.repair = &fix
	}
	for _, w := range wants {
		if t.blame[w.Name] == nil && strings.Contains(output, "Held packages were changed") {
			t.blame[w.Name] = diag.WithHint(errors.New("it would change a package that is on hold"), "`apt-mark showhold` lists them")
		}
	}
	return t
}

// byName finds the want that a message names, with or without an architecture.
func byName(wants []Want, word string) []string {
	bare, _, _ := strings.Cut(word, ":")
	for _, w := range wants {
		if w.Name == word || w.Name == bare {
			return []string{w.Name}
		}
	}
	return nil
}

// try updates the lists of one file's sources alone. Error-Mode is known to
// apt from 2.1 on; before, faults reads the complaints.
func (apt) try(file string) host.Cmd {
	return apt{}.get("update", "-o", "Dir::Etc::sourcelist="+file, "-o", "Dir::Etc::sourceparts=/dev/null",
		"-o", "APT::Get::List-Cleanup=0", "-o", "APT::Update::Error-Mode=any")
}

var aptFault = regexp.MustCompile(`(?m)^(?:Err:.*\n\s+.*|[EW]: .*)$`)

// harmless warnings say nothing of the repository's content.
var aptHarmless = regexp.MustCompile(`legacy trusted\.gpg|doesn't support architecture|Download is performed unsandboxed|configured multiple times`)

func (apt) faults(output string) string {
	for _, f := range aptFault.FindAllString(output, -1) {
		if !aptHarmless.MatchString(f) {
			return strings.TrimSpace(f[strings.IndexByte(f, ':')+1:])
		}
	}
	return ""
}
