package s3_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"golang.org/x/net/http/httpproxy"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/ec2sim"
	"github.com/amiagent/amiagent/internal/fetch"
	"github.com/amiagent/amiagent/internal/fetch/source/s3"
	"github.com/amiagent/amiagent/internal/fetch/web"
)

// world is a local S3 that checks every signature.
type world struct {
	sim *ec2sim.Sim
	url string
}

func newWorld(t *testing.T, buckets map[string]ec2sim.Bucket) *world {
	w := &world{sim: ec2sim.New(ec2sim.Config{Region: "eu-west-1", Buckets: buckets})}
	srv := httptest.NewServer(w.sim.Handler())
	t.Cleanup(srv.Close)
	w.url = srv.URL
	return w
}

func (w *world) source(t *testing.T, change func(*s3.Options)) fetch.Source {
	t.Helper()
	o := s3.Options{Region: "eu-west-1", Endpoint: w.url, Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return w.sim.Credentials(), nil
	})}
	if change != nil {
		change(&o)
	}
	s, err := s3.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func open(t *testing.T, s fetch.Source, address string) (string, fetch.Object, error) {
	t.Helper()
	a, err := fetch.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	obj, err := s.Open(t.Context(), a, nil)
	if err != nil {
		return "", obj, err
	}
	defer obj.Body.Close()
	b, err := io.ReadAll(obj.Body)
	if err == nil && obj.Size != int64(len(b)) {
		t.Errorf("size %d, body %d", obj.Size, len(b))
	}
	return string(b), obj, err
}

func TestCurrentAndFormerVersion(t *testing.T) {
	w := newWorld(t, map[string]ec2sim.Bucket{"art": {}})
	first := w.sim.PutObject("art", "app.tgz", []byte("one"))
	second := w.sim.PutObject("art", "app.tgz", []byte("two"))
	s := w.source(t, nil)
	for _, c := range []struct{ address, body, version string }{
		{"s3://art/app.tgz", "two", second},
		{"s3://art/app.tgz?versionId=" + first, "one", first},
		{"s3::https://s3.eu-west-1.amazonaws.com/art/app.tgz", "two", second},
	} {
		body, obj, err := open(t, s, c.address)
		if err != nil || body != c.body || obj.Version != c.version || obj.Origin != "s3://art/app.tgz?versionId="+c.version {
			t.Errorf("%s gave %q %+v %v", c.address, body, obj, err)
		}
	}
}

// The signature covers the path as it is sent, so every key must arrive as it was meant.
func TestKeysOfAllSorts(t *testing.T) {
	w := newWorld(t, map[string]ec2sim.Bucket{"art": {}})
	s := w.source(t, nil)
	for _, key := range []string{"a b", "a+b", "a:b@c", "ä/ö", "a=b&c", "100%25", "(x)!~*'$,;", "deep/er/k", "q%3Fx", "./x", "a/../b"} {
		plain := strings.ReplaceAll(strings.ReplaceAll(key, "%25", "%"), "%3F", "?")
		w.sim.PutObject("art", plain, []byte(plain))
		if body, _, err := open(t, s, "s3://art/"+key); err != nil || body != plain {
			t.Errorf("%s: %q %v", key, body, err)
		}
	}
}

// A bucket of another region says where it is; it is asked there, and that is remembered.
func TestRegionIsLearnedOnce(t *testing.T) {
	w := newWorld(t, map[string]ec2sim.Bucket{"far": {Region: "ap-south-1"}})
	w.sim.PutObject("far", "k", []byte("data"))
	s := w.source(t, nil)
	for range 2 {
		if body, _, err := open(t, s, "s3://far/k"); err != nil || body != "data" {
			t.Errorf("%q %v", body, err)
		}
	}
	if n := w.sim.Count("s3", "GetObject"); n != 3 {
		t.Errorf("%d requests, want 3: the redirect is to be met once", n)
	}
}

func TestRefusals(t *testing.T) {
	w := newWorld(t, map[string]ec2sim.Bucket{"art": {}})
	w.sim.PutObject("art", "k", []byte("data"))
	wrongKey := aws.CredentialsProviderFunc(func(ctx context.Context) (aws.Credentials, error) {
		c := w.sim.Credentials()
		c.SecretAccessKey = "wrong"
		return c, nil
	})
	stranger := aws.CredentialsProviderFunc(func(ctx context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: "AKIAUNKNOWN", SecretAccessKey: "x"}, nil
	})
	broken := aws.CredentialsProviderFunc(func(ctx context.Context) (aws.Credentials, error) {
		return aws.Credentials{}, errors.New("no role attached")
	})
	for name, c := range map[string]struct {
		address   string
		fault     *ec2sim.Fault
		creds     aws.CredentialsProvider
		is        error
		transient bool
		says      string
	}{
		"absent key":     {address: "s3://art/gone", is: fetch.ErrAbsent, says: "NoSuchKey"},
		"absent bucket":  {address: "s3://gone/k", is: fetch.ErrAbsent, says: "NoSuchBucket"},
		"absent version": {address: "s3://art/k?versionId=zzz", says: "version"},
		"denied":         {address: "s3://art/k", fault: &ec2sim.Fault{Service: "s3", Do: ec2sim.Deny}, is: fetch.ErrDenied, says: "AccessDenied"},
		"unknown key":    {address: "s3://art/k", creds: stranger, is: fetch.ErrDenied, says: "InvalidAccessKeyId"},
		"wrong key":      {address: "s3://art/k", creds: wrongKey, says: "SignatureDoesNotMatch"},
		"no credentials": {address: "s3://art/k", creds: broken, is: fetch.ErrDenied, says: "no credentials: no role attached"},
		"slow down":      {address: "s3://art/k", fault: &ec2sim.Fault{Service: "s3", Do: ec2sim.Throttle}, transient: true, says: "SlowDown"},
		"internal error": {address: "s3://art/k", fault: &ec2sim.Fault{Service: "s3", Do: ec2sim.Fail}, transient: true, says: "500"},
		"reset":          {address: "s3://art/k", fault: &ec2sim.Fault{Service: "s3", Do: ec2sim.Reset}, transient: true},
		"cut body":       {address: "s3://art/k", fault: &ec2sim.Fault{Service: "s3", Do: ec2sim.Truncate, At: 2}, transient: true, is: fetch.ErrTruncated},
	} {
		t.Run(name, func(t *testing.T) {
			if w.sim.ClearFaults(); c.fault != nil {
				w.sim.SetFault(*c.fault)
			}
			s := w.source(t, func(o *s3.Options) {
				if c.creds != nil {
					o.Credentials = c.creds
				}
			})
			_, _, err := open(t, s, c.address)
			if err == nil || c.is != nil && !errors.Is(err, c.is) || fetch.IsTransient(err) != c.transient || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v (transient %v)", err, fetch.IsTransient(err))
			}
			if errors.Is(err, fetch.ErrDenied) && c.is != fetch.ErrDenied {
				t.Errorf("%v counts as denied, which waiting may mend", err)
			}
			if (name == "denied" || name == "no credentials" || strings.HasPrefix(name, "absent")) && diag.Hint(err) == "" {
				t.Error("no hint")
			}
		})
	}
}

// Trap 8 of the peers: a default region is a guess, and wrong.
func TestTrap8RegionIsNeverGuessed(t *testing.T) {
	s, err := s3.New(s3.Options{Anonymous: true})
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = open(t, s, "s3://art/k")
	if err == nil || err.Error() != "the region is not known" || diag.Hint(err) != "set AWS_REGION, or add ?region= to the address" {
		t.Errorf("got %v, hint %q", err, diag.Hint(err))
	}
}

// Expired credentials are fetched anew, by whoever caches them.
func TestExpiredCredentialsAreDropped(t *testing.T) {
	w := newWorld(t, map[string]ec2sim.Bucket{"art": {}})
	w.sim.PutObject("art", "k", []byte("data"))
	retrieved := 0
	cache := aws.NewCredentialsCache(aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		retrieved++
		c := w.sim.Credentials()
		c.CanExpire = false // what the cache believes
		return c, nil
	}))
	s := w.source(t, func(o *s3.Options) { o.Credentials = cache })
	if _, _, err := open(t, s, "s3://art/k"); err != nil {
		t.Fatal(err)
	}
	w.sim.SetFault(ec2sim.Fault{Service: "s3", Do: ec2sim.Fail, Status: 400, Code: "ExpiredToken", Count: 1})
	if _, _, err := open(t, s, "s3://art/k"); !fetch.IsTransient(err) {
		t.Errorf("got %v", err)
	}
	if _, _, err := open(t, s, "s3://art/k"); err != nil || retrieved != 2 {
		t.Errorf("credentials retrieved %d times, %v", retrieved, err)
	}
}

// Without credentials a request is unsigned, if the settings allow that.
func TestAnonymous(t *testing.T) {
	asked := ""
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("signed")
		}
		asked = r.RequestURI
		w.Header().Set("ETag", `"abc"`)
		_, _ = io.WriteString(w, "public")
	}))
	defer srv.Close()
	s, _ := s3.New(s3.Options{Endpoint: srv.URL, Anonymous: true})
	if body, obj, err := open(t, s, "s3://art/k"); err != nil || body != "public" || obj.Version != `"abc"` || obj.Origin != "s3://art/k" {
		t.Errorf("%q %+v %v", body, obj, err)
	}
	// S3 computes the signature over the strictest escaping (UriEncode in the
	// description of Signature Version 4), so that is what must be sent.
	if _, _, err := open(t, s, "s3://art/a+b:c/(d)?versionId=x/y"); err != nil || asked != "/art/a%2Bb%3Ac/%28d%29?versionId=x%2Fy" {
		t.Errorf("asked for %s, %v", asked, err)
	}
	s, _ = s3.New(s3.Options{Endpoint: srv.URL})
	if _, _, err := open(t, s, "s3://art/k"); !errors.Is(err, fetch.ErrDenied) {
		t.Errorf("not allowed, and yet %v", err)
	}
}

// An address may name a server of its own; an address of AWS goes where the
// settings say. The proxy sees which endpoint was meant.
func TestEndpoints(t *testing.T) {
	asked := ""
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.Host
		w.WriteHeader(http.StatusBadGateway)
	}))
	defer proxy.Close()
	for _, c := range []struct {
		address, region string
		fips, dual      bool
		want            string
	}{
		{"s3://art/k", "eu-west-1", false, false, "art.s3.eu-west-1.amazonaws.com"},
		{"s3://art/k", "us-east-1", false, false, "art.s3.us-east-1.amazonaws.com"},
		{"s3://art/k?region=us-west-2", "eu-west-1", false, false, "art.s3.us-west-2.amazonaws.com"},
		{"s3://art/k", "us-gov-west-1", true, false, "art.s3-fips.us-gov-west-1.amazonaws.com"},
		{"s3://art/k", "us-east-2", true, true, "art.s3-fips.dualstack.us-east-2.amazonaws.com"},
		{"s3://art/k", "eu-west-1", false, true, "art.s3.dualstack.eu-west-1.amazonaws.com"},
		{"s3://art/k", "cn-north-1", false, false, "art.s3.cn-north-1.amazonaws.com.cn"},
		{"s3://art/k", "us-iso-east-1", false, false, "art.s3.us-iso-east-1.c2s.ic.gov"},
		{"s3://my.art/k", "eu-west-1", false, false, "s3.eu-west-1.amazonaws.com"}, // dots do not fit the certificate
		{"s3://b--use1-az4--x-s3/k", "us-east-1", false, false, "b--use1-az4--x-s3.s3express-use1-az4.us-east-1.amazonaws.com"},
		{"s3::https://s3-fips.us-east-1.amazonaws.com/art/k", "eu-west-1", false, false, "art.s3-fips.us-east-1.amazonaws.com"},
	} {
		s, err := s3.New(s3.Options{Region: c.region, FIPS: c.fips, DualStack: c.dual, Anonymous: true,
			Web: web.Options{Proxy: httpproxy.Config{HTTPSProxy: proxy.URL}}})
		if err != nil {
			t.Fatal(err)
		}
		asked = ""
		if _, _, err := open(t, s, c.address); err == nil || asked != c.want+":443" {
			t.Errorf("%s in %s asked %q, want %q (%v)", c.address, c.region, asked, c.want, err)
		}
	}
}

func TestEndpointInTheAddress(t *testing.T) {
	w := newWorld(t, map[string]ec2sim.Bucket{"art": {Region: "us-east-1"}})
	w.sim.PutObject("art", "k", []byte("data"))
	address := "s3::" + w.url + "/art/k"
	s := w.source(t, func(o *s3.Options) { o.Endpoint, o.Region, o.Web.Loopback = "", "", true })
	if body, _, err := open(t, s, address); err != nil || body != "data" {
		t.Errorf("%q %v", body, err)
	}
	// Loopback, and no setting that allows it.
	s = w.source(t, func(o *s3.Options) { o.Endpoint = "" })
	if _, _, err := open(t, s, address); !errors.Is(err, web.ErrForbidden) || fetch.IsTransient(err) {
		t.Errorf("got %v", err)
	}
}

func TestErrorsOfStrangeServers(t *testing.T) {
	status, body := 0, ""
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	defer srv.Close()
	s, _ := s3.New(s3.Options{Endpoint: srv.URL, Anonymous: true})
	doc := func(code string) string {
		return "<Error><Code>" + code + "</Code><Message>M</Message></Error>"
	}
	for _, c := range []struct {
		status    int
		body      string
		is        error
		transient bool
	}{
		{200 + 6, "", nil, false}, // a part of it, unasked
		{301, "not xml", nil, false},
		{400, doc("RequestTimeout"), nil, true},
		{400, doc("InvalidToken"), fetch.ErrDenied, false},
		{403, "", fetch.ErrDenied, false},
		{403, doc("InvalidObjectState"), nil, false},
		{403, doc("RequestTimeTooSkewed"), fetch.ErrDenied, false},
		{405, doc("MethodNotAllowed"), fetch.ErrAbsent, false},
		{503, strings.Repeat("x", 1<<20), nil, true},
	} {
		status, body = c.status, c.body
		_, _, err := open(t, s, "s3://art/k")
		if err == nil || c.is != nil && !errors.Is(err, c.is) || fetch.IsTransient(err) != c.transient {
			t.Errorf("%d %.40s: %v", c.status, c.body, err)
		}
		if len(fmt.Sprint(err)) > 300 {
			t.Errorf("a long error: %.100s…", err)
		}
	}
}
