package agent_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/amiagent/amiagent/agent"
	"github.com/amiagent/amiagent/internal/config"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/ec2sim"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/layers"
	"github.com/amiagent/amiagent/internal/report"
	"github.com/amiagent/amiagent/internal/sink"
	"github.com/amiagent/amiagent/internal/step/steptest"
)

// machine is a scratch tree with an EC2 around it and fake programs on its
// PATH. Its first layer is the object s3://acme/manifest.yaml.
type machine struct {
	*ec2sim.Sim
	t    *testing.T
	root string
	bin  string
	env  map[string]string
	cfg  config.Config
}

// newMachine is a machine whose manifest is the text given. Programs are shell scripts by name.
func newMachine(t *testing.T, manifest string, programs map[string]string) *machine {
	t.Helper()
	base := t.TempDir()
	m := &machine{t: t, root: filepath.Join(base, "root"), bin: filepath.Join(base, "bin"), env: map[string]string{}, cfg: config.Default()}
	m.Sim = ec2sim.New(ec2sim.Config{Tags: map[string]string{"Role": "web"}, TagsInIMDS: true})
	srv, err := m.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Close() })
	for _, kv := range srv.Env() {
		k, v, _ := strings.Cut(kv, "=")
		m.env[k] = v
	}
	steptest.FakePrograms(t, m.bin, programs)
	m.write("/etc/os-release", "ID=debian\nVERSION_ID=12\n")
	m.write("/etc/machine-id", "6d1e0f2a3b4c5d6e7f8091a2b3c4d5e6\n")
	m.write("/etc/group", "root:x:0:\namiagent-health:x:998:\n")
	m.write("/proc/sys/kernel/random/boot_id", "0b5e7a52-43d1-4d2c-9a61-7f3f1e9a0001\n")
	m.write("/proc/uptime", "3600.00 7200.00\n")
	m.cfg.Layers = []config.Layer{{Source: "s3://acme/manifest.yaml"}}
	m.cfg.Patience = 300 * time.Millisecond
	m.manifest(manifest)
	return m
}

// manifest replaces the manifest.
func (m *machine) manifest(text string) { m.PutObject("acme", "manifest.yaml", []byte(text)) }

func (m *machine) path(name string) string { return filepath.Join(m.root, name) }

func (m *machine) write(name, text string) {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Dir(m.path(name)), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(m.path(name), []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// read is a file's text; "" when there is none.
func (m *machine) read(name string) string {
	b, _ := os.ReadFile(m.path(name))
	return string(b)
}

func (m *machine) remove(name string) {
	m.t.Helper()
	if err := os.RemoveAll(m.path(name)); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) options() agent.Options {
	return agent.Options{
		Root: m.root, Version: "test", Command: "apply", Config: &m.cfg,
		Host: host.Options{Programs: host.Outside, Path: m.bin + ":/usr/sbin:/usr/bin:/sbin:/bin"},
		Env:  func(name string) (string, bool) { v, ok := m.env[name]; return v, ok },
	}
}

func (m *machine) agent(change ...func(*agent.Options)) *agent.Agent {
	m.t.Helper()
	opt := m.options()
	for _, c := range change {
		c(&opt)
	}
	a, err := agent.New(opt)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(a.Close)
	return a
}

func (m *machine) apply(change ...func(*agent.Options)) (report.Report, error) {
	m.t.Helper()
	return m.agent(change...).Apply(m.t.Context())
}

// converged applies, and wants these steps to be other than as wanted before.
func (m *machine) converged(want string, change ...func(*agent.Options)) report.Report {
	m.t.Helper()
	rep, err := m.apply(change...)
	if err != nil {
		m.t.Fatalf("apply: %v | %s", err, diag.Hint(err))
	}
	if got := outline(rep); got != want {
		m.t.Errorf("apply:\ngot  %s\nwant %s", got, want)
	}
	return rep
}

// outline lists the steps that are not simply ok.
func outline(rep report.Report) string {
	var parts []string
	for _, s := range rep.Steps {
		if s.Outcome != report.OK {
			parts = append(parts, s.ID+" "+string(s.Outcome))
		}
	}
	return strings.Join(parts, "; ")
}

// documents are a manifest that is given by hand.
func documents(text string) func(*agent.Options) {
	return func(o *agent.Options) {
		o.Documents = []layers.Document{{Source: "m.yaml", File: "m.yaml", Data: []byte(text), Origin: "m.yaml"}}
	}
}

// daemon is an agent that runs.
type daemon struct {
	*agent.Agent
	m     *machine
	news  *news
	stop  context.CancelFunc
	ended chan error
}

func (m *machine) run() *daemon {
	m.t.Helper()
	d := &daemon{m: m, news: &news{}, ended: make(chan error, 1)}
	d.Agent = m.agent(func(o *agent.Options) { o.Command, o.Sinks = "run", []sink.Sink{d.news} })
	ctx, stop := context.WithCancel(context.Background())
	d.stop = stop
	go func() { d.ended <- d.Run(ctx) }()
	m.t.Cleanup(stop)
	return d
}

// end stops the daemon and waits for it.
func (d *daemon) end() error {
	d.stop()
	return d.wait()
}

func (d *daemon) wait() error {
	d.m.t.Helper()
	select {
	case err := <-d.ended:
		return err
	case <-time.After(10 * time.Second):
		d.m.t.Fatal("the daemon does not end")
		return nil
	}
}

// until waits until the status file says so.
func (d *daemon) until(what string, holds func(report.Status) bool) report.Status {
	d.m.t.Helper()
	var s report.Status
	for begin := time.Now(); time.Since(begin) < 10*time.Second; time.Sleep(5 * time.Millisecond) {
		if s = d.m.status(); holds(s) {
			return s
		}
	}
	d.m.t.Fatalf("not %s: %+v", what, s)
	return s
}

func (d *daemon) untilState(want report.State) report.Status {
	d.m.t.Helper()
	return d.until(string(want), func(s report.Status) bool { return s.State == want })
}

func (m *machine) status() report.Status {
	var s report.Status
	_ = json.Unmarshal([]byte(m.read(report.StatusPath)), &s)
	return s
}

// news is a sink that keeps what it is told.
type news struct {
	mu   sync.Mutex
	told []string
}

func (n *news) Name() string { return "news" }

func (n *news) Send(_ context.Context, e sink.Event) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	text := string(e.Kind)
	if e.Reload {
		text = "reload " + text
	}
	if e.Kind != sink.Progress {
		n.told = append(n.told, text)
	}
	return nil
}

func (n *news) all() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.told, ", ")
}

// archive is a tar of files with these texts.
func archive(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(files[name])), ModTime: time.Unix(1700000000, 0)}); err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write([]byte(files[name]))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// tree is every entry below the root with its kind, mode and content, apart
// from what differs between two runs by its nature: times, random keys, accounts of runs.
func (m *machine) tree() []string {
	m.t.Helper()
	var lines []string
	err := filepath.WalkDir(m.root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(name, m.root)
		for _, own := range []string{"/var/lib/amiagent/journal", "/var/lib/amiagent/reports", "/var/lib/amiagent/stamps",
			"/var/lib/amiagent/salt", "/var/lib/amiagent/store/ref", "/var/lib/amiagent/kept", "/run", "/proc"} {
			if strings.HasPrefix(rel, own) {
				return nil
			}
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		line := fmt.Sprintf("%s %s", rel, st.Mode())
		switch {
		case d.Type() == fs.ModeSymlink:
			to, err := os.Readlink(name)
			if err != nil {
				return err
			}
			line += " -> " + to
		case d.Type().IsRegular():
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %x", sha256.Sum256(b))
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return lines
}
