// Package sdnotify tells systemd how the launch goes, by the protocol of
// sd_notify(3): lines in one datagram to the socket that the unit was given.
//
// It also keeps systemd patient while work goes on (EXTEND_TIMEOUT_USEC) and,
// once ready, proves that the agent is alive (WATCHDOG=1). Without a socket, as
// in a shell, every call does nothing.
package sdnotify

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/amiagent/amiagent/internal/report"
	"github.com/amiagent/amiagent/internal/sink"
)

const (
	// extendEvery is how often systemd is asked for more time, and extendBy how
	// much: a few lost chances do no harm, a dead agent is found soon.
	extendEvery = 10 * time.Second
	extendBy    = 45 * time.Second
)

// Options come from the environment that systemd gives to a service.
type Options struct {
	Socket   string        // NOTIFY_SOCKET: a path, or @name in the abstract namespace
	Watchdog time.Duration // WATCHDOG_USEC; 0: none wanted
	// Patience bounds how long systemd is asked for more time: the launch's
	// deadline and a little more. 0: no more time is asked for.
	Patience time.Duration
	// Alive tells whether the agent's heart beats; a false answer withholds the
	// sign of life. Nil: it always does.
	Alive func() bool
}

// FromEnv reads the options of the process pid from its environment (sd_notify(3), sd_watchdog_enabled(3)).
func FromEnv(getenv func(string) string, pid int) Options {
	o := Options{Socket: getenv("NOTIFY_SOCKET")}
	only := getenv("WATCHDOG_PID")
	if usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64); err == nil && usec > 0 && (only == "" || only == strconv.Itoa(pid)) {
		o.Watchdog = time.Duration(usec) * time.Microsecond
	}
	return o
}

// Sink is the connection to systemd. It is safe for concurrent use.
type Sink struct {
	opt  Options
	conn *net.UnixConn // nil without a socket

	mu      sync.Mutex
	ready   bool
	working bool
	status  string
}

var _ sink.Sink = (*Sink)(nil)

// Open connects to the socket, if there is one.
func Open(opt Options) (*Sink, error) {
	s := &Sink{opt: opt, working: true}
	if opt.Socket == "" {
		return s, nil
	}
	if !strings.HasPrefix(opt.Socket, "/") && !strings.HasPrefix(opt.Socket, "@") {
		return nil, fmt.Errorf("cannot reach systemd: NOTIFY_SOCKET is %q, want a path or @name", opt.Socket)
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: opt.Socket, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("cannot reach systemd: %w", err)
	}
	s.conn = conn
	return s, nil
}

// Name is "systemd".
func (s *Sink) Name() string { return "systemd" }

// Send translates an event. READY is said with the first Ready and with the end of every reload.
func (s *Sink) Send(_ context.Context, e sink.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lines []string
	switch e.Kind {
	case sink.Began:
		s.working = true
		if e.Reload && s.ready {
			// systemd 253 and later wants the time of the request with it.
			lines = append(lines, "RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", monotonic().Microseconds()))
		}
	case sink.Ready:
		s.working = false
		if !s.ready || e.Reload {
			lines = append(lines, "READY=1")
		}
		s.ready = true
	case sink.Failed:
		s.working = false
		if e.Reload && s.ready { // a failed reload ends too; the unit runs on
			lines = append(lines, "READY=1")
		}
	case sink.Stopping, sink.Reboot:
		s.working = false
		lines = append(lines, "STOPPING=1")
	}
	if status := oneLine(e.Status.Headline()); status != s.status {
		s.status = status
		lines = append(lines, "STATUS="+status)
	}
	return s.notify(lines...)
}

// oneLine keeps a status within its datagram and its line of systemctl status.
func oneLine(s string) string {
	const limit = 250
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "..."
	}
	return report.Printable(s)
}

func (s *Sink) notify(lines ...string) error {
	if s.conn == nil || len(lines) == 0 {
		return nil
	}
	_, err := s.conn.Write([]byte(strings.Join(lines, "\n")))
	return err
}

// Run keeps systemd patient while a launch is under way, for as long as
// Patience, and gives the watchdog its sign of life at half its interval, from
// READY on, until ctx ends. Errors are not told: systemd acts on silence.
func (s *Sink) Run(ctx context.Context) {
	if s.conn == nil {
		return
	}
	extend := time.NewTicker(extendEvery)
	defer extend.Stop()
	var watchdog <-chan time.Time
	if s.opt.Watchdog > 0 {
		t := time.NewTicker(max(s.opt.Watchdog/2, time.Millisecond))
		defer t.Stop()
		watchdog = t.C
	}
	patience := time.Now().Add(s.opt.Patience)
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-extend.C:
			s.mu.Lock()
			if s.working && !s.ready && now.Before(patience) && s.alive() {
				_ = s.notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", extendBy.Microseconds()))
			}
			s.mu.Unlock()
		case <-watchdog:
			s.mu.Lock()
			if s.ready && s.alive() {
				_ = s.notify("WATCHDOG=1")
			}
			s.mu.Unlock()
		}
	}
}

func (s *Sink) alive() bool { return s.opt.Alive == nil || s.opt.Alive() }

// Close gives the socket back.
func (s *Sink) Close() error {
	if s.conn == nil {
		return nil
	}
	return s.conn.Close()
}
