package report

import (
	"crypto/rand"
	"encoding/hex"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/amiagent/amiagent/internal/diag"
)

const (
	// keepLines and keepBytes bound the output kept of one step: the end says why it failed.
	keepLines = 20
	keepBytes = 400
)

// NewID is the id of a launch that starts at t. IDs sort by time.
func NewID(t time.Time) string {
	var b [3]byte
	_, _ = rand.Read(b[:]) // never fails, says its documentation
	return t.UTC().Format("20060102T150405.000Z") + "-" + hex.EncodeToString(b[:])
}

// Recorder builds a Report while a launch goes on. The agent and the steps
// feed it concurrently. Every text passes the Redactor on its way in.
type Recorder struct {
	redact *Redactor
	now    func() time.Time

	mu     sync.Mutex
	rep    Report
	open   map[Phase]bool
	steps  map[string]*record
	order  []string // of the plan, then of first mention
	failed *Failure // the first phase that ended in an error
}

type record struct {
	Step
	phase  Phase    // in which its outcome was told
	output []string // the last lines of its programs
}

// NewRecorder starts a report. Of head it takes what is known from the start:
// Agent, Command, Name, Instance, Boot; an empty ID and a zero Started are filled.
func NewRecorder(head Report, redact *Redactor) *Recorder {
	r := &Recorder{redact: redact, now: time.Now, rep: head, open: map[Phase]bool{}, steps: map[string]*record{}}
	if r.rep.Started.IsZero() {
		r.rep.Started = r.now()
	}
	r.rep.Format = ReportFormat
	if r.rep.ID == "" {
		r.rep.ID = NewID(r.rep.Started)
	}
	return r
}

// ID is the report's id.
func (r *Recorder) ID() string { return r.rep.ID }

// Redactor is what the recorder cleans texts with, for others that print.
func (r *Recorder) Redactor() *Redactor { return r.redact }

// Begin begins a phase. The function it gives ends the phase, with the error
// that ended it or nil, and passes that error on; calling it again does nothing.
func (r *Recorder) Begin(p Phase) (end func(error) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i, began := len(r.rep.Phases), r.now()
	r.rep.Phases = append(r.rep.Phases, Span{Phase: p, Started: began})
	r.open[p] = true
	return func(err error) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if !r.open[p] {
			return err
		}
		delete(r.open, p)
		r.rep.Phases[i].Took = r.now().Sub(began)
		if err != nil && r.failed == nil {
			r.failed = &Failure{Phase: p, Error: r.clean(err.Error()), Hint: r.clean(diag.Hint(err))}
		}
		return err
	}
}

// Identity fills in what identify has found out.
func (r *Recorder) Identity(name, instance, boot string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rep.Name, r.rep.Instance, r.rep.Boot = name, instance, boot
}

// Plan tells the steps to come, in plan order: ID, Key, Needs and Pos count. A
// step of the plan that never gets an outcome is reported as blocked.
func (r *Recorder) Plan(steps []Step) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range steps {
		r.step(s.ID).Step = s
	}
}

// step is the record of an id, with the lock held.
func (r *Recorder) step(id string) *record {
	rec := r.steps[id]
	if rec == nil {
		rec = &record{Step: Step{ID: id}}
		r.steps[id] = rec
		r.order = append(r.order, id)
	}
	return rec
}

// Step tells how a step ended; telling it again replaces the first account, as
// for a deferred step. What the plan has said of Key, Needs and Pos stays where s leaves it empty.
func (r *Recorder) Step(s Step) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec := r.step(s.ID)
	if s.Key == "" {
		s.Key = rec.Key
	}
	if s.Needs == nil {
		s.Needs = rec.Needs
	}
	if s.Pos == "" {
		s.Pos = rec.Pos
	}
	s.Drift, s.Error, s.Hint, s.Reason = r.clean(s.Drift), r.clean(s.Error), r.clean(s.Hint), r.clean(s.Reason)
	for _, line := range s.Output {
		r.output(rec, line)
	}
	s.Output = nil
	rec.Step = s
	rec.phase = Converge
	for _, p := range r.rep.Phases {
		if r.open[p.Phase] {
			rec.phase = p.Phase
		}
	}
}

// Output takes a line that a step's program has printed. The last lines are kept.
func (r *Recorder) Output(id, line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.output(r.step(id), line)
}

func (r *Recorder) output(rec *record, line string) {
	line = Printable(r.redact.Clean(line))
	if len(line) > keepBytes {
		line = strings.ToValidUTF8(line[:keepBytes], "") + "…"
	}
	if line = strings.TrimRight(line, " "); line == "" {
		return
	}
	rec.output = append(rec.output, line)
	if extra := len(rec.output) - keepLines; extra > 0 {
		rec.output = slices.Delete(rec.output, 0, extra)
	}
}

// Probes tells how the probes stand, in place of what was told before.
func (r *Recorder) Probes(probes []Probe) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rep.Probes = slices.Clone(probes)
	for i := range r.rep.Probes {
		r.rep.Probes[i].Error = r.clean(r.rep.Probes[i].Error)
	}
}

// Layer tells of a layer in use.
func (r *Recorder) Layer(l Layer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l.Source = r.clean(l.Source)
	r.rep.Layers = append(r.rep.Layers, l)
}

// Note tells what a person should know. The same note is kept once.
func (r *Recorder) Note(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if text = r.clean(text); !slices.Contains(r.rep.Notes, text) {
		r.rep.Notes = append(r.rep.Notes, text)
	}
}

// Fetched adds to the bytes that came over the network.
func (r *Recorder) Fetched(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rep.Fetched += n
}

func (r *Recorder) clean(s string) string { return r.redact.Clean(s) }

// Report is the report as it stands: open phases last until now, the outcome is
// what it would be if nothing more came. It shares nothing with the Recorder.
func (r *Recorder) Report() Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	rep := r.rep
	rep.Phases = slices.Clone(r.rep.Phases)
	for i := range rep.Phases {
		if p := &rep.Phases[i]; r.open[p.Phase] {
			p.Took = r.now().Sub(p.Started)
		}
	}
	rep.Probes, rep.Layers, rep.Notes = slices.Clone(r.rep.Probes), slices.Clone(r.rep.Layers), slices.Clone(r.rep.Notes)
	rep.Steps = make([]Step, 0, len(r.order))
	for _, id := range r.order {
		s := r.steps[id].Step
		s.Needs = slices.Clone(s.Needs)
		s.Output = slices.Clone(r.steps[id].output)
		rep.Steps = append(rep.Steps, s)
	}
	rep.Cause = r.cause()
	rep.Outcome = outcome(rep)
	return rep
}

// End is the report of a launch that ends now. Steps of the plan without an
// outcome are blocked.
func (r *Recorder) End() Report {
	r.mu.Lock()
	r.rep.Ended = r.now()
	for _, id := range r.order {
		if s := r.steps[id]; s.Outcome == "" {
			s.Outcome, s.Reason = Blocked, "the launch ended before its turn"
		}
	}
	r.mu.Unlock()
	return r.Report()
}

// cause is the first failed step in plan order that no failed step precedes,
// else the first phase that ended in an error.
func (r *Recorder) cause() *Failure {
	for _, id := range r.order {
		s := r.steps[id]
		if s.Outcome == Failed && !r.explained(id, map[string]bool{}) {
			return &Failure{Phase: s.phase, Step: id, Error: s.Error, Hint: s.Hint}
		}
	}
	if r.failed == nil {
		return nil
	}
	f := *r.failed
	return &f
}

// explained tells whether a step that id needs, however far, has failed.
func (r *Recorder) explained(id string, seen map[string]bool) bool {
	for _, need := range r.steps[id].Needs {
		n := r.steps[need]
		if n == nil || seen[need] {
			continue
		}
		seen[need] = true
		if n.Outcome == Failed || r.explained(need, seen) {
			return true
		}
	}
	return false
}

func outcome(rep Report) Outcome {
	if rep.Cause != nil {
		return Failed
	}
	n := rep.Counts()
	switch {
	case n[Reboot] > 0:
		return Reboot
	case n[Changed]+n[Deferred]+n[Ignored] > 0:
		return Changed
	}
	return OK
}

// Counts is how many steps ended in each way.
func (rep Report) Counts() map[Outcome]int {
	n := map[Outcome]int{}
	for _, s := range rep.Steps {
		n[s.Outcome]++
	}
	return n
}

// Outcomes lists the keys of Counts in the order in which people read them.
func Outcomes(counts map[Outcome]int) []Outcome {
	order := []Outcome{Failed, Blocked, Reboot, Ignored, Drifted, Changed, Deferred, Unverified, OK, Skipped}
	for _, o := range slices.Sorted(maps.Keys(counts)) {
		if !slices.Contains(order, o) {
			order = append(order, o)
		}
	}
	return slices.DeleteFunc(order, func(o Outcome) bool { return counts[o] == 0 })
}

// Took is how long the launch took, without its watch.
func (rep Report) Took() time.Duration {
	end := rep.Ended
	if end.IsZero() {
		for _, p := range rep.Phases {
			if t := p.Started.Add(p.Took); p.Phase != Watch && t.After(end) {
				end = t
			}
		}
	}
	return max(0, end.Sub(rep.Started))
}

// escapeSequence is ESC with what belongs to it: for CSI up to its final byte
// (ECMA-48, 5.4), else one character.
var escapeSequence = regexp.MustCompile("\x1b(\\[[0-?]*[ -/]*[@-~]?|.)?")

// Printable is s without what moves a terminal's cursor or rings its bell:
// escape sequences and control characters are dropped, a tab becomes a blank.
func Printable(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if !strings.ContainsFunc(s, unicode.IsControl) {
		return s
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case unicode.IsControl(r):
			return -1
		}
		return r
	}, escapeSequence.ReplaceAllString(s, ""))
}
