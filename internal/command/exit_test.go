package command

import (
	"errors"
	"fmt"
	"testing"

	"github.com/amiagent/amiagent/agent"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/fetch"
	"github.com/amiagent/amiagent/internal/layers"
)

// cloud-init 23.4 made a warning exit with 2, and broke whoever looked at the
// code. Scripts may rely on these numbers for ever: a change of this table is a
// change for every user.
func TestPeersTrap14_ExitCodesNeverChange(t *testing.T) {
	var faults diag.List
	faults.Add(diag.Problem{Message: "unknown key"})
	wrapped := func(err error) error {
		return diag.WithHint(fmt.Errorf("%w: artifacts.app: %w", agent.ErrFailed, err), "look")
	}
	for _, c := range []struct {
		what string
		err  error
		want int
	}{
		{"done", nil, 0},
		{"told to do nothing", fmt.Errorf("%w: amiagent=off is on the kernel command line", agent.ErrDisabled), 0},
		{"a step failed", wrapped(errors.New("exited with 3")), 1},
		{"another convergence is under way", agent.ErrBusy, 1},
		{"a reboot is needed", agent.ErrReboot, 1},
		{"anything else", errors.New("out of luck"), 1},
		{"a mistake in the command line", usage{errors.New("unknown flag")}, 2},
		{"a faulty document", faults.Err(), 2},
		{"a faulty document, wrapped", fmt.Errorf("cannot reload: %w", faults.Err()), 2},
		{"a layer's address", fmt.Errorf("%w the layer s3://b/{{ x }}", layers.ErrAddress), 2},
		{"no manifest", fmt.Errorf("%w: none of the layers has one", layers.ErrNone), 2},
		{"drift", exit{ExitDrift}, 3},
		{"not ready", exit{ExitNotReady}, 4},
		{"too late", fmt.Errorf("%w: the launch took longer than 15m", agent.ErrDeadline), 5},
		{"too late, in a step", fmt.Errorf("%w (%w)", agent.ErrDeadline, wrapped(errors.New("x"))), 5},
		{"other bytes than asked for", wrapped(fmt.Errorf("%w: got sha256:1", fetch.ErrDigest)), 6},
		{"another size than asked for", wrapped(fetch.ErrSize), 6},
		{"another layer than asked for", layers.ErrDigest, 6},
	} {
		if got := code(c.err); got != c.want {
			t.Errorf("%s: exit code %d, want %d", c.what, got, c.want)
		}
	}
}
