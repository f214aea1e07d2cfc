package channel

import (
	"bytes"
	"fmt"
	"strconv"
)

const header = `# A channel of amiagent: which of two locks a launch uses.
# Written by ` + "`amiagent channel promote|pause`" + `, which keeps no other comments.
# ` + "`amiagent channel show FILE --instance ID`" + ` says what an instance would get.
`

// Bytes is the file. The same channel gives the same bytes, which Parse reads
// back as the same channel.
func (c *Channel) Bytes() []byte {
	var b bytes.Buffer
	p := func(format string, args ...any) { fmt.Fprintf(&b, format, args...) }
	p("%sformat: %d\nname: %s\nrevision: %d\n", header, Format, strconv.Quote(c.Name), c.Revision)
	p("\n# What launches use unless they are in the candidate's share.\nstable: %s\n", c.Stable)
	if k := c.Candidate; k != nil {
		p("\n# What an instance launches with if its wave, from 1 to %d, is at most the share.\ncandidate:\n  lock: %s\n", Waves, k.Lock)
		if len(k.Schedule) == 0 {
			p("  share: %d\n", k.Share)
		} else {
			p("  schedule:\n")
			for _, s := range k.Schedule {
				p("    - {share: %d, from: %s}\n", s.Share, s.From)
			}
		}
		if k.Paused {
			p("  paused: true # no further launch takes the candidate; who has it keeps it\n")
		}
		if !k.PausedAt.IsZero() {
			p("  paused-at: %s\n", k.PausedAt)
		}
		if k.Seed != "" {
			p("  seed: %s\n", strconv.Quote(k.Seed))
		}
	}
	if c.OnCandidateFailure != "" {
		p("\n# What a launch does that fails with the candidate: fail, or launch again with stable.\non-candidate-failure: %s\n", c.OnCandidateFailure)
	}
	if c.Locks != "" {
		p("\n# Where locks lie; {hex} is the digits of the digest.\nlocks: %s\n", strconv.Quote(c.Locks))
	}
	if len(c.History) > 0 {
		p("\n# The last changes, newest first.\nhistory:\n")
	}
	for _, h := range c.History {
		p("  - at: %s\n", h.At)
		if h.By != "" {
			p("    by: %s\n", strconv.Quote(h.By))
		}
		p("    what: %s\n", strconv.Quote(h.What))
	}
	return b.Bytes()
}
