package report

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"
)

// words is the state as people read it.
func (s State) words() string {
	switch s {
	case NotReady:
		return "not ready"
	case "":
		return "unknown"
	}
	return string(s)
}

// Headline is the status in one line, with its details: "launching: converge, 3
// of 12 steps, packages.nginx". It is for people on the machine and for systemctl status.
func (s Status) Headline() string {
	return Printable(strings.ReplaceAll(s.headline(), "\n", "; "))
}

// headline is the same with the line breaks that its reason has.
func (s Status) headline() string {
	line := s.State.words()
	switch s.State {
	case Launching:
		if s.Phase != "" {
			line += ": " + string(s.Phase)
		}
		if s.Total > 0 {
			line += fmt.Sprintf(", %d of %d steps", s.Done, s.Total)
		}
		if s.Step != "" {
			line += ", " + s.Step
		}
		if s.Reason != "" {
			line += ": " + s.Reason
		}
	case DidFail:
		line += ": " + cmp.Or(s.Step, string(s.Phase), "launch")
		if s.Reason != "" {
			line += ": " + s.Reason
		}
	default:
		if s.Reason != "" {
			line += ": " + s.Reason
		}
	}
	return line
}

// StatusText writes the status for people, as it is at now. width as for Text.
func StatusText(w io.Writer, s Status, now time.Time, width int) error {
	if width <= 0 {
		width = 80
	}
	p := &page{width: max(40, width)}
	p.wrap("", s.headline())
	if s.Hint != "" {
		p.wrap("  ", "hint: "+s.Hint)
	}
	if !s.Fresh(now) {
		p.line("  the agent is silent: last heard %s ago", Short(s.Age(now).Round(time.Second)))
	}
	if !s.Since.IsZero() {
		p.line("  since    %s (%s)", s.Since.UTC().Format("2006-01-02 15:04:05 MST"), Short(max(0, now.Sub(s.Since)).Round(time.Second)))
	}
	for _, f := range []struct{ name, value string }{{"instance", s.Instance}, {"launch", s.Launch}, {"agent", s.Agent}} {
		if f.value != "" {
			p.line("  %-8s %s", f.name, f.value)
		}
	}
	if s.Fresh(now) {
		p.line("  %-8s %d", "pid", s.PID)
	}
	p.probes(Report{Probes: s.Probes})
	for i, n := range s.Notes {
		if i == 0 {
			p.title("notes")
		}
		p.wrap("  ", n)
	}
	_, err := io.WriteString(w, p.b.String())
	return err
}
