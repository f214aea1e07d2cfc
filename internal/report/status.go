package report

import (
	"encoding/json"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// StatusFormat is the format number of the status file.
const StatusFormat = 1

// StatusPath is where the agent publishes its status, inside the root.
const StatusPath = "/run/amiagent/status.json"

// State is where an instance is in its life.
type State string

const (
	Launching State = "launching" // on its way to READY
	Ready     State = "ready"
	NotReady  State = "not-ready" // was ready; a probe fails now
	DidFail   State = "failed"
	Draining  State = "draining"
	Stopping  State = "stopping"
	Rebooting State = "rebooting"
	Disabled  State = "disabled"
)

// Status is what the agent is doing now. It holds no secret and no command output.
type Status struct {
	Format   int       `json:"format"`
	Agent    string    `json:"agent"` // version
	PID      int       `json:"pid"`
	Instance string    `json:"instance,omitempty"`
	Boot     string    `json:"boot,omitempty"`
	Launch   string    `json:"launch,omitempty"` // report id
	State    State     `json:"state"`
	Phase    Phase     `json:"phase,omitempty"`
	Step     string    `json:"step,omitempty"` // under way, or failed
	Reason   string    `json:"reason,omitempty"`
	Hint     string    `json:"hint,omitempty"`
	Done     int       `json:"done"`  // steps
	Total    int       `json:"total"` // steps
	Since    time.Time `json:"since"` // of State
	Updated  time.Time `json:"updated"`
	// Beat is how long a status stays fresh: an Updated older than three
	// beats means that the agent is dead or hung.
	Beat time.Duration `json:"beat_ns"`
	// Uptime is Updated on the clock that counts from the boot and that nobody
	// sets: readers of the same boot tell the status's age by it.
	Uptime time.Duration `json:"uptime_ns,omitempty"`
	Probes []Probe       `json:"probes,omitempty"`
	Notes  []string      `json:"notes,omitempty"`
	// Channel is where the lock in use is from, if from a channel.
	Channel *Channel `json:"channel,omitempty"`
}

// Age is how long ago the agent wrote s. Where s has an Uptime of this boot it
// counts, so that setting the clock (NTP soon after a boot) makes no agent look
// dead, and no dead one alive; else it is now less Updated.
func (s Status) Age(now time.Time) time.Duration {
	if up := Uptime(); s.Uptime > 0 && s.Uptime <= up {
		return up - s.Uptime
	}
	return now.Sub(s.Updated)
}

// Fresh tells whether the status was written by an agent that is alive at now.
func (s Status) Fresh(now time.Time) bool {
	return s.Beat > 0 && s.Age(now) <= 3*s.Beat
}

// Uptime is the time since the boot, including suspends (CLOCK_BOOTTIME).
func Uptime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0 // no kernel that Go runs on
	}
	return time.Duration(ts.Nano())
}

// Ready tells whether traffic may come.
func (s Status) Ready() bool { return s.State == Ready }

// ParseStatus reads a status file. A format number that is not ours is refused.
func ParseStatus(b []byte) (Status, error) {
	var s Status
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("cannot read status: %w", err)
	}
	if s.Format != StatusFormat {
		return s, fmt.Errorf("cannot read status: format %d, this agent knows %d", s.Format, StatusFormat)
	}
	return s, nil
}
