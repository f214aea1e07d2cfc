package agent

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/amiagent/amiagent/internal/converge"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/render"
	"github.com/amiagent/amiagent/internal/report"
	"github.com/amiagent/amiagent/internal/stamps"
	"github.com/amiagent/amiagent/internal/step"
)

// PlanFormat is the format number of a PlanReport.
const PlanFormat = 1

// PlanReport is what a launch would do. It holds no secret. Fields are added, never renamed.
type PlanReport struct {
	Format  int        `json:"format"`
	Name    string     `json:"name,omitempty"`
	Checked bool       `json:"checked"` // the machine was looked at; else the plan is for another
	Drift   bool       `json:"drift"`   // something is not as wanted
	Steps   []PlanStep `json:"steps"`   // in the order of the run
	Probes  []string   `json:"probes,omitempty"`
	Notes   []string   `json:"notes,omitempty"`
}

// PlanStep is one step of a plan.
type PlanStep struct {
	ID      string         `json:"id"`
	Key     string         `json:"key,omitempty"`
	Outcome report.Outcome `json:"outcome,omitempty"` // ok, drift, skipped, failed: could not be looked at
	Why     string         `json:"why,omitempty"`     // the drift, or why skipped or failed
	Needs   []string       `json:"needs,omitempty"`
	Reads   []string       `json:"reads,omitempty"` // launch facts and secrets it depends on
	At      string         `json:"at,omitempty"`
}

// Plan shows what a launch would do, and changes nothing: it reads metadata,
// layers and secrets, and looks at every step.
func (a *Agent) Plan(ctx context.Context) (PlanReport, error) {
	l := a.newLaunch("plan")
	l.dry = true
	l.stamps = noStamps{}
	if a.host.Exists(stampsDir) {
		st, err := stamps.Open(a.host, stampsDir)
		if err != nil {
			return PlanReport{}, err
		}
		l.stamps = st
	}
	if err := l.identify(ctx); err != nil {
		return PlanReport{}, err
	}
	if err := l.resolve(ctx); err != nil {
		return PlanReport{}, err
	}
	p := PlanReport{Format: PlanFormat, Name: l.plan.Name, Checked: a.opt.FactsFile == ""}
	var res converge.Result
	if p.Checked {
		if err := l.bindSecrets(ctx); err != nil {
			return p, err
		}
		opt := l.options()
		opt.DryRun, opt.Begin, opt.End = true, nil, nil
		res = converge.Run(ctx, l.plan, opt)
	}
	l.describe(&p, res)
	return p, nil
}

func (l *launch) describe(p *PlanReport, res converge.Result) {
	for i, n := range l.plan.Nodes {
		s := PlanStep{ID: n.ID.String(), Key: n.Key, At: n.Entry.Pos.String(), Reads: launchReads(n.Reads)}
		for _, d := range n.Needs {
			s.Needs = append(s.Needs, d.ID.String())
		}
		if p.Checked {
			r := res.Steps[i]
			s.Outcome, s.Why = r.Outcome, l.redact.Clean(first(r.Error, r.Drift, r.Reason))
			p.Drift = p.Drift || r.Outcome != report.OK && r.Outcome != report.Unverified
		}
		p.Steps = append(p.Steps, s)
	}
	for _, s := range l.plan.Skipped {
		p.Steps = append(p.Steps, PlanStep{ID: s.ID.String(), Outcome: report.Skipped, Why: s.Why, At: s.Pos.String()})
	}
	for _, pr := range l.probes {
		p.Probes = append(p.Probes, pr.Name)
	}
	p.Notes = l.rec.Report().Notes
}

// launchReads are the things that only a launch can know, each once.
func launchReads(reads []render.Read) []string {
	var out []string
	for _, r := range reads {
		if r.Stage == facts.Launch && !slices.Contains(out, r.What) {
			out = append(out, r.What)
		}
	}
	return out
}

// Text prints the plan for people.
func (p PlanReport) Text(w io.Writer) error {
	var b strings.Builder
	width := 0
	for _, s := range p.Steps {
		width = max(width, len(s.ID))
	}
	drift := 0
	for _, s := range p.Steps {
		outcome := string(s.Outcome)
		if outcome == "" {
			outcome = "step"
		}
		if s.Outcome == report.Drifted {
			drift++
		}
		why := s.Why
		if !p.Checked && len(s.Reads) > 0 {
			why = "reads " + strings.Join(s.Reads, ", ")
		}
		fmt.Fprintln(&b, strings.TrimRight(fmt.Sprintf("%-10s %-*s  %s", outcome, width, s.ID, report.Printable(why)), " "))
	}
	for _, n := range p.Notes {
		fmt.Fprintln(&b, "note: "+report.Printable(n))
	}
	switch {
	case !p.Checked:
		fmt.Fprintf(&b, "%d steps, for the machine of the captured facts\n", len(p.Steps))
	case !p.Drift:
		fmt.Fprintln(&b, "nothing to do")
	default:
		fmt.Fprintf(&b, "%d of %d steps to apply\n", drift, len(p.Steps))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// noStamps are the stamps of a machine that has none yet.
type noStamps struct{}

func (noStamps) Has(step.ID, string) bool  { return false }
func (noStamps) Put(step.ID, string) error { return nil }
func (noStamps) Drop(step.ID) error        { return nil }
