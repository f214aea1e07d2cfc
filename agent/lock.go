package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/amiagent/amiagent/internal/config"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/fetch"
	"github.com/amiagent/amiagent/internal/layers"
	"github.com/amiagent/amiagent/internal/lock"
	"github.com/amiagent/amiagent/internal/plan"
	"github.com/amiagent/amiagent/internal/render"
	"github.com/amiagent/amiagent/internal/sign"
)

// held is the lock of a launch, and what it says for this machine.
type held struct {
	*lock.Lock
	doc     layers.Document
	target  string
	resolve lock.Resolver
}

// readLock reads the lock that is to be heeded: the one given, that of the
// channel, or that of agent.yaml. A machine with none of them is not locked.
func (l *launch) readLock(ctx context.Context) error {
	var doc layers.Document
	var err error
	switch {
	case l.opt.Lock != nil:
		doc = *l.opt.Lock
	case l.cfg.Channel != "":
		doc, err = l.chooseLock(ctx)
	case l.cfg.Lock != nil:
		doc, err = l.configuredLock(ctx)
	default:
		return nil
	}
	if err != nil {
		return err
	}
	return l.hold(doc)
}

func (l *launch) configuredLock(ctx context.Context) (layers.Document, error) {
	opt, err := l.documents("lock")
	if err != nil {
		return layers.Document{}, err
	}
	docs, notes, err := layers.Resolve(ctx, []config.Layer{{Source: l.cfg.Lock.Source, Digest: l.cfg.Lock.Digest}}, opt)
	for _, n := range notes {
		l.rec.Note(n)
	}
	switch {
	case err != nil:
		return layers.Document{}, err
	case len(docs) != 1:
		return layers.Document{}, fmt.Errorf("cannot read the lock %s: it is a folder, and a lock is one file", l.cfg.Lock.Source)
	}
	docs[0].Lock = true
	return docs[0], nil
}

// hold takes a document as the lock of this launch.
func (l *launch) hold(doc layers.Document) error {
	var list diag.List
	parsed := lock.Parse(doc.File, doc.Data, &list)
	if err := list.Err(); err != nil {
		return err
	}
	h := &held{Lock: parsed, doc: doc, target: lock.TargetOf(l.facts)}
	var err error
	if h.resolve, err = parsed.For(h.target); err != nil {
		return err
	}
	l.lock = h
	return nil
}

// holdLayers refuses layers that the lock does not have. Where some of them,
// or the lock, are copies that were kept, and fit no longer what is fresh, all
// that was kept serves: it is what this instance converged on.
func (l *launch) holdLayers() error {
	if l.lock == nil {
		return nil
	}
	role, notes, err := l.lock.Layers(l.lock.target, found(l.docs), l.floating())
	if err != nil && (l.lock.doc.Kept || slices.ContainsFunc(l.docs, func(d layers.Document) bool { return d.Kept })) {
		if docs, h := l.lastGood(); h != nil {
			l.docs, l.lock = docs, h
			if role, notes, err = h.Layers(h.target, found(docs), l.floating()); err == nil {
				l.rec.Note("what could be read does not fit together, so the lock and the layers of the last good launch serve")
			}
		}
	}
	if err != nil {
		return err
	}
	for _, n := range notes {
		l.rec.Note(n)
	}
	as := l.lock.target
	if role != as {
		as += ", role " + role
	}
	l.rec.Note(fmt.Sprintf("held by the lock %s (%s) for %s", l.lock.doc.File, l.lock.doc.Digest(), as))
	return nil
}

func (l *launch) floating() bool { return l.cfg.Lock != nil && l.cfg.Lock.Floating == config.Allow }

// lastGood is the kept lock with the layers kept beside it; nil when there is none.
func (l *launch) lastGood() ([]layers.Document, *held) {
	var docs []layers.Document
	var lockDoc *layers.Document
	for _, d := range l.kept {
		d.Kept = true
		if d.Lock {
			lockDoc = &d
		} else {
			docs = append(docs, d)
		}
	}
	if lockDoc == nil || len(docs) == 0 || l.opt.Lock != nil || l.opt.Documents != nil {
		return nil, nil
	}
	if l.choice != nil && l.choice.Channel.Lock != lockDoc.Digest() {
		return nil, nil // it converged on another lock than the one it was told to advance to
	}
	before := l.lock
	defer func() { l.lock = before }()
	if l.hold(*lockDoc) != nil {
		return nil, nil
	}
	return docs, l.lock
}

// found is what layers are to a lock.
func found(docs []layers.Document) []lock.Found {
	all := make([]lock.Found, len(docs))
	for i, d := range docs {
		all[i] = lock.Found{Source: lockName(d.Source), Digest: d.Digest(), Varies: d.Varies}
	}
	return all
}

// lockName is an address as locks have it: an object of S3 is the same through
// whichever endpoint.
func lockName(source string) string {
	if a, err := fetch.Parse(source); err == nil && a.Kind == fetch.KindS3 {
		return a.String()
	}
	return source
}

// toKeep are the documents that a later boot needs if nothing can be read then.
func (l *launch) toKeep() []layers.Document {
	if l.lock == nil || !l.lock.doc.Lock {
		return l.docs
	}
	return append(slices.Clone(l.docs), l.lock.doc)
}

// resolver is what the plan asks; nil without a lock.
func (l *launch) resolver() lock.Resolver {
	if l.lock == nil {
		return nil
	}
	return l.lock.resolve
}

// unlocked tells a failed fetch of a locked step as what it is: other bytes
// than the lock's, with what to run if they are meant.
func (l *launch) unlocked(n *plan.Node, err error) error {
	if l.lock == nil || !n.Locked() || !errors.Is(err, fetch.ErrDigest) && !errors.Is(err, fetch.ErrSize) {
		return err
	}
	return diag.WithHint(fmt.Errorf("%w: %w", lock.ErrRefused, err), "%s, in the lock too; %s", diag.Hint(err), lock.Hint(n.ID))
}

// documents are the options for reading documents of this launch: layers, and the lock.
func (l *launch) documents(what string) (layers.Options, error) {
	trusted, err := l.trusted()
	if err != nil {
		return layers.Options{}, err
	}
	signed := trusted
	if trusted != nil {
		signed = func(name string, data, signature []byte) error {
			// The signature beside it is that of another version; the lock, itself trusted, names these bytes.
			if slices.Contains(l.moved, layers.Document{Data: data}.Digest()) {
				return nil
			}
			return trusted(name, data, signature)
		}
	}
	scope := render.New(l.facts, l.opt.Env)
	return layers.Options{
		Host: l.host,
		What: what,
		Fill: func(address string) (string, error) {
			s, _, err := scope.String(address, diag.Pos{File: config.Path})
			return s, err
		},
		Varies: func(address string) bool {
			_, reads, err := scope.String(address, diag.Pos{File: config.Path})
			return err == nil && slices.ContainsFunc(reads, func(r render.Read) bool { return r.Stage == facts.Launch })
		},
		Remote: func(ctx context.Context, address string, limit int64) ([]byte, string, error) {
			b, origin, err := l.document(ctx, address, limit)
			if errors.Is(err, fetch.ErrAbsent) {
				err = absent{err}
			}
			if err == nil {
				b, origin = l.asLocked(ctx, address, limit, b, origin)
			}
			return b, origin, err
		},
		Parameter: l.parameter,
		UserData:  l.userData,
		Signed:    signed,
		Kept:      l.kept,
		Patience:  l.cfg.Patience,
	}, nil
}

// absent is an error of a source that says that there is no such thing.
type absent struct{ error }

func (a absent) Unwrap() error { return a.error }

func (absent) Is(target error) bool { return target == fs.ErrNotExist }

// trusted holds documents from outside against the keys of this machine; nil
// when it has none, and whoever can write to their source is trusted.
func (a *Agent) trusted() (func(name string, data, signature []byte) error, error) {
	ring, err := sign.Trusted(a.host)
	if err != nil || len(ring) == 0 {
		return nil, err
	}
	return func(name string, data, signature []byte) error {
		_, err := ring.Verify(name, data, signature)
		return err
	}, nil
}

// signedDocument reads a document that is no layer, as a channel, through the
// same sources; where this machine trusts keys, only with its signature.
func (l *launch) signedDocument(ctx context.Context, what, address string) (layers.Document, error) {
	opt, err := l.documents(what)
	if err != nil {
		return layers.Document{}, err
	}
	opt.Kept, opt.Fill = nil, func(address string) (string, error) { return address, nil }
	docs, _, err := layers.Resolve(ctx, []config.Layer{{Source: address}}, opt)
	if err != nil {
		return layers.Document{}, err
	}
	return docs[0], nil
}
