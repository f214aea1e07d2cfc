package pin_test

import (
	"testing"

	"github.com/amiagent/amiagent/internal/step"
	"github.com/amiagent/amiagent/internal/step/pin"
)

func TestAWordIsLockedToTheReleaseItMeant(t *testing.T) {
	const locked = "2023.9.20251117"
	for release, want := range map[string]string{"latest": locked, "image": locked, "now": locked, locked: locked, "2023.8.20250715": "the manifest says release 2023.8.20250715, the lock has " + locked} {
		p := &pin.Pin{Release: release, By: "url", Repositories: map[string]string{"a": "b"}}
		in := p.Inputs()
		if len(in) != 1 || in[0].Kind != step.Release || in[0].Want != release {
			t.Errorf("%s: inputs are %v", release, in)
		}
		got := ""
		if err := p.Lock(in[0], step.Resolution{Version: locked}); err != nil {
			got = err.Error()
		} else {
			got = p.Release
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", release, got, want)
		}
		if by, repos := p.Holds(); by != "url" || len(repos) != 1 {
			t.Error(by, repos)
		}
	}
	if in := (&pin.Pin{HoldOff: []string{"apt-daily.timer"}}).Inputs(); in != nil {
		t.Errorf("without a release there is nothing to lock: %v", in)
	}
}
