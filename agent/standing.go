package agent

import (
	"slices"

	"github.com/amiagent/amiagent/internal/probe"
	"github.com/amiagent/amiagent/internal/report"
)

// inherit takes over what the agent before this one said in this boot: an
// instance that was not ready, or is draining, must get no traffic because its
// agent was restarted.
func (a *Agent) inherit(first *report.Status) {
	before, err := report.LoadStatus(a.host, report.StatusPath)
	if err != nil || before.Boot != first.Boot {
		return
	}
	first.Launch, first.Notes, first.Probes = before.Launch, before.Notes, before.Probes
	if before.State == report.NotReady || before.State == report.Draining {
		first.State, first.Reason = before.State, before.Reason
	}
	if before.State == report.Draining {
		a.Drain(before.Reason) // out of service until the next boot
	}
}

// standing is what the launch, a reload or the agent before this one found of
// these probes. One of which nothing is known is left out, and counts as good.
func (a *Agent) standing(probes []probe.Probe) []report.Probe {
	return slices.DeleteFunc(a.status.Status().Probes, func(s report.Probe) bool {
		return !slices.ContainsFunc(probes, func(p probe.Probe) bool { return p.Name == s.Name })
	})
}
