package agent_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/amiagent/amiagent/agent"
	"github.com/amiagent/amiagent/internal/config"
	"github.com/amiagent/amiagent/internal/host"
)

// child is what a process that may be killed is told.
type child struct {
	Root, Path, Layer string
	Env               map[string]string
}

const childVariable = "AMIAGENT_TEST_CHILD"

// TestMain lets the test binary be an agent in a process of its own.
func TestMain(m *testing.M) {
	text, ok := os.LookupEnv(childVariable)
	if !ok {
		os.Exit(m.Run())
	}
	var c child
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		panic(err)
	}
	cfg := config.Default()
	cfg.Layers = []config.Layer{{Source: c.Layer}}
	a, err := agent.New(agent.Options{
		Root: c.Root, Version: "test", Command: "apply", Config: &cfg,
		Host: host.Options{Programs: host.Outside, Path: c.Path},
		Env:  func(name string) (string, bool) { v, ok := c.Env[name]; return v, ok },
	})
	if err == nil {
		_, err = a.Apply(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// process starts an agent that converges this machine in a process of its own.
func (m *machine) process() *exec.Cmd {
	m.t.Helper()
	b, err := json.Marshal(child{m.root, m.options().Host.Path, m.cfg.Layers[0].Source, m.env})
	if err != nil {
		m.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+string(b))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	return cmd
}

// crashing has something of everything that a scratch tree can hold.
const crashing = `amiagent: 1
artifacts:
  app: {source: 's3://acme/app-{{ tag "Release" }}.tar', unpack: /opt/app}
  tool: {source: s3://acme/tool, file: /usr/local/bin/tool, mode: "0755"}
files:
  /etc/app: {directory: true, mode: "0750"}
  /etc/app/app.conf: {template: 'release = {{ tag "Release" }}', check: [sh, -c, 'grep -q release "$AMIAGENT_ROOT$0"', "%s"]}
  /etc/app/key: {template: '{{ secret "ssm:/key" }}', mode: "0600"}
  /etc/app/current: {link: /opt/app}
  /etc/app/copy: {from: /opt/app/a}
  /etc/one: {content: one}
  /etc/two: {content: two}
  /etc/three: {base64: dGhyZWU=}
  /etc/old: {absent: true}
commands:
  cache: {run: [cache], creates: /var/cache/app}
  restart: {run: [restart], on-change: [files./etc/app/app.conf, artifacts.app]}
`

var crashPrograms = map[string]string{
	"cache": `mkdir -p "$AMIAGENT_ROOT/var/cache"; sleep 0.02; echo cached >"$AMIAGENT_ROOT/var/cache/app.new"; mv "$AMIAGENT_ROOT/var/cache/app.new" "$AMIAGENT_ROOT/var/cache/app"`,
	// What a restarted service has read: what is there when it starts.
	"restart": `sleep 0.01; cat "$AMIAGENT_ROOT/etc/app/app.conf" "$AMIAGENT_ROOT/opt/app/a" >"$AMIAGENT_ROOT/serving.new" && mv "$AMIAGENT_ROOT/serving.new" "$AMIAGENT_ROOT/serving"`,
}

func crashMachine(t *testing.T) *machine {
	m := newMachine(t, crashing, crashPrograms)
	m.write("/etc/old", "old")
	m.PutParameter("/key", "SecureString", "tr0ub4dor&3")
	m.PutObject("acme", "app-1.tar", archive(t, map[string]string{"a": "release 1", "b": strings.Repeat("b", 1<<20), "bin/c": "c"}))
	m.PutObject("acme", "app-2.tar", archive(t, map[string]string{"a": "release 2", "b": strings.Repeat("x", 1<<20), "d": "d"}))
	m.PutObject("acme", "tool", []byte(strings.Repeat("#!/bin/sh\n", 1000)))
	m.SetTag("Release", "1")
	return m
}

// Killed at any moment, the next run finishes, and the machine is the same as
// if nothing had happened: whole files and trees, nothing left over, and no
// restart lost. Ignition leaves a machine that its first boot has half made to
// its user (tracker 1970).
func TestPeersTrap13_ARunAfterAKillFinishes(t *testing.T) {
	undisturbed := func(release string) (tree []string, took time.Duration) {
		m := crashMachine(t)
		begin := time.Now()
		if err := m.process().Wait(); err != nil {
			t.Fatal(err)
		}
		took = time.Since(begin)
		if release != "1" {
			m.SetTag("Release", release)
			if err := m.process().Wait(); err != nil {
				t.Fatal(err)
			}
		}
		return m.tree(), took
	}
	first, took := undisturbed("1")
	second, _ := undisturbed("2")

	const rounds = 3 // machines; each is killed three times on its first launch and three on its second
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d, a launch takes %s", seed, took)
	dice := rand.New(rand.NewPCG(seed, 0))
	for range rounds {
		m := crashMachine(t)
		for _, stage := range []struct {
			release string
			want    []string
		}{{"1", first}, {"2", second}} {
			m.SetTag("Release", stage.release)
			for range 3 {
				p := m.process()
				time.Sleep(time.Duration(dice.Int64N(int64(took))))
				_ = p.Process.Kill()
				_ = p.Wait()
				whole(t, m)
			}
			if err := m.process().Wait(); err != nil {
				t.Fatalf("the run after the kills: %v", err)
			}
			same(t, m.tree(), stage.want)
			m.converged("")
		}
	}
}

// whole holds what must be true at every moment: what has its name is complete.
func whole(t *testing.T, m *machine) {
	t.Helper()
	for name, wants := range map[string][]string{
		"/etc/app/app.conf":   {"release = 1", "release = 2"},
		"/etc/app/key":        {"tr0ub4dor&3"},
		"/etc/three":          {"three"},
		"/opt/app/a":          {"release 1", "release 2"},
		"/opt/app/b":          {strings.Repeat("b", 1<<20), strings.Repeat("x", 1<<20)},
		"/usr/local/bin/tool": {strings.Repeat("#!/bin/sh\n", 1000)},
	} {
		// An absolute link leads outside the scratch root: follow it by hand.
		got := ""
		if rest, ok := strings.CutPrefix(name, "/opt/app/"); ok {
			to, err := os.Readlink(m.path("/opt/app"))
			if err != nil {
				continue
			}
			if strings.HasPrefix(to, "/") {
				got = m.read(to + "/" + rest)
			} else {
				got = m.read("/opt/" + to + "/" + rest)
			}
		} else if _, err := os.Stat(m.path(name)); err != nil {
			continue
		} else {
			got = m.read(name)
		}
		ok := false
		for _, w := range wants {
			ok = ok || got == w
		}
		if !ok {
			t.Errorf("after a kill %s has %d bytes: %.40q", name, len(got), got)
		}
	}
}

func same(t *testing.T, got, want []string) {
	t.Helper()
	have := map[string]bool{}
	for _, line := range got {
		have[line] = true
	}
	for _, line := range want {
		if !have[line] {
			t.Errorf("not after the kills: %s", line)
		}
		delete(have, line)
	}
	for line := range have {
		t.Errorf("only after the kills: %s", line)
	}
}
