// Package step is the contract between the agent and a kind of thing a machine
// has: files, packages, units. A kind is a folder below this one, with its code,
// its test and an example.yaml, and one line in the list of package kinds.
//
// A body struct with yaml tags is the step: decoding is construction. What
// every step can do is the Step interface; further powers are one-method
// interfaces that the agent finds by assertion.
package step

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/amiagent/amiagent/internal/decode"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/fetch"
	"github.com/amiagent/amiagent/internal/host"
)

// ID names a step: its kind and its name in the manifest, as "files./etc/motd".
type ID struct{ Kind, Name string }

func (id ID) String() string { return id.Kind + "." + id.Name }

// MarshalText writes kind.name.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads kind.name: the kind ends at the first dot.
func (id *ID) UnmarshalText(b []byte) error {
	kind, name, ok := strings.Cut(string(b), ".")
	if !ok || kind == "" || name == "" {
		return fmt.Errorf("%q names no step, write kind.name, as files./etc/motd", b)
	}
	*id = ID{kind, name}
	return nil
}

// Drift says why a step needs applying, as a sentence fragment ("mode is 0600,
// want 0644"). "" means that the machine is as the step wants it. It never
// holds a secret or a file's content.
type Drift string

// Step is one thing that should be true of the machine.
type Step interface {
	// Validate records faults of the body by field name. It sees the body
	// once before any fact is known (template text still in its strings, so
	// values that contain "{{" must not be judged) and once rendered.
	Validate(at diag.At)
	// Check looks and never writes. An error means that it could not look. It
	// runs concurrently with other steps, again after Apply, and for the life of the agent.
	Check(ctx context.Context, env Env) (Drift, error)
	// Apply makes it true. The agent calls it only after a Check that found
	// drift, never twice at once, and again after a crash at any point of an
	// earlier Apply: it must be safe to repeat. On cancel it returns soon, and
	// leaves whole things whole.
	Apply(ctx context.Context, env Env) error
}

// Named is a step that wants its own name in the manifest (a path, a unit),
// given before Validate.
type Named interface{ SetName(name string) }

// Fetcher is a step with bytes to be fetched before anything is changed.
type Fetcher interface{ Fetches() []fetch.Request }

// Needer is a step that knows from its body which others come first, as a file
// knows its owner. IDs that are not in the plan are passed over.
type Needer interface{ Needs() []ID }

// Watcher is a step that acts again when others change (restart-on,
// on-change). Its key covers theirs, and its stamp is dropped, durably, before
// one of them is applied: a crash in between loses no restart. Every ID must be in the manifest.
type Watcher interface{ Watches() []ID }

// Exposer is a step that leaves what its body says where others may read it.
// A body that holds a secret must not be exposed. field is what to change.
type Exposer interface {
	Exposed() (field string, exposed bool)
}

// Server is a step that keeps systemd units running: the instance drains before they stop.
type Server interface{ Serves() []string }

// Prefetcher is a step that can download ahead of Apply by means of its own.
type Prefetcher interface {
	Prefetch(ctx context.Context, env Env) error
}

// Runner is a step that runs software of the manifest's own (a command, a
// started service). Unless its entry says `needs`, it waits for everything
// earlier and does not run when any of that failed: software on a half-made
// machine does more harm than its absence.
type Runner interface{ Runs() bool }

// Member is one step of a group.
type Member struct {
	ID   ID
	Env  Env // the member's own: its key, its output
	Step Step
}

// Group applies steps of one kind together, as one package transaction or one
// daemon-reload. A kind with a Group has its members' Check and Apply not called.
type Group interface {
	// Check gives one drift per member, in order; the error is for all.
	Check(ctx context.Context, env Env, members []Member) ([]Drift, error)
	// Apply is given the members with drift. It may fail for all with any
	// error, or for some with MemberErrors.
	Apply(ctx context.Context, env Env, members []Member) error
}

// GroupPrefetcher is a Group that can download ahead of Apply.
type GroupPrefetcher interface {
	Prefetch(ctx context.Context, env Env, members []Member) error
}

// MemberErrors are failures of single members; those not in it succeeded.
type MemberErrors map[ID]error

func (m MemberErrors) Error() string {
	var all []string
	for id, err := range m {
		all = append(all, id.String()+": "+err.Error())
	}
	return strings.Join(all, "; ")
}

// Level orders kinds: steps of a lower level come before those of a higher
// one. Steps of one level run in parallel unless they need one another.
type Level int

// The levels of a machine, bottom up.
const (
	LevelPin Level = 10 * (iota + 1)
	LevelRepositories
	LevelPackages
	LevelStorage   // mounts, groups, kernel settings
	LevelUsers     // users; their homes may lie on mounts
	LevelArtifacts // trees
	LevelFiles
	LevelCommands
	LevelUnits
)

// Kind is one sort of thing a machine has.
type Kind struct {
	Name  string      // the manifest's section: "files"
	Doc   string      // one sentence, for the schema and the reference
	Level Level       // when its steps come
	New   func() Step // an empty body with its defaults set
	Group Group       // nil for most
	// Lock names what Apply must hold alone ("packages", "users"); "" for nothing.
	Lock string
	// Serial kinds run in the manifest's order, one by one.
	Serial bool
	// Example is the text of example.yaml: a manifest that shows the kind.
	Example string
}

// Store is what a step may ask of the store of fetched bytes. It never fetches.
type Store interface {
	// Lookup finds what was fetched for a request, whole and verified.
	Lookup(req fetch.Request) (fetch.Item, bool)
}

// Stamps remember what the machine cannot show: that a command ran, that a
// service was restarted. A stamp is written after success, durably.
type Stamps interface {
	Has(id ID, value string) bool
	Put(id ID, value string) error
	Drop(id ID) error
}

// Env is what a step may use. It belongs to one step of one run.
type Env struct {
	Host   *host.Host
	Facts  *facts.Facts
	Store  Store
	Stamps Stamps
	ID     ID
	// Key hashes all that can change the step's effect: its body with secrets,
	// what it fetches, and the keys of the steps it watches.
	Key      string
	Instance string // instance id, or machine id off EC2
	Boot     string // boot id
	// Shared holds a kind's costly look at the machine for one run; see Memo.
	Shared *Shared
	// Output takes a line of a program's output, for the report. May be nil.
	Output func(line string)
	// Status takes a short line for people who wait ("waiting for the lock of dpkg, held by pid 7"). May be nil.
	Status func(line string)
}

// Stamped tells whether this step's stamp has this value.
func (e Env) Stamped(value string) bool { return e.Stamps.Has(e.ID, value) }

// Stamp records success with this value, durably.
func (e Env) Stamp(value string) error { return e.Stamps.Put(e.ID, value) }

// ErrReboot is returned by Apply when the machine must be rebooted before the
// step can be called done. The agent reboots within its budget and goes on afterwards.
var ErrReboot = errors.New("a reboot is needed")

// deferred is an Apply that has set things going but must not wait for them.
type deferred struct{ reason string }

func (d *deferred) Error() string { return "deferred: " + d.reason }

// Defer is returned by Apply when waiting for the effect would block the
// launch itself. READY does not wait for such a step; it is checked afterwards and reported so.
func Defer(reason string) error { return &deferred{reason} }

// Deferred gives the reason of an error made by Defer.
func Deferred(err error) (reason string, ok bool) {
	var d *deferred
	if errors.As(err, &d) {
		return d.reason, true
	}
	return "", false
}

// StaticText is decode.Static: whether Validate may judge a value.
func StaticText(s string) bool { return decode.Static(s) }
