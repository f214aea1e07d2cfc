// Package s3 fetches objects from S3 and from servers that speak its protocol.
//
// It does not use the SDK's client for S3, which would bring every operation
// of S3 into the binary (ten megabytes). It uses the SDK's parts that hold the
// knowledge: the endpoint rules (partitions, FIPS, dual stack, path style), the
// request signer and the credentials chain. The one request that is left, GET
// of one object, is plain HTTP.
package s3

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	smithyauth "github.com/aws/smithy-go/auth"
	"github.com/aws/smithy-go/encoding/httpbinding"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/fetch"
	"github.com/amiagent/amiagent/internal/fetch/web"
)

// Options are what the machine knows of its S3.
type Options struct {
	Region      string                  // of addresses that name none; "" makes such addresses faults
	Credentials aws.CredentialsProvider // should cache; nil: there are none
	Anonymous   bool                    // ask without a signature when there are no credentials
	Endpoint    string                  // replaces AWS's endpoints, path style, as AWS_ENDPOINT_URL_S3 says
	FIPS        bool                    // AWS_USE_FIPS_ENDPOINT
	DualStack   bool                    // AWS_USE_DUALSTACK_ENDPOINT
	Web         web.Options             // loopback is allowed by itself if Endpoint is set
}

type source struct {
	opt      Options
	client   *web.Client
	resolver awss3.EndpointResolverV2
	signer   *v4.Signer

	mu      sync.Mutex
	regions map[string]string // of buckets, as S3 told
}

// New makes the source. Its error says what is wrong with the settings.
func New(o Options) (fetch.Source, error) {
	o.Web.Loopback = o.Web.Loopback || o.Endpoint != ""
	o.Web.Redirects = 0 // S3's redirects mean another region, and another signature
	client, err := web.New(o.Web)
	return &source{opt: o, client: client, resolver: awss3.NewDefaultEndpointResolverV2(), signer: v4.NewSigner(), regions: map[string]string{}}, err
}

func (s *source) Open(ctx context.Context, a fetch.Address, _ fetch.Scratch) (fetch.Object, error) {
	o := a.S3
	if o.Endpoint == "" {
		o.Endpoint = s.opt.Endpoint
	}
	region, err := s.region(o)
	if err != nil {
		return fetch.Object{}, err
	}
	resp, err := s.get(ctx, o, region)
	if err != nil {
		return fetch.Object{}, err
	}
	if resp.StatusCode == http.StatusOK {
		return object(o, resp), nil
	}
	f := faultOf(resp)
	if f.Region != "" && f.Region != region {
		s.remember(o, f.Region)
		if resp, err = s.get(ctx, o, f.Region); err != nil {
			return fetch.Object{}, err
		}
		if resp.StatusCode == http.StatusOK {
			return object(o, resp), nil
		}
		f = faultOf(resp)
	}
	return fetch.Object{}, s.refused(resp, f)
}

// region is the bucket's as S3 told, the address's, or the machine's; never a guess on AWS.
func (s *source) region(o fetch.S3Object) (string, error) {
	s.mu.Lock()
	known := s.regions[o.Endpoint+"/"+o.Bucket]
	s.mu.Unlock()
	for _, r := range []string{known, o.Region, s.opt.Region} {
		if r != "" {
			return r, nil
		}
	}
	if o.Endpoint != "" {
		return "us-east-1", nil // what servers that are not AWS call themselves
	}
	return "", diag.WithHint(errors.New("the region is not known"), "set AWS_REGION, or add ?region= to the address")
}

func (s *source) remember(o fetch.S3Object, region string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.regions[o.Endpoint+"/"+o.Bucket] = region
}

// emptyHash is the SHA-256 of nothing, the payload of a GET.
const emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func (s *source) get(ctx context.Context, o fetch.S3Object, region string) (*http.Response, error) {
	params := awss3.EndpointParameters{
		Bucket:       &o.Bucket,
		Key:          &o.Key,
		Region:       &region,
		UseFIPS:      aws.Bool(o.FIPS || s.opt.FIPS && o.Endpoint == ""),
		UseDualStack: aws.Bool(o.DualStack || s.opt.DualStack && o.Endpoint == ""),
		// A session of an express bucket is one more request; its plain signature is enough for reading.
		DisableS3ExpressSessionAuth: aws.Bool(true),
	}
	if o.Endpoint != "" {
		params.Endpoint, params.ForcePathStyle = &o.Endpoint, aws.Bool(true)
	}
	ep, err := s.resolver.ResolveEndpoint(ctx, params)
	if err != nil {
		return nil, fmt.Errorf("cannot tell the endpoint of bucket %s in %s: %w", o.Bucket, region, err)
	}
	u := ep.URI
	u.RawPath = httpbinding.EscapePath(u.Path, false) + "/" + httpbinding.EscapePath(o.Key, false)
	u.Path += "/" + o.Key
	if o.Version != "" {
		u.RawQuery = url.Values{"versionId": {o.Version}}.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.URL.RawPath = u.RawPath
	creds, err := s.credentials(ctx)
	if err != nil {
		return nil, err
	}
	if creds.HasKeys() {
		name, signingRegion := "s3", region
		if options, ok := smithyauth.GetAuthOptions(&ep.Properties); ok {
			i := slices.IndexFunc(options, func(o *smithyauth.Option) bool { return o.SchemeID == "sigv4" })
			if i < 0 {
				return nil, fmt.Errorf("bucket %s needs a kind of signature that is not supported", o.Bucket)
			}
			if n, ok := smithyhttp.GetSigV4SigningName(&options[i].SignerProperties); ok {
				name = n
			}
			if r, ok := smithyhttp.GetSigV4SigningRegion(&options[i].SignerProperties); ok {
				signingRegion = r
			}
		}
		req.Header.Set("X-Amz-Content-Sha256", emptyHash)
		if err := s.signer.SignHTTP(ctx, creds, req, emptyHash, name, signingRegion, time.Now(), func(o *v4.SignerOptions) {
			o.DisableURIPathEscaping = true // S3 signs the path as it is sent
		}); err != nil {
			return nil, fmt.Errorf("cannot sign the request: %w", err)
		}
	}
	return s.client.Do(req)
}

func (s *source) credentials(ctx context.Context) (aws.Credentials, error) {
	if s.opt.Credentials != nil {
		c, err := s.opt.Credentials.Retrieve(ctx)
		if err == nil {
			return c, nil
		}
		if !s.opt.Anonymous {
			// Denied, so that the policy of a new instance waits for them.
			return aws.Credentials{}, diag.WithHint(fmt.Errorf("%w: no credentials: %w", fetch.ErrDenied, err), "give the instance a role (an instance profile) that may read the object")
		}
	} else if !s.opt.Anonymous {
		return aws.Credentials{}, diag.WithHint(fmt.Errorf("%w: no credentials", fetch.ErrDenied), "give the instance a role (an instance profile) that may read the object")
	}
	return aws.Credentials{}, nil
}

func object(o fetch.S3Object, resp *http.Response) fetch.Object {
	version := resp.Header.Get("x-amz-version-id")
	if version != "" {
		o.Version = version
	}
	obj := fetch.Object{Body: resp.Body, Size: resp.ContentLength, Origin: o.String(), Version: version, Cuttable: web.Cuttable(resp)}
	if version == "" || version == "null" { // "null" names what is current in a bucket without versions
		obj.Version = resp.Header.Get("ETag")
	}
	return obj
}

// fault is S3's error document.
// https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
type fault struct {
	Code, Message, Region string
}

// faultOf reads an answer's error and closes its body.
func faultOf(resp *http.Response) fault {
	defer resp.Body.Close()
	var f fault
	_ = xml.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&f)
	if r := resp.Header.Get("x-amz-bucket-region"); r != "" {
		f.Region = r
	}
	return f
}

// refused makes S3's refusal an error with its class and what to try.
func (s *source) refused(resp *http.Response, f fault) error {
	detail := f.Code
	if f.Message != "" {
		detail += ": " + f.Message
	}
	err := web.Status(resp, detail)
	switch f.Code {
	case "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired":
		if c, ok := s.opt.Credentials.(interface{ Invalidate() }); ok {
			c.Invalidate()
			return fetch.Transient(err, 0)
		}
	case "InvalidToken": // 400, unlike InvalidAccessKeyId; new credentials are unknown for a while
		return fmt.Errorf("%w: %w", fetch.ErrDenied, err)
	case "RequestTimeout", "SlowDown", "RequestLimitExceeded", "InternalError", "ServiceUnavailable", "Throttling":
		return fetch.Transient(err, 0)
	case "SignatureDoesNotMatch":
		// Waiting does not mend a wrong key, so this is no ErrDenied.
		return errors.New(err.Error())
	case "RequestTimeTooSkewed":
		return diag.WithHint(err, "the clock of this machine is wrong: see that chrony runs")
	case "InvalidObjectState":
		return diag.WithHint(err, "the object is archived: restore it, or keep artifacts in another storage class")
	case "MethodNotAllowed": // this version is a delete marker
		return fmt.Errorf("%w: %w", fetch.ErrAbsent, err)
	case "AccessDenied":
		return diag.WithHint(err, "allow s3:GetObject (and s3:GetObjectVersion for a version) to the instance's role, and kms:Decrypt for its key; without s3:ListBucket S3 says the same for an object that is not there")
	case "NoSuchBucket", "NoSuchKey", "NoSuchVersion":
		return diag.WithHint(err, "see that bucket, key and version are written right")
	}
	return err
}
