// Package converge runs a plan: check, apply, check again.
//
// Steps run level by level, in parallel within a level as far as they need not
// one another, and hold their kind's lock while they apply. A step that fails
// blocks those that need it; the others go on. What is reported as done was
// checked after it was done.
package converge

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/manifest"
	"github.com/amiagent/amiagent/internal/plan"
	"github.com/amiagent/amiagent/internal/report"
	"github.com/amiagent/amiagent/internal/step"
)

// Options are what a run needs beside the plan.
type Options struct {
	Host     *host.Host
	Facts    *facts.Facts
	Store    step.Store
	Stamps   step.Stamps
	Instance string
	Boot     string
	Parallel int // steps at once; 0: 8
	// DryRun checks every step and applies none: outcomes are ok and drift.
	DryRun bool
	// Only, if set, limits the run to these steps; the others count as done.
	Only func(step.ID) bool
	// Failed gives steps that have failed already, in an earlier phase, with the reason.
	Failed map[step.ID]error
	// Begin is called when a step's apply begins, End when its outcome is known.
	// Both may be called concurrently, and may be nil.
	Begin func(id step.ID)
	End   func(report.Step)
	// Status takes a short line for people who wait. May be nil.
	Status func(id step.ID, line string)
}

// Result is how a run went.
type Result struct {
	Steps  []report.Step // in plan order, one for every node, then the skipped ones
	Reboot bool          // a step asks for a reboot before the rest is done
}

// Failed tells whether any step keeps the machine from being as wanted.
func (r Result) Failed() bool {
	return slices.ContainsFunc(r.Steps, func(s report.Step) bool {
		return s.Outcome == report.Failed || s.Outcome == report.Blocked
	})
}

// Count is the number of steps with one of these outcomes.
func (r Result) Count(outcomes ...report.Outcome) int {
	n := 0
	for _, s := range r.Steps {
		if slices.Contains(outcomes, s.Outcome) {
			n++
		}
	}
	return n
}

// maxOutput is how many lines of a step's output the report keeps.
const maxOutput = 20

// attempts is how often a step with `on-failure: retry` is tried in all.
const attempts = 5

// task is one node under way.
type task struct {
	node *plan.Node
	env  step.Env
	res  report.Step
	done chan struct{}
	mu   sync.Mutex // guards res.Output
}

type run struct {
	plan   *plan.Plan
	opt    Options
	tasks  map[*plan.Node]*task
	locks  map[string]*sync.Mutex
	slots  chan struct{}
	shared step.Shared

	mu     sync.Mutex
	reboot bool
}

// Run brings the machine to what the plan says, or says why not. When ctx ends,
// steps under way are cancelled and count as failed, and the rest is blocked.
func Run(ctx context.Context, p *plan.Plan, opt Options) Result {
	r := newRun(p, opt)
	for level := range levels(p.Nodes) {
		r.level(ctx, level)
	}
	res := Result{Reboot: r.reboot}
	for _, n := range p.Nodes {
		res.Steps = append(res.Steps, r.tasks[n].res)
	}
	for _, s := range p.Skipped {
		res.Steps = append(res.Steps, report.Step{ID: s.ID.String(), Outcome: report.Skipped, Reason: s.Why, Pos: s.Pos.String()})
	}
	return res
}

func newRun(p *plan.Plan, opt Options) *run {
	if opt.Parallel == 0 {
		opt.Parallel = 8
	}
	r := &run{plan: p, opt: opt, tasks: map[*plan.Node]*task{}, locks: map[string]*sync.Mutex{}, slots: make(chan struct{}, opt.Parallel)}
	for _, n := range p.Nodes {
		r.tasks[n] = r.task(n)
		if n.Kind.Lock != "" {
			r.locks[n.Kind.Lock] = &sync.Mutex{}
		}
	}
	return r
}

func (r *run) task(n *plan.Node) *task {
	t := &task{node: n, done: make(chan struct{})}
	t.res = report.Step{ID: n.ID.String(), Key: n.Key, Pos: n.Entry.Pos.String()}
	for _, d := range n.Needs {
		t.res.Needs = append(t.res.Needs, d.ID.String())
	}
	t.env = step.Env{Host: r.opt.Host, Facts: r.opt.Facts, Store: r.opt.Store, Stamps: r.opt.Stamps,
		ID: n.ID, Key: n.StampKey(), Instance: r.opt.Instance, Boot: r.opt.Boot, Shared: &r.shared,
		Output: t.output}
	if r.opt.Status != nil {
		t.env.Status = func(line string) { r.opt.Status(n.ID, line) }
	}
	return t
}

func (t *task) output(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.res.Output = append(t.res.Output, line)
	if extra := len(t.res.Output) - maxOutput; extra > 0 {
		t.res.Output = slices.Delete(t.res.Output, 0, extra)
	}
}

// level runs the nodes of one level; all lower levels have ended.
func (r *run) level(ctx context.Context, nodes []*plan.Node) {
	var wg sync.WaitGroup
	for _, j := range r.jobs(nodes) {
		wg.Go(func() { r.job(ctx, j) })
	}
	wg.Wait()
}

// job waits for what its tasks need, then checks, applies and checks.
func (r *run) job(ctx context.Context, j *job) {
	defer close(j.done)
	defer func() {
		for _, t := range j.tasks {
			close(t.done)
			if r.opt.End != nil && r.wanted(t) {
				r.opt.End(t.res)
			}
		}
	}()
	for _, t := range j.tasks {
		for _, d := range t.node.Needs {
			<-r.tasks[d].done
		}
	}
	if j.before != nil {
		<-j.before.done
	}
	var ready []*task
	for _, t := range j.tasks {
		if r.wanted(t) && r.admit(ctx, j, t) {
			ready = append(ready, t)
		}
	}
	if len(ready) == 0 {
		return
	}
	r.slots <- struct{}{}
	defer func() { <-r.slots }()
	r.converge(ctx, j, ready)
}

func (r *run) wanted(t *task) bool { return r.opt.Only == nil || r.opt.Only(t.node.ID) }

// admit decides whether a task may start, and settles its outcome if not.
func (r *run) admit(ctx context.Context, j *job, t *task) bool {
	n := t.node
	if err := r.opt.Failed[n.ID]; err != nil {
		t.fail(err)
		return false
	}
	if ctx.Err() != nil {
		t.block(context.Cause(ctx).Error())
		return false
	}
	if r.rebooting() {
		t.block("the machine reboots first")
		return false
	}
	for _, d := range n.Needs {
		switch o := r.tasks[d].res.Outcome; o {
		case report.Failed, report.Blocked, report.Ignored:
			t.block(fmt.Sprintf("needs %s, which %s", d.ID, o.Past()))
			return false
		case report.Deferred:
			t.res.Outcome, t.res.Reason = report.Deferred, fmt.Sprintf("needs %s, which is proved after READY", d.ID)
			return false
		}
	}
	if n.Waits && !r.opt.DryRun {
		if bad := r.failedBefore(j, t); bad != nil {
			t.block(fmt.Sprintf("runs only after all before it, and %s %s", bad.node.ID, bad.res.Outcome.Past()))
			return false
		}
	}
	if len(n.Missing) > 0 {
		r.unverified(t)
		return false
	}
	return true
}

// failedBefore finds a task of a lower level, or an earlier one of the same
// serial kind, that did not succeed.
func (r *run) failedBefore(j *job, t *task) *task {
	bad := func(o *task) bool { return o.res.Outcome == report.Failed || o.res.Outcome == report.Blocked }
	for before := j.before; before != nil; before = before.before {
		if bad(before.tasks[0]) {
			return before.tasks[0]
		}
	}
	for _, n := range r.plan.Nodes {
		if n.Level < t.node.Level && bad(r.tasks[n]) {
			return r.tasks[n]
		}
	}
	return nil
}

// unverified leaves a step alone whose secret cannot be read now: as it was
// when this instance last converged on it, else it has failed.
func (r *run) unverified(t *task) {
	if r.opt.Stamps.Has(Converged(t.node.ID), t.node.Key) {
		t.res.Outcome = report.Unverified
		t.res.Reason = fmt.Sprintf("the secret %s cannot be read now; left as it was last converged", t.node.Missing[0])
		return
	}
	t.fail(diag.WithHint(fmt.Errorf("cannot read the secret %s", t.node.Missing[0]), "see the notes of this report for the cause"))
}

// Converged is the id under which a step with secrets remembers that it was converged.
func Converged(id step.ID) step.ID { return step.ID{Kind: "converged", Name: id.String()} }

func (r *run) converge(ctx context.Context, j *job, tasks []*task) {
	drifted := r.check(ctx, j, tasks, func(t *task, d step.Drift) {
		t.res.Drift = string(d)
		if d == "" {
			t.res.Outcome = report.OK
		} else if r.opt.DryRun {
			t.res.Outcome = report.Drifted
		}
	})
	for try := 1; len(drifted) > 0 && !r.opt.DryRun; try++ {
		again := r.apply(ctx, j, drifted, try)
		if len(again) == 0 {
			break
		}
		pause(ctx, try)
		drifted = again
	}
	for _, t := range tasks {
		if len(t.node.Secrets) > 0 && (t.res.Outcome == report.OK || t.res.Outcome == report.Changed) && !r.opt.DryRun {
			if err := r.opt.Stamps.Put(Converged(t.node.ID), t.node.Key); err != nil {
				t.fail(fmt.Errorf("cannot record success: %w", err))
			}
		}
	}
}

// check looks at tasks and gives those with drift. It settles the outcome of
// tasks that cannot be looked at; found settles the others.
func (r *run) check(ctx context.Context, j *job, tasks []*task, found func(*task, step.Drift)) (drifted []*task) {
	begin := time.Now()
	drifts, err := make([]step.Drift, len(tasks)), error(nil)
	if g := j.kind.Group; g != nil {
		drifts, err = g.Check(ctx, tasks[0].env, members(tasks))
	} else {
		drifts[0], err = tasks[0].node.Body.Check(ctx, tasks[0].env)
	}
	if err == nil && len(drifts) != len(tasks) {
		err = fmt.Errorf("kind %s checked %d of %d steps", j.kind.Name, len(drifts), len(tasks))
	}
	took := time.Since(begin)
	for i, t := range tasks {
		if t.res.Started.IsZero() {
			t.res.Started = begin
		}
		t.res.Check += took
		if err != nil {
			t.fail(fmt.Errorf("cannot check: %w", cause(ctx, err)))
			continue
		}
		found(t, drifts[i])
		if drifts[i] != "" {
			drifted = append(drifted, t)
		}
	}
	return drifted
}

func members(tasks []*task) []step.Member {
	ms := make([]step.Member, len(tasks))
	for i, t := range tasks {
		ms[i] = step.Member{ID: t.node.ID, Env: t.env, Step: t.node.Body}
	}
	return ms
}

// apply changes the machine for tasks with drift, checks them again, and gives
// those that failed and are to be tried again.
func (r *run) apply(ctx context.Context, j *job, tasks []*task, try int) (again []*task) {
	if lock := r.locks[j.kind.Lock]; lock != nil {
		lock.Lock()
		defer lock.Unlock()
	}
	begin := time.Now()
	for _, t := range tasks {
		t.res.Attempts = try
		if err := r.unstamp(t.node); err != nil {
			t.fail(err)
			return nil
		}
		if r.opt.Begin != nil {
			r.opt.Begin(t.node.ID)
		}
	}
	var err error
	if g := j.kind.Group; g != nil {
		err = g.Apply(ctx, tasks[0].env, members(tasks))
	} else {
		err = tasks[0].node.Body.Apply(ctx, tasks[0].env)
	}
	took := time.Since(begin)
	var applied []*task
	for _, t := range tasks {
		t.res.Apply += took
		e := memberError(err, t.node.ID)
		reason, deferred := step.Deferred(e)
		switch {
		case e == nil:
			applied = append(applied, t)
		case deferred:
			t.res.Outcome, t.res.Reason = report.Deferred, reason
		case errors.Is(e, step.ErrReboot):
			t.res.Outcome, t.res.Reason = report.Reboot, "asks for a reboot"
			r.setReboot()
		default:
			t.fail(cause(ctx, e))
		}
	}
	if len(applied) > 0 {
		r.check(ctx, j, applied, func(t *task, d step.Drift) {
			if d == "" {
				t.res.Outcome, t.res.Error, t.res.Hint = report.Changed, "", ""
				return
			}
			t.fail(fmt.Errorf("applied but still differs: %s", d))
		})
	}
	for _, t := range tasks {
		if t.res.Outcome == report.Failed && t.node.Entry.OnFailure == manifest.Retry && try < attempts && ctx.Err() == nil {
			again = append(again, t)
		}
	}
	return again
}

// unstamp drops, durably and before the change, the stamps of all steps that
// act when this one changes. A crash in between loses no restart.
func (r *run) unstamp(n *plan.Node) error {
	for _, w := range r.plan.Nodes {
		if slices.Contains(w.Watches, n) {
			if err := r.opt.Stamps.Drop(w.ID); err != nil {
				return fmt.Errorf("cannot forget that %s is done: %w", w.ID, err)
			}
		}
	}
	return nil
}

// memberError is the part of a group's error that is about one member.
func memberError(err error, id step.ID) error {
	var some step.MemberErrors
	if errors.As(err, &some) {
		return some[id]
	}
	return err
}

func (r *run) setReboot() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reboot = true
}

func (r *run) rebooting() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reboot
}

func (t *task) fail(err error) {
	t.res.Outcome, t.res.Error, t.res.Hint = report.Failed, err.Error(), diag.Hint(err)
	if t.node.Entry.OnFailure == manifest.Continue {
		t.res.Outcome = report.Ignored
	}
}

func (t *task) block(reason string) { t.res.Outcome, t.res.Reason = report.Blocked, reason }

// cause prefers the reason why ctx ended over "context canceled".
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		return c
	}
	return err
}

// pause waits with full jitter before another try: at most 1, 2, 4, 8 s.
func pause(ctx context.Context, try int) {
	select {
	case <-ctx.Done():
	case <-time.After(rand.N(time.Second << min(try-1, 3))):
	}
}
