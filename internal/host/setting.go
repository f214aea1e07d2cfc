package host

import "strings"

// Setting is a variable of the further environment that this Host's programs
// get (Options.Env), as a proxy: what programs reach, the agent reaches the same way. "" when it is not set.
func (h *Host) Setting(name string) string {
	for _, e := range h.opt.Env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}
