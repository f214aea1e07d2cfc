package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/imds"
	"github.com/amiagent/amiagent/internal/layers"
	"github.com/amiagent/amiagent/internal/manifest"
	"github.com/amiagent/amiagent/internal/plan"
	"github.com/amiagent/amiagent/internal/probe"
	"github.com/amiagent/amiagent/internal/report"
	"github.com/amiagent/amiagent/internal/secrets"
)

const probeSection = manifest.ProbeSection

// resolve finds out what the machine should be: layers, manifest, plan.
func (l *launch) resolve(ctx context.Context) error {
	l.store = l.openStore()
	var err error
	if l.kept, err = layers.Kept(l.host, l.facts.Instance()); err != nil {
		l.rec.Note(err.Error())
	}
	if err := l.readLock(ctx); err != nil {
		return err
	}
	if err := l.readLayers(ctx); err != nil {
		return err
	}
	return l.makePlan()
}

// readLayers reads all layers, or takes the documents that were given.
func (l *launch) readLayers(ctx context.Context) error {
	l.docs = l.opt.Documents
	if l.docs == nil {
		opt, err := l.documents("layer")
		if err != nil {
			return err
		}
		docs, notes, err := layers.Resolve(ctx, l.cfg.Layers, opt)
		for _, n := range notes {
			l.rec.Note(n)
		}
		if err != nil {
			return err
		}
		l.docs = docs
	}
	if err := l.holdLayers(); err != nil {
		return err
	}
	for _, d := range l.docs {
		origin := "fresh"
		if d.Kept {
			origin = "kept"
		}
		l.rec.Layer(report.Layer{Source: d.File, Digest: d.Digest(), Origin: origin})
	}
	return nil
}

// makePlan parses the layers and orders the steps. Every fault of every layer is in the error.
func (l *launch) makePlan() error {
	var list diag.List
	m := l.parse(l.docs, &list)
	l.plan = plan.Build(m, plan.Options{Kinds: l.kinds, Facts: l.facts, Env: l.opt.Env, Lock: l.resolver()}, &list)
	l.probes = decodeProbes(l.plan)
	if err := list.Err(); err != nil {
		return err
	}
	if err := l.plan.Refused(); err != nil {
		return err
	}
	if len(m.Entries) == 0 { // a machine that nobody described must not pass for one that is ready
		return diag.WithHint(fmt.Errorf("%w: the layers say nothing of this machine", layers.ErrNone),
			"write at least one entry in one of them; `when` skips entries that are for other machines")
	}
	steps := make([]report.Step, len(l.plan.Nodes))
	for i, n := range l.plan.Nodes {
		steps[i] = report.Step{ID: n.ID.String(), Key: n.Key, Pos: n.Entry.Pos.String()}
		for _, d := range n.Needs {
			steps[i].Needs = append(steps[i].Needs, d.ID.String())
		}
	}
	l.rec.Plan(steps)
	l.rec.Identity(m.Name, l.facts.Instance(), l.facts.Get(facts.BootID))
	l.update(func(s *report.Status) { s.Total, s.Done = len(steps), 0 })
	if l.opt.Watcher != nil {
		l.opt.Watcher.Plan(len(steps))
	}
	return nil
}

func (a *Agent) parse(docs []layers.Document, list *diag.List) *manifest.Manifest {
	var parsed []*manifest.Manifest
	for _, d := range docs {
		if m := manifest.Parse(d.File, d.Data, a.sections(), list); m != nil {
			parsed = append(parsed, m)
		}
	}
	return manifest.Merge(parsed...)
}

func decodeProbes(p *plan.Plan) []probe.Probe {
	var probes []probe.Probe
	for _, e := range p.Probes {
		probes = append(probes, probe.Decode(e.Name, e.Body, e.At))
	}
	return probes
}

// Validate checks documents as far as that goes without facts. The error is a
// *diag.Error with every fault.
func (a *Agent) Validate(docs []layers.Document) error {
	var list diag.List
	m := a.parse(docs, &list)
	decodeProbes(plan.Build(m, plan.Options{Kinds: a.kinds}, &list))
	return list.Err()
}

// parameter reads an SSM parameter that is a layer.
func (l *launch) parameter(ctx context.Context, name string) (string, error) {
	values, failed := l.readSecrets(ctx, []string{"ssm:" + name})
	return values["ssm:"+name], failed["ssm:"+name]
}

// readSecrets reads references of all kinds. Values are known to the redactor
// before anybody else sees them.
func (l *launch) readSecrets(ctx context.Context, refs []string) (map[string]string, map[string]error) {
	cfg, err := l.awsConfig(ctx, l.facts.Get(facts.Region))
	if err != nil {
		failed := map[string]error{}
		for _, r := range refs {
			failed[r] = err
		}
		return nil, failed
	}
	return secrets.New(cfg.Config).Read(ctx, refs)
}

// userData reads the instance's user data; nil when there is none or this is no instance.
func (l *launch) userData(ctx context.Context) ([]byte, error) {
	if l.facts.Get(facts.InstanceID) == "" || l.opt.FactsFile != "" {
		return nil, nil
	}
	b, err := l.imds.UserData(ctx)
	if errors.Is(err, imds.ErrAbsent) {
		return nil, nil
	}
	return b, err
}
