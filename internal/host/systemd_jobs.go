package host

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

// Verb is what systemd is asked to do with a unit.
type Verb string

// The verbs, by their D-Bus methods. ReloadOrRestart and Restart start a unit that does not run.
const (
	Start           Verb = "StartUnit"
	Stop            Verb = "StopUnit"
	Restart         Verb = "RestartUnit"
	ReloadOrRestart Verb = "ReloadOrRestartUnit"
)

// String is the verb in a sentence: "cannot restart app.service".
func (v Verb) String() string {
	switch v {
	case Start:
		return "start"
	case Stop:
		return "stop"
	case Restart:
		return "restart"
	}
	return "reload or restart"
}

// Job is something queued in systemd. It goes on whether it is waited for or not.
type Job struct {
	ID   uint32
	Unit string
	Verb Verb

	s    *Systemd
	done chan string
}

// BehindSelfError is a wait that would never end: the job comes, by systemd's
// ordering, after the job of the very unit that this process belongs to, which
// lasts until the process is ready. The job stays in systemd's queue.
type BehindSelfError struct {
	Job   *Job
	Chain []string // units from the job's own to this process's
}

func (e *BehindSelfError) Error() string {
	return fmt.Sprintf("%s is ordered after %s: its %s goes on once that is up",
		e.Job.Unit, strings.Join(e.Chain[1:], ", after "), e.Job.Verb)
}

// JobError is a job that did not end well.
type JobError struct {
	Unit   string
	Verb   Verb
	Result string // systemd's word: failed, timeout, canceled, dependency, ...
}

func (e *JobError) Error() string {
	why := e.Result
	switch e.Result {
	case "failed":
		why = "it failed"
	case "timeout":
		why = "it took longer than its unit allows"
	case "canceled":
		why = "another job took the place of this one"
	case "dependency":
		why = "a unit that it needs failed"
	case "collected":
		why = "systemd let go of it"
	}
	return fmt.Sprintf("cannot %s %s: %s", e.Verb, e.Unit, why)
}

// ErrConnectionLost is a wait that cannot go on because systemd closed the connection.
var ErrConnectionLost = errors.New("the connection to systemd was lost")

// ErrSelf is asking to stop or restart the unit that asks.
var ErrSelf = errors.New("it is the unit of the agent itself")

// Queue asks systemd for a job and returns at once. Conflicting jobs of others
// are replaced. Nobody has to wait for it.
func (s *Systemd) Queue(ctx context.Context, verb Verb, unit string) (*Job, error) {
	if unit == s.self && verb != Start {
		return nil, fmt.Errorf("cannot %s %s: %w", verb, unit, ErrSelf)
	}
	queue := map[Verb]func(context.Context, string, string, chan<- string) (int, error){
		Start: s.conn.StartUnitContext, Stop: s.conn.StopUnitContext,
		Restart: s.conn.RestartUnitContext, ReloadOrRestart: s.conn.ReloadOrRestartUnitContext,
	}[verb]
	j := &Job{Unit: unit, Verb: verb, s: s, done: make(chan string, 1)}
	id, err := queue(ctx, unit, "replace", j.done)
	if err != nil {
		return nil, fmt.Errorf("cannot %s %s: %w", verb, unit, err)
	}
	j.ID = uint32(id)
	return j, nil
}

// recheck is how often a wait looks whether it waits for itself: another job
// may have come in between.
const recheck = time.Second

// Wait waits until the job ended, well or as a *JobError. A job that cannot
// begin before this process is ready is a *BehindSelfError, found at once, or
// within a second of its coming about.
func (j *Job) Wait(ctx context.Context) error {
	look := time.NewTicker(recheck)
	defer look.Stop()
	for {
		chain, err := j.behindSelf(ctx)
		if err != nil && ctx.Err() == nil && j.s.conn.Connected() {
			return err
		}
		if chain != nil {
			return &BehindSelfError{j, chain}
		}
		select {
		case result := <-j.done:
			// "skipped" is a job that found nothing to do.
			if result == "done" || result == "skipped" {
				return nil
			}
			return &JobError{j.Unit, j.Verb, result}
		case <-ctx.Done():
			return fmt.Errorf("cannot %s %s: %w", j.Verb, j.Unit, context.Cause(ctx))
		case <-j.s.raw.Context().Done():
			return fmt.Errorf("cannot %s %s: %w", j.Verb, j.Unit, ErrConnectionLost)
		case <-look.C:
		}
	}
}

// Do queues a job and waits for it, as Queue and Wait.
func (s *Systemd) Do(ctx context.Context, verb Verb, unit string) error {
	j, err := s.Queue(ctx, verb, unit)
	if err != nil {
		return err
	}
	return j.Wait(ctx)
}

// queued is a job as systemd lists it. GetJobBefore, GetJobAfter and ListJobs
// all give a(usssoo) (org.freedesktop.systemd1(5)).
type queued struct {
	ID    uint32
	Unit  string
	Type  string
	State string
	Path  dbus.ObjectPath
	Of    dbus.ObjectPath
}

// behindSelf is the chain of units from the job to this process's own, nil when
// the job does not wait for it.
func (j *Job) behindSelf(ctx context.Context) ([]string, error) {
	if j.s.self == "" {
		return nil, nil
	}
	before := func(q queued) ([]queued, error) {
		var all []queued
		err := j.s.call(ctx, "GetJobBefore", []any{q.ID}, &all)
		if busError(err) == "org.freedesktop.systemd1.NoSuchJob" {
			return nil, nil // it ended
		}
		return all, err
	}
	start := queued{ID: j.ID, Unit: j.Unit}
	chain, err := findChain(start, j.s.self, before)
	if unknownMethod(err) {
		// systemd before 239 cannot say which jobs come first.
		var jobs []queued
		if err := j.s.call(ctx, "ListJobs", nil, &jobs); err != nil {
			return nil, fmt.Errorf("cannot list systemd's jobs: %w", err)
		}
		if !slices.ContainsFunc(jobs, func(q queued) bool { return q.ID == j.ID }) {
			return nil, nil
		}
		chain, err = findChain(start, j.s.self, func(q queued) ([]queued, error) { return j.s.orderedBefore(ctx, q, jobs) })
	}
	if err != nil {
		return nil, fmt.Errorf("cannot ask systemd what %s waits for: %w", j.Unit, err)
	}
	return chain, nil
}

// orderedBefore are the jobs whose units a queued job's unit is ordered after.
// systemd keeps After= for both sides of an ordering. Two starts wait for one
// another by it; a stop goes before everything, so it holds up nobody here.
func (s *Systemd) orderedBefore(ctx context.Context, q queued, jobs []queued) ([]queued, error) {
	p, err := s.conn.GetUnitPropertyContext(ctx, q.Unit, "After")
	if err != nil {
		return nil, err
	}
	after, _ := p.Value.Value().([]string)
	var before []queued
	for _, other := range jobs {
		if other.Type != "stop" && slices.Contains(after, other.Unit) {
			before = append(before, other)
		}
	}
	return before, nil
}

// findChain walks, breadth first, from a job over the jobs that come before it
// to one of the unit self, and gives the units on the way, ends included.
func findChain(start queued, self string, before func(queued) ([]queued, error)) ([]string, error) {
	if start.Unit == self {
		return nil, nil
	}
	from := map[uint32]queued{start.ID: start}
	for todo := []queued{start}; len(todo) > 0; todo = todo[1:] {
		next, err := before(todo[0])
		if err != nil {
			return nil, err
		}
		for _, q := range next {
			if _, seen := from[q.ID]; seen {
				continue
			}
			from[q.ID] = todo[0]
			if q.Unit == self {
				chain := []string{self}
				for at := todo[0]; ; at = from[at.ID] {
					chain = append(chain, at.Unit)
					if at.ID == start.ID {
						slices.Reverse(chain)
						return chain, nil
					}
				}
			}
			todo = append(todo, q)
		}
	}
	return nil, nil
}
