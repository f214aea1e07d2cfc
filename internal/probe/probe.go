// Package probe asks a machine whether it does its work: over HTTP, at a TCP
// port, of systemd, by a program or by a file.
//
// Before READY every probe is tried until it holds or its patience ends
// (Prove). Afterwards the same probes go on for the agent's life (Watch), where
// a single bad answer is not yet news.
//
// A probe's name in the manifest is its kind, or any name when `type` says the kind.
package probe

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/amiagent/amiagent/internal/decode"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
)

// Env is what a probe may use.
type Env struct {
	Host *host.Host
	// UnitState is a unit's ActiveState in systemd's words. Nil where there is no systemd.
	UnitState func(ctx context.Context, unit string) (string, error)
}

// Body is what a kind of probe asks.
type Body interface {
	// Validate records faults by field name; values that hold template text are not judged.
	Validate(at diag.At)
	// Try asks once and changes nothing. The error says what was asked, what
	// came and what was wanted. When ctx ends it returns at once.
	Try(ctx context.Context, env Env) error
	timing() *Timing
}

// Timing is what all kinds have in common.
type Timing struct {
	Type    string        `yaml:"type"`    // the kind, where the name is another word
	Within  time.Duration `yaml:"within"`  // patience in all before READY, For included; default 60s
	Every   time.Duration `yaml:"every"`   // between two tries; default 1s
	For     time.Duration `yaml:"for"`     // must hold this long without a break; default: once is enough
	Timeout time.Duration `yaml:"timeout"` // of one try; default 5s
	Fall    int           `yaml:"fall"`    // bad tries in a row that turn a ready machine; default 2
	Rise    int           `yaml:"rise"`    // good tries in a row that turn it back; default 1
}

func (t *Timing) timing() *Timing { return t }

// Probe is one question and when to ask it, as made by Decode.
type Probe struct {
	Name string
	Kind string
	Timing
	Body Body
}

// kind is one sort of probe.
type kind struct {
	name string
	new  func() Body
}

// kinds is the list of kinds: a new one is a file and a line.
func kinds() []kind {
	return []kind{
		{"exec", func() Body { return &execBody{} }},
		{"file", func() Body { return &fileBody{} }},
		{"http", func() Body { return &httpBody{} }},
		{"tcp", func() Body { return &tcpBody{} }},
		{"unit", func() Body { return &unitBody{State: "active"} }},
	}
}

// Kinds are the names of all kinds, sorted.
func Kinds() []string {
	var names []string
	for _, k := range kinds() {
		names = append(names, k.name)
	}
	return names
}

// Decode reads and validates one entry. Faults go to at; the probe counts only when there is none.
func Decode(name string, n *yaml.Node, at diag.At) Probe {
	p := Probe{Name: name, Kind: name}
	where := at
	keys, values := decode.Pairs(n, diag.At{}) // the faults of n are told once, by Into
	for i, k := range keys {
		if k.Value == "type" && values[i].Kind == yaml.ScalarNode {
			p.Kind, where = values[i].Value, at.Field("type")
		}
	}
	for _, k := range kinds() {
		if k.name == p.Kind {
			p.Body = k.new()
		}
	}
	if p.Body == nil {
		where.Errorf("%q is no kind of probe, known are %s; an entry of another name says its kind with type", p.Kind, strings.Join(Kinds(), ", "))
		return p
	}
	*p.Body.timing() = Timing{Within: time.Minute, Every: time.Second, Timeout: 5 * time.Second, Fall: 2, Rise: 1}
	decode.Into(n, p.Body, at)
	p.Timing = *p.Body.timing()
	p.Timing.validate(at)
	p.Body.Validate(at)
	return p
}

func (t Timing) validate(at diag.At) {
	for _, f := range []struct {
		name         string
		value, least time.Duration
	}{{"within", t.Within, time.Millisecond}, {"every", t.Every, 10 * time.Millisecond}, {"for", t.For, 0}, {"timeout", t.Timeout, time.Millisecond}} {
		if f.value < f.least {
			at.Field(f.name).Errorf("must be at least %s, is %s", f.least, f.value)
		}
	}
	if t.For >= t.Within && t.For > 0 {
		at.Field("for").Errorf("must be shorter than within (%s), is %s", t.Within, t.For)
	}
	for _, f := range []struct {
		name  string
		value int
	}{{"fall", t.Fall}, {"rise", t.Rise}} {
		if f.value < 1 {
			at.Field(f.name).Errorf("must be at least 1, is %d", f.value)
		}
	}
}

// Try asks once, within the probe's timeout. The error is a sentence; it may
// quote a program's last line of output, so it is redacted before it is shown.
func (p Probe) Try(ctx context.Context, env Env) error {
	ctx, cancel := context.WithTimeoutCause(ctx, p.Timeout, noAnswer(p.Timeout))
	defer cancel()
	return p.Body.Try(ctx, env)
}

// noAnswer is the cause of a try that took too long.
type noAnswer time.Duration

func (n noAnswer) Error() string { return fmt.Sprintf("no answer within %s", time.Duration(n)) }

// because prefers the reason why ctx ended to the error that came of it.
func because(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
