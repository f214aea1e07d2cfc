package config_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/amiagent/amiagent/internal/channel"
	"github.com/amiagent/amiagent/internal/config"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
)

func read(t *testing.T, text string) (config.Config, error) {
	t.Helper()
	root := t.TempDir()
	h, err := host.New(root, host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if text != "" {
		_ = os.MkdirAll(filepath.Join(root, "etc/amiagent"), 0o755)
		if err := os.WriteFile(filepath.Join(root, config.Path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return config.Read(h)
}

func TestWithoutAFileTheDefaultsServe(t *testing.T) {
	got, err := read(t, "")
	if diff := cmp.Diff(config.Default(), got); err != nil || diff != "" {
		t.Error(err, diff)
	}
	if got.Deadline != 15*time.Minute || got.Health.Port != 8099 {
		t.Errorf("%+v", got)
	}
}

func TestAWholeFile(t *testing.T) {
	got, err := read(t, `
amiagent: 1
layers:
  - /etc/base.yaml
  - s3://b/{{ tag "Role" }}.yaml?versionId=7
  - {source: "ssm:/m", optional: true, digest: "sha256:00"}
deadline: 5m
reboots: 0
health: {port: 9000}
console: false
`)
	want := config.Default()
	want.Layers = []config.Layer{{Source: "/etc/base.yaml"}, {Source: `s3://b/{{ tag "Role" }}.yaml?versionId=7`}, {Source: "ssm:/m", Optional: true, Digest: "sha256:00"}}
	want.Deadline, want.Reboots, want.Health.Port, want.Console = 5*time.Minute, 0, 9000, false
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

func TestEveryFaultAtOnce(t *testing.T) {
	_, err := read(t, "layers: []\ndeadlnie: 5m\ndeadline: 10ms\nhealth: {port: 99999}\nparallel: 0\nreboots: -1\npatience: 0s\n")
	want := `/etc/amiagent/agent.yaml:1:1: no configuration version
    hint: begin the file with the line: amiagent: 1
/etc/amiagent/agent.yaml:1:9: layers: names no layer, so there would be no manifest
/etc/amiagent/agent.yaml:2:1: deadlnie: unknown key, did you mean "deadline"?
/etc/amiagent/agent.yaml:3:11: deadline: must be at least 1s, is 10ms
/etc/amiagent/agent.yaml:4:16: health.port: must be a port from 1 to 65535, is 99999
/etc/amiagent/agent.yaml:5:11: parallel: must be from 1 to 64, is 0
/etc/amiagent/agent.yaml:6:10: reboots: must not be negative, is -1
/etc/amiagent/agent.yaml:7:11: patience: must be at least 100ms, is 0s`
	if err == nil || err.Error() != want {
		t.Errorf("got:\n%v\nwant:\n%s", err, want)
	}
	for text, want := range map[string]string{
		"amiagent: 2\n":                   "/etc/amiagent/agent.yaml:1:11: amiagent: configuration version 2 is not known, this agent reads version 1",
		"amiagent: 1\nlayers: [{}]\n":     "/etc/amiagent/agent.yaml:2:10: layers[0]: a layer needs a source",
		"amiagent: 1\nlayers: [{x: 1}]\n": "/etc/amiagent/agent.yaml:2:10: layers[0]: a layer needs a source\n/etc/amiagent/agent.yaml:2:11: layers[0].x: unknown key, known are digest, optional, source",
	} {
		if _, err := read(t, text); err == nil || err.Error() != want {
			t.Errorf("%q:\n%v\nwant\n%s", text, err, want)
		}
	}
}

// The example that the packages install is a configuration.
func TestTheShippedExampleParses(t *testing.T) {
	b, err := os.ReadFile("../../packaging/etc/agent.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var list diag.List
	config.Parse("agent.yaml", b, &list)
	if err := list.Err(); err != nil {
		t.Error(err)
	}
}

func TestAChannel(t *testing.T) {
	got, err := read(t, "amiagent: 1\nchannel: s3://acme/{{ tag \"amiagent:channel\" \"stable\" }}.yaml\non-candidate-failure: stable\n")
	if err != nil || got.Channel != `s3://acme/{{ tag "amiagent:channel" "stable" }}.yaml` || got.OnCandidateFailure != channel.FallBack {
		t.Errorf("%+v, %v", got, err)
	}
	for text, want := range map[string]string{
		"amiagent: 1\non-candidate-failure: stable\n":                  "/etc/amiagent/agent.yaml:2:23: on-candidate-failure: has no meaning without channel:",
		"amiagent: 1\nchannel: /c.yaml\non-candidate-failure: never\n": `/etc/amiagent/agent.yaml:3:23: on-candidate-failure: must be stable or fail, is "never"`,
	} {
		if _, err := read(t, text); err == nil || err.Error() != want {
			t.Errorf("%q:\n%v\nwant\n%s", text, err, want)
		}
	}
}
