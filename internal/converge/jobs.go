package converge

import (
	"fmt"

	"github.com/amiagent/amiagent/internal/plan"
	"github.com/amiagent/amiagent/internal/step"
)

// job is what runs at once: one node, or the members of a group.
type job struct {
	kind   *step.Kind
	tasks  []*task
	before *job // serial kinds: the one before
	done   chan struct{}
}

// levels cuts nodes, which are in order, where the level changes.
func levels(nodes []*plan.Node) func(func([]*plan.Node) bool) {
	return func(yield func([]*plan.Node) bool) {
		for i := 0; i < len(nodes); {
			j := i
			for j < len(nodes) && nodes[j].Level == nodes[i].Level {
				j++
			}
			if !yield(nodes[i:j]) {
				return
			}
			i = j
		}
	}
}

// jobs cuts a level into what runs at once. Members of a group have the same
// depth, so no member needs another.
func (r *run) jobs(nodes []*plan.Node) []*job {
	var jobs []*job
	groups := map[string]*job{}
	last := map[*step.Kind]*job{}
	for _, n := range nodes {
		t := r.tasks[n]
		if n.Kind.Group != nil {
			at := fmt.Sprint(n.Kind.Name, n.Depth)
			if g := groups[at]; g != nil {
				g.tasks = append(g.tasks, t)
				continue
			}
			groups[at] = &job{kind: n.Kind, tasks: []*task{t}, done: make(chan struct{})}
			jobs = append(jobs, groups[at])
			continue
		}
		j := &job{kind: n.Kind, tasks: []*task{t}, done: make(chan struct{})}
		if n.Kind.Serial {
			j.before, last[n.Kind] = last[n.Kind], j
		}
		jobs = append(jobs, j)
	}
	return jobs
}
