package host

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/amiagent/amiagent/internal/diag"
)

// Unit files of a tree are enabled and masked here, without systemd. The
// program `systemctl --root` would do the same where it is installed, but it is
// the builder's systemd, not the image's; and scratch trees of plain users, on
// machines without systemd, should be enabled like any other. The rules are
// those of systemd.unit(5), "[INSTALL] SECTION OPTIONS", and systemctl(1), enable.

// UnitDir is where the administrator's unit files lie, and the links that enable and mask.
const UnitDir = "/etc/systemd/system"

// unitPath is where systemd looks for system units, first match wins.
var unitPath = [...]string{UnitDir, "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}

const maxUnitFile = 1 << 20

// ErrNoUnit is a unit that has no file.
var ErrNoUnit = errors.New("there is no unit file of this name")

func noInstall(unit string) error {
	return diag.WithHint(fmt.Errorf("cannot enable %s: its file has no [Install] section", unit),
		"add [Install] with WantedBy=multi-user.target, or leave `enabled` out: what needs the unit starts it")
}

// splitUnit parts "app@one.service" into "app", "one" and ".service".
func splitUnit(name string) (prefix, instance, suffix string, template bool) {
	suffix = path.Ext(name)
	prefix, instance, template = strings.Cut(strings.TrimSuffix(name, suffix), "@")
	return prefix, instance, suffix, template
}

// fragment finds the file of a unit in the tree: its own, else its template's.
func (h *Host) fragment(unit string) (file string, text []byte, err error) {
	names := []string{unit}
	if prefix, instance, suffix, template := splitUnit(unit); template && instance != "" {
		names = append(names, prefix+"@"+suffix)
	}
	for _, name := range names {
		for _, dir := range unitPath {
			file := path.Join(dir, name)
			text, err := h.ReadLimited(file, maxUnitFile)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			return file, text, err
		}
	}
	return "", nil, ErrNoUnit
}

// install is what [Install] asks for: links by their place in UnitDir, and further units.
type install struct {
	links  map[string]string // place to target
	also   []string
	asks   bool   // there is anything at all
	asked  string // an instance that a template lacks
	masked bool
}

func (h *Host) installOf(unit string) (install, error) {
	in := install{links: map[string]string{}}
	if h.maskedInTree(unit) {
		in.masked = true
		return in, nil
	}
	file, text, err := h.fragment(unit)
	if err != nil {
		return in, err
	}
	prefix, instance, suffix, template := splitUnit(unit)
	options, err := h.installOptions(unit, file, text)
	if err != nil {
		return in, err
	}
	if d := options["DefaultInstance"]; template && instance == "" && len(d) > 0 {
		instance = d[len(d)-1]
	}
	in.also = options["Also"]
	full := unit
	if template {
		full = prefix + "@" + instance + suffix
	}
	specifiers := strings.NewReplacer("%%", "%", "%i", instance, "%I", instance, "%p", prefix, "%P", prefix,
		"%j", prefix[strings.LastIndexByte(prefix, '-')+1:], "%n", full, "%N", strings.TrimSuffix(full, suffix))
	for key, folder := range map[string]string{"WantedBy": ".wants", "RequiredBy": ".requires", "UpheldBy": ".upholds"} {
		for _, by := range options[key] {
			in.asks = true
			if template && instance == "" {
				in.asked = unit
				continue
			}
			in.links[path.Join(UnitDir, specifiers.Replace(by)+folder, full)] = file
		}
	}
	for _, alias := range options["Alias"] {
		in.asks = true
		alias = specifiers.Replace(alias)
		if _, _, s, t := splitUnit(alias); s != suffix || t != template {
			return in, fmt.Errorf("its Alias=%s is of another type, or is no template as the unit is", alias)
		}
		if place := path.Join(UnitDir, alias); place != file {
			in.links[place] = file
		}
	}
	return in, nil
}

// installOptions are the words of [Install] in a unit's file and its drop-ins.
// An empty value forgets the words before it.
func (h *Host) installOptions(unit, file string, text []byte) (map[string][]string, error) {
	texts := []string{string(text)}
	for _, base := range slices.Compact([]string{path.Base(file), unit}) {
		for _, dir := range unitPath {
			entries, err := h.ReadDir(path.Join(dir, base+".d"))
			if err != nil {
				continue // mostly there is none; one that cannot be read cannot enable either
			}
			for _, e := range entries {
				if path.Ext(e.Name()) != ".conf" {
					continue
				}
				b, err := h.ReadLimited(path.Join(dir, base+".d", e.Name()), maxUnitFile)
				if err != nil {
					return nil, err
				}
				texts = append(texts, string(b))
			}
		}
	}
	options := map[string][]string{}
	for _, text := range texts {
		section := ""
		text = strings.ReplaceAll(text, "\\\n", " ")
		for line := range strings.Lines(text) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "[") {
				section = line
				continue
			}
			key, value, ok := strings.Cut(line, "=")
			if section != "[Install]" || !ok || strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
				continue
			}
			key = strings.TrimSpace(key)
			words := strings.Fields(value)
			if len(words) == 0 {
				delete(options, key)
				continue
			}
			options[key] = append(options[key], words...)
		}
	}
	return options, nil
}

// maskedInTree tells whether the unit, or its template, is a link to /dev/null
// or an empty file in UnitDir.
func (h *Host) maskedInTree(unit string) bool {
	prefix, instance, suffix, template := splitUnit(unit)
	names := []string{unit}
	if template && instance != "" {
		names = append(names, prefix+"@"+suffix)
	}
	for _, name := range names {
		file := path.Join(UnitDir, name)
		if to, err := h.Readlink(file); err == nil {
			return to == "/dev/null"
		}
		if st, err := h.Lstat(file); err == nil {
			return st.Mode().IsRegular() && st.Size() == 0
		}
	}
	return false
}

// TreeUnitState is UnitFileState for a tree: "enabled", "disabled", "static",
// "masked", or "" for a unit without a file. A unit is enabled when every link
// that its [Install] section asks for is there.
func (h *Host) TreeUnitState(unit string) (string, error) {
	in, err := h.installOf(unit)
	switch {
	case errors.Is(err, ErrNoUnit):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("cannot tell whether %s is enabled: %w", unit, err)
	case in.masked:
		return "masked", nil
	case !in.asks && len(in.also) == 0:
		return "static", nil
	case len(in.links) == 0:
		return "disabled", nil
	}
	for place, target := range in.links {
		to, err := h.Readlink(place)
		if err != nil || path.Base(to) != path.Base(target) {
			return "disabled", nil
		}
	}
	return "enabled", nil
}

// TreeEnable makes the links of the unit's [Install] section in the tree, and
// those of the units that it names with Also=. It may be repeated.
func (h *Host) TreeEnable(unit string) error {
	return h.treeEnable(unit, map[string]bool{})
}

func (h *Host) treeEnable(unit string, seen map[string]bool) error {
	if seen[unit] {
		return nil
	}
	seen[unit] = true
	in, err := h.installOf(unit)
	switch {
	case err != nil:
		return fmt.Errorf("cannot enable %s: %w", unit, err)
	case in.masked:
		return fmt.Errorf("cannot enable %s: it is masked", unit)
	case !in.asks && len(in.also) == 0:
		return noInstall(unit)
	case in.asked != "":
		return diag.WithHint(fmt.Errorf("cannot enable %s: it is a template without a DefaultInstance=", unit),
			"name an instance, as %s", strings.Replace(unit, "@", "@NAME", 1))
	}
	for place, target := range in.links {
		if to, err := h.Readlink(place); err == nil && path.Base(to) == path.Base(target) {
			continue
		}
		if st, err := h.Lstat(place); err == nil && st.Mode()&fs.ModeSymlink == 0 {
			return fmt.Errorf("cannot enable %s: %s is there already and is no link", unit, place)
		}
		if err := h.MkdirAll(path.Dir(place)); err != nil {
			return fmt.Errorf("cannot enable %s: %w", unit, err)
		}
		if err := h.Symlink(target, place); err != nil {
			return fmt.Errorf("cannot enable %s: %w", unit, err)
		}
	}
	for _, other := range in.also {
		// As systemctl does: what Also= names need not have an [Install] section.
		if state, err := h.TreeUnitState(other); err == nil && (state == "static" || state == "masked") {
			continue
		}
		if err := h.treeEnable(other, seen); err != nil {
			return err
		}
	}
	return nil
}

// TreeDisable removes every link in UnitDir that pulls the unit in by name, and
// its aliases, and the same of the units that it names with Also=. It may be repeated.
func (h *Host) TreeDisable(unit string) error {
	return h.treeDisable(unit, map[string]bool{})
}

func (h *Host) treeDisable(unit string, seen map[string]bool) error {
	if seen[unit] {
		return nil
	}
	seen[unit] = true
	places, also, err := h.pulls(unit)
	if err != nil {
		return fmt.Errorf("cannot disable %s: %w", unit, err)
	}
	for _, place := range places {
		if err := h.Remove(place); err != nil {
			return fmt.Errorf("cannot disable %s: %w", unit, err)
		}
	}
	for _, other := range also {
		if err := h.treeDisable(other, seen); err != nil {
			return err
		}
	}
	return nil
}

// pulls are the links in UnitDir that enable a unit, and the units of its Also=.
func (h *Host) pulls(unit string) (places, also []string, err error) {
	// The unit's file may be gone; its links can be found all the same.
	if in, err := h.installOf(unit); err == nil {
		also = in.also
		for place, target := range in.links {
			if to, err := h.Readlink(place); err == nil && path.Base(to) == path.Base(target) {
				places = append(places, place)
			}
		}
	}
	entries, err := h.ReadDir(UnitDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		switch path.Ext(e.Name()) {
		case ".wants", ".requires", ".upholds":
			place := path.Join(UnitDir, e.Name(), unit)
			if _, err := h.Readlink(place); err == nil {
				places = append(places, place)
			}
		}
	}
	slices.Sort(places)
	return slices.Compact(places), also, nil
}

// TreeMask makes the unit a link to /dev/null. A unit file of its own in
// UnitDir is in the way, and is not removed.
func (h *Host) TreeMask(unit string) error {
	place := path.Join(UnitDir, unit)
	if st, err := h.Lstat(place); err == nil && st.Mode()&fs.ModeSymlink == 0 {
		return fmt.Errorf("cannot mask %s: %s is a file", unit, place)
	}
	if err := h.MkdirAll(UnitDir); err != nil {
		return fmt.Errorf("cannot mask %s: %w", unit, err)
	}
	if err := h.Symlink("/dev/null", place); err != nil {
		return fmt.Errorf("cannot mask %s: %w", unit, err)
	}
	return nil
}

// TreeUnmask removes the link of TreeMask.
func (h *Host) TreeUnmask(unit string) error {
	place := path.Join(UnitDir, unit)
	if to, err := h.Readlink(place); err != nil || to != "/dev/null" {
		return nil
	}
	if err := h.Remove(place); err != nil {
		return fmt.Errorf("cannot unmask %s: %w", unit, err)
	}
	return nil
}
