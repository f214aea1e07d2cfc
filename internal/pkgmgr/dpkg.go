package pkgmgr

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/amiagent/amiagent/internal/host"
)

const dpkgDir = "/var/lib/dpkg/"

// dpkgInstalled reads dpkg's database: the status file, then the journal of a
// dpkg that was cut off or is at work, whose entries replace those of the status file
// (dpkg's lib/dpkg/dbmodify.c). A machine without a database has nothing installed.
func dpkgInstalled(h *host.Host) (Installed, error) {
	entries := map[string]stanza{}
	if err := readStatus(h, dpkgDir+"status", entries); err != nil {
		return Installed{}, err
	}
	journal, err := h.ReadDir(dpkgDir + "updates")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Installed{}, fmt.Errorf("cannot read dpkg's journal: %w", err)
	}
	for _, e := range journal {
		if strings.Trim(e.Name(), "0123456789") != "" {
			continue // tmp.i, being written
		}
		if err := readStatus(h, dpkgDir+"updates/"+e.Name(), entries); err != nil {
			return Installed{}, err
		}
	}
	native := ""
	for _, s := range entries {
		if s.name == "dpkg" {
			native = s.arch
		}
	}
	all := newInstalled()
	for _, s := range entries {
		all.addDpkg(s, native)
	}
	return all, nil
}

// reinstall is what dpkg asks for of a package whose unpacking was cut off.
const reinstall = "must be reinstalled"

// torn are the packages whose unpacking was cut off, by names that apt-get takes.
func (i Installed) torn() []string {
	var all []string
	for name, have := range i.named {
		for _, p := range have {
			native := slices.Contains(i.named[p.Name], p)
			if p.Broken == reinstall && (native && name == p.Name || !native) {
				all = append(all, name)
			}
		}
	}
	slices.Sort(all)
	return all
}

// stanza is the few fields of a package's entry that matter here.
type stanza struct{ name, arch, version, status, provides string }

func readStatus(h *host.Host, file string, into map[string]stanza) error {
	f, err := h.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no dpkg here yet, or the journal was merged meanwhile
	}
	if err != nil {
		return fmt.Errorf("cannot read dpkg's database: %w", err)
	}
	defer f.Close()
	if err := parseStatus(f, into); err != nil {
		return fmt.Errorf("cannot read dpkg's database %s: %w", file, err)
	}
	return nil
}

// parseStatus reads entries as deb-status(5) has them: "Field: value" lines,
// continuation lines that start with a space, entries apart by empty lines.
func parseStatus(r io.Reader, into map[string]stanza) error {
	var s stanza
	keep := func() {
		if s.name != "" {
			into[s.name+":"+s.arch] = s
		}
		s = stanza{}
	}
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 64<<10), 4<<20)
	for sc.Scan() {
		line := sc.Bytes()
		if len(line) == 0 {
			keep()
			continue
		}
		if line[0] == ' ' || line[0] == '\t' {
			continue
		}
		field, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			return fmt.Errorf("%q is no field", line)
		}
		var to *string
		switch string(field) {
		case "Package":
			to = &s.name
		case "Architecture":
			to = &s.arch
		case "Version":
			to = &s.version
		case "Status":
			to = &s.status
		case "Provides":
			to = &s.provides
		default:
			continue
		}
		*to = string(bytes.TrimSpace(value))
	}
	keep()
	return sc.Err()
}

// addDpkg files an entry under its names. Status is "want flag state", see dpkg(1).
func (i Installed) addDpkg(s stanza, native string) {
	words := strings.Fields(s.status)
	if len(words) != 3 {
		return
	}
	ours := s.arch == native || s.arch == "all" || native == ""
	if words[0] == "hold" && ours {
		i.held[s.name] = true
	}
	p := Package{Name: s.name, Arch: s.arch, Version: strings.TrimPrefix(s.version, "0:")}
	switch words[2] {
	case "installed", "triggers-awaited", "triggers-pending":
	case "half-installed", "unpacked", "half-configured":
		p.Broken = words[2]
	default: // not-installed, config-files
		return
	}
	if words[1] == "reinstreq" {
		p.Broken = reinstall
	}
	i.named[s.name+":"+s.arch] = append(i.named[s.name+":"+s.arch], p)
	if !ours {
		return
	}
	i.named[s.name] = append(i.named[s.name], p)
	for one := range strings.SplitSeq(s.provides, ",") {
		if f := strings.Fields(one); len(f) > 0 {
			i.provided[f[0]] = append(i.provided[f[0]], p)
		}
	}
}
