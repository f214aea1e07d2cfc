// Package report is how a launch went: outcome, timeline, every step. The agent
// fills a Report as it goes; sinks send it, and this package renders it as text and JSON.
//
// The Status is its small, always current sibling: what the agent is doing now,
// published to a file for the health responder and for `amiagent status`.
//
// Both are documents for others to read: each carries a format number, and
// fields are added, never renamed.
package report

import (
	"time"
)

// Phase is one of the six phases of a launch, named the same everywhere.
type Phase string

const (
	Identify Phase = "identify" // what is this machine
	Resolve  Phase = "resolve"  // what should it be
	Fetch    Phase = "fetch"    // everything on disk, verified, before the first change
	Converge Phase = "converge" // check, apply, check
	Prove    Phase = "prove"    // probes
	Watch    Phase = "watch"    // life after READY
)

// Phases in their order.
var Phases = []Phase{Identify, Resolve, Fetch, Converge, Prove, Watch}

// Outcome is how a step or a launch ended.
type Outcome string

const (
	OK       Outcome = "ok"        // no drift found: nothing was done
	Changed  Outcome = "changed"   // applied, and checked again
	Failed   Outcome = "failed"    // applied or checked in vain
	Blocked  Outcome = "blocked"   // not tried, because of a failed one before it
	Deferred Outcome = "deferred"  // set going, to be proved after READY
	Ignored  Outcome = "continued" // failed, and the manifest says `on-failure: continue`
	Skipped  Outcome = "skipped"   // `when` does not match this machine
	Reboot   Outcome = "reboot"    // stopped to reboot and go on
	Drifted  Outcome = "drift"     // plan only: would be applied
)

// ReportFormat is the format number of the report.
const ReportFormat = 1

// Report is the account of one launch or one apply.
type Report struct {
	Format   int       `json:"format"`
	ID       string    `json:"id"` // sorts by time
	Agent    string    `json:"agent"`
	Command  string    `json:"command"` // run, apply, reload, bake
	Name     string    `json:"name,omitempty"`
	Instance string    `json:"instance,omitempty"`
	Boot     string    `json:"boot,omitempty"`
	Started  time.Time `json:"started"`
	Ended    time.Time `json:"ended"`
	Outcome  Outcome   `json:"outcome"` // ok, changed, failed, reboot
	Phases   []Span    `json:"phases"`
	Steps    []Step    `json:"steps"`
	Probes   []Probe   `json:"probes,omitempty"`
	Layers   []Layer   `json:"layers,omitempty"`
	Channel  *Channel  `json:"channel,omitempty"` // where the lock is from, if from a channel
	Cause    *Failure  `json:"cause,omitempty"`   // the root cause, when it failed
	Notes    []string  `json:"notes,omitempty"`   // what a person should know
	Fetched  int64     `json:"fetched_bytes"`
}

// Span is one phase's time.
type Span struct {
	Phase   Phase         `json:"phase"`
	Started time.Time     `json:"started"`
	Took    time.Duration `json:"took_ns"`
}

// Step is one step's account.
type Step struct {
	ID       string        `json:"id"`
	Key      string        `json:"key,omitempty"`
	Outcome  Outcome       `json:"outcome"`
	Drift    string        `json:"drift,omitempty"` // why it was applied
	Error    string        `json:"error,omitempty"`
	Hint     string        `json:"hint,omitempty"`
	Reason   string        `json:"reason,omitempty"` // why it was blocked, deferred or skipped
	Started  time.Time     `json:"started,omitzero"`
	Check    time.Duration `json:"check_ns,omitempty"`
	Apply    time.Duration `json:"apply_ns,omitempty"`
	Attempts int           `json:"attempts,omitempty"`
	Needs    []string      `json:"needs,omitempty"`
	Output   []string      `json:"output,omitempty"` // last lines, redacted
	Pos      string        `json:"at,omitempty"`     // file:line of the entry
}

// Probe is one probe's account.
type Probe struct {
	Name  string        `json:"name"`
	Kind  string        `json:"kind,omitempty"` // http, tcp, unit, exec, file
	OK    bool          `json:"ok"`
	Error string        `json:"error,omitempty"`
	Since time.Time     `json:"since,omitzero"` // of the present state
	Took  time.Duration `json:"took_ns,omitempty"`
}

// Layer is one source of manifest that the launch used.
type Layer struct {
	Source string `json:"source"` // without credentials
	Digest string `json:"digest"` // sha256:HEX
	Origin string `json:"origin"` // "fresh" or "kept": the last good copy, its source being out of reach
}

// Failure is the first thing that went wrong and that nothing before it explains.
type Failure struct {
	Phase Phase  `json:"phase"`
	Step  string `json:"step,omitempty"`
	Error string `json:"error"`
	Hint  string `json:"hint,omitempty"`
}
