// Package ec2sim is a local EC2: what an instance sees of AWS at boot, served
// on loopback, faithful enough that AWS's own clients and cloud-init cannot
// tell the difference in what they use.
//
// It serves the instance metadata service (IMDSv2 only) and, of the regional
// APIs, as much as a launch needs of EC2, SSM, Secrets Manager and S3.
// Requests to the APIs must be signed with the credentials that the metadata
// service hands out, and the signatures are checked for real. Things go wrong
// on demand: see Fault.
//
// A service is one file and one line in the table of services.
//
// The package serves tests, the demo, and whoever wants to try a manifest on a
// laptop (cmd/ec2sim). It is not linked into the agent.
package ec2sim

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Sim is one simulated instance and its account. All methods may be called
// while it serves, from any goroutine.
type Sim struct {
	mu       sync.Mutex
	cfg      Config
	booted   time.Time
	tokens   map[string]time.Time // IMDS session token → its end
	keys     []credentials        // all ever issued, the last one current
	params   map[string]*parameter
	secrets  map[string][]secretVersion
	buckets  map[string]*bucket
	faults   []*armed
	requests []Request

	watch   sync.Mutex // apart from mu, so that a watcher may call the Sim
	watcher func(Request)
}

// New makes a Sim from a valid Config; what cfg leaves out gets a default.
func New(cfg Config) *Sim {
	s := &Sim{
		booted:  time.Now().UTC().Truncate(time.Second),
		tokens:  map[string]time.Time{},
		params:  map[string]*parameter{},
		secrets: map[string][]secretVersion{},
		buckets: map[string]*bucket{},
	}
	s.Apply(cfg)
	return s
}

// Apply makes the Sim be what cfg says, as after an edit of the configuration
// file: tags, user data and faults are replaced, and a parameter, secret or
// object whose last value differs gets a new version. Issued tokens and
// credentials stay good.
func (s *Sim) Apply(cfg Config) {
	cfg = cfg.withDefaults()
	cfg.Tags = maps.Clone(cfg.Tags)
	if cfg.Tags == nil {
		cfg.Tags = map[string]string{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cfg = cfg
	keep(s.params, cfg.Parameters)
	for name, p := range cfg.Parameters {
		s.putParameter(name, p.Type, p.Value)
	}
	keep(s.secrets, cfg.Secrets)
	for name, v := range cfg.Secrets {
		s.putSecret(name, v)
	}
	keep(s.buckets, cfg.Buckets)
	for name, b := range cfg.Buckets {
		s.putBucket(name, b)
	}
	s.faults = nil
	for _, f := range cfg.Faults {
		s.faults = append(s.faults, &armed{Fault: f})
	}
}

// keep drops what the configuration no longer names.
func keep[H, W any](have map[string]H, want map[string]W) {
	maps.DeleteFunc(have, func(name string, _ H) bool { _, ok := want[name]; return !ok })
}

// Config is the instance as it is now. Its maps must not be changed.
func (s *Sim) Config() Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	cfg := s.cfg
	cfg.Tags = maps.Clone(cfg.Tags)
	return cfg
}

// SetTag puts a tag on the instance, seen at once by the metadata service
// (where tags are enabled there) and by DescribeTags.
func (s *Sim) SetTag(key, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cfg.Tags[key] = value
}

// DeleteTag takes a tag off the instance.
func (s *Sim) DeleteTag(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.cfg.Tags, key)
}

// SetTagsInIMDS does what modify-instance-metadata-options --instance-metadata-tags does.
func (s *Sim) SetTagsInIMDS(enabled bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cfg.TagsInIMDS = enabled
}

// SetUserData replaces the user data; without bytes there is none.
func (s *Sim) SetUserData(data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cfg.UserData = string(data)
}

// SetTargetState sets autoscaling/target-lifecycle-state; "" answers 404.
func (s *Sim) SetTargetState(state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cfg.TargetState = state
}

// Request is one request that was answered, or left without an answer.
type Request struct {
	Time      time.Time     // when it came
	Took      time.Duration // until the end of the answer
	Method    string        // HTTP method
	Service   string        // imds, ec2, ssm, secretsmanager, s3
	Operation string        // GetObject, DescribeTags, …; for imds: token, meta-data, dynamic, user-data, versions
	Path      string        // imds path, /bucket/key, else the names asked for, joined by commas
	Range     string        // the Range header
	Status    int           // HTTP status; 0 when there was no answer
	Code      string        // the error's code, where the answer is an error
	Sent      int64         // bytes of the body sent
	Fault     Action        // the fault that struck, if one did
}

func (r Request) String() string {
	text := fmt.Sprintf("%s %s %s %d", r.Service, r.Operation, r.Path, r.Status)
	for _, extra := range []string{r.Range, r.Code} {
		if extra != "" {
			text += " " + extra
		}
	}
	if r.Fault != Delay {
		text += " (fault: " + string(r.Fault) + ")"
	}
	return text
}

// Requests are all requests so far, in the order in which they ended.
func (s *Sim) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.requests...)
}

// Count is the number of requests so far of a service and operation; "" is any.
func (s *Sim) Count(service, operation string) int {
	n := 0
	for _, r := range s.Requests() {
		if (service == "" || r.Service == service) && (operation == "" || r.Operation == operation) {
			n++
		}
	}
	return n
}

// ForgetRequests empties the list of requests, so that a test counts from here.
func (s *Sim) ForgetRequests() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = nil
}

// Watch has f called after each request from now on, one call at a time; nil ends it.
func (s *Sim) Watch(f func(Request)) {
	s.watch.Lock()
	defer s.watch.Unlock()
	s.watcher = f
}

// Handler serves the metadata service and the APIs on one address, told apart
// by path and signature. Start serves them apart, as AWS does.
func (s *Sim) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, signed := signature(r); !signed && isIMDSPath(r.URL.Path) {
			s.answer(w, r, serviceNamed("imds"))
			return
		}
		s.answer(w, r, serviceOf(r))
	})
}

// arn names a resource of this account and region. Callers hold s.mu or own a copy.
func (c Config) arn(service, resource string) string {
	return fmt.Sprintf("arn:%s:%s:%s:%s:%s", c.partition(), service, c.Region, c.Account, resource)
}

func (c Config) partition() string {
	switch {
	case strings.HasPrefix(c.Region, "cn-"):
		return "aws-cn"
	case strings.HasPrefix(c.Region, "us-gov-"):
		return "aws-us-gov"
	}
	return "aws"
}
