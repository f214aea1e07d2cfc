package fetch

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/amiagent/amiagent/internal/diag"
)

// S3Object is one object of S3, as an address names it.
type S3Object struct {
	Bucket, Key string
	Version     string // version id; "": the current one
	Region      string // "": not said
	Endpoint    string // scheme://host of a server that is not AWS; "": AWS, or what the settings override
	FIPS        bool   // the address names such an endpoint
	DualStack   bool
}

// String is s3://bucket/key, with the version if there is one.
func (o S3Object) String() string {
	s := "s3://" + o.Bucket + "/" + o.Key
	if o.Version != "" {
		s += "?versionId=" + url.QueryEscape(o.Version)
	}
	return s
}

// The names of S3's endpoints: legacy and current, global and regional, virtual
// hosted and path style, FIPS and dual stack, in every partition.
// https://docs.aws.amazon.com/general/latest/gr/s3.html
var (
	s3Suffix   = `\.(?:amazonaws\.com|amazonaws\.com\.cn|amazonaws\.eu|c2s\.ic\.gov|sc2s\.sgov\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)$`
	s3Endpoint = regexp.MustCompile(`^(?:(.+)\.)?s3(-fips)?(?:\.(dualstack))?(?:[.-]([a-z]{2,4}(?:-[a-z]+)+-\d+))?` + s3Suffix)
	awsHost    = regexp.MustCompile(s3Suffix)
)

// s3Host tells go-getter's shorthand: s3.amazonaws.com/bucket/key, without a scheme.
func s3Host(src string) bool {
	host, _, _ := strings.Cut(src, "/")
	return s3Endpoint.MatchString(host)
}

func parseS3(src string) (Address, error) {
	if s3Host(src) {
		src = "https://" + src
	}
	u, err := url.Parse(src)
	if err != nil {
		return Address{}, unquoted(err)
	}
	o := S3Object{}
	q := u.Query()
	for _, secret := range []string{"aws_access_key_id", "aws_access_key_secret", "aws_access_token"} {
		if q.Has(secret) {
			return Address{}, diag.WithHint(fmt.Errorf("%s does not belong in an address", secret), "give the instance a role that may read the bucket")
		}
	}
	if q.Has("aws_profile") {
		return Address{}, diag.WithHint(errors.New("aws_profile= is not supported"), "set AWS_PROFILE for the agent")
	}
	a := Address{Kind: KindS3, URL: u}
	o.Region = a.take("region")
	o.Version = a.take("version") // go-getter's word for it
	if v := a.take("versionId"); v != "" {
		o.Version = v
	}
	p := strings.TrimPrefix(u.Path, "/")
	switch {
	case u.Scheme == "s3":
		o.Bucket, o.Key = u.Host, p
	case u.Scheme != "https" && u.Scheme != "http":
		return Address{}, diag.WithHint(errors.New("not an address of S3"), "write s3://BUCKET/KEY or s3::https://s3.REGION.amazonaws.com/BUCKET/KEY")
	default:
		m := s3Endpoint.FindStringSubmatch(u.Hostname())
		switch {
		case m == nil && awsHost.MatchString(u.Hostname()):
			return Address{}, diag.WithHint(fmt.Errorf("%s is no endpoint that serves objects to this agent", u.Hostname()),
				"write s3://BUCKET/KEY; an access point is named by its alias")
		case m == nil:
			o.Endpoint = u.Scheme + "://" + u.Host
		default:
			o.Bucket, o.FIPS, o.DualStack = m[1], m[2] != "", m[3] != ""
			if m[4] != "" {
				o.Region = m[4]
			}
		}
		if o.Bucket == "" {
			o.Bucket, p, _ = strings.Cut(p, "/")
		}
		o.Key = p
	}
	if o.Bucket == "" || o.Key == "" || strings.HasSuffix(o.Key, "/") {
		return Address{}, errors.New("it names no object of a bucket")
	}
	a.S3 = o
	return a, nil
}
