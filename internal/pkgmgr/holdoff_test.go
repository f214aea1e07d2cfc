package pkgmgr

import (
	"errors"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/pkgmgr/pkgmgrtest"
)

// A tree has no units to hold off.
func TestNothingIsHeldOffInATree(t *testing.T) {
	s := aptStory(t, pkgmgrtest.Apt())
	s.p.HoldOff([]string{"apt-daily.timer"})
	s.is("failures", s.change("jq"), "")
	if left, err := HeldOff(s.m.Host); err != nil || left != nil {
		t.Errorf("%v, %v", left, err)
	}
	if err := GiveBack(t.Context(), s.m.Host); err != nil {
		t.Error(err)
	}
}

func TestANoteOfWhatIsHeldThatCannotBeReadIsTold(t *testing.T) {
	s := aptStory(t, pkgmgrtest.Apt())
	for _, text := range []string{"garbage", `{"format": 2}`} {
		s.m.Write(heldOffPath, 0o600, text)
		if _, err := HeldOff(s.m.Host); err == nil || !strings.Contains(err.Error(), "cannot read which units are held off") {
			t.Errorf("%s: %v", text, err)
		}
	}
	s.m.Write(heldOffPath, 0o600, `{"format": 1, "units": ["a.timer"]}`)
	if err := GiveBack(t.Context(), s.m.Host); !errors.Is(err, host.ErrNotLive) {
		t.Errorf("without systemd: %v", err)
	}
}
