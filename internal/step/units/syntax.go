package units

import (
	"path"
	"slices"
	"strings"

	"github.com/amiagent/amiagent/internal/decode"
	"github.com/amiagent/amiagent/internal/diag"
)

// own is the section that each type of unit has for itself. Targets have none.
var own = map[string]string{
	".service": "Service", ".socket": "Socket", ".timer": "Timer", ".path": "Path",
	".mount": "Mount", ".automount": "Automount", ".slice": "Slice",
}

// required are the types that systemd refuses without their own section.
var required = []string{".service", ".socket", ".timer", ".path", ".mount"}

// validateText finds what systemd would silently pass over: lines that are no
// assignment, assignments outside a section, sections that it does not know.
// It is no judge of keys, which differ from one systemd to the next. The
// syntax is that of systemd.syntax(7).
func (u *Unit) validateText(at diag.At, text string, whole bool) {
	suffix := path.Ext(u.name)
	known := []string{"Unit", "Install"}
	if s := own[suffix]; s != "" {
		known = append(known, s)
	}
	section, continued := "", false
	for i, line := range strings.Split(text, "\n") {
		wasContinued := continued
		trimmed := strings.TrimSpace(line)
		comment := strings.HasPrefix(trimmed, "#") || strings.HasPrefix(trimmed, ";")
		if comment || wasContinued && trimmed == "" {
			continue // a comment within a continued line does not end it
		}
		continued = strings.HasSuffix(line, `\`)
		switch {
		case wasContinued || trimmed == "":
		case strings.HasPrefix(trimmed, "["):
			name, ok := strings.CutSuffix(trimmed[1:], "]")
			if !ok {
				at.Errorf("line %d of the unit: %q is no section, write [Name]", i+1, trimmed)
				return
			}
			section = name
			if _, judged := own[suffix]; !slices.Contains(known, name) && !strings.HasPrefix(name, "X-") && (judged || suffix == ".target") {
				if near := decode.Nearest(name, known); near != "" {
					at.Errorf("line %d of the unit: unknown section [%s], did you mean [%s]?", i+1, name, near)
				} else {
					at.Errorf("line %d of the unit: unknown section [%s], known are [%s]", i+1, name, strings.Join(known, "], ["))
				}
			}
		case !strings.Contains(trimmed, "=") || strings.HasPrefix(trimmed, "="):
			at.Errorf("line %d of the unit: %q is no assignment, write Key=value", i+1, trimmed)
		case section == "":
			at.Errorf("line %d of the unit: %q stands before the first section", i+1, trimmed)
		}
	}
	// A service may do nothing but end the system, by SuccessAction= of [Unit].
	if whole && slices.Contains(required, suffix) && !strings.Contains(text, "\nSuccessAction=") && !strings.Contains("\n"+text, "\n["+own[suffix]+"]") {
		at.Errorf("has no section [%s], without which systemd does not load a %s", own[suffix], suffix[1:])
	}
}
