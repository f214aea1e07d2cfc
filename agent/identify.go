package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/amiagent/amiagent/internal/awsconf"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/identify"
)

// keptFactsFile holds what this machine was when it last launched well.
const keptFactsFile = StateDir + "/kept-facts.json"

// identify finds out what this machine is. Where the metadata service is broken
// on a machine that has launched before, what it was then serves.
func (l *launch) identify(ctx context.Context) error {
	if l.opt.FactsFile != "" {
		return l.captured()
	}
	opt := identify.Options{Host: l.host, IMDS: l.imds, Flags: l.opt.Facts}
	if l.cfg.TagsAPI {
		opt.DescribeTags = func(ctx context.Context, instance, region string) (map[string]string, error) {
			cfg, err := l.awsConfig(ctx, region)
			if err != nil {
				return nil, err
			}
			return awsconf.InstanceTags(ctx, cfg.Config, instance)
		}
	}
	kept, kerr := l.keptFacts()
	if kerr == nil && kept != nil {
		opt.Deadline = l.cfg.Patience
	}
	f, err := identify.Identify(ctx, opt)
	l.facts = f
	// An instance does not leave EC2: silence and refusal are faults of its metadata.
	if err == nil && l.imds.Options().Off == "" && f.Get(facts.InstanceID) == "" && kerr == nil && kept != nil && kept.Get(facts.InstanceID) != "" {
		err = errors.New("no metadata service answers, and there was one at the last launch")
		f.Notes = nil
	}
	if err != nil {
		if kerr != nil || kept == nil || ctx.Err() != nil {
			return err
		}
		for name, v := range f.Values { // the OS speaks for itself
			kept.Values[name] = v
		}
		l.facts = kept
		l.rec.Note(fmt.Sprintf("instance metadata is out of reach, what this instance was at its last launch serves: %v", err))
	}
	for _, n := range f.Notes {
		l.rec.Note(n)
	}
	if f.Tags.Hint != "" && f.Tags.State != facts.TagsNoIMDS {
		l.rec.Note(fmt.Sprintf("tags: %s; %s", f.Tags.State, f.Tags.Hint))
	}
	l.rec.Identity("", l.facts.Instance(), l.facts.Get(facts.BootID))
	return nil
}

// captured takes the facts of another machine from a file, and what is given by hand.
func (l *launch) captured() error {
	f, err := facts.LoadFile(l.opt.FactsFile)
	if err != nil {
		return diag.WithHint(err, "`amiagent facts --capture FILE` writes such a file on the machine that is meant")
	}
	for name, value := range l.opt.Facts {
		f.Set(name, value, facts.StageOf(name), "flag")
	}
	l.facts = f
	return nil
}

// keepFacts remembers what this machine is, for a boot without metadata. The
// boot's own facts are left out.
func (l *launch) keepFacts(ctx context.Context) error {
	kept := facts.New()
	for name, v := range l.facts.Values {
		if name != facts.BootID {
			kept.Values[name] = v
		}
	}
	kept.Tags = l.facts.Tags
	var b bytes.Buffer
	if err := kept.Capture(&b); err != nil {
		return fmt.Errorf("cannot keep the facts: %w", err)
	}
	if old, err := l.host.ReadFile(keptFactsFile); err == nil && bytes.Equal(old, b.Bytes()) {
		return nil
	}
	err := l.host.WriteFile(ctx, host.File{Path: keptFactsFile, Data: &b, Mode: 0o600, UID: host.Keep, GID: host.Keep})
	if err != nil {
		return fmt.Errorf("cannot keep the facts: %w", err)
	}
	return nil
}

// keptFacts are the facts of the last good launch; nil when there are none, or
// when they are another machine's, copied with its disk.
func (a *Agent) keptFacts() (*facts.Facts, error) {
	if _, err := a.host.Stat(keptFactsFile); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	p, err := a.host.Path(keptFactsFile)
	if err != nil {
		return nil, err
	}
	f, err := facts.LoadFile(p)
	if err != nil {
		return nil, err
	}
	id, err := a.host.ReadLimited("/etc/machine-id", 128)
	if err == nil && strings.TrimSpace(string(id)) != f.Get(facts.MachineID) {
		return nil, nil
	}
	return f, nil
}
