// Package health answers load balancers over plain HTTP: is this machine alive,
// is it ready?
//
// It runs in a process of its own, without privileges, apart from the agent:
// what listens on the network is not root, and an agent that has failed or hung
// is reported, not silent. All it knows is the status file that the agent
// publishes; all it says of it is the phase and the kind of step, because anyone
// may ask.
package health

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/report"
)

// DefaultAddress is every address of the machine, port 8099.
const DefaultAddress = ":8099"

const (
	// Whoever asks sends a few hundred bytes at once; who does not is cut off.
	requestTimeout = 5 * time.Second
	maxHeader      = 4 << 10
	// maxConns bounds memory and file descriptors. Beyond it the oldest
	// connection makes room: an honest one lasts milliseconds, so it is not the oldest.
	maxConns = 256
	// drain is how long answers under way may take when the responder stops.
	drain = time.Second
)

// Options say what to serve and where.
type Options struct {
	Host    *host.Host
	Status  string       // the status file inside the root; default report.StatusPath
	Address string       // host:port; default DefaultAddress
	Inherit net.Listener // an open listener, as from socket activation, in place of Address
	// Listening is called once with the address in use. May be nil.
	Listening func(net.Addr)
}

// Serve answers until ctx ends, then ends answers under way within a second and
// returns nil. An error means that it could not listen.
func Serve(ctx context.Context, opt Options) error {
	l := opt.Inherit
	if l == nil {
		var err error
		address := cmp.Or(opt.Address, DefaultAddress)
		if l, err = new(net.ListenConfig).Listen(ctx, "tcp", address); err != nil {
			return fmt.Errorf("cannot serve health on %s: %w", address, err)
		}
	}
	if opt.Listening != nil {
		opt.Listening(l.Addr())
	}
	server := &http.Server{
		Handler:           Handler(opt.Host, cmp.Or(opt.Status, report.StatusPath)),
		ReadHeaderTimeout: requestTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      requestTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          log.New(io.Discard, "", 0), // strangers must not fill the journal
	}
	// One answer a connection: what is open longer than an answer takes is idle or hostile.
	server.SetKeepAlivesEnabled(false)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
		defer cancel()
		if server.Shutdown(patience) != nil {
			_ = server.Close()
		}
	}()
	err := server.Serve(&shedding{Listener: l, max: maxConns})
	if ctx.Err() != nil {
		<-stopped
		return nil
	}
	return fmt.Errorf("cannot serve health on %s: %w", l.Addr(), err)
}

// Handler answers /livez, and /readyz with its other names / and /healthz.
func Handler(h *host.Host, statusFile string) http.Handler {
	status := &reader{host: h, path: statusFile}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		head := w.Header()
		head.Set("Content-Type", "text/plain; charset=utf-8")
		head.Set("Cache-Control", "no-store")
		head.Set("X-Content-Type-Options", "nosniff")
		var judge func(report.Status, error, time.Time) (int, string)
		switch r.URL.Path {
		case "/livez":
			judge = Live
		case "/readyz", "/healthz", "/":
			judge = Ready
		}
		code, line := http.StatusNotFound, "not found"
		switch {
		case judge == nil:
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			head.Set("Allow", "GET, HEAD")
			code, line = http.StatusMethodNotAllowed, "GET and HEAD only"
		default:
			s, err := status.read()
			code, line = judge(s, err, time.Now())
		}
		line += "\n"
		head.Set("Content-Length", strconv.Itoa(len(line)))
		w.WriteHeader(code)
		_, _ = io.WriteString(w, line) // who has gone needs no answer; net/http drops it for HEAD
	})
}

// Ready judges a status, or the error of reading it, for load balancers: a code
// and one line that holds no more than the phase and the kind of a step.
func Ready(s report.Status, err error, now time.Time) (int, string) {
	if err != nil {
		return http.StatusServiceUnavailable, unknown(err)
	}
	switch s.State {
	case report.DidFail: // that stays true when the agent has gone
		return http.StatusServiceUnavailable, "failed: " + cmp.Or(kindOf(s.Step), word(string(s.Phase)), "launch")
	case report.Draining, report.Stopping, report.Rebooting, report.Disabled:
		return http.StatusServiceUnavailable, string(s.State)
	}
	if !s.Fresh(now) {
		return http.StatusServiceUnavailable, silent(s, now)
	}
	switch s.State {
	case report.Ready:
		return http.StatusOK, "ready"
	case report.Launching:
		line := "launching"
		if p := word(string(s.Phase)); p != "" {
			line += ": " + p
		}
		if k := kindOf(s.Step); k != "" {
			line += ", " + k
		}
		return http.StatusServiceUnavailable, line
	case report.NotReady:
		for _, p := range s.Probes {
			if !p.OK {
				return http.StatusServiceUnavailable, strings.TrimSpace("not ready: probe " + word(p.Kind))
			}
		}
		return http.StatusServiceUnavailable, "not ready"
	}
	return http.StatusServiceUnavailable, "unknown state"
}

// Live judges whether the agent lives, whatever it has to say.
func Live(s report.Status, err error, now time.Time) (int, string) {
	switch {
	case err != nil:
		return http.StatusServiceUnavailable, unknown(err)
	case !s.Fresh(now):
		return http.StatusServiceUnavailable, silent(s, now)
	}
	return http.StatusOK, "alive"
}

func silent(s report.Status, now time.Time) string {
	return fmt.Sprintf("agent is silent: last heard %s ago", max(0, s.Age(now)).Round(time.Second))
}

// unknown tells without detail why there is no status; `amiagent status` has the detail.
func unknown(err error) string {
	if errors.Is(err, report.ErrNoStatus) {
		return "no status yet"
	}
	return "the status cannot be read"
}

// kindOf is the kind of a step: "units" of "units.app.service".
func kindOf(step string) string {
	kind, _, _ := strings.Cut(step, ".")
	return word(kind)
}

// word is s if it is a short word of our own making, else "": nothing that
// stands in a manifest gets out by mistake.
func word(s string) string {
	ok := len(s) <= 20 && !strings.ContainsFunc(s, func(r rune) bool { return (r < 'a' || r > 'z') && r != '-' })
	if !ok {
		return ""
	}
	return s
}
