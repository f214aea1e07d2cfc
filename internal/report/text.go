package report

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// JSON writes the report as an indented document.
func JSON(w io.Writer, rep Report) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(rep)
}

const slowest = 5 // steps that Text lists

// Text writes the report for people: the timeline with a bar for each phase,
// the slowest steps, what changed, and what failed with its cause, its hint and
// its last output. It keeps lines within width columns; 0 means 80, and less
// than 40 is 40. Error texts are wrapped, never cut.
func Text(w io.Writer, rep Report, width int) error {
	if width <= 0 {
		width = 80
	}
	p := &page{width: max(40, width)}
	p.head(rep)
	p.timeline(rep)
	p.summary(rep)
	p.slow(rep)
	p.changes(rep)
	p.failures(rep)
	p.probes(rep)
	p.layers(rep)
	for i, n := range rep.Notes {
		if i == 0 {
			p.title("notes")
		}
		p.wrap("  ", n)
	}
	_, err := io.WriteString(w, p.b.String())
	return err
}

// page lays out lines.
type page struct {
	b     strings.Builder
	width int
}

// line writes one line, cut to the width.
func (p *page) line(format string, args ...any) {
	p.b.WriteString(strings.TrimRight(cut(Printable(fmt.Sprintf(format, args...)), p.width), " "))
	p.b.WriteByte('\n')
}

func (p *page) title(s string) {
	p.b.WriteByte('\n')
	p.line("%s", s)
}

// wrap writes a text of any length behind a prefix, broken at blanks; further
// lines are indented as far. Its own line breaks stay.
func (p *page) wrap(prefix, text string) {
	indent := strings.Repeat(" ", utf8.RuneCountInString(prefix))
	for para := range strings.SplitSeq(text, "\n") {
		line, empty := prefix, true
		for _, word := range strings.Fields(Printable(para)) {
			if !empty && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > p.width {
				p.b.WriteString(line + "\n")
				line, empty = indent, true
			}
			if !empty {
				line += " "
			}
			line, empty = line+word, false
		}
		if !empty {
			p.b.WriteString(line + "\n")
			prefix = indent
		}
	}
}

func cut(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:width-3]) + "..."
}

// Short is a duration in at most six characters or so: 0.3ms, 12ms, 1.24s, 2m05s.
func Short(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + Short(-d)
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1fms", float64(d)/1e6)
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.2fs", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
}

func bytesText(n int64) string {
	v, unit := float64(n), 0
	for v >= 1000 && unit < 4 {
		v, unit = v/1000, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %cB", v, " kMGT"[unit])
}

func (p *page) head(rep Report) {
	who := cmp.Or(rep.Name, rep.Instance, "this machine")
	if rep.Name != "" && rep.Instance != "" {
		who += " (" + rep.Instance + ")"
	}
	what := string(rep.Outcome)
	if rep.Outcome == OK {
		what = "ok, nothing to do"
	}
	if rep.Cause != nil {
		what = "failed at " + cmp.Or(rep.Cause.Step, string(rep.Cause.Phase))
	}
	p.line("%s: %s, in %s", who, what, Short(rep.Took()))
	p.line("%s %s, %s, amiagent %s", cmp.Or(rep.Command, "run"), rep.ID, rep.Started.UTC().Format("2006-01-02 15:04:05 MST"), rep.Agent)
}

// timeline draws the phases, without the watch, which has no end.
func (p *page) timeline(rep Report) {
	total := rep.Took()
	field := p.width - 22
	p.b.WriteByte('\n')
	for _, s := range rep.Phases {
		if s.Phase == Watch {
			continue
		}
		p.line("  %-9s %8s  %s", s.Phase, Short(s.Took), bar(s.Started.Sub(rep.Started), s.Took, total, field))
	}
}

// bar is a time's place in the total: at least one character, inside the field.
func bar(start, took, total time.Duration, field int) string {
	if total <= 0 {
		return ""
	}
	at := func(d time.Duration) int { return int(float64(field) * float64(d) / float64(total)) }
	from := min(max(0, at(start)), field-1)
	to := min(max(from+1, at(start+took)), field)
	return strings.Repeat(" ", from) + strings.Repeat("=", to-from)
}

func (p *page) summary(rep Report) {
	counts := rep.Counts()
	var parts []string
	for _, o := range Outcomes(counts) {
		parts = append(parts, fmt.Sprintf("%d %s", counts[o], o))
	}
	line := "no steps"
	if len(parts) > 0 {
		noun := "steps"
		if len(rep.Steps) == 1 {
			noun = "step"
		}
		line = fmt.Sprintf("%d %s: %s", len(rep.Steps), noun, strings.Join(parts, ", "))
	}
	if rep.Fetched > 0 {
		line += "; fetched " + bytesText(rep.Fetched)
	}
	p.b.WriteByte('\n')
	p.line("%s", line)
}

// slow lists the steps that took longest, if any took long enough to matter.
func (p *page) slow(rep Report) {
	steps := slices.DeleteFunc(slices.Clone(rep.Steps), func(s Step) bool { return s.Check+s.Apply < time.Millisecond })
	slices.SortStableFunc(steps, func(a, b Step) int { return cmp.Compare(b.Check+b.Apply, a.Check+a.Apply) })
	if len(steps) < 2 {
		return
	}
	steps = steps[:min(slowest, len(steps))]
	longest := steps[0].Check + steps[0].Apply
	p.title("slowest")
	names := column(p.width/2, steps)
	for _, s := range steps {
		took := s.Check + s.Apply
		p.line("  %-*s %8s  %s", names, cut(s.ID, names), Short(took), bar(0, took, longest, max(4, p.width-names-14)))
	}
}

// column is how wide the steps' names are, at most limit.
func column(limit int, steps []Step) int {
	n := 8
	for _, s := range steps {
		n = max(n, utf8.RuneCountInString(s.ID))
	}
	return min(n, limit)
}

func with(steps []Step, outcomes ...Outcome) []Step {
	return slices.DeleteFunc(slices.Clone(steps), func(s Step) bool { return !slices.Contains(outcomes, s.Outcome) })
}

func (p *page) changes(rep Report) {
	for _, group := range []struct {
		outcome Outcome
		title   string
	}{{Changed, "changed"}, {Drifted, "would change"}, {Deferred, "deferred, to be proved after ready"}, {Reboot, "needs a reboot"}} {
		steps := with(rep.Steps, group.outcome)
		if len(steps) == 0 {
			continue
		}
		p.title(group.title)
		names := column(p.width/2, steps)
		for _, s := range steps {
			p.line("  %-*s  %s", names, cut(s.ID, names), cmp.Or(s.Reason, s.Drift))
		}
	}
}

func (p *page) failures(rep Report) {
	if c := rep.Cause; c != nil && c.Step == "" {
		p.title("failed")
		p.wrap("  ", string(c.Phase)+": "+c.Error)
		p.hint(c.Hint)
	}
	failed := with(rep.Steps, Failed)
	if rep.Cause != nil { // the root cause first
		slices.SortStableFunc(failed, func(a, b Step) int {
			return cmp.Compare(btoi(a.ID != rep.Cause.Step), btoi(b.ID != rep.Cause.Step))
		})
	}
	p.failedSteps("failed", failed)
	p.failedSteps("failed, and the manifest says to continue", with(rep.Steps, Ignored))
	blocked := with(rep.Steps, Blocked)
	if len(blocked) > 0 {
		p.title("not tried")
		names := column(p.width/2, blocked)
		for _, s := range blocked {
			p.line("  %-*s  %s", names, cut(s.ID, names), s.Reason)
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (p *page) failedSteps(title string, steps []Step) {
	if len(steps) == 0 {
		return
	}
	p.title(title)
	for _, s := range steps {
		id := s.ID
		if s.Pos != "" {
			id += " (" + s.Pos + ")"
		}
		if s.Attempts > 1 {
			id += fmt.Sprintf(", %d attempts", s.Attempts)
		}
		p.wrap("  ", id)
		p.wrap("    ", s.Error)
		p.hint(s.Hint)
		for _, line := range s.Output {
			p.line("    | %s", line)
		}
	}
}

func (p *page) hint(s string) {
	if s != "" {
		p.wrap("    ", "hint: "+s)
	}
}

func (p *page) probes(rep Report) {
	if len(rep.Probes) == 0 {
		return
	}
	p.title("probes")
	for _, b := range rep.Probes {
		switch {
		case b.OK:
			p.line("  %-12s ok, after %s", b.Name, Short(b.Took))
		case b.Error == "" && b.Took == 0:
			p.line("  %-12s not tried", b.Name)
		default: // a status that everybody may read has no error
			p.wrap(fmt.Sprintf("  %-12s ", Printable(b.Name)), cmp.Or(b.Error, "failed"))
		}
	}
}

func (p *page) layers(rep Report) {
	kept := slices.DeleteFunc(slices.Clone(rep.Layers), func(l Layer) bool { return l.Origin != "kept" })
	if len(kept) == 0 {
		return
	}
	p.title("layers out of reach, their last good copies in use")
	for _, l := range kept {
		p.line("  %s", l.Source)
	}
}
