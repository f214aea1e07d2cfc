package sdnotify

import (
	"time"

	"golang.org/x/sys/unix"
)

// monotonic is the clock that MONOTONIC_USEC is read on (CLOCK_MONOTONIC).
func monotonic() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // there is no kernel without it
	return time.Duration(ts.Nano())
}
