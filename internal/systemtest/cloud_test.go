//go:build system

package systemtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sys/unix"

	"github.com/amiagent/amiagent/internal/ec2sim"
	"github.com/amiagent/amiagent/internal/nspawntest"
)

// Where the parts of the cloud listen, inside their network namespace.
const (
	imdsAddress = "169.254.169.254:80"
	apiAddress  = "127.0.0.1:4566"
	s3Address   = "127.0.0.1:7070"
)

// cloud is a network namespace with what an instance sees of AWS: the metadata
// service, SSM, and an S3 that is a program of its own, with real versions.
type cloud struct {
	*ec2sim.Sim
	t       *testing.T
	ns      string // its name
	server  *ec2sim.Server
	dir     string // of S3
	gateway *exec.Cmd
	client  *s3.Client
}

var clouds atomic.Int64

func newCloud(t *testing.T, cfg ec2sim.Config) *cloud {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root: it boots a system in a network namespace")
	}
	nspawntest.Need(t, map[string]string{"ip": "iproute2", "haproxy": "haproxy", "apt-ftparchive": "apt-utils"})
	c := &cloud{Sim: ec2sim.New(cfg), t: t, dir: t.TempDir(), ns: fmt.Sprintf("amiagent-%d-%d", os.Getpid(), clouds.Add(1))}
	c.UseCredentials("AKIDSYSTEMTEST", "the-secret-key-of-the-instance-s-role") // versitygw knows no session tokens
	command(t, "ip", "netns", "add", c.ns)
	t.Cleanup(func() { command(t, "ip", "netns", "del", c.ns) })
	for _, args := range []string{"link set lo up", "address add 169.254.169.254/32 dev lo"} {
		command(t, "ip", append([]string{"-n", c.ns}, strings.Fields(args)...)...)
	}
	c.metadataUp()
	t.Cleanup(c.metadataDown)
	c.s3Up()
	t.Cleanup(c.s3Down)
	return c
}

func (c *cloud) path() string { return "/run/netns/" + c.ns }

// inside runs f in the namespace. What f opens stays there.
func (c *cloud) inside(f func() error) error {
	errs := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		ns, err := os.Open(c.path())
		if err == nil {
			defer ns.Close()
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = f()
		}
		errs <- err
	}()
	return <-errs
}

func (c *cloud) metadataUp() {
	c.t.Helper()
	err := c.inside(func() (err error) {
		c.server, err = c.Listen(imdsAddress, apiAddress)
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

// metadataDown takes the metadata service and the APIs away: connections are refused.
func (c *cloud) metadataDown() {
	if c.server != nil {
		_ = c.server.Close()
		c.server = nil
	}
}

// s3Up starts S3, which takes the credentials that the metadata service gives.
func (c *cloud) s3Up() {
	c.t.Helper()
	program, err := versitygw()
	if err != nil {
		c.t.Fatal(err)
	}
	for _, d := range []string{"objects", "versions"} {
		if err := os.MkdirAll(filepath.Join(c.dir, d), 0o755); err != nil {
			c.t.Fatal(err)
		}
	}
	keys := c.Credentials()
	c.gateway = exec.Command("ip", "netns", "exec", c.ns, program,
		"--port", s3Address, "--region", c.Config().Region, "--access-log", c.accessLog(), "--quiet",
		"posix", "--versioning-dir", filepath.Join(c.dir, "versions"), filepath.Join(c.dir, "objects"))
	c.gateway.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+keys.AccessKeyID, "ROOT_SECRET_KEY="+keys.SecretAccessKey)
	var said bytes.Buffer
	c.gateway.Stdout, c.gateway.Stderr = &said, &said
	if err := c.gateway.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.client = s3.New(s3.Options{
		Region: c.Config().Region, BaseEndpoint: aws.String("http://" + s3Address), UsePathStyle: true,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return keys, nil }),
		HTTPClient:  c.http(),
	})
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		_, err := c.client.ListBuckets(c.t.Context(), &s3.ListBucketsInput{})
		if err == nil {
			return
		}
		if time.Now().After(end) {
			c.s3Down()
			c.t.Fatalf("S3 does not answer: %v\n%s", err, said.Bytes())
		}
	}
}

func (c *cloud) s3Down() {
	if c.gateway != nil {
		_ = c.gateway.Process.Kill()
		_ = c.gateway.Wait()
		c.gateway = nil
	}
}

// http is a client that lives in the namespace.
func (c *cloud) http() *http.Client {
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
			err = c.inside(func() (err error) {
				conn, err = new(net.Dialer).DialContext(ctx, network, address)
				return err
			})
			return conn, err
		},
	}}
}

// put keeps an object, in a bucket with versions, and gives its version.
func (c *cloud) put(bucket, key string, data []byte) (version string) {
	c.t.Helper()
	ctx := c.t.Context()
	_, err := c.client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &bucket})
	var exists *types.BucketAlreadyOwnedByYou
	if errors.As(err, &exists) {
		err = nil
	}
	if err == nil {
		_, err = c.client.PutBucketVersioning(ctx, &s3.PutBucketVersioningInput{Bucket: &bucket,
			VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled}})
	}
	if err != nil {
		c.t.Fatal(err)
	}
	out, err := c.client.PutObject(ctx, &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: bytes.NewReader(data)})
	if err != nil {
		c.t.Fatal(err)
	}
	return aws.ToString(out.VersionId)
}

func (c *cloud) accessLog() string { return filepath.Join(c.dir, "access.log") }

// gets are the requests for objects of a bucket since the last call of forget.
func (c *cloud) gets(bucket string) (lines []string) {
	b, err := os.ReadFile(c.accessLog())
	if err != nil {
		c.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, "GetObject") && strings.Contains(line, bucket) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// forget empties S3's log.
func (c *cloud) forget() {
	if err := os.Truncate(c.accessLog(), 0); err != nil {
		c.t.Fatal(err)
	}
}

// versitygw builds the S3 server once.
var versitygw = sync.OnceValues(func() (string, error) {
	return goBuild("versitygw", "github.com/versity/versitygw/cmd/versitygw", "-modfile=tools/go.mod")
})

// balancer is HAProxy in front of the service: it sends traffic to port 8080
// as long as the health endpoint says 200.
type balancer struct {
	cloud *cloud
	mu    sync.Mutex
	turns []turn
}

// turn is one change of the balancer's mind.
type turn struct {
	at  time.Time
	up  bool
	why string
}

const balancerConfig = `
defaults
	mode http
	timeout connect 1s
	timeout client 5s
	timeout server 5s
	default-server inter 100ms fall 1 rise 1
frontend world
	bind 127.0.0.1:8000
	default_backend web
backend web
	option httpchk GET /readyz
	server one 127.0.0.1:8080 check port 8099
`

func newBalancer(c *cloud) *balancer {
	c.t.Helper()
	file := filepath.Join(c.t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, []byte(balancerConfig), 0o644); err != nil {
		c.t.Fatal(err)
	}
	b := &balancer{cloud: c}
	cmd := exec.Command("ip", "netns", "exec", c.ns, "haproxy", "-db", "-f", file)
	cmd.Stderr = &lineWriter{line: b.heard}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	b.wantTurn("DOWN") // nobody is there yet
	return b
}

// heard takes what HAProxy says: "[WARNING]  (1) : Server web/one is UP, reason: Layer7 check passed, code: 200".
func (b *balancer) heard(line string) {
	_, news, ok := strings.Cut(line, "Server web/one is ")
	if !ok {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turns = append(b.turns, turn{at: time.Now(), up: strings.HasPrefix(news, "UP"), why: news})
}

// take gives the turns since the last call.
func (b *balancer) take() []turn {
	b.mu.Lock()
	defer b.mu.Unlock()
	turns := b.turns
	b.turns = nil
	return turns
}

// wantTurn waits for the balancer to change its mind, to nothing but UP or DOWN.
func (b *balancer) wantTurn(want string) turn {
	t := b.cloud.t
	t.Helper()
	var turns []turn
	until(t, 10*time.Second, "the load balancer says "+want, func() bool {
		turns = append(turns, b.take()...)
		return len(turns) > 0
	})
	if len(turns) != 1 || turns[0].up != (want == "UP") {
		t.Errorf("the load balancer says %+v, want %s", turns, want)
	}
	return turns[0]
}

// wantNoTurn fails if the balancer has changed its mind.
func (b *balancer) wantNoTurn(during string) {
	b.cloud.t.Helper()
	time.Sleep(250 * time.Millisecond) // two checks more
	if turns := b.take(); len(turns) > 0 {
		b.cloud.t.Errorf("%s: the load balancer says %+v", during, turns)
	}
}

// lineWriter hands on whole lines.
type lineWriter struct {
	rest []byte
	line func(string)
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.rest = append(w.rest, p...)
	for {
		line, rest, ok := bytes.Cut(w.rest, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		w.line(string(line))
		w.rest = rest
	}
}

// get asks as the world does, for a path of a port, and gives code and body.
func (c *cloud) get(address string) (int, string) {
	c.t.Helper()
	resp, err := c.http().Get("http://" + address)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	_, _ = b.ReadFrom(resp.Body)
	return resp.StatusCode, strings.TrimSpace(b.String())
}
