package units

import (
	"context"
	"errors"
	"fmt"
	"path"
	"sync"
	"time"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/step"
)

// group looks at and applies all units of a run together.
type group struct{}

// open gives systemd, or nil for a tree.
func open(ctx context.Context, h *host.Host) (*host.Systemd, error) {
	if !h.Live() {
		return nil, nil
	}
	return h.Systemd(ctx)
}

func (group) Check(ctx context.Context, env step.Env, members []step.Member) ([]step.Drift, error) {
	s, err := open(ctx, env.Host)
	if err != nil {
		return nil, err
	}
	now := map[string]host.Unit{}
	if s != nil {
		var names []string
		for _, m := range members {
			if u := m.Step.(*Unit); !u.template() {
				names = append(names, u.name)
			}
		}
		if now, err = s.Units(ctx, names); err != nil {
			return nil, err
		}
	}
	// At once: the way to systemd and back takes longer than its answer.
	drifts, errs := make([]step.Drift, len(members)), make([]error, len(members))
	slots := make(chan struct{}, lanes)
	var wait sync.WaitGroup
	for i, m := range members {
		slots <- struct{}{}
		wait.Go(func() {
			u := m.Step.(*Unit)
			drifts[i], errs[i] = u.drift(ctx, m.Env, s, now[u.name])
			<-slots
		})
	}
	wait.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return drifts, nil
}

// lanes is how many units are looked at at once. The bus lets one connection
// wait for no more than some answers (dbus-daemon(1), max_replies_per_connection).
const lanes = 8

// drift is what differs first, in the order in which Apply would see to it. s is nil for a tree.
func (u *Unit) drift(ctx context.Context, env step.Env, s *host.Systemd, now host.Unit) (step.Drift, error) {
	if d, err := u.textDrift(env.Host); err != nil || d != "" {
		return d, err
	}
	if _, d, err := u.fileSwitch(ctx, switchesOf(env.Host, s)); err != nil || d != "" {
		return d, err
	}
	if s == nil || u.template() {
		return "", nil
	}
	if need, err := u.needsReload(ctx, s, now); err != nil {
		return "", err
	} else if need {
		return "systemd has not read its changed files", nil
	}
	_, d, err := u.due(ctx, s, env, now)
	return d, err
}

// needsReload tells whether systemd's picture of the unit is older than its
// files. A unit that is not wanted to run and says no text is nobody's concern here.
func (u *Unit) needsReload(ctx context.Context, s *host.Systemd, now host.Unit) (bool, error) {
	if u.State != started && u.Content == "" && len(u.DropIns) == 0 || now.Load == "masked" || u.template() {
		return false, nil
	}
	if now.Load == "not-found" {
		return u.Content != "", nil
	}
	var dropIns []string
	paths, _ := u.texts()
	for _, p := range paths {
		if path.Ext(p) == ".conf" {
			dropIns = append(dropIns, p)
		}
	}
	return s.NeedsReload(ctx, u.name, dropIns)
}

// Apply writes all files, switches and reloads, then starts, stops and restarts
// everything at once. Cancelled, it returns soon; what systemd was asked to do goes on.
func (group) Apply(ctx context.Context, env step.Env, members []step.Member) error {
	s, err := open(ctx, env.Host)
	if err != nil {
		return err
	}
	errs := step.MemberErrors{}
	changed := false
	for _, m := range members {
		wrote, err := m.Step.(*Unit).settle(ctx, m.Env, switchesOf(env.Host, s))
		changed = changed || wrote
		if err != nil {
			errs[m.ID] = err
		}
	}
	if s != nil {
		if err := run(ctx, s, members, errs, changed); err != nil {
			return err
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return errs
}

// settle makes what lies on disk right, and tells whether it changed any of it.
func (u *Unit) settle(ctx context.Context, env step.Env, sw switches) (changed bool, err error) {
	d, err := u.textDrift(env.Host)
	if err != nil {
		return false, err
	}
	if d != "" && u.State == started {
		// The unit may run by the text that is now put right, and the key says
		// nothing of that: it is the same as before.
		if err := env.Stamps.Drop(env.ID); err != nil {
			return false, err
		}
	}
	wrote, err := u.writeTexts(ctx, env.Host)
	if err != nil {
		return wrote, err
	}
	switched, err := u.install(ctx, sw)
	return wrote || switched, err
}

// run brings about what should run, of the members that have not failed yet.
func run(ctx context.Context, s *host.Systemd, members []step.Member, errs step.MemberErrors, changed bool) error {
	var todo []step.Member
	var names []string
	for _, m := range members {
		if u := m.Step.(*Unit); errs[m.ID] == nil && !u.template() {
			todo, names = append(todo, m), append(names, u.name)
		}
	}
	now, err := s.Units(ctx, names)
	if err != nil {
		return err
	}
	for _, m := range todo {
		u := m.Step.(*Unit)
		if changed {
			break
		}
		need, err := u.needsReload(ctx, s, now[u.name])
		if err != nil {
			return err
		}
		// A unit that systemd did not find may have come with a package since;
		// and it does not notice every drop-in that another step has written.
		changed = need || u.State == started && now[u.name].Load == "not-found" ||
			u.watchesUnitFiles() && !m.Env.Stamped(m.Env.Key)
	}
	if changed {
		if err := s.DaemonReload(ctx); err != nil {
			return err
		}
		if now, err = s.Units(ctx, names); err != nil {
			return err
		}
	}
	// All jobs are queued before any is waited for: units of the manifest may
	// be ordered after one another, and systemd sorts out which goes first.
	var wait sync.WaitGroup
	var mu sync.Mutex
	fail := func(m step.Member, err error) {
		if err != nil {
			mu.Lock()
			defer mu.Unlock()
			errs[m.ID] = err
		}
	}
	for _, m := range todo {
		u := m.Step.(*Unit)
		verb, _, err := u.due(ctx, s, m.Env, now[u.name])
		if err != nil {
			fail(m, err)
			continue
		}
		if verb == "" {
			continue
		}
		if now[u.name].Active == "failed" || now[u.name].Sub == "auto-restart" {
			if err := s.ResetFailed(ctx, u.name); err != nil {
				fail(m, err)
				continue
			}
		}
		release := s.Hold(ctx, u.name)
		job, err := s.Queue(ctx, verb, u.name)
		if err != nil {
			release()
			fail(m, u.explainQueue(err))
			continue
		}
		wait.Go(func() {
			defer release()
			fail(m, u.finish(ctx, s, m.Env, job))
		})
	}
	wait.Wait()
	return nil
}

func (u *Unit) explainQueue(err error) error {
	if diag.Hint(err) != "" || errors.Is(err, host.ErrSelf) {
		return err
	}
	return diag.WithHint(err, "systemctl status %s; systemctl cat %s", u.name, u.name)
}

// finish waits for a job, sees whether its effect lasts, and stamps it.
func (u *Unit) finish(ctx context.Context, s *host.Systemd, env step.Env, job *host.Job) error {
	if u.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, u.Timeout,
			fmt.Errorf("not done within the %s that the manifest allows", u.Timeout))
		defer cancel()
	}
	err := job.Wait(ctx)
	if behind := (*host.BehindSelfError)(nil); errors.As(err, &behind) {
		if err := u.stampQueued(ctx, s, env); err != nil {
			return err
		}
		return step.Defer(behind.Error())
	}
	if ctx.Err() != nil && err != nil {
		return diag.WithHint(err, "systemctl status %s", u.name)
	}
	if err != nil {
		return u.explain(ctx, s, env, job.Verb, err)
	}
	if u.State == stopped {
		return nil
	}
	if err := u.lasts(ctx, s, env, job.Verb); err != nil {
		return err
	}
	return u.stamp(env)
}

// stamp records that the unit's processes, if there are any, have read what there is to read.
func (u *Unit) stamp(env step.Env) error {
	if u.State != started || !u.rereads() {
		return nil
	}
	return env.Stamp(env.Key)
}

// stampQueued is stamp for a unit that is queued to start once the agent is
// ready. If it fails then, systemd keeps it as failed.
func (u *Unit) stampQueued(ctx context.Context, s *host.Systemd, env step.Env) error {
	p, err := s.Properties(ctx, u.name)
	if err != nil {
		return err
	}
	if endsByItself(u.name, p) {
		if err := env.Stamps.Put(ranID(env.ID), env.Boot); err != nil {
			return err
		}
	}
	return u.stamp(env)
}

const (
	// settleTime is how long a service must stay up that systemd calls up as
	// soon as it is forked: long enough for a program that cannot read its
	// configuration, short beside a launch.
	settleTime = 200 * time.Millisecond
	settleStep = 20 * time.Millisecond
)

// lasts sees, after a start that systemd calls done, whether the unit is up and stays so.
func (u *Unit) lasts(ctx context.Context, s *host.Systemd, env step.Env, verb host.Verb) error {
	for end := time.Now().Add(settleTime); ; {
		p, err := s.Properties(ctx, u.name)
		if err != nil {
			return err
		}
		active := p.String("ActiveState")
		switch {
		case active == "inactive" && endsByItself(u.name, p) && unmet(p) == "" && p.String("Result") == "success":
			return env.Stamps.Put(ranID(env.ID), env.Boot)
		case active != "active" && active != "reloading":
			return u.explain(ctx, s, env, verb, nil)
		}
		switch p.String("Type") {
		case "simple", "exec", "idle":
			if time.Now().Before(end) {
				break
			}
			return nil
		default:
			return nil
		}
		select {
		case <-time.After(settleStep):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
