package ec2sim

import (
	"crypto/rand"
	"encoding/hex"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// service is one thing that answers requests.
type service struct {
	name string // as in a signature's scope

	// claims tells whether an unsigned request is meant for this service.
	claims func(*http.Request) bool

	// read names the operation and the resources asked for, in c, and gives
	// what answers. It must not look at anything a request may not know before
	// it is authorised.
	read func(c *call) (run func() *apiError)

	authorise func(c *call) *apiError      // nil lets the call pass
	fail      func(c *call, err *apiError) // writes an error in the service's shape
	words     vocabulary
}

// services is the table: one line for each.
func services() []service {
	return []service{
		{"imds", never, readIMDS, hasToken, failIMDS, imdsWords},
		{"ec2", isQuery, readQuery(ec2Operations), isSigned, failEC2, ec2Words},
		{"ssm", isTarget("AmazonSSM"), readJSON(ssmOperations), isSigned, failJSON, jsonWords},
		{"secretsmanager", isTarget("secretsmanager"), readJSON(secretsOperations), isSigned, failJSON, jsonWords},
		{"s3", always, readS3, isSigned, failS3, s3Words},
	}
}

func always(*http.Request) bool { return true }
func never(*http.Request) bool  { return false }

func serviceNamed(name string) service {
	for _, s := range services() {
		if s.name == name {
			return s
		}
	}
	panic("ec2sim: no service " + name)
}

// serviceOf finds the service that an API request is meant for: by the scope
// of its signature, which is how one address can serve all, else by its looks.
func serviceOf(r *http.Request) service {
	got, signed := signature(r)
	table := services()
	if signed {
		for _, s := range table {
			if s.name == got.service {
				return s
			}
		}
	}
	for _, s := range table {
		if !s.claims(r) {
			continue
		}
		if signed { // for a service that is not here, which speaks the same protocol
			s.name, s.read, s.authorise = got.service, readNothing, notServed
		}
		return s
	}
	panic("ec2sim: no service claims the rest")
}

func readNothing(*call) func() *apiError { return nil }

func notServed(c *call) *apiError {
	return &apiError{status: http.StatusNotImplemented, code: "NotImplemented", message: "ec2sim does not serve " + c.service.name}
}

// apiError is an error of a service, before it takes the service's shape.
type apiError struct {
	status  int
	code    string
	message string
	extra   [][2]string // further elements of S3's XML
	headers [][2]string
}

// vocabulary is what a service calls the errors that all services have.
type vocabulary struct {
	internal     apiError
	throttled    apiError
	denied       apiError // %s in its message is the whole story of who may not do what
	unsigned     apiError // no signature at all
	unknownKey   apiError // an access key that was never issued
	badToken     apiError // the session token is not the key's
	expired      apiError // the credentials have ended
	badSignature apiError
	skewed       apiError // the clocks differ by more than 15 minutes
}

// call is one request on its way through.
type call struct {
	sim       *Sim
	service   service
	w         *recorder
	r         *http.Request
	body      []byte
	id        string // the request id in the answer
	operation string
	resources []string
	fault     Fault
	code      string // of the error that was answered
}

// maxBody bounds what is read of a request.
const maxBody = 4 << 20

// answer takes a request from reading to recording.
func (s *Sim) answer(w http.ResponseWriter, r *http.Request, svc service) {
	began := time.Now()
	c := &call{sim: s, service: svc, r: r, id: requestID(), w: &recorder{ResponseWriter: w}}
	defer func() { s.record(c, began) }()

	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		c.refuse(&apiError{status: http.StatusRequestEntityTooLarge, code: "RequestEntityTooLarge", message: err.Error()})
		return
	}
	c.body = body
	run := svc.read(c)
	c.fault = s.meet(c)
	c.w.fault = c.fault
	if err := c.strike(); err != nil {
		c.refuse(err)
		return
	}
	if err := svc.authorise(c); err != nil {
		c.refuse(err)
		return
	}
	if err := run(); err != nil {
		c.refuse(err)
	}
}

func (s *Sim) record(c *call, began time.Time) {
	r := Request{
		Time: began, Took: time.Since(began),
		Method: c.r.Method, Service: c.service.name, Operation: c.operation,
		Path: strings.Join(c.resources, ","), Range: c.r.Header.Get("Range"),
		Status: c.w.status, Code: c.code, Sent: c.w.sent, Fault: c.fault.Do,
	}
	s.mu.Lock()
	s.requests = append(s.requests, r)
	s.mu.Unlock()
	s.watch.Lock()
	defer s.watch.Unlock()
	if s.watcher != nil {
		s.watcher(r)
	}
}

func (c *call) refuse(err *apiError) {
	c.code = err.code
	for _, h := range err.headers {
		c.w.Header().Set(h[0], h[1])
	}
	c.service.fail(c, err)
}

// reply writes a whole answer. A HEAD request gets the headers only.
func (c *call) reply(status int, contentType string, body []byte) {
	h := c.w.Header()
	if contentType != "" {
		h.Set("Content-Type", contentType)
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	c.w.WriteHeader(status)
	if c.r.Method != http.MethodHead {
		_, _ = c.w.Write(body) // a client that went away misses nothing
	}
}

// action is how IAM calls the operation.
func (c *call) action() string {
	op := c.operation
	if op == "HeadObject" {
		op = "GetObject"
	}
	if strings.HasPrefix(op, "ListObjects") || op == "HeadBucket" {
		op = "ListBucket"
	}
	return c.service.name + ":" + op
}

// denied is IAM's refusal, in the words that AWS uses since 2021.
func (c *call) denied() *apiError {
	cfg := c.sim.Config()
	on := ""
	if len(c.resources) > 0 {
		on = " on resource: " + cfg.resourceARN(c.service.name, c.resources[0])
	}
	err := c.service.words.denied
	who := "arn:" + cfg.partition() + ":sts::" + cfg.Account + ":assumed-role/" + cfg.Role + "/" + cfg.InstanceID
	err.message = strings.ReplaceAll(err.message, "%s", "User: "+who+" is not authorized to perform: "+c.action()+on+
		" because no identity-based policy allows the "+c.action()+" action")
	return &err
}

func (c Config) resourceARN(service, resource string) string {
	switch service {
	case "ssm":
		return c.arn("ssm", "parameter/"+strings.TrimPrefix(resource, "/"))
	case "secretsmanager":
		return c.arn("secretsmanager", "secret:"+resource)
	case "s3":
		return "arn:" + c.partition() + ":s3:::" + strings.TrimPrefix(resource, "/")
	}
	return "*"
}

// requestID is a random UUID, as AWS gives each request.
func requestID() string {
	var b [16]byte
	rand.Read(b[:])
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
