package config_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/amiagent/amiagent/internal/config"
)

func TestWhereTheLockIs(t *testing.T) {
	for _, c := range []struct {
		text string
		want *config.Lock
	}{
		{"", nil},
		{"lock: /etc/amiagent/amiagent.lock\n", &config.Lock{Source: "/etc/amiagent/amiagent.lock"}},
		{`lock: 's3://acme/{{ tag "Role" }}.lock'` + "\n", &config.Lock{Source: `s3://acme/{{ tag "Role" }}.lock`}},
		{"lock: {source: 'ssm:/lock', digest: 'sha256:00', floating: allow}\n", &config.Lock{Source: "ssm:/lock", Digest: "sha256:00", Floating: config.Allow}},
	} {
		got, err := read(t, "amiagent: 1\n"+c.text)
		if diff := cmp.Diff(c.want, got.Lock); err != nil || diff != "" {
			t.Errorf("%s: %v %s", c.text, err, diff)
		}
	}
	for text, want := range map[string]string{
		"lock: {digest: x}\n":                     "agent.yaml:2:7: lock: a lock needs a source",
		"lock: user-data\n":                       "the lock cannot be in the user data",
		"lock: {source: /l, floating: perhaps}\n": `agent.yaml:2:30: lock.floating: must be refuse or allow, is "perhaps"`,
		"lock: {source: /l, folating: allow}\n":   `unknown key, did you mean "floating"?`,
	} {
		if _, err := read(t, "amiagent: 1\n"+text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
