package agent_test

import (
	"context"
	"strings"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/step"
)

// greetings is a kind as short as one can be: files of one line below /etc/greetings.
func greetings() step.Kind {
	return step.Kind{Name: "greetings", Level: step.LevelFiles, New: func() step.Step { return new(greeting) }}
}

type greeting struct {
	name string
	Text string `yaml:"text"`
}

func (g *greeting) SetName(name string) { g.name = name }

func (g *greeting) Validate(at diag.At) {
	if g.Text == "" {
		at.Field("text").Errorf("must be given")
	}
}

func (g *greeting) path() string { return "/etc/greetings/" + g.name }

func (g *greeting) Check(_ context.Context, env step.Env) (step.Drift, error) {
	b, err := env.Host.ReadFile(g.path())
	switch {
	case host.Missing(err):
		return "is missing", nil
	case err != nil:
		return "", err
	case string(b) != g.Text:
		return "says something else", nil
	}
	return "", nil
}

func (g *greeting) Apply(ctx context.Context, env step.Env) error {
	if err := env.Host.MkdirAll("/etc/greetings"); err != nil {
		return err
	}
	return env.Host.WriteFile(ctx, host.File{Path: g.path(), Data: strings.NewReader(g.Text), Mode: 0o644, UID: host.Keep, GID: host.Keep})
}
