package fetch_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/amiagent/amiagent/internal/ec2sim"
	"github.com/amiagent/amiagent/internal/fetch"
	"github.com/amiagent/amiagent/internal/fetch/source/s3"
)

// withS3 gives a world a bucket named art.
func withS3(w *world) *ec2sim.Sim {
	w.t.Helper()
	sim := ec2sim.New(ec2sim.Config{Region: "eu-west-1", Buckets: map[string]ec2sim.Bucket{"art": {}}})
	srv := httptest.NewServer(sim.Handler())
	w.t.Cleanup(srv.Close)
	src, err := s3.New(s3.Options{Region: "eu-west-1", Endpoint: srv.URL, Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return sim.Credentials(), nil
	})})
	if err != nil {
		w.t.Fatal(err)
	}
	w.opt.Sources[fetch.KindS3] = src
	w.opt.Policy.Total = 300 * time.Millisecond
	w.store = w.newStore()
	return sim
}

const (
	one = "sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed" // of "one"
	two = "sha256:3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3" // of "two"
)

func TestNamed(t *testing.T) {
	commit := strings.Repeat("a", 40)
	for _, c := range []struct {
		req          fetch.Request
		name, digest string
	}{
		{fetch.Request{Source: "s3::https://s3.eu-west-1.amazonaws.com/b/app.tgz"}, "s3://b/app.tgz", ""},
		{fetch.Request{Source: "s3://b/app.tgz?region=us-east-1", Digest: one}, "s3://b/app.tgz", one},
		{fetch.Request{Source: "s3://b/app.tgz?versionId=7"}, "s3://b/app.tgz?versionId=7", ""},
		{fetch.Request{Source: "https://user:pw@h/app.tgz?sig=x&checksum=" + one}, "https://redacted@h/app.tgz?sig=redacted", one},
		{fetch.Request{Source: "git::https://h/r.git//conf?ref=main"}, "git::https://h/r.git//conf?ref=main", ""},
		{fetch.Request{Source: "git::https://h/r.git?ref=" + commit}, "git::https://h/r.git?ref=" + commit, "git:" + commit},
		{fetch.Request{Source: "://?secret=1", Digest: two}, "://?secret=redacted", two},
	} {
		if name, digest := c.req.Named(); name != c.name || digest != c.digest {
			t.Errorf("%s: got %s %s, want %s %s", c.req.Source, name, digest, c.name, c.digest)
		}
	}
}

func TestHeldIsTheLockedRequestOrNamesBothSides(t *testing.T) {
	req := func(source, digest string, size int64, mirrors ...string) fetch.Request {
		return fetch.Request{Source: source, Digest: digest, Size: size, Mirrors: mirrors}
	}
	for _, c := range []struct {
		name    string
		req     fetch.Request
		digest  string
		size    int64
		version string
		want    fetch.Request
		fault   string
	}{
		{"a page", req("https://h/a", "", 0), one, 3, "", req("https://h/a", one, 3), ""},
		{"the same digest", req("https://h/a", one, 3), one, 3, "", req("https://h/a", one, 3), ""},
		{"another digest", req("https://h/a", two, 0), one, 3, "", fetch.Request{}, "the manifest says " + two + ", the lock has " + one},
		{"another in the address", req("https://h/a?checksum="+two, "", 0), one, 3, "", fetch.Request{}, "the manifest says " + two + ", the lock has " + one},
		{"another size", req("https://h/a", "", 4), one, 3, "", fetch.Request{}, "the manifest says 4 bytes, the lock has 3"},
		{"an object of S3", req("s3://b/k", "", 0, "https://h/k"), one, 3, "v+1", req("s3://b/k?versionId=v%2B1", one, 3, "s3://b/k", "https://h/k"), ""},
		{"with a region", req("s3://b/k?region=us-east-1", "", 0), one, 3, "7", req("s3://b/k?region=us-east-1&versionId=7", one, 3, "s3://b/k?region=us-east-1"), ""},
		{"its version", req("s3://b/k?versionId=7", "", 0), one, 3, "7", req("s3://b/k?versionId=7", one, 3), ""},
		{"another version", req("s3://b/k?versionId=6", "", 0), one, 3, "7", fetch.Request{}, "the manifest says version 6, the lock has 7"},
		{"a bucket without versions", req("s3://b/k", "", 0), one, 3, "", req("s3://b/k", one, 3), ""},
		{"a broken address", req("nothing", "", 0), one, 3, "7", req("nothing", one, 3), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.req.Held(c.digest, c.size, c.version)
			switch {
			case c.fault != "" && (err == nil || err.Error() != c.fault):
				t.Errorf("got %v, want %s", err, c.fault)
			case c.fault == "" && (err != nil || got.Source != c.want.Source || got.Digest != c.want.Digest || got.Size != c.want.Size || strings.Join(got.Mirrors, " ") != strings.Join(c.want.Mirrors, " ")):
				t.Errorf("got %+v %v\nwant %+v", got, err, c.want)
			}
		})
	}
}

// The object is replaced. The locked version is still had, by a role that may
// read versions; one that may not is refused rather than given other bytes.
func TestALockedVersionIsFetchedAfterTheObjectMoved(t *testing.T) {
	w := newWorld(t)
	sim := withS3(w)
	sim.PutObject("art", "app", []byte("one"))
	req := fetch.Request{Name: "app", Source: "s3://art/app"}
	r, err := w.store.Resolve(t.Context(), req, fetch.Resolved{})
	if err != nil || r.Digest != one || r.Size != 3 || r.Version == "" || r.Origin != "s3://art/app?versionId="+r.Version {
		t.Fatalf("%+v %v", r, err)
	}
	sim.PutObject("art", "app", []byte("two"))
	held, err := req.Held(r.Digest, r.Size, r.Version)
	if err != nil {
		t.Fatal(err)
	}
	if it := w.fetch(held)[0]; w.read(it.Path) != "one" {
		t.Errorf("got %s", w.read(it.Path))
	}

	w2 := newWorld(t)
	w2.opt.Sources[fetch.KindS3] = denyVersions{w.opt.Sources[fetch.KindS3]}
	w2.store = w2.newStore()
	w2.fails(held, fetch.ErrDigest)
	sim.PutObject("art", "app", []byte("one")) // back again, as another version
	if it := w2.fetch(held)[0]; w2.read(it.Path) != "one" {
		t.Error("the address as it was written does not serve")
	}
}

// denyVersions is S3 for a role without s3:GetObjectVersion.
type denyVersions struct{ fetch.Source }

func (d denyVersions) Open(ctx context.Context, a fetch.Address, scratch fetch.Scratch) (fetch.Object, error) {
	if a.S3.Version != "" {
		return fetch.Object{}, fetch.ErrDenied
	}
	return d.Source.Open(ctx, a, scratch)
}

func TestResolveReadsAVersionOnce(t *testing.T) {
	w := newWorld(t)
	sim := withS3(w)
	big := bytes.Repeat([]byte("x"), 4<<20)
	sim.PutObject("art", "big", big)
	req := fetch.Request{Source: "s3://art/big"}
	first, err := w.store.Resolve(t.Context(), req, fetch.Resolved{})
	if err != nil || first.Digest != digest(big) {
		t.Fatalf("%+v %v", first, err)
	}
	sim.SetFault(ec2sim.Fault{Service: "s3", Do: ec2sim.Truncate, At: 10}) // the body cannot be had any more
	again, err := w.store.Resolve(t.Context(), req, first)
	if err != nil || again != first {
		t.Errorf("%+v %v", again, err)
	}
	// Not even for whoever wants another digest of it.
	req.Digest = two
	if _, err := w.store.Resolve(t.Context(), req, first); err == nil {
		t.Error("a digest that the manifest asks for is taken on trust")
	}
	sim.ClearFaults()
	if _, err := w.store.Resolve(t.Context(), req, first); !errors.Is(err, fetch.ErrDigest) {
		t.Errorf("%v", err)
	}
}

func TestResolveKeepsNothing(t *testing.T) {
	w := newWorld(t)
	w.has("/app", []byte("one"))
	dir := t.TempDir()
	git := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=t", "-c", "user.email=t@example.com"}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
	}
	git("init", "-q", "-b", "main", ".")
	git("commit", "-q", "--allow-empty", "-m", "first")
	for _, c := range []struct {
		req    fetch.Request
		digest string
		size   int64
	}{
		{fetch.Request{Source: w.url + "/app"}, one, 3},
		{fetch.Request{Source: w.url + "/app", Unpack: true}, one, 3}, // of the archive's bytes; what is in it is no matter
		{fetch.Request{Source: w.url + "/gone", Mirrors: []string{w.url + "/app"}}, one, 3},
		{fetch.Request{Source: "git::file://" + filepath.ToSlash(dir) + "?ref=main", Unpack: true}, "git:", 0},
		{fetch.Request{Source: w.url + "/app", Digest: "sha512:05f70341078acf6a06d423d21720f9643d5f953626d88a02636dc3a9e79582aeb0c820857fd3f8dc502aa8360d2c8fa97a985fda5b629b809cad18ffb62d3899"},
			"sha512:05f70341078acf6a06d423d21720f9643d5f953626d88a02636dc3a9e79582aeb0c820857fd3f8dc502aa8360d2c8fa97a985fda5b629b809cad18ffb62d3899", 3},
	} {
		r, err := w.store.Resolve(t.Context(), c.req, fetch.Resolved{})
		if err != nil || !strings.HasPrefix(r.Digest, c.digest) || r.Size != c.size || r.Version != "" {
			t.Errorf("%+v: %+v %v", c.req, r, err)
		}
	}
	w.nothingLeft()
}

func TestResolveFailures(t *testing.T) {
	w := newWorld(t)
	w.has("/app", []byte("one"))
	w.on("/hang", func(http.ResponseWriter, *http.Request) { time.Sleep(50 * time.Millisecond) })
	for _, c := range []struct {
		req  fetch.Request
		want error
	}{
		{fetch.Request{Source: w.url + "/gone"}, fetch.ErrAbsent},
		{fetch.Request{Source: w.url + "/app", Digest: two}, fetch.ErrDigest},
		{fetch.Request{Source: w.url + "/app", Size: 4}, fetch.ErrSize},
		{fetch.Request{Source: "s3://b/k"}, nil}, // no such source here
		{fetch.Request{Source: "nothing"}, nil},
	} {
		if r, err := w.store.Resolve(t.Context(), c.req, fetch.Resolved{}); err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%+v: %+v %v", c.req, r, err)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	if _, err := w.store.Resolve(ctx, fetch.Request{Source: w.url + "/hang"}, fetch.Resolved{}); !errors.Is(err, enough) {
		t.Error(err)
	}
}
