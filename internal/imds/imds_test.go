package imds_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/imds"
)

// service is a metadata service on loopback that keeps an account of what it was asked.
type service struct {
	*httptest.Server
	mu     sync.Mutex
	log    []string // "PUT /latest/api/token", in order
	conns  int
	tokens int
	// fault may answer in the service's place.
	fault func(w http.ResponseWriter, r *http.Request, nth int) bool
	ttl   string
	data  map[string]string
}

func serve(t *testing.T, data map[string]string) *service {
	t.Helper()
	s := &service{data: data, ttl: "21600"}
	s.Server = httptest.NewUnstartedServer(s)
	s.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.conns++
		}
	}
	s.Start()
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.log = append(s.log, r.Method+" "+r.URL.EscapedPath())
	nth := len(s.log)
	fault := s.fault
	s.mu.Unlock()
	if fault != nil && fault(w, r, nth) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	valid := fmt.Sprintf("token-%d", s.tokens)
	if r.Method == http.MethodPut && r.URL.Path == "/latest/api/token" {
		if r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds") != "21600" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		s.tokens++
		w.Header().Set("X-aws-ec2-metadata-token-ttl-seconds", s.ttl)
		fmt.Fprintf(w, "token-%d", s.tokens)
		return
	}
	if r.Header.Get("X-aws-ec2-metadata-token") != valid {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	v, ok := s.data[strings.TrimPrefix(r.URL.Path, "/latest/")]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	fmt.Fprint(w, v)
}

func (s *service) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.log)
}

func (s *service) revoke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens += 100
}

// client asks s, quickly enough for a test.
func client(s *service, change ...func(*imds.Options)) *imds.Client {
	o := imds.Options{Endpoints: []string{s.URL}, Deadline: 2 * time.Second, Attempt: time.Second}
	for _, f := range change {
		f(&o)
	}
	return imds.New(o)
}

func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

func get(t *testing.T, c *imds.Client, path, want string) {
	t.Helper()
	b, err := c.Get(t.Context(), path)
	if err != nil || string(b) != want {
		t.Fatalf("Get(%s) = %q, %v, want %q", path, b, err, want)
	}
}

func TestTokenComesFirstAndServesAllReads(t *testing.T) {
	t.Parallel()
	s := serve(t, map[string]string{"meta-data/hostname": "h", "meta-data/mac": "m"})
	c := client(s)
	get(t, c, "meta-data/hostname", "h")
	get(t, c, "meta-data/mac", "m")
	want := []string{"PUT /latest/api/token", "GET /latest/meta-data/hostname", "GET /latest/meta-data/mac"}
	if got := s.asked(); !slices.Equal(got, want) {
		t.Errorf("asked %q, want %q", got, want)
	}
}

func TestNothingIsAskedBeforeTheFirstRead(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	client(s)
	if s.asked() != nil || s.conns != 0 {
		t.Errorf("asked %q over %d connections", s.asked(), s.conns)
	}
}

func TestManyReadsShareTwoConnections(t *testing.T) {
	t.Parallel()
	s := serve(t, map[string]string{"meta-data/hostname": "h"})
	c := client(s)
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() {
			if _, err := c.Get(t.Context(), "meta-data/hostname"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if s.conns > 2 {
		t.Errorf("%d connections, want 2 at most", s.conns)
	}
	if s.tokens != 1 {
		t.Errorf("%d tokens, want 1", s.tokens)
	}
}

func TestAbsentIsFinal(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	_, err := client(s).Get(t.Context(), "meta-data/spot/instance-action")
	if !errors.Is(err, imds.ErrAbsent) {
		t.Fatalf("err = %v, want ErrAbsent", err)
	}
	if want := "cannot read instance metadata meta-data/spot/instance-action: not there"; err.Error() != want {
		t.Errorf("err = %q, want %q", err, want)
	}
	if n := len(s.asked()); n != 2 {
		t.Errorf("%d requests, want a token and one read", n)
	}
}

func TestTransientFaultsAreRetried(t *testing.T) {
	t.Parallel()
	for _, code := range []int{408, 429, 500, 503} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			t.Parallel()
			s := serve(t, map[string]string{"meta-data/hostname": "h"})
			s.fault = func(w http.ResponseWriter, _ *http.Request, nth int) bool {
				if nth%2 == 1 {
					w.WriteHeader(code)
				}
				return nth%2 == 1 && nth < 6
			}
			get(t, client(s), "meta-data/hostname", "h")
		})
	}
}

func TestOtherRefusalsAreFinal(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	s.fault = func(w http.ResponseWriter, r *http.Request, _ int) bool {
		if r.Method == http.MethodGet {
			w.WriteHeader(http.StatusTeapot)
		}
		return r.Method == http.MethodGet
	}
	_, err := client(s).Get(t.Context(), "meta-data/x")
	var se *imds.StatusError
	if !errors.As(err, &se) || se.Code != http.StatusTeapot || len(s.asked()) != 2 {
		t.Errorf("err = %v after %q", err, s.asked())
	}
}

// Peers' trap 5: retrying for ever needs a total deadline.
func TestPeerTrap5RetryEndsAtTheDeadline(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	s.fault = func(w http.ResponseWriter, r *http.Request, _ int) bool {
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	}
	begun := time.Now()
	_, err := client(s, func(o *imds.Options) { o.Deadline = 150 * time.Millisecond }).Get(t.Context(), "meta-data/mac")
	var se *imds.StatusError
	if !errors.As(err, &se) || se.Code != 503 || !strings.Contains(err.Error(), "cannot read instance metadata meta-data/mac: gave up after ") ||
		!strings.HasSuffix(err.Error(), "answered 503 Service Unavailable") {
		t.Errorf("err = %v", err)
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("took %s", took)
	}
	if n := len(s.asked()); n < 2 {
		t.Errorf("%d requests, want a retry", n)
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	s.fault = func(w http.ResponseWriter, r *http.Request, _ int) bool {
		w.Header().Set("Retry-After", "20")
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	}
	_, err := client(s, func(o *imds.Options) { o.Deadline = 120 * time.Millisecond }).Get(t.Context(), "meta-data/mac")
	if err == nil || len(s.asked()) != 1 {
		t.Errorf("err = %v after %q, want one request", err, s.asked())
	}
}

func TestTokenThatIsNoLongerTakenIsReplaced(t *testing.T) {
	t.Parallel()
	s := serve(t, map[string]string{"meta-data/mac": "m"})
	c := client(s)
	get(t, c, "meta-data/mac", "m")
	s.revoke() // as after hibernation
	get(t, c, "meta-data/mac", "m")
	want := []string{"PUT /latest/api/token", "GET /latest/meta-data/mac", "GET /latest/meta-data/mac", "PUT /latest/api/token", "GET /latest/meta-data/mac"}
	if got := s.asked(); !slices.Equal(got, want) {
		t.Errorf("asked %q, want %q", got, want)
	}
}

func TestTokenIsReplacedBeforeItEnds(t *testing.T) {
	t.Parallel()
	s := serve(t, map[string]string{"meta-data/mac": "m"})
	s.ttl = "1"
	c := client(s)
	get(t, c, "meta-data/mac", "m")
	time.Sleep(950 * time.Millisecond)
	get(t, c, "meta-data/mac", "m")
	if s.tokens != 2 {
		t.Errorf("%d tokens, want 2", s.tokens)
	}
}

func TestServiceThatNeverTakesItsTokenEndsInAnError(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	s.fault = func(w http.ResponseWriter, r *http.Request, _ int) bool {
		if r.Method == http.MethodGet {
			w.WriteHeader(http.StatusUnauthorized)
		}
		return r.Method == http.MethodGet
	}
	_, err := client(s, func(o *imds.Options) { o.Deadline = 120 * time.Millisecond }).Get(t.Context(), "meta-data/mac")
	if err == nil || !strings.HasSuffix(err.Error(), "token not accepted: answered 401 Unauthorized") {
		t.Errorf("err = %v", err)
	}
}

// Peers' trap 6: a failed token must not silently downgrade to version 1.
func TestPeerTrap6NeverVersionOne(t *testing.T) {
	t.Parallel()
	for _, code := range []int{404, 405, 501} {
		s := serve(t, nil)
		s.fault = func(w http.ResponseWriter, r *http.Request, _ int) bool {
			if r.Method == http.MethodPut {
				w.WriteHeader(code)
				return true
			}
			fmt.Fprint(w, "i-from-version-one")
			return true
		}
		_, err := client(s).Get(t.Context(), "meta-data/instance-id")
		if !errors.Is(err, imds.ErrNoV2) || !strings.Contains(diag.Hint(err), "version 1 is never used") || len(s.asked()) != 1 {
			t.Errorf("%d: err = %v, hint %q", code, err, diag.Hint(err))
		}
		for _, a := range s.asked() {
			if strings.HasPrefix(a, "GET") {
				t.Errorf("%d: %s without a token", code, a)
			}
		}
	}
}

// Peers' trap 6, second half: the token is at /latest/, a dated path is refused.
func TestPeerTrap6TokenPathIsLatest(t *testing.T) {
	t.Parallel()
	s := serve(t, map[string]string{"meta-data/mac": "m"})
	get(t, client(s), "meta-data/mac", "m")
	if s.asked()[0] != "PUT /latest/api/token" {
		t.Errorf("asked %q", s.asked())
	}
}

func TestPortalIsNoToken(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	s.fault = func(w http.ResponseWriter, r *http.Request, _ int) bool {
		fmt.Fprint(w, "<html>please\r\nlog in</html>")
		return true
	}
	if _, err := client(s).Get(t.Context(), "meta-data/mac"); !errors.Is(err, imds.ErrNoV2) {
		t.Errorf("err = %v, want ErrNoV2", err)
	}
}

func TestRefusedTokenIsExplained(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	s.fault = func(w http.ResponseWriter, r *http.Request, _ int) bool {
		w.WriteHeader(http.StatusForbidden)
		return true
	}
	c := client(s, func(o *imds.Options) { o.Instance, o.Region = "i-0abc", "eu-north-1" })
	_, err := c.Get(t.Context(), "meta-data/mac")
	if !errors.Is(err, imds.ErrForbidden) || len(s.asked()) != 1 {
		t.Errorf("err = %v after %q", err, s.asked())
	}
	want := "the metadata service is disabled for this instance; enable it with: " +
		"aws ec2 modify-instance-metadata-options --instance-id i-0abc --http-endpoint enabled --http-tokens required --region eu-north-1"
	if got := diag.Hint(err); got != want {
		t.Errorf("hint %q\nwant %q", got, want)
	}
}

// Peers' trap 7: each attempt has a timeout of its own, not only the whole.
func TestPeerTrap7HungAttemptIsTriedAgain(t *testing.T) {
	t.Parallel()
	s := serve(t, map[string]string{"meta-data/mac": "m"})
	s.fault = func(_ http.ResponseWriter, r *http.Request, nth int) bool {
		if nth == 2 {
			<-r.Context().Done()
		}
		return nth == 2
	}
	begun := time.Now()
	get(t, client(s, func(o *imds.Options) { o.Attempt = 60 * time.Millisecond }), "meta-data/mac", "m")
	if took := time.Since(begun); took > time.Second {
		t.Errorf("took %s", took)
	}
}

// Peers' row 12: with a hop limit of 1 the answer to a container's token
// request is lost on its way; peers waited 20 s and went on with version 1.
func TestPeerRow12HopLimitIsExplained(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	s.fault = func(_ http.ResponseWriter, r *http.Request, _ int) bool {
		<-r.Context().Done()
		return true
	}
	c := client(s, func(o *imds.Options) {
		o.OnEC2, o.Instance, o.Region = true, "i-0abc", "eu-north-1"
		o.Attempt, o.Deadline = 100*time.Millisecond, 350*time.Millisecond
	})
	_, err := c.Get(t.Context(), "meta-data/mac")
	if !errors.Is(err, imds.ErrNoAnswer) || !strings.Contains(err.Error(), "connected, but no answer within 100ms") {
		t.Errorf("err = %v", err)
	}
	if want := "aws ec2 modify-instance-metadata-options --instance-id i-0abc --http-put-response-hop-limit 2 --region eu-north-1"; !strings.HasSuffix(diag.Hint(err), want) {
		t.Errorf("hint %q", diag.Hint(err))
	}
	if len(s.asked()) < 2 {
		t.Errorf("asked %q, want more than one try: the firmware says EC2", s.asked())
	}
}

func TestOutsideEC2IsKnownSoon(t *testing.T) {
	t.Parallel()
	quick := func(o *imds.Options) { o.Silence, o.Deadline = 80*time.Millisecond, 10*time.Second }
	t.Run("nothing listens", func(t *testing.T) {
		t.Parallel()
		o := imds.Options{Endpoints: []string{closedPort(t), closedPort(t)}}
		quick(&o)
		begun := time.Now()
		_, err := imds.New(o).Get(t.Context(), "meta-data/mac")
		if took := time.Since(begun); !errors.Is(err, imds.ErrUnreachable) || took > time.Second {
			t.Errorf("err = %v after %s", err, took)
		}
	})
	t.Run("something listens and says nothing", func(t *testing.T) {
		t.Parallel()
		s := serve(t, nil)
		s.fault = func(_ http.ResponseWriter, r *http.Request, _ int) bool {
			<-r.Context().Done()
			return true
		}
		begun := time.Now()
		_, err := client(s, quick).Get(t.Context(), "meta-data/mac")
		if took := time.Since(begun); !errors.Is(err, imds.ErrNoAnswer) || took > time.Second {
			t.Errorf("err = %v after %s", err, took)
		}
	})
}

// Peers' row 13: the service is not ready at boot, or the network is not.
func TestPeerRow13LateNetworkIsWaitedForOnEC2(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	s := serve(t, map[string]string{"meta-data/mac": "m"})
	time.AfterFunc(100*time.Millisecond, func() {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { l.Close() })
		_ = http.Serve(l, s)
	})
	c := imds.New(imds.Options{Endpoints: []string{"http://" + addr}, OnEC2: true, Silence: 10 * time.Millisecond, Deadline: 5 * time.Second})
	get(t, c, "meta-data/mac", "m")
}

// Peers' rows 13 and 14: credentials answer 404 for some seconds after boot,
// and everything else that answers 404 is simply not there.
func TestPeerRow14AbsentMeansTwoThings(t *testing.T) {
	t.Parallel()
	const path = "meta-data/iam/security-credentials/"
	s := serve(t, map[string]string{path: "web-role"})
	s.fault = func(w http.ResponseWriter, r *http.Request, nth int) bool {
		if late := r.Method == http.MethodGet && nth < 5; late {
			w.WriteHeader(http.StatusNotFound)
			return true
		}
		return false
	}
	c := client(s)
	b, err := c.Await(t.Context(), path)
	if err != nil || string(b) != "web-role" {
		t.Fatalf("Await = %q, %v", b, err)
	}
	before := len(s.asked())
	if _, err := c.Get(t.Context(), "meta-data/spot"); !errors.Is(err, imds.ErrAbsent) || len(s.asked()) != before+1 {
		t.Errorf("Get of what is not there: %v, %d requests", err, len(s.asked())-before)
	}
}

func TestAbsenceThatLastsIsBelieved(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	c := client(s, func(o *imds.Options) { o.Settle = 60 * time.Millisecond })
	if _, err := c.Await(t.Context(), "meta-data/iam"); !errors.Is(err, imds.ErrAbsent) {
		t.Fatalf("err = %v", err)
	}
	before := len(s.asked())
	if before < 3 {
		t.Errorf("%d requests, want retries", before)
	}
	if _, err := c.Await(t.Context(), "meta-data/iam"); !errors.Is(err, imds.ErrAbsent) || len(s.asked()) != before+1 {
		t.Errorf("second call: %v after %d requests", err, len(s.asked())-before)
	}
}

func TestSecondEndpointIsUsed(t *testing.T) {
	t.Parallel()
	t.Run("when the first is not there", func(t *testing.T) {
		t.Parallel()
		s := serve(t, map[string]string{"meta-data/mac": "m"})
		begun := time.Now()
		get(t, client(s, func(o *imds.Options) { o.Endpoints = []string{closedPort(t), s.URL} }), "meta-data/mac", "m")
		if took := time.Since(begun); took > 150*time.Millisecond {
			t.Errorf("took %s: a refused connection needs no head start", took)
		}
	})
	t.Run("when the first is silent", func(t *testing.T) {
		t.Parallel()
		s, mute := serve(t, map[string]string{"meta-data/mac": "m"}), serve(t, nil)
		mute.fault = func(_ http.ResponseWriter, r *http.Request, _ int) bool {
			<-r.Context().Done()
			return true
		}
		c := client(s, func(o *imds.Options) { o.Endpoints = []string{mute.URL, s.URL} })
		get(t, c, "meta-data/mac", "m")
		get(t, c, "meta-data/mac", "m")
		if n := len(mute.asked()); n != 1 {
			t.Errorf("the silent one was asked %d times, want once", n)
		}
	})
	t.Run("and not before the first had its chance", func(t *testing.T) {
		t.Parallel()
		s, other := serve(t, map[string]string{"meta-data/mac": "m"}), serve(t, nil)
		get(t, client(s, func(o *imds.Options) { o.Endpoints = []string{s.URL, other.URL} }), "meta-data/mac", "m")
		if other.asked() != nil {
			t.Errorf("asked the other %q", other.asked())
		}
	})
}

func TestTheMostTellingEndpointIsReported(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	s.fault = func(w http.ResponseWriter, _ *http.Request, _ int) bool {
		w.WriteHeader(http.StatusForbidden)
		return true
	}
	c := client(s, func(o *imds.Options) { o.Endpoints = []string{closedPort(t), s.URL} })
	if _, err := c.Get(t.Context(), "meta-data/mac"); !errors.Is(err, imds.ErrForbidden) {
		t.Errorf("err = %v, want ErrForbidden", err)
	}
}

func TestAnswersAreLimited(t *testing.T) {
	t.Parallel()
	s := serve(t, map[string]string{"user-data": strings.Repeat("x", 1<<20+1), "meta-data/mac": strings.Repeat("x", 1<<20)})
	c := client(s)
	if _, err := c.UserData(t.Context()); err == nil || !strings.Contains(err.Error(), "answer is too large: more than 1048576 bytes") {
		t.Errorf("err = %v", err)
	}
	if b, err := c.Get(t.Context(), "meta-data/mac"); err != nil || len(b) != 1<<20 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	other := serve(t, map[string]string{"meta-data/mac": "m"})
	s := serve(t, nil)
	s.fault = func(w http.ResponseWriter, r *http.Request, _ int) bool {
		http.Redirect(w, r, other.URL+r.URL.Path, http.StatusTemporaryRedirect)
		return true
	}
	if _, err := client(s).Get(t.Context(), "meta-data/mac"); err == nil || other.asked() != nil {
		t.Errorf("err = %v, the other was asked %q", err, other.asked())
	}
}

func TestCancelReturnsAtOnce(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	s.fault = func(_ http.ResponseWriter, r *http.Request, _ int) bool {
		<-r.Context().Done()
		return true
	}
	stop := errors.New("told to stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(30*time.Millisecond, func() { cancel(stop) })
	begun := time.Now()
	_, err := client(s, func(o *imds.Options) { o.OnEC2 = true }).Get(ctx, "meta-data/mac")
	if took := time.Since(begun); !errors.Is(err, stop) || took > 500*time.Millisecond {
		t.Errorf("err = %v after %s", err, took)
	}
}

func TestEscapedPartsStayEscaped(t *testing.T) {
	t.Parallel()
	s := serve(t, map[string]string{"meta-data/tags/instance/a b": "v"})
	get(t, client(s), "meta-data/tags/instance/"+url.PathEscape("a b"), "v")
	if got := s.asked()[1]; got != "GET /latest/meta-data/tags/instance/a%20b" {
		t.Errorf("asked %q", got)
	}
}

func TestListDropsBlankLines(t *testing.T) {
	t.Parallel()
	s := serve(t, map[string]string{"meta-data/tags/instance": "Name\nRole\n\n"})
	if got, err := client(s).List(t.Context(), "meta-data/tags/instance"); err != nil || !slices.Equal(got, []string{"Name", "Role"}) {
		t.Errorf("List = %q, %v", got, err)
	}
}

func TestDocument(t *testing.T) {
	t.Parallel()
	const path = "dynamic/instance-identity/document"
	for doc, want := range map[string]string{
		`{"instanceId":"i-1","region":"eu-north-1","accountId":"000123456789"}`: "",
		`{"instanceId":"i-1"}`: "cannot read instance metadata " + path + ": it names no instance and region",
		`<html>`:               "cannot read instance metadata " + path + ": invalid character '<' looking for beginning of value",
	} {
		s := serve(t, map[string]string{path: doc})
		d, err := client(s).Document(t.Context())
		switch {
		case want == "" && (err != nil || d.Account != "000123456789"):
			t.Errorf("Document = %+v, %v", d, err)
		case want != "" && (err == nil || err.Error() != want):
			t.Errorf("err = %v, want %s", err, want)
		}
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, value string
		endpoints   []string
		fault       string
	}{
		{"", "", nil, ""},
		{"AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "IPv6", []string{imds.IPv6}, ""},
		{"AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "ipv4", []string{imds.IPv4}, ""},
		{"AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1338/", []string{"http://127.0.0.1:1338/"}, ""},
		{"AWS_EC2_METADATA_SERVICE_ENDPOINT", "127.0.0.1:1338", nil, `cannot use AWS_EC2_METADATA_SERVICE_ENDPOINT "127.0.0.1:1338": not an address such as http://169.254.169.254`},
		{"AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "ipv5", nil, `cannot use AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE "ipv5": known are IPv4 and IPv6`},
	} {
		o, err := imds.FromEnv(func(k string) string {
			if k == tc.name {
				return tc.value
			}
			return ""
		})
		if fault := fmt.Sprint(err); tc.fault != "" && fault != tc.fault || tc.fault == "" && err != nil {
			t.Errorf("%s=%s: err = %v, want %q", tc.name, tc.value, err, tc.fault)
		}
		if !slices.Equal(o.Endpoints, tc.endpoints) {
			t.Errorf("%s=%s: endpoints %q", tc.name, tc.value, o.Endpoints)
		}
	}
}

func TestSwitchedOffAsksNobody(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	o, err := imds.FromEnv(func(k string) string {
		return map[string]string{"AWS_EC2_METADATA_DISABLED": "TRUE", "AWS_EC2_METADATA_SERVICE_ENDPOINT": s.URL}[k]
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = imds.New(o).Get(t.Context(), "meta-data/mac")
	if want := "cannot read instance metadata meta-data/mac: switched off: AWS_EC2_METADATA_DISABLED is true"; !errors.Is(err, imds.ErrOff) || err.Error() != want {
		t.Errorf("err = %v, want %s", err, want)
	}
	if s.asked() != nil {
		t.Errorf("asked %q", s.asked())
	}
}
