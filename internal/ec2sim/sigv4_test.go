package ec2sim_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/amiagent/amiagent/internal/ec2sim"
)

var bodies = map[string]string{
	"ssm": `{"Name":"motd"}`,
	"ec2": "Action=DescribeTags&Version=2016-11-15",
}

// wire is a request as it is sent after it was signed.
type wire struct {
	key     aws.Credentials
	service string
	region  string
	at      time.Time
	headers map[string]string
	body    string
	payload string              // the hash that the header claims, where one is sent
	spoil   func(*http.Request) // after signing
}

// send signs a request for a parameter, or for an object, and gives "status body".
func (i *instance) send(t *testing.T, w wire) string {
	t.Helper()
	method, url := "POST", i.srv.APIURL()+"/"
	if w.service == "s3" {
		method, url = "GET", i.srv.APIURL()+"/acme/some%20dir/a+b=c~d.txt?x-id=GetObject"
		w.headers = map[string]string{"X-Amz-Content-Sha256": "UNSIGNED-PAYLOAD"}
	}
	if w.service == "ssm" {
		w.headers = map[string]string{"X-Amz-Target": "AmazonSSM.GetParameter", "Content-Type": "application/x-amz-json-1.1"}
	}
	if w.service == "ec2" {
		w.headers = map[string]string{"Content-Type": "application/x-www-form-urlencoded"}
	}
	req, err := http.NewRequest(method, url, strings.NewReader(w.body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range w.headers {
		req.Header.Set(name, value)
	}
	if w.payload != "" {
		req.Header.Set("X-Amz-Content-Sha256", w.payload)
	}
	payload := req.Header.Get("X-Amz-Content-Sha256")
	if payload == "" {
		sum := sha256.Sum256([]byte(w.body))
		payload = hex.EncodeToString(sum[:])
	}
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = w.service == "s3" })
	if w.key.AccessKeyID != "" {
		if err := signer.SignHTTP(t.Context(), w.key, req, payload, w.service, w.region, w.at); err != nil {
			t.Fatal(err)
		}
	}
	if w.spoil != nil {
		w.spoil(req)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.Status[:3] + " " + string(b)
}

// Each way to sign wrongly gets each service's own answer.
func TestSignaturesAreChecked(t *testing.T) {
	i := launch(t, ec2sim.Config{
		Parameters: map[string]ec2sim.Parameter{"motd": {Value: ec2sim.Versions{"hello"}}},
		Buckets:    map[string]ec2sim.Bucket{"acme": {Objects: map[string]ec2sim.Versions{"some dir/a+b=c~d.txt": {"hello"}}}},
		Tags:       map[string]string{"motd": "hello"},
	})
	good := i.Credentials()
	other := func(change func(*aws.Credentials)) aws.Credentials {
		key := good
		change(&key)
		return key
	}
	for _, c := range []struct {
		name         string
		change       func(*wire)
		ssm, ec2, s3 string
	}{
		{"right", func(*wire) {}, "200 hello", "200 hello", "200 hello"},
		{"14 minutes slow", func(w *wire) { w.at = w.at.Add(-14 * time.Minute) }, "200 hello", "200 hello", "200 hello"},
		{"no signature", func(w *wire) { w.key = aws.Credentials{} },
			"400 MissingAuthenticationTokenException", "400 MissingParameter", "403 AccessDenied"},
		{"unknown key", func(w *wire) { w.key = other(func(k *aws.Credentials) { k.AccessKeyID = "ASIAUNKNOWNUNKNOWNUN" }) },
			"400 UnrecognizedClientException", "401 AuthFailure", "403 InvalidAccessKeyId"},
		{"wrong secret", func(w *wire) { w.key = other(func(k *aws.Credentials) { k.SecretAccessKey = "wrong" }) },
			"400 InvalidSignatureException", "403 SignatureDoesNotMatch", "403 SignatureDoesNotMatch"},
		{"no session token", func(w *wire) { w.key = other(func(k *aws.Credentials) { k.SessionToken = "" }) },
			"400 UnrecognizedClientException", "401 AuthFailure", "400 InvalidToken"},
		{"16 minutes slow", func(w *wire) { w.at = w.at.Add(-16 * time.Minute) },
			"400 InvalidSignatureException", "400 RequestExpired", "403 RequestTimeTooSkewed"},
		{"16 minutes fast", func(w *wire) { w.at = w.at.Add(16 * time.Minute) },
			"400 InvalidSignatureException", "400 RequestExpired", "403 RequestTimeTooSkewed"},
		{"another path", func(w *wire) { w.spoil = func(r *http.Request) { r.URL.Path, r.URL.RawPath = "/acme/other", "" } },
			"400 InvalidSignatureException", "403 SignatureDoesNotMatch", "403 SignatureDoesNotMatch"},
		{"another query", func(w *wire) { w.spoil = func(r *http.Request) { r.URL.RawQuery = "versionId=1" } },
			"400 InvalidSignatureException", "403 SignatureDoesNotMatch", "403 SignatureDoesNotMatch"},
		{"another body", func(w *wire) {
			w.spoil = func(r *http.Request) {
				if w.service == "s3" { // whose payload is not signed here
					r.Header.Set("X-Amz-Content-Sha256", strings.Repeat("0", 64))
				}
				body := bytes.Replace([]byte(w.body), []byte("motd"), []byte("root"), 1)
				body = bytes.Replace(body, []byte("Action"), []byte("action"), 1)
				r.Body = io.NopCloser(bytes.NewReader(body))
			}
		}, "400 InvalidSignatureException", "403 SignatureDoesNotMatch", "403 SignatureDoesNotMatch"},
		{"a signed hash that is not the body's", func(w *wire) { w.payload = strings.Repeat("0", 64) },
			"400 InvalidSignatureException", "403 SignatureDoesNotMatch", "403 SignatureDoesNotMatch"},
		{"another region", func(w *wire) { w.region = "us-east-2" },
			"400 InvalidSignatureException", "403 SignatureDoesNotMatch", "301 PermanentRedirect"},
	} {
		for service, want := range map[string]string{"ssm": c.ssm, "ec2": c.ec2, "s3": c.s3} {
			w := wire{key: good, service: service, region: i.Config().Region, at: time.Now(), body: bodies[service]}
			c.change(&w)
			got := i.send(t, w)
			status, word, _ := strings.Cut(want, " ")
			if !strings.HasPrefix(got, status) || !strings.Contains(got, word) {
				t.Errorf("%s, %s: got %s, want %s", c.name, service, got, want)
			}
		}
	}
}

// One address serves all: the signature says which service is meant, not the
// looks of the request.
func TestSignatureNamesTheService(t *testing.T) {
	i := launch(t, ec2sim.Config{})
	form := map[string]string{"Content-Type": "application/x-www-form-urlencoded"}
	for service, want := range map[string]string{
		"sts":            "501 <?xml",
		"secretsmanager": `400 {"__type":"UnknownOperationException"`,
	} {
		got := i.send(t, wire{key: i.Credentials(), service: service, region: "eu-west-1", at: time.Now(), headers: form, body: "Action=X"})
		if !strings.HasPrefix(got, want) || !strings.Contains(got, "ec2sim does not serve "+service) {
			t.Errorf("signed for %s: got %s", service, got)
		}
		equal(t, "recorded", i.Count(service, ""), 1)
	}
}

func TestCredentialsEnd(t *testing.T) {
	i := launch(t, ec2sim.Config{Parameters: map[string]ec2sim.Parameter{"motd": {Value: ec2sim.Versions{"hello"}}}})
	if _, err := i.parameter(t, "motd"); err != nil {
		t.Fatal(err)
	}
	i.ExpireCredentials()
	_, err := i.parameter(t, "motd") // the client still holds the old ones
	fails(t, err, "ExpiredTokenException")
	i.aws.Credentials.(*aws.CredentialsCache).Invalidate()
	if got, err := i.parameter(t, "motd"); got != "hello" {
		t.Errorf("new credentials do not work: %v", err)
	}
}

func TestPresignedURL(t *testing.T) {
	i := launch(t, ec2sim.Config{Buckets: map[string]ec2sim.Bucket{"acme": {Objects: map[string]ec2sim.Versions{"a b": {"0123456789"}}}}})
	presign := func(life time.Duration) string {
		req, err := s3.NewPresignClient(i.s3()).PresignGetObject(context.Background(),
			&s3.GetObjectInput{Bucket: aws.String("acme"), Key: aws.String("a b")}, s3.WithPresignExpires(life))
		if err != nil {
			t.Fatal(err)
		}
		return req.URL
	}
	fetch := func(url string) string {
		resp, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.Status[:3] + " " + string(b)
	}
	url := presign(time.Minute)
	equal(t, "presigned", fetch(url), "200 0123456789")
	for name, spoilt := range map[string]string{
		"another key":    strings.Replace(url, "/a%20b", "/a%20c", 1),
		"a longer life":  strings.Replace(url, "X-Amz-Expires=60", "X-Amz-Expires=6000", 1),
		"a version more": url + "&versionId=1",
	} {
		if spoilt == url {
			t.Fatalf("%s: the URL is %s", name, url)
		}
		if got := fetch(spoilt); !strings.Contains(got, "SignatureDoesNotMatch") {
			t.Errorf("%s: got %s", name, got)
		}
	}
	short := presign(time.Second)
	then := strings.Replace(short, "X-Amz-Date="+time.Now().UTC().Format("20060102"), "X-Amz-Date="+time.Now().UTC().AddDate(0, 0, -1).Format("20060102"), 1)
	if got := fetch(then); !strings.HasPrefix(got, "403") || !strings.Contains(got, "Request has expired") {
		t.Errorf("of yesterday: got %s", got)
	}
}

// Whatever stands in the header, the answer is a refusal.
func FuzzAuthorization(f *testing.F) {
	sim := ec2sim.New(ec2sim.Config{})
	key := sim.Credentials().AccessKeyID
	f.Add("AWS4-HMAC-SHA256 Credential="+key+"/20260101/eu-west-1/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=00", "20260101T000000Z")
	f.Add("AWS4-HMAC-SHA256 Credential=////, SignedHeaders=, Signature=", "")
	f.Add("AWS4-HMAC-SHA256 ,,,=", "x")
	f.Add("Basic eDp5", "")
	f.Fuzz(func(t *testing.T, auth, date string) {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "/acme/key", nil)
		r.Header["Authorization"], r.Header["X-Amz-Date"] = []string{auth}, []string{date}
		sim.Handler().ServeHTTP(w, r)
		if w.Code < 400 {
			t.Fatalf("%q got %d", auth, w.Code)
		}
	})
}
