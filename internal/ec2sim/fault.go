package ec2sim

import (
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/amiagent/amiagent/internal/diag"
)

// Action is what a fault does to a request.
type Action string

// The actions. Each error has the shape that the service itself would give it.
const (
	Delay    Action = ""         // only wait for Latency, then answer as always
	Fail     Action = "fail"     // answer Status, 500 when that is 0, with Code
	Throttle Action = "throttle" // "slow down", in the service's own word
	Absent   Action = "absent"   // as if what is asked for did not exist
	Deny     Action = "deny"     // as if IAM forbade it
	Hang     Action = "hang"     // accept, and never answer
	Reset    Action = "reset"    // reset the connection instead of an answer
	Truncate Action = "truncate" // announce the whole body, close after At bytes
	Corrupt  Action = "corrupt"  // flip the bits of the body's byte At
)

// Fault is a thing that goes wrong on demand. A request meets the first fault
// that matches it and is not used up; faults that only delay add up before it.
type Fault struct {
	Service   string        `yaml:"service"`   // imds, ec2, ssm, secretsmanager, s3; "" is any
	Operation string        `yaml:"operation"` // GetObject, DescribeTags, …; for imds: token, meta-data, dynamic, user-data; "" is any
	Path      string        `yaml:"path"`      // prefix of what is asked for: imds path, /bucket/key, parameter, secret or instance id
	Do        Action        `yaml:"do"`
	Status    int           `yaml:"status"`  // HTTP status of Fail
	Code      string        `yaml:"code"`    // error code of Fail; "" is the service's word for an internal error
	Latency   time.Duration `yaml:"latency"` // waited before anything else
	At        int64         `yaml:"at"`      // offset in the response's body, from 0
	Skip      int           `yaml:"skip"`    // so many matching requests pass first
	Count     int           `yaml:"count"`   // so many requests meet it; 0 is all
}

// Validate records what cannot be meant.
func (f *Fault) Validate(at diag.At) {
	var names []string
	for _, s := range services() {
		names = append(names, s.name)
	}
	oneOf(at.Field("service"), f.Service, names...)
	oneOf(at.Field("do"), string(f.Do), "fail", "throttle", "absent", "deny", "hang", "reset", "truncate", "corrupt")
	if f.Do == Delay && f.Latency == 0 {
		at.Errorf("does nothing: give do or latency")
	}
	if f.Status != 0 && (f.Status < 400 || f.Status > 599) {
		at.Field("status").Errorf("must be 400 to 599, is %d", f.Status)
	}
	if (f.Status != 0 || f.Code != "") && f.Do != Fail {
		at.Errorf("status and code are for do: fail")
	}
	if f.At != 0 && f.Do != Truncate && f.Do != Corrupt {
		at.Field("at").Errorf("is for do: truncate and do: corrupt")
	}
	for name, n := range map[string]int{"skip": f.Skip, "count": f.Count, "at": int(f.At), "latency": int(f.Latency)} {
		if n < 0 {
			at.Field(name).Errorf("must not be negative")
		}
	}
}

// SetFault adds a fault behind those already set.
func (s *Sim) SetFault(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, &armed{Fault: f})
}

// ClearFaults takes all faults away; requests that hang already keep hanging.
func (s *Sim) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// armed is a fault with the number of requests it has seen.
type armed struct {
	Fault
	seen int
}

// meet gives the fault that strikes this call, with all latencies added up.
func (s *Sim) meet(c *call) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	var latency time.Duration
	for _, f := range s.faults {
		if !f.matches(c) || f.Count > 0 && f.seen >= f.Skip+f.Count {
			continue
		}
		if f.seen++; f.seen <= f.Skip {
			continue
		}
		latency += f.Latency
		if f.Do != Delay {
			met := f.Fault
			met.Latency = latency
			return met
		}
	}
	return Fault{Latency: latency}
}

func (f *Fault) matches(c *call) bool {
	if f.Service != "" && f.Service != c.service.name || f.Operation != "" && f.Operation != c.operation {
		return false
	}
	if f.Path == "" {
		return true
	}
	for _, r := range c.resources {
		if strings.HasPrefix(r, f.Path) {
			return true
		}
	}
	return false
}

// hidden tells whether an Absent fault hides this resource from the call.
func (c *call) hidden(resource string) bool {
	return c.fault.Do == Absent && strings.HasPrefix(resource, c.fault.Path)
}

// strike does what the fault demands before the request is looked at. It
// returns the error to answer with, or does not return when there is no answer.
func (c *call) strike() *apiError {
	f := c.fault
	if f.Latency > 0 {
		select {
		case <-time.After(f.Latency):
		case <-c.r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
	words := c.service.words
	switch f.Do {
	case Fail:
		e := words.internal
		if f.Status != 0 {
			e.status = f.Status
		}
		if f.Code != "" {
			e.code = f.Code
		}
		return &e
	case Throttle:
		return &words.throttled
	case Deny:
		return c.denied()
	case Hang:
		<-c.r.Context().Done()
		panic(http.ErrAbortHandler)
	case Reset:
		if conn, _, err := http.NewResponseController(c.w).Hijack(); err == nil {
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0) // closing now sends RST rather than FIN
			}
			conn.Close()
		}
		panic(http.ErrAbortHandler)
	}
	return nil
}

// recorder counts what is answered, and spoils it where a fault says so.
type recorder struct {
	http.ResponseWriter
	status int
	sent   int64
	fault  Fault
}

func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	cut, end := false, w.sent+int64(len(p))
	if w.fault.At >= w.sent && w.fault.At < end {
		i := w.fault.At - w.sent
		switch w.fault.Do {
		case Corrupt:
			p = append([]byte(nil), p...)
			p[i] ^= 0xff
		case Truncate:
			p, cut = p[:i], true
		}
	}
	n, err := w.ResponseWriter.Write(p)
	w.sent += int64(n)
	if cut {
		_ = http.NewResponseController(w.ResponseWriter).Flush() // the bytes before the cut do arrive
		panic(http.ErrAbortHandler)
	}
	return n, err
}
