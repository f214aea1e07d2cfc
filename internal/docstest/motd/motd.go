// Package motd is the smallest kind that is one: messages shown at login.
// CONTRIBUTING.md shows it as the way to add a kind; the agent does not list it.
package motd

import (
	"context"
	_ "embed"
	"fmt"
	"strings"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/step"
)

//go:embed example.yaml
var example string

// Kind is the kind "motd".
func Kind() step.Kind {
	return step.Kind{
		Name:    "motd",
		Doc:     "Messages shown at login, in /etc/motd.d.",
		Level:   step.LevelFiles,
		New:     func() step.Step { return new(Message) },
		Example: example,
	}
}

// Message is one message.
type Message struct {
	name string

	// Text is what it says.
	Text string `yaml:"text"`
}

// SetName gives the message its name in the manifest.
func (m *Message) SetName(name string) { m.name = name }

// Validate records faults by field name.
func (m *Message) Validate(at diag.At) {
	if strings.Contains(m.name, "/") {
		at.Errorf("%q is a path, not a name", m.name)
	}
	if m.Text == "" {
		at.Field("text").Errorf("must be given")
	}
}

func (m *Message) path() string { return "/etc/motd.d/" + m.name }

// Check looks and never writes.
func (m *Message) Check(_ context.Context, env step.Env) (step.Drift, error) {
	have, err := env.Host.ReadLimited(m.path(), 64<<10)
	switch {
	case host.Missing(err):
		return "is missing", nil
	case err != nil:
		return "", fmt.Errorf("cannot read %s: %w", m.path(), err)
	case string(have) != m.Text+"\n":
		return "text differs", nil
	}
	return "", nil
}

// Apply writes the file whole, by rename: cut off at any point, it may be repeated.
func (m *Message) Apply(ctx context.Context, env step.Env) error {
	if err := env.Host.MkdirAll("/etc/motd.d"); err != nil {
		return err
	}
	return env.Host.WriteFile(ctx, host.File{
		Path: m.path(), Data: strings.NewReader(m.Text + "\n"), Mode: 0o644, UID: host.Keep, GID: host.Keep,
	})
}
