package ec2sim

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// credentials are one set that the metadata service handed out.
type credentials struct {
	aws.Credentials
	issued time.Time
}

const (
	credentialsLife = 6 * time.Hour    // what EC2 gives
	maxSkew         = 15 * time.Minute // https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
	amzTime         = "20060102T150405Z"
)

// current gives credentials with some life left, issuing new ones when it has
// to. Callers hold s.mu.
func (s *Sim) current() credentials {
	if n := len(s.keys); n > 0 && time.Until(s.keys[n-1].Expires) > 5*time.Minute {
		return s.keys[n-1]
	}
	now := time.Now().UTC().Truncate(time.Second)
	k := credentials{issued: now, Credentials: aws.Credentials{
		// ASIA marks temporary credentials; the key id has 20 characters, the secret 40.
		AccessKeyID:     "ASIA" + base32.StdEncoding.EncodeToString(random(10)),
		SecretAccessKey: base64.StdEncoding.EncodeToString(random(30)),
		SessionToken:    base64.StdEncoding.EncodeToString(random(270)),
		CanExpire:       true, Expires: now.Add(credentialsLife),
	}}
	s.keys = append(s.keys, k)
	return k
}

// ExpireCredentials ends all credentials handed out so far. The metadata
// service gives new ones from now on.
func (s *Sim) ExpireCredentials() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.keys {
		s.keys[i].Expires = time.Now()
	}
}

// Credentials are what the metadata service hands out now, for clients that
// are given them directly.
func (s *Sim) Credentials() aws.Credentials {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current().Credentials
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// signed is a request's signature, taken apart.
type signed struct {
	key, date, region, service string // the credential scope
	headers                    []string
	signature                  string
	at                         time.Time
	token                      string
	presigned                  bool
	life                       time.Duration // of a presigned request
}

// signature reads the signature from the Authorization header, or from the
// query of a presigned request.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
func signature(r *http.Request) (signed, bool) {
	var s signed
	var credential, headers, at string
	if auth, ok := strings.CutPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 "); ok {
		for part := range strings.SplitSeq(auth, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
			switch name {
			case "Credential":
				credential = value
			case "SignedHeaders":
				headers = value
			case "Signature":
				s.signature = value
			}
		}
		at, s.token = r.Header.Get("X-Amz-Date"), r.Header.Get("X-Amz-Security-Token")
	} else if q := r.URL.Query(); q.Get("X-Amz-Algorithm") == "AWS4-HMAC-SHA256" {
		s.presigned = true
		credential, headers, s.signature = q.Get("X-Amz-Credential"), q.Get("X-Amz-SignedHeaders"), q.Get("X-Amz-Signature")
		at, s.token = q.Get("X-Amz-Date"), q.Get("X-Amz-Security-Token")
		seconds, _ := strconv.Atoi(q.Get("X-Amz-Expires"))
		s.life = time.Duration(seconds) * time.Second
	}
	scope := strings.Split(credential, "/")
	if len(scope) != 5 || scope[4] != "aws4_request" {
		return signed{}, false
	}
	s.key, s.date, s.region, s.service = scope[0], scope[1], scope[2], scope[3]
	s.headers = strings.Split(headers, ";")
	s.at, _ = time.Parse(amzTime, at)
	return s, true
}

// isSigned lets a call pass whose signature is right: a known key that has not
// ended, with its session token, a clock within 15 minutes, the right service
// and region, and a signature that comes out the same when recomputed.
func isSigned(c *call) *apiError {
	words := c.service.words
	got, ok := signature(c.r)
	if !ok {
		return &words.unsigned
	}
	c.sim.mu.Lock()
	i := slices.IndexFunc(c.sim.keys, func(k credentials) bool { return k.AccessKeyID == got.key })
	var key credentials
	if i >= 0 {
		key = c.sim.keys[i]
	}
	region := c.sim.cfg.Region
	c.sim.mu.Unlock()

	now := time.Now()
	switch {
	case i < 0:
		return &words.unknownKey
	case got.presigned && now.After(got.at.Add(got.life)):
		err := words.denied
		err.message = "Request has expired"
		return &err
	case !got.presigned && got.at.Sub(now).Abs() > maxSkew, got.presigned && got.at.Sub(now) > maxSkew:
		return &words.skewed
	case got.token != key.SessionToken:
		return &words.badToken
	case !now.Before(key.Expires):
		return &words.expired
	case !slices.Contains(got.headers, "host"), got.at.Format("20060102") != got.date:
		return &words.badSignature
	case got.region != region && c.service.name != "s3": // S3 redirects to the bucket's region
		return &words.badSignature
	}
	sum := sha256.Sum256(c.body)
	payload := hex.EncodeToString(sum[:])
	if got.presigned {
		payload = "UNSIGNED-PAYLOAD"
	} else if h := c.r.Header.Get("X-Amz-Content-Sha256"); h != "" {
		if h != payload && h != "UNSIGNED-PAYLOAD" {
			return &words.badSignature
		}
		payload = h
	}
	want, err := recompute(c.r, got, key.Credentials, payload)
	if err != nil || subtle.ConstantTimeCompare([]byte(want), []byte(got.signature)) != 1 {
		return &words.badSignature
	}
	return nil
}

// recompute signs what was signed, with the SDK's own signer, and gives the signature.
func recompute(r *http.Request, got signed, key aws.Credentials, payload string) (string, error) {
	path, _, _ := strings.Cut(r.RequestURI, "?")
	query := r.URL.Query()
	for _, name := range []string{"Algorithm", "Credential", "Date", "SignedHeaders", "Signature", "Security-Token"} {
		query.Del("X-Amz-" + name) // the signer puts them back
	}
	if !got.presigned {
		query = r.URL.Query()
	}
	again := &http.Request{
		Method: r.Method, Host: r.Host, Header: http.Header{},
		// Opaque keeps the path as it came over the wire.
		URL: &url.URL{Scheme: "http", Host: r.Host, Opaque: "//" + r.Host + path, RawQuery: query.Encode()},
	}
	for _, name := range got.headers {
		switch name {
		case "host", "x-amz-date": // the signer sets them
		case "content-length":
			again.ContentLength = r.ContentLength
		default:
			name = textproto.CanonicalMIMEHeaderKey(name)
			again.Header[name] = slices.Clone(r.Header[name])
		}
	}
	plain := func(o *v4.SignerOptions) { o.DisableURIPathEscaping = got.service == "s3" }
	signer := v4.NewSigner(plain)
	if got.presigned {
		uri, _, err := signer.PresignHTTP(context.Background(), key, again, payload, got.service, got.region, got.at)
		_, sig, _ := strings.Cut(uri, "X-Amz-Signature=")
		return sig, err
	}
	if err := signer.SignHTTP(context.Background(), key, again, payload, got.service, got.region, got.at); err != nil {
		return "", err
	}
	_, sig, _ := strings.Cut(again.Header.Get("Authorization"), "Signature=")
	return sig, nil
}
