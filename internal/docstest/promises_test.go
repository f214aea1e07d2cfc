package docstest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/agent"
	"github.com/amiagent/amiagent/internal/config"
	"github.com/amiagent/amiagent/internal/docstest/motd"
	"github.com/amiagent/amiagent/internal/ec2sim"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/sink"
	"github.com/amiagent/amiagent/internal/step"
	"github.com/amiagent/amiagent/internal/step/kinds"
)

// launch is an instance on a local EC2, and what its agent is to be.
type launch struct {
	sim  *ec2sim.Sim
	root string
	opt  agent.Options
}

func instance(t *testing.T, layers ...string) *launch {
	t.Helper()
	sim := ec2sim.New(ec2sim.Config{TagsInIMDS: true, Tags: map[string]string{"Role": "web"}})
	srv, err := sim.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Close() })
	env := map[string]string{}
	for _, kv := range srv.Env() {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	l := &launch{sim: sim, root: t.TempDir()}
	l.write(t, "etc/machine-id", "6d1e0f2a3b4c5d6e7f8091a2b3c4d5e6\n")
	cfg := config.Default()
	cfg.Layers, cfg.Console = nil, false
	for _, source := range layers {
		cfg.Layers = append(cfg.Layers, config.Layer{Source: source})
	}
	l.opt = agent.Options{Root: l.root, Version: "test", Config: &cfg, Host: host.Options{Programs: host.Outside},
		Env: func(name string) (string, bool) { v, ok := env[name]; return v, ok }}
	return l
}

func (l *launch) write(t *testing.T, name, text string) {
	t.Helper()
	name = filepath.Join(l.root, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// news keeps the kinds of events and calls end after READY.
type news struct {
	kinds []sink.Kind
	end   func()
}

func (n *news) Name() string { return "news" }

func (n *news) Send(_ context.Context, e sink.Event) error {
	n.kinds = append(n.kinds, e.Kind)
	if e.Kind == sink.Ready {
		n.end()
	}
	return nil
}

// liar says that it has applied, and has not.
type liar struct {
	motd.Message `yaml:",inline"`
}

func (l *liar) Apply(context.Context, step.Env) error { return nil }

// A launch is READY only when each step, looked at again, and each probe hold. This
// is also a kind of somebody else's in a launch: one folder and one line in the list.
func TestReadyMeansChecked(t *testing.T) {
	lying := motd.Kind()
	lying.New = func() step.Step { return new(liar) }
	const message = "amiagent: 1\nmotd: {owner: {text: hello}}\n"
	for _, c := range []struct {
		name, manifest string
		kind           step.Kind
		ready          bool
		cause          string
	}{
		{"all is as wanted", message, motd.Kind(), true, ""},
		{"a step that only says so", message, lying, false, "motd.owner: applied but still differs: is missing"},
		{"a probe that does not hold", message + "ready: {file: {path: /nowhere, within: 20ms, every: 10ms}}\n", motd.Kind(), false, "/nowhere"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := instance(t, "/etc/web.yaml")
			l.write(t, "etc/web.yaml", c.manifest)
			l.opt.Kinds = append(kinds.All(), c.kind)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			heard := &news{end: cancel}
			l.opt.Sinks = []sink.Sink{heard}
			a, err := agent.New(l.opt)
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			err = a.Run(ctx)
			if got := slices.Contains(heard.kinds, sink.Ready); got != c.ready {
				t.Errorf("READY is %v; news were %v", got, heard.kinds)
			}
			if c.ready {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, agent.ErrFailed) || !strings.Contains(err.Error(), c.cause) || !slices.Contains(heard.kinds, sink.Failed) {
				t.Errorf("error is %v; news were %v", err, heard.kinds)
			}
		})
	}
}

// With tags in metadata and everything in S3, a fleet that launches at once
// meets no limit of a control plane's API.
func TestALaunchAsksNoControlPlane(t *testing.T) {
	l := instance(t, `s3://acme/{{ tag "Role" }}.yaml`)
	l.sim.PutObject("acme", "web.yaml", []byte("amiagent: 1\nartifacts: {site: {source: s3://acme/site.tar, unpack: /srv/site}}\n"))
	l.sim.PutObject("acme", "site.tar", archive(t, "index.html", "hello"))
	a, err := agent.New(l.opt)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if _, err := a.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(l.root, "srv/site/index.html")); err != nil {
		t.Error(err)
	}
	if n := l.sim.Count("s3", "GetObject"); n != 2 {
		t.Errorf("%d objects were read, want 2", n)
	}
	for _, r := range l.sim.Requests() {
		if r.Service != "imds" && r.Service != "s3" {
			t.Errorf("a launch asked %v", r)
		}
	}
}

func archive(t *testing.T, name, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}), write(w, text), w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func write(w *tar.Writer, text string) error {
	_, err := w.Write([]byte(text))
	return err
}
