// Package console writes a short account of a launch where people look when
// they cannot log in: the serial console, which EC2 shows with `aws ec2
// get-console-output`.
//
// It is written once, at the end, in lines that begin with "amiagent: ": one
// with JSON for programs, then the cause, the hint and the last output of what
// failed. It stays within 4 KiB, because the console's buffer is small and
// holds the whole boot.
package console

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/report"
	"github.com/amiagent/amiagent/internal/sink"
)

// Prefix begins every line.
const Prefix = "amiagent: "

const (
	limit    = 4 << 10 // bytes of one account
	maxLine  = 400     // bytes of one line
	maxLines = 5       // of output
)

// Device is the console of a machine.
const Device = "/dev/console"

// Sink writes to one console.
type Sink struct {
	open func() (io.WriteCloser, error)
}

var _ sink.Sink = (*Sink)(nil)

// New writes to the machine's console where h is the running machine, else to
// other. A nil other discards.
func New(h *host.Host, other io.Writer) *Sink {
	if h.Live() {
		return &Sink{func() (io.WriteCloser, error) {
			p, err := h.Path(Device)
			if err != nil {
				return nil, err
			}
			// O_NOCTTY: the console must not become the agent's terminal.
			return os.OpenFile(p, os.O_WRONLY|unix.O_NOCTTY, 0)
		}}
	}
	if other == nil {
		other = io.Discard
	}
	return &Sink{func() (io.WriteCloser, error) { return nopCloser{other}, nil }}
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// Name is "console".
func (s *Sink) Name() string { return "console" }

// Send writes the account of a launch that has ended; it passes all else over.
// A console that is stuck (flow control on a serial line) is given up when ctx ends.
func (s *Sink) Send(ctx context.Context, e sink.Event) error {
	if e.Report == nil || (e.Kind != sink.Ready && e.Kind != sink.Failed && e.Kind != sink.Reboot) {
		return nil
	}
	text := Account(*e.Report)
	done := make(chan error, 1)
	go func() {
		w, err := s.open()
		if err != nil {
			done <- err
			return
		}
		_, err = io.WriteString(w, text)
		done <- cmp.Or(err, w.Close())
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// summary is the line for programs. Fields are added, never renamed.
type summary struct {
	Format   int            `json:"format"`
	Outcome  report.Outcome `json:"outcome"`
	ID       string         `json:"id"`
	Command  string         `json:"command,omitempty"`
	Name     string         `json:"name,omitempty"`
	Instance string         `json:"instance,omitempty"`
	TookMS   int64          `json:"took_ms"`
	Phase    report.Phase   `json:"phase,omitempty"`
	Step     string         `json:"step,omitempty"`
	Steps    map[string]int `json:"steps,omitempty"`
}

// Account is the text for the console, at most 4 KiB.
func Account(rep report.Report) string {
	s := summary{Format: 1, Outcome: rep.Outcome, ID: rep.ID, Command: rep.Command, Name: clip(rep.Name), Instance: clip(rep.Instance), TookMS: rep.Took().Milliseconds()}
	for outcome, n := range rep.Counts() {
		if s.Steps == nil {
			s.Steps = map[string]int{}
		}
		s.Steps[string(outcome)] = n
	}
	cause := rep.Cause
	if cause != nil {
		s.Phase, s.Step = cause.Phase, clip(cause.Step)
	}
	b, err := json.Marshal(s)
	if err != nil { // strings and numbers always marshal
		b = fmt.Appendf(nil, `{"format":1,"outcome":%q}`, rep.Outcome)
	}
	// A line end first: whatever stands on the console may lack its line end.
	a := &account{}
	a.b.WriteString("\n")
	a.b.WriteString(Prefix + string(b) + "\n")
	if cause != nil {
		where := cmp.Or(cause.Step, string(cause.Phase))
		for i, line := range strings.Split(cause.Error, "\n") {
			if i == 0 {
				line = "failed: " + where + ": " + line
			}
			a.line(line)
		}
		if cause.Hint != "" {
			a.line("hint: " + cause.Hint)
		}
		for _, st := range rep.Steps {
			if st.ID == cause.Step && cause.Step != "" {
				for _, line := range st.Output[max(0, len(st.Output)-maxLines):] {
					a.line("| " + line)
				}
			}
		}
	}
	return a.b.String()
}

type account struct{ b strings.Builder }

// line adds a line as long as there is room, whole or not at all.
func (a *account) line(s string) {
	s = Prefix + clip(s) + "\n"
	if a.b.Len()+len(s) <= limit {
		a.b.WriteString(s)
	}
}

func clip(s string) string {
	s = report.Printable(s)
	if len(s) > maxLine {
		s = strings.ToValidUTF8(s[:maxLine], "") + "..."
	}
	return s
}
