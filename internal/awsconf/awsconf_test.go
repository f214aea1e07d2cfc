package awsconf_test

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/smithy-go"

	"github.com/amiagent/amiagent/internal/awsconf"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/ec2sim"
	"github.com/amiagent/amiagent/internal/imds"
)

// The SDK reads the process environment by itself; tests hand in their own.
func TestMain(m *testing.M) {
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "AWS_") {
			os.Unsetenv(name)
		}
	}
	os.Setenv("AWS_CONFIG_FILE", os.DevNull)
	os.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
	os.Exit(m.Run())
}

type env map[string]string

func (e env) get(name string) string { return e[name] }

// keys are credentials for tests that are not about credentials.
func keys(more env) env {
	e := env{"AWS_ACCESS_KEY_ID": "AKIDTEST", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "eu-north-1"}
	for k, v := range more {
		e[k] = v
	}
	return e
}

// instance starts a local EC2 and gives the settings of a process on it, with a client of its metadata.
func instance(t *testing.T, cfg ec2sim.Config) (*ec2sim.Sim, env, *imds.Client) {
	t.Helper()
	sim := ec2sim.New(cfg)
	srv, err := sim.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Close() })
	e := env{}
	for _, kv := range srv.Env() {
		k, v, _ := strings.Cut(kv, "=")
		e[k] = v
	}
	o, err := imds.FromEnv(e.get)
	if err != nil {
		t.Fatal(err)
	}
	o.Settle = 2 * time.Second
	return sim, e, imds.New(o)
}

func load(t *testing.T, o awsconf.Options) awsconf.Config {
	t.Helper()
	cfg, err := awsconf.Load(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestRoleCredentialsComeThroughOurOwnClient(t *testing.T) {
	t.Parallel()
	sim, e, meta := instance(t, ec2sim.Config{Tags: map[string]string{"Role": "web", "Name": "web 1"}})
	delete(e, "AWS_REGION")
	delete(e, "AWS_DEFAULT_REGION")
	cfg := load(t, awsconf.Options{Env: e.get, IMDS: meta, Region: sim.Config().Region})
	if n := len(sim.Requests()); n != 0 {
		t.Errorf("loading made %d requests: %v", n, sim.Requests())
	}
	tags, err := awsconf.InstanceTags(t.Context(), cfg.Config, sim.Config().InstanceID)
	if err != nil || len(tags) != 2 || tags["Role"] != "web" {
		t.Fatalf("tags = %v, %v", tags, err)
	}
	if sim.Count("imds", "token") != 1 || sim.Count("ec2", "DescribeTags") != 1 || sim.Count("imds", "meta-data") != 2 {
		t.Errorf("requests: %v", sim.Requests())
	}
	if _, err := awsconf.InstanceTags(t.Context(), cfg.Config, "i-other"); err != nil || sim.Count("imds", "") != 3 {
		t.Errorf("credentials were not kept: %v, %v", err, sim.Requests())
	}
}

// Peers' trap 6: the SDK's chain falls back to IMDSv1 unless it is held.
func TestPeerTrap6ChainNeverUsesVersionOne(t *testing.T) {
	for _, mode := range []string{"", "auto"} {
		t.Run("defaults mode "+mode, func(t *testing.T) {
			t.Setenv("AWS_DEFAULTS_MODE", mode)
			var mu sync.Mutex
			var log []string
			v1 := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				log = append(log, r.Method+" "+r.URL.Path)
				if r.Method == http.MethodPut {
					w.WriteHeader(http.StatusNotFound)
					return
				}
				fmt.Fprint(w, "role-of-version-one")
			}))
			defer v1.Close()
			t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", v1.URL)
			meta := imds.New(imds.Options{Endpoints: []string{v1.URL}})
			cfg := load(t, awsconf.Options{IMDS: meta, Region: "eu-north-1"})
			if _, err := cfg.Credentials.Retrieve(t.Context()); !errors.Is(err, imds.ErrNoV2) {
				t.Errorf("err = %v", err)
			}
			if len(log) == 0 || slices.ContainsFunc(log, func(s string) bool { return strings.HasPrefix(s, "GET") }) {
				t.Errorf("asked %q", log)
			}
		})
	}
}

// Peers' trap 8: us-east-1 is nobody's default.
func TestPeerTrap8NoRegionIsAnError(t *testing.T) {
	t.Parallel()
	cfg, err := awsconf.Load(t.Context(), awsconf.Options{Env: env{}.get})
	if !errors.Is(err, awsconf.ErrNoRegion) || err.Error() != "cannot configure AWS: no region is known" ||
		diag.Hint(err) != "set AWS_REGION; on EC2 the region comes from instance metadata" {
		t.Errorf("err = %v, hint %q", err, diag.Hint(err))
	}
	if cfg.Region != "" || cfg.HTTPClient == nil || cfg.Transport == nil {
		t.Errorf("region %q, client %v: good but for the region", cfg.Region, cfg.HTTPClient)
	}
}

func TestRegionOfSettingsComesBeforeTheMachines(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		env  env
		fact string
		want string
	}{
		{env{}, "eu-north-1", "eu-north-1"},
		{env{"AWS_DEFAULT_REGION": "eu-west-2"}, "eu-north-1", "eu-west-2"},
		{env{"AWS_DEFAULT_REGION": "eu-west-2", "AWS_REGION": "eu-west-1"}, "eu-north-1", "eu-west-1"},
	} {
		if cfg := load(t, awsconf.Options{Env: tc.env.get, Region: tc.fact}); cfg.Region != tc.want {
			t.Errorf("%v, %s: region %s, want %s", tc.env, tc.fact, cfg.Region, tc.want)
		}
	}
}

func TestMissingRoleIsExplained(t *testing.T) {
	t.Parallel()
	const remedy = "attach an instance profile to the instance, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
	sim, e, _ := instance(t, ec2sim.Config{Role: ec2sim.NoRole})
	o, _ := imds.FromEnv(e.get)
	o.Settle = 50 * time.Millisecond
	cfg := load(t, awsconf.Options{Env: e.get, IMDS: imds.New(o)})
	_, err := awsconf.InstanceTags(t.Context(), cfg.Config, "i-1")
	if !errors.Is(err, imds.ErrAbsent) || diag.Hint(err) != remedy {
		t.Errorf("err = %v, hint %q", err, diag.Hint(err))
	}
	if sim.Count("ec2", "") != 0 {
		t.Errorf("requests: %v", sim.Requests())
	}
	cfg = load(t, awsconf.Options{Region: "eu-north-1"})
	if _, err := cfg.Credentials.Retrieve(t.Context()); err == nil || diag.Hint(err) != remedy {
		t.Errorf("without metadata: err = %v, hint %q", err, diag.Hint(err))
	}
}

// Peers' row 13: credentials answer 404 for some seconds after boot.
func TestPeerRow13LateCredentialsAreWaitedFor(t *testing.T) {
	t.Parallel()
	sim, e, meta := instance(t, ec2sim.Config{})
	sim.SetFault(ec2sim.Fault{Service: "imds", Path: "/latest/meta-data/iam/", Do: ec2sim.Absent, Count: 3})
	cfg := load(t, awsconf.Options{Env: e.get, IMDS: meta})
	if _, err := cfg.Credentials.Retrieve(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestRefusedCallKeepsItsCode(t *testing.T) {
	t.Parallel()
	sim, e, meta := instance(t, ec2sim.Config{})
	sim.SetFault(ec2sim.Fault{Service: "ec2", Do: ec2sim.Deny})
	cfg := load(t, awsconf.Options{Env: e.get, IMDS: meta})
	_, err := awsconf.InstanceTags(t.Context(), cfg.Config, "i-1")
	var api smithy.APIError
	if !errors.As(err, &api) || api.ErrorCode() != "UnauthorizedOperation" || !strings.HasPrefix(err.Error(), "cannot describe the tags of i-1: ") {
		t.Errorf("err = %v", err)
	}
}

// Peers' row 15: a fleet that starts together is throttled for longer than three tries.
func TestPeerRow15ThrottlingIsOutlasted(t *testing.T) {
	t.Parallel()
	cfg := load(t, awsconf.Options{Region: "eu-north-1"})
	if cfg.RetryMaxAttempts != 8 {
		t.Errorf("%d attempts, want 8", cfg.RetryMaxAttempts)
	}
}

func TestOneServiceMayHaveItsOwnEndpoint(t *testing.T) {
	t.Parallel()
	general, e, meta := instance(t, ec2sim.Config{})
	own, e2, _ := instance(t, ec2sim.Config{})
	e["AWS_ENDPOINT_URL_EC2"] = e2["AWS_ENDPOINT_URL"]
	cfg := load(t, awsconf.Options{Env: e.get, IMDS: meta})
	_, err := awsconf.InstanceTags(t.Context(), cfg.Config, "i-1")
	if err == nil {
		t.Error("the other sim took credentials that are not its own")
	}
	if general.Count("ec2", "") != 0 || own.Count("ec2", "") == 0 {
		t.Errorf("general %v, own %v", general.Requests(), own.Requests())
	}
}

// proxy answers CONNECT with a refusal, and keeps what it was asked for.
func proxy(t *testing.T) (url string, asked func() []string) {
	t.Helper()
	var mu sync.Mutex
	var log []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		log = append(log, r.Method+" "+r.Host)
		w.WriteHeader(http.StatusForbidden)
	}))
	t.Cleanup(s.Close)
	return s.URL, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Compact(slices.Clone(log))
	}
}

func TestEndpointSwitchesAndProxies(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		env  env
		want string
	}{
		{env{}, "CONNECT ec2.eu-north-1.amazonaws.com:443"},
		{env{"AWS_USE_DUALSTACK_ENDPOINT": "true"}, "CONNECT ec2.eu-north-1.api.aws:443"},
		{env{"AWS_USE_FIPS_ENDPOINT": "TRUE", "AWS_REGION": "us-west-2"}, "CONNECT ec2-fips.us-west-2.amazonaws.com:443"},
		{env{"AWS_REGION": "cn-north-1"}, "CONNECT ec2.cn-north-1.amazonaws.com.cn:443"},
		{env{"AWS_USE_FIPS_ENDPOINT": "false"}, "CONNECT ec2.eu-north-1.amazonaws.com:443"},
	} {
		url, asked := proxy(t)
		e := keys(tc.env)
		e["https_proxy"] = url
		cfg := load(t, awsconf.Options{Env: e.get})
		cfg.RetryMaxAttempts = 1
		if _, err := awsconf.InstanceTags(t.Context(), cfg.Config, "i-1"); err == nil {
			t.Errorf("%v: no error through a proxy that refuses", tc.env)
		}
		if got := asked(); !slices.Equal(got, []string{tc.want}) {
			t.Errorf("%v: the proxy was asked %q, want %q", tc.env, got, tc.want)
		}
	}
}

func TestNoProxyIsHonoured(t *testing.T) {
	t.Parallel()
	url, asked := proxy(t)
	cfg := load(t, awsconf.Options{Env: keys(env{"HTTPS_PROXY": url, "NO_PROXY": ".amazonaws.com"}).get})
	r, _ := http.NewRequest(http.MethodGet, "https://ec2.eu-north-1.amazonaws.com/", nil)
	if p, err := cfg.Transport.Proxy(r); p != nil || err != nil {
		t.Errorf("proxy %v, %v", p, err)
	}
	r, _ = http.NewRequest(http.MethodGet, "https://example.com/", nil)
	if p, err := cfg.Transport.Proxy(r); p == nil || p.String() != url || err != nil {
		t.Errorf("proxy %v, %v, want %s", p, err, url)
	}
	if asked() != nil {
		t.Errorf("asked %q", asked())
	}
}

func TestFaultySwitchIsNamed(t *testing.T) {
	t.Parallel()
	_, err := awsconf.Load(t.Context(), awsconf.Options{Env: keys(env{"AWS_USE_FIPS_ENDPOINT": "yes"}).get})
	if want := `cannot configure AWS: AWS_USE_FIPS_ENDPOINT is "yes", must be true or false`; err == nil || err.Error() != want {
		t.Errorf("err = %v, want %s", err, want)
	}
}

func TestPrivateCertificates(t *testing.T) {
	t.Parallel()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `<DescribeTagsResponse><tagSet><item><key>Role</key><value>web</value></item></tagSet></DescribeTagsResponse>`)
	}))
	t.Cleanup(s.Close)
	s.Config.ErrorLog = nil
	dir := t.TempDir()
	bundle, empty := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(empty, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := load(t, awsconf.Options{Env: keys(env{"AWS_ENDPOINT_URL": s.URL, "AWS_CA_BUNDLE": bundle}).get})
	if tags, err := awsconf.InstanceTags(t.Context(), cfg.Config, "i-1"); err != nil || tags["Role"] != "web" {
		t.Errorf("tags = %v, %v", tags, err)
	}
	cfg = load(t, awsconf.Options{Env: keys(env{"AWS_ENDPOINT_URL": s.URL}).get})
	cfg.RetryMaxAttempts = 1
	if _, err := awsconf.InstanceTags(t.Context(), cfg.Config, "i-1"); err == nil || !strings.Contains(err.Error(), "x509") {
		t.Errorf("without the bundle: %v", err)
	}
	for name, want := range map[string]string{
		empty:                     "cannot configure AWS: cannot read AWS_CA_BUNDLE: " + empty + " holds no certificate in PEM form",
		filepath.Join(dir, "non"): "cannot configure AWS: cannot read AWS_CA_BUNDLE: open " + filepath.Join(dir, "non") + ": no such file or directory",
	} {
		if _, err := awsconf.Load(t.Context(), awsconf.Options{Env: keys(env{"AWS_CA_BUNDLE": name}).get}); err == nil || err.Error() != want {
			t.Errorf("err = %v\nwant %s", err, want)
		}
	}
}

// The SDK refuses a client of ours when it finds AWS_CA_BUNDLE in the process environment.
func TestBundleInTheProcessEnvironment(t *testing.T) {
	s := httptest.NewTLSServer(nil)
	t.Cleanup(s.Close)
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_CA_BUNDLE", bundle)
	load(t, awsconf.Options{Env: os.Getenv, Region: "eu-north-1"})
}

// Peers' trap 7: an attempt that falls silent, before or within its body, ends by itself.
func TestPeerTrap7SilentConnectionIsGivenUp(t *testing.T) {
	t.Parallel()
	var n atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // else the server does not see the client leave
		switch n.Add(1) {
		case 1: // no answer at all
			<-r.Context().Done()
			return
		case 2: // half an answer
			w.Header().Set("Content-Length", "1000")
			fmt.Fprint(w, "<Describe")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return
		}
		fmt.Fprint(w, `<DescribeTagsResponse><tagSet/></DescribeTagsResponse>`)
	}))
	t.Cleanup(s.Close)
	cfg := load(t, awsconf.Options{Env: keys(env{"AWS_ENDPOINT_URL": s.URL}).get, Stall: 50 * time.Millisecond})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := awsconf.InstanceTags(ctx, cfg.Config, "i-1"); err != nil || n.Load() != 3 {
		t.Errorf("%d attempts, %v", n.Load(), err)
	}
}

func TestSlowIsNotSilent(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for range 5 {
			fmt.Fprint(w, "x")
			w.(http.Flusher).Flush()
			time.Sleep(30 * time.Millisecond)
		}
	}))
	t.Cleanup(s.Close)
	cfg := load(t, awsconf.Options{Region: "eu-north-1", Stall: 100 * time.Millisecond})
	res, err := (&http.Client{Transport: cfg.Transport}).Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b := make([]byte, 16)
	total := 0
	for err == nil {
		n := 0
		n, err = res.Body.Read(b)
		total += n
	}
	if total != 5 {
		t.Errorf("%d bytes, %v", total, err)
	}
}

func TestServicesShareTheirConnections(t *testing.T) {
	t.Parallel()
	var conns atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `<DescribeTagsResponse><tagSet/></DescribeTagsResponse>`)
	}))
	s.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			conns.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	cfg := load(t, awsconf.Options{Env: keys(env{"AWS_ENDPOINT_URL": s.URL}).get})
	const calls = 12
	for range calls { // a new client each time
		if _, err := awsconf.InstanceTags(t.Context(), cfg.Config, "i-1"); err != nil {
			t.Fatal(err)
		}
	}
	// A connection is idle again a moment after its answer was read, so that a
	// call may now and then find none and open a second one.
	if n := conns.Load(); n > calls/3 {
		t.Errorf("%d connections for %d calls: they share none", n, calls)
	}
}

func TestRedirects(t *testing.T) {
	t.Parallel()
	var token atomic.Value
	target := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		token.Store(r.Header.Get("X-Amz-Security-Token"))
	}))
	t.Cleanup(target.Close)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		code := http.StatusTemporaryRedirect
		switch r.URL.Path {
		case "/301":
			code = http.StatusMovedPermanently
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusTemporaryRedirect)
			return
		}
		http.Redirect(w, r, target.URL, code)
	}))
	t.Cleanup(s.Close)
	client := load(t, awsconf.Options{Region: "eu-north-1"}).HTTPClient
	ask := func(path string) (int, error) {
		r, _ := http.NewRequest(http.MethodGet, s.URL+path, nil)
		r.Header.Set("X-Amz-Security-Token", "hush")
		res, err := client.Do(r)
		if err != nil {
			return 0, err
		}
		res.Body.Close()
		return res.StatusCode, nil
	}
	if code, err := ask("/301"); code != 301 || err != nil || token.Load() != nil {
		t.Errorf("301: %d, %v, %v", code, err, token.Load())
	}
	if code, err := ask("/307"); code != 200 || err != nil || token.Load() != "" {
		t.Errorf("307: %d, %v, the token went along: %q", code, err, token.Load())
	}
	if _, err := ask("/loop"); err == nil || !strings.Contains(err.Error(), "stopped after 10 redirects") {
		t.Errorf("loop: %v", err)
	}
}
