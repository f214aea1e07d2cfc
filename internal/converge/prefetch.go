package converge

import (
	"context"
	"sync"

	"github.com/amiagent/amiagent/internal/plan"
	"github.com/amiagent/amiagent/internal/report"
	"github.com/amiagent/amiagent/internal/step"
)

// Prefetch lets steps with drift download what they will need by means of
// their own, as a package manager does, before the first change. Where a step
// of a lower level has drift, as a repository not yet written, the download
// would ask the wrong source: it waits for converge, and late tells for which step.
func Prefetch(ctx context.Context, p *plan.Plan, opt Options) (failed map[step.ID]error, late map[step.ID]string) {
	opt.DryRun, opt.End = true, nil
	r := newRun(p, opt)
	failed, late = map[step.ID]error{}, map[step.ID]string{}
	var mu sync.Mutex
	var waits string
	for nodes := range levels(p.Nodes) {
		var jobs []*job
		ahead := false
		for _, j := range r.jobs(nodes) {
			if downloads(j) {
				ahead = true
			}
			jobs = append(jobs, j)
		}
		if !ahead && nodes[0].Level >= step.LevelPackages {
			continue // nothing here that downloads could depend on
		}
		var wg sync.WaitGroup
		for _, j := range jobs {
			wg.Go(func() { r.prefetch(ctx, j, waits, &mu, failed, late) })
		}
		wg.Wait()
		if nodes[0].Level < step.LevelPackages {
			for _, n := range nodes {
				if waits == "" && r.tasks[n].res.Outcome == report.Drifted {
					waits = n.ID.String()
				}
			}
		}
	}
	return failed, late
}

func downloads(j *job) bool {
	if _, ok := j.kind.Group.(step.GroupPrefetcher); ok {
		return true
	}
	_, ok := j.tasks[0].node.Body.(step.Prefetcher)
	return ok && j.kind.Group == nil
}

func (r *run) prefetch(ctx context.Context, j *job, waits string, mu *sync.Mutex, failed map[step.ID]error, late map[step.ID]string) {
	r.slots <- struct{}{}
	defer func() { <-r.slots }()
	var ready []*task
	for _, t := range j.tasks {
		if r.opt.Failed[t.node.ID] == nil && len(t.node.Missing) == 0 {
			ready = append(ready, t)
		}
	}
	if len(ready) == 0 {
		return
	}
	drifted := r.check(ctx, j, ready, func(t *task, d step.Drift) {
		if d != "" {
			t.res.Outcome = report.Drifted
		}
	})
	if len(drifted) == 0 || !downloads(j) {
		return // a check that fails here fails again in converge, and is reported there
	}
	if waits != "" {
		mu.Lock()
		defer mu.Unlock()
		for _, t := range drifted {
			late[t.node.ID] = waits
		}
		return
	}
	err := r.download(ctx, j, drifted)
	mu.Lock()
	defer mu.Unlock()
	for _, t := range drifted {
		if e := memberError(err, t.node.ID); e != nil {
			failed[t.node.ID] = e
		}
	}
}

func (r *run) download(ctx context.Context, j *job, tasks []*task) error {
	if lock := r.locks[j.kind.Lock]; lock != nil {
		lock.Lock()
		defer lock.Unlock()
	}
	if g, ok := j.kind.Group.(step.GroupPrefetcher); ok {
		return g.Prefetch(ctx, tasks[0].env, members(tasks))
	}
	return tasks[0].node.Body.(step.Prefetcher).Prefetch(ctx, tasks[0].env)
}
