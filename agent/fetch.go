package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/amiagent/amiagent/internal/converge"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/fetch"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/manifest"
	"github.com/amiagent/amiagent/internal/plan"
	"github.com/amiagent/amiagent/internal/report"
	"github.com/amiagent/amiagent/internal/step"
)

// fetch brings everything to the machine before the first change: artifacts
// and files into the store, secrets into memory, packages into their manager's
// cache. When anything is missing, nothing is touched, unless all that needs it may fail.
func (l *launch) fetch(ctx context.Context) error {
	wanted := l.wants() // before the secrets are filled in, which makes the bodies anew
	errs := make(chan error, 1)
	go func() { errs <- l.bindSecrets(ctx) }()
	files := l.fetchFiles(ctx, wanted)
	err := <-errs
	for id, err := range files {
		l.failed[id] = err
	}
	if err != nil {
		return err
	}
	failed, late := converge.Prefetch(ctx, l.plan, l.options())
	for id, err := range failed {
		l.failed[id] = err
	}
	for id, waits := range late {
		l.rec.Note(fmt.Sprintf("%s could not be downloaded ahead: it waits for %s", id, waits))
	}
	return l.missing()
}

// missing is the error of this phase: the first thing in plan order without which the launch fails.
func (l *launch) missing() error {
	var first error
	for _, n := range l.plan.Nodes {
		err := l.failed[n.ID]
		if err == nil || n.Entry.OnFailure == manifest.Continue {
			continue
		}
		if first == nil {
			first = diag.WithHint(fmt.Errorf("%w: %s: %w", ErrFailed, n.ID, err), "%s", diag.Hint(err))
		}
		l.ended(report.Step{ID: n.ID.String(), Key: n.Key, Outcome: report.Failed, Error: err.Error(), Hint: diag.Hint(err), Pos: n.Entry.Pos.String()})
	}
	return first
}

// wants are the requests of each step, under its name.
func (l *launch) wants() map[*plan.Node][]fetch.Request {
	wants := map[*plan.Node][]fetch.Request{}
	for _, n := range l.plan.Nodes {
		if f, ok := n.Body.(step.Fetcher); ok {
			for _, r := range f.Fetches() {
				r.Name = n.ID.String()
				wants[n] = append(wants[n], r)
			}
		}
	}
	return wants
}

// fetchFiles fetches into the store, and gives the failures by step.
func (l *launch) fetchFiles(ctx context.Context, wants map[*plan.Node][]fetch.Request) map[step.ID]error {
	var reqs []fetch.Request
	for _, n := range l.plan.Nodes {
		reqs = append(reqs, wants[n]...)
	}
	failed := map[step.ID]error{}
	if len(reqs) == 0 {
		return failed
	}
	var had int64
	progress := func(done, total int64) {
		l.rec.Fetched(done - had)
		had = done
		if l.opt.Watcher != nil {
			l.opt.Watcher.Fetch("", done, total)
		}
	}
	_, err := l.store.Fetch(ctx, reqs, progress)
	if err == nil {
		return failed
	}
	var each *fetch.Failures
	for n, rs := range wants {
		for _, r := range rs {
			switch {
			case !errors.As(err, &each):
				failed[n.ID] = err // the launch was cancelled
			case each.Of(r.Name) != nil:
				failed[n.ID] = l.unlocked(n, each.Of(r.Name))
			}
		}
	}
	return failed
}

// bindSecrets reads all secrets of the plan at once and fills them in.
func (l *launch) bindSecrets(ctx context.Context) error {
	refs := l.plan.Secrets()
	if len(refs) == 0 {
		return nil
	}
	patience := secretsPatience
	if l.canDoWithout() {
		patience = l.cfg.Patience
	}
	limited, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("no answer in %s", patience))
	defer cancel()
	values, failed := l.readSecrets(limited, refs)
	for _, v := range values {
		l.redact.Add(v)
	}
	for _, ref := range refs {
		if err := failed[ref]; err != nil {
			l.rec.Note(fmt.Sprintf("cannot read the secret %s: %v", ref, err))
		}
	}
	salt, err := l.salt(ctx)
	if err != nil {
		return err
	}
	if err := l.plan.Bind(values, salt); err != nil {
		return err
	}
	for _, n := range l.plan.Nodes {
		if len(n.Missing) > 0 && !l.stamps.Has(converge.Converged(n.ID), n.Key) {
			err := failed[n.Missing[0]]
			if err == nil {
				err = errors.New("no value came back")
			}
			l.failed[n.ID] = diag.WithHint(fmt.Errorf("cannot read the secret %s: %w", n.Missing[0], err), "%s", diag.Hint(err))
		}
	}
	return nil
}

// canDoWithout tells whether every step with a secret was converged before, so
// that it can be left as it is.
func (l *launch) canDoWithout() bool {
	return !slices.ContainsFunc(l.plan.Nodes, func(n *plan.Node) bool {
		return len(n.Secrets) > 0 && !l.stamps.Has(converge.Converged(n.ID), n.Key)
	})
}

// secretsPatience bounds reading all secrets, retries included.
const secretsPatience = 90 * time.Second

// saltFile holds a random key that never leaves the machine. Stamps of steps
// with secrets are made with it, so that they tell nothing of the secret.
const saltFile = StateDir + "/salt"

func (l *launch) salt(ctx context.Context) ([]byte, error) {
	b, err := l.host.ReadLimited(saltFile, 64)
	if err == nil && len(b) == 32 {
		return b, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read %s: %w", saltFile, err)
	}
	b = make([]byte, 32)
	_, _ = rand.Read(b) // never fails, says its documentation
	if l.dry {
		return b, nil
	}
	if err := l.host.WriteFile(ctx, host.File{Path: saltFile, Data: bytes.NewReader(b), Mode: 0o600, UID: host.Keep, GID: host.Keep}); err != nil {
		return nil, fmt.Errorf("cannot keep %s: %w", saltFile, err)
	}
	return b, nil
}
