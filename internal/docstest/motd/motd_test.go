package motd

import (
	"testing"

	"github.com/amiagent/amiagent/internal/step/steptest"
)

func TestMessages(t *testing.T) {
	steptest.Run(t, Kind(), []steptest.Case{{
		Name: "a new message", Entry: "owner", Body: "{text: hello}",
		Drift: "is missing",
		Want:  "/etc/ 0755\n/etc/motd.d/ 0755\n/etc/motd.d/owner 0644 \"hello\\n\"",
		Breaks: []steptest.Break{{
			Name: "edited by hand", Drift: "text differs",
			Do: func(m *steptest.Machine) { m.Write("/etc/motd.d/owner", 0o644, "bye\n") },
		}},
	}})
	steptest.Faults(t, Kind(), []steptest.Fault{
		{Name: "no text", Entry: "owner", Body: "{}", Want: "manifest.yaml:1:1: motd.owner.text: must be given"},
		{Name: "a path", Entry: "a/b", Body: "{text: hello}", Want: `manifest.yaml:1:1: motd.a/b: "a/b" is a path, not a name`},
	})
}
