package ec2sim_test

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/amiagent/amiagent/internal/ec2sim"
)

func bucket(objects map[string]ec2sim.Versions) ec2sim.Config {
	return ec2sim.Config{Buckets: map[string]ec2sim.Bucket{"acme": {Objects: objects}}}
}

func TestGetObjectVersions(t *testing.T) {
	i := launch(t, bucket(map[string]ec2sim.Versions{"app conf/v+1": {"one", "two"}}))
	three := i.PutObject("acme", "app conf/v+1", []byte("three"))
	get := func(version *string) (*s3.GetObjectOutput, string, error) {
		out, err := i.s3().GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("acme"), Key: aws.String("app conf/v+1"), VersionId: version})
		if err != nil {
			return nil, "", err
		}
		defer out.Body.Close()
		b, err := io.ReadAll(out.Body)
		return out, string(b), err
	}
	out, text, err := get(nil)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "latest", text, "three")
	equal(t, "version", *out.VersionId, three)
	equal(t, "ETag", *out.ETag, `"35d6d33467aae9a2e3dccb4b6b027878"`) // md5 of "three"
	equal(t, "length", *out.ContentLength, 5)
	if time.Since(*out.LastModified) > time.Minute {
		t.Errorf("last modified %s", out.LastModified)
	}
	// The same configuration gives the same ids, so that a manifest can name one.
	again := ec2sim.New(bucket(map[string]ec2sim.Versions{"app conf/v+1": {"one", "two"}}))
	equal(t, "id of the third version", again.PutObject("acme", "app conf/v+1", []byte("three")), three)

	four := i.PutObject("acme", "app conf/v+1", []byte("three"))
	if four == three {
		t.Error("the same bytes again are no new version")
	}
	_, text, err = get(&three)
	equal(t, "by version", text, "three")
	if err != nil {
		t.Error(err)
	}
	_, _, err = get(aws.String("none"))
	fails(t, err, "NoSuchVersion")
	i.DeleteObject("acme", "app conf/v+1")
	_, _, err = get(nil)
	fails(t, err, "NoSuchKey: The specified key does not exist.")
}

func TestRanges(t *testing.T) {
	i := launch(t, bucket(map[string]ec2sim.Versions{"k": {"0123456789"}, "empty": {""}}))
	for _, c := range []struct{ key, header, want, contentRange string }{
		{"k", "", "0123456789", ""},
		{"k", "bytes=0-0", "0", "bytes 0-0/10"},
		{"k", "bytes=2-4", "234", "bytes 2-4/10"},
		{"k", "bytes=7-", "789", "bytes 7-9/10"},
		{"k", "bytes=7-99", "789", "bytes 7-9/10"},
		{"k", "bytes=-3", "789", "bytes 7-9/10"},
		{"k", "bytes=-99", "0123456789", "bytes 0-9/10"},
		{"k", "bytes=4-2", "0123456789", ""}, // no valid range: as if it were not there
		{"k", "bytes=0-1,4-5", "0123456789", ""},
		{"k", "lines=1-2", "0123456789", ""},
		{"k", "bytes=10-", "InvalidRange", ""},
		{"k", "bytes=-0", "InvalidRange", ""},
		{"empty", "bytes=0-", "InvalidRange", ""},
		{"empty", "", "", ""},
	} {
		in := &s3.GetObjectInput{Bucket: aws.String("acme"), Key: &c.key}
		if c.header != "" {
			in.Range = &c.header
		}
		out, err := i.s3().GetObject(t.Context(), in)
		if c.want == "InvalidRange" {
			fails(t, err, "StatusCode: 416")
			fails(t, err, "InvalidRange")
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.header, err)
			continue
		}
		b, _ := io.ReadAll(out.Body)
		equal(t, c.header, string(b), c.want)
		equal(t, c.header+" Content-Range", aws.ToString(out.ContentRange), c.contentRange)
		equal(t, c.header+" length", *out.ContentLength, int64(len(c.want)))
	}
}

func FuzzRange(f *testing.F) {
	sim := ec2sim.New(bucket(map[string]ec2sim.Versions{"k": {"0123456789"}}))
	srv, err := sim.Start("127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { srv.Close() })
	i := &instance{Sim: sim, srv: srv}
	i.aws = aws.Config{Region: sim.Config().Region, BaseEndpoint: aws.String(srv.APIURL()), HTTPClient: http.DefaultClient,
		Retryer: func() aws.Retryer { return aws.NopRetryer{} }, Credentials: aws.CredentialsProviderFunc(staticKey(sim))}
	for _, seed := range []string{"bytes=0-0", "bytes=-1", "bytes=9223372036854775807-", "bytes=0-18446744073709551615", "bytes=--", "bytes=-", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		if strings.ContainsFunc(header, func(r rune) bool { return r < ' ' || r > '~' }) {
			return // no header can hold it
		}
		out, err := i.s3().GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("acme"), Key: aws.String("k"), Range: &header})
		if err != nil {
			fails(t, err, "InvalidRange")
			return
		}
		b, _ := io.ReadAll(out.Body)
		if !strings.Contains("0123456789", string(b)) || len(b) == 0 {
			t.Errorf("%q got %q", header, b)
		}
	})
}

func TestConditions(t *testing.T) {
	i := launch(t, bucket(map[string]ec2sim.Versions{"k": {"one"}}))
	head, err := i.s3().HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String("acme"), Key: aws.String("k")})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "length", *head.ContentLength, 3)
	get := func(match, noneMatch *string) error {
		_, err := i.s3().GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("acme"), Key: aws.String("k"), IfMatch: match, IfNoneMatch: noneMatch})
		return err
	}
	if err := get(head.ETag, nil); err != nil {
		t.Error(err)
	}
	fails(t, get(nil, head.ETag), "StatusCode: 304")
	i.PutObject("acme", "k", []byte("two")) // overwritten between two ranges
	fails(t, get(head.ETag, nil), "PreconditionFailed")
	fails(t, get(head.ETag, nil), "StatusCode: 412")
	if err := get(nil, head.ETag); err != nil {
		t.Error(err)
	}
}

func TestBuckets(t *testing.T) {
	i := launch(t, ec2sim.Config{Region: "eu-west-1", Buckets: map[string]ec2sim.Bucket{
		"near": {Objects: map[string]ec2sim.Versions{"k": {"x"}}},
		"far":  {Region: "us-east-1", Objects: map[string]ec2sim.Versions{"k": {"y"}}},
	}})
	list, err := i.s3().ListBuckets(t.Context(), nil)
	if err != nil || len(list.Buckets) != 2 || *list.Buckets[0].Name != "far" {
		t.Errorf("buckets: %+v, %v", list, err)
	}
	head, err := i.s3().HeadBucket(t.Context(), &s3.HeadBucketInput{Bucket: aws.String("near")})
	if err != nil || *head.BucketRegion != "eu-west-1" {
		t.Errorf("head: %+v, %v", head, err)
	}
	_, err = i.s3().HeadBucket(t.Context(), &s3.HeadBucketInput{Bucket: aws.String("none")})
	fails(t, err, "NotFound")
	for name, want := range map[string]string{"near": "eu-west-1", "far": ""} {
		out, err := i.s3().GetBucketLocation(t.Context(), &s3.GetBucketLocationInput{Bucket: &name})
		if err != nil || string(out.LocationConstraint) != want {
			t.Errorf("location of %s: %+v, %v", name, out, err)
		}
	}
	_, err = i.object(t.Context(), "none", "k")
	fails(t, err, "NoSuchBucket")
	_, err = i.object(t.Context(), "far", "k")
	fails(t, err, "PermanentRedirect")
	_, err = i.s3().HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String("far"), Key: aws.String("k")})
	fails(t, err, "StatusCode: 301")

	i.aws.Region = "us-east-1" // as a client does that was told
	if text, err := i.object(t.Context(), "far", "k"); err != nil || text != "y" {
		t.Errorf("far from us-east-1: %q, %v", text, err)
	}
	_, err = i.s3().PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("far"), Key: aws.String("k")})
	fails(t, err, "NotImplemented")
}

// The region is named where a client looks for it, with and without a body.
func TestRedirectNamesTheRegion(t *testing.T) {
	i := launch(t, ec2sim.Config{Buckets: map[string]ec2sim.Bucket{"far": {Region: "ap-south-1"}}})
	i.aws.HTTPClient = spy{func(r *http.Response) {
		if r.StatusCode == 301 && r.Header.Get("X-Amz-Bucket-Region") != "ap-south-1" {
			t.Errorf("the redirect names no region: %v", r.Header)
		}
	}}
	_, err := i.s3().HeadBucket(t.Context(), &s3.HeadBucketInput{Bucket: aws.String("far")})
	fails(t, err, "301")
}

type spy struct{ see func(*http.Response) }

func (s spy) Do(r *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err == nil {
		s.see(resp)
	}
	return resp, err
}

// Host names of buckets are looked up at the simulator, as DNS does for S3.
func TestVirtualHostStyle(t *testing.T) {
	i := launch(t, bucket(map[string]ec2sim.Versions{"dir/k": {"x"}}))
	api, err := url.Parse(i.srv.APIURL())
	if err != nil {
		t.Fatal(err)
	}
	for _, endpoint := range []string{"http://s3.eu-west-1.amazonaws.com", "http://s3.dualstack.eu-west-1.amazonaws.com", "http://localhost:" + api.Port()} {
		var hosts []string
		i.aws.BaseEndpoint = &endpoint
		i.aws.HTTPClient = &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			hosts = append(hosts, r.URL.Host)
			r.Host, r.URL.Host = r.URL.Host, api.Host
			return http.DefaultTransport.RoundTrip(r)
		})}
		text, err := i.object(t.Context(), "acme", "dir/k")
		if err != nil || text != "x" {
			t.Errorf("%s: %q, %v", endpoint, text, err)
		}
		if len(hosts) != 1 || !strings.HasPrefix(hosts[0], "acme.") {
			t.Errorf("%s: the client went to %v", endpoint, hosts)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestListObjects(t *testing.T) {
	objects := map[string]ec2sim.Versions{"top": {"1"}, "dir/<a>&b": {"22"}}
	for n := range 5 {
		objects[fmt.Sprintf("dir/sub/%d", n)] = ec2sim.Versions{"x"}
	}
	i := launch(t, bucket(objects))
	list := func(in s3.ListObjectsV2Input) (names []string) {
		in.Bucket = aws.String("acme")
		pages := s3.NewListObjectsV2Paginator(i.s3(), &in)
		for pages.HasMorePages() {
			page, err := pages.NextPage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range page.Contents {
				names = append(names, *o.Key)
			}
			for _, p := range page.CommonPrefixes {
				names = append(names, *p.Prefix)
			}
		}
		return names
	}
	all := []string{"dir/<a>&b", "dir/sub/0", "dir/sub/1", "dir/sub/2", "dir/sub/3", "dir/sub/4", "top"}
	equal(t, "all", list(s3.ListObjectsV2Input{}), all)
	equal(t, "in pages of two", list(s3.ListObjectsV2Input{MaxKeys: aws.Int32(2)}), all)
	equal(t, "one level", list(s3.ListObjectsV2Input{Delimiter: aws.String("/")}), []string{"top", "dir/"})
	equal(t, "one level, one a page", list(s3.ListObjectsV2Input{Delimiter: aws.String("/"), MaxKeys: aws.Int32(1)}), []string{"dir/", "top"})
	equal(t, "below a prefix", list(s3.ListObjectsV2Input{Prefix: aws.String("dir/"), Delimiter: aws.String("/")}), []string{"dir/<a>&b", "dir/sub/"})
	equal(t, "after a key", list(s3.ListObjectsV2Input{StartAfter: aws.String("dir/sub/3")}), []string{"dir/sub/4", "top"})
}

// A folder is a bucket: what changes on disk is a new version.
func TestFolderBucket(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("web/app.conf", "one")
	i := launch(t, ec2sim.Config{Buckets: map[string]ec2sim.Bucket{"acme": {Folder: dir, Objects: map[string]ec2sim.Versions{"extra": {"y"}}}}})
	get := func(version *string) (string, string) {
		t.Helper()
		out, err := i.s3().GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("acme"), Key: aws.String("web/app.conf"), VersionId: version})
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(out.Body)
		return string(b), *out.VersionId
	}
	text, first := get(nil)
	equal(t, "file", text, "one")
	write("web/app.conf", "longer")
	text, second := get(nil)
	equal(t, "changed file", text, "longer")
	if first == second {
		t.Error("a changed file is no new version")
	}
	text, _ = get(&first)
	equal(t, "version before", text, "one")

	list, err := i.s3().ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String("acme")})
	if err != nil || len(list.Contents) != 2 || *list.Contents[1].Key != "web/app.conf" {
		t.Errorf("list: %+v, %v", list, err)
	}
	if err := os.Remove(filepath.Join(dir, "web/app.conf")); err != nil {
		t.Fatal(err)
	}
	_, err = i.object(t.Context(), "acme", "web/app.conf")
	fails(t, err, "NoSuchKey")

	secret := filepath.Join(filepath.Dir(dir), "secret")
	if err := os.WriteFile(secret, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = i.object(t.Context(), "acme", "../secret")
	if err == nil {
		t.Error("a key left the folder")
	}
}
