package identify_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/amiagent/amiagent/internal/awsconf"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/ec2sim"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/identify"
	"github.com/amiagent/amiagent/internal/imds"
)

// tree makes a root folder with these files; a name that ends in "*" is a
// program, a value that begins with "->" a link.
func tree(t *testing.T, files map[string]string) *host.Host {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		mode := os.FileMode(0o644)
		if p, ok := strings.CutSuffix(name, "*"); ok {
			name, mode = p, 0o755
		}
		full := filepath.Join(root, name)
		err := os.MkdirAll(filepath.Dir(full), 0o755)
		if target, link := strings.CutPrefix(content, "->"); err == nil && link {
			err = os.Symlink(target, full)
		} else if err == nil {
			err = os.WriteFile(full, []byte(content), mode)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	h, err := host.New(root, host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

const nitro = "/sys/class/dmi/id/sys_vendor"

// al2023 is a root on a Nitro instance.
func al2023() map[string]string {
	return map[string]string{
		"/etc/os-release":                   "NAME=\"Amazon Linux\"\nVERSION=\"2023\"\nID=\"amzn\"\nID_LIKE=\"fedora\"\nVERSION_ID=\"2023\"\n",
		"/usr/bin/dnf*":                     "->dnf-3",
		"/usr/bin/dnf-3*":                   "#!/bin/sh\n",
		"/usr/bin/yum*":                     "->dnf-3",
		"/proc/sys/kernel/osrelease":        "6.1.155-176.282.amzn2023.x86_64\n",
		"/proc/sys/kernel/random/boot_id":   "1f0c5a0e-0d5d-4c5c-9a3b-5a4f5d6c7b8a\n",
		"/proc/sys/kernel/hostname":         "ip-10-0-0-10\n",
		"/etc/machine-id":                   "ec2a5b6c7d8e9f00112233445566778\n",
		nitro:                               "Amazon EC2\n",
		"/sys/class/dmi/id/product_name":    "m7i.large\n",
		"/sys/class/dmi/id/board_asset_tag": "i-0ec2517a0c0ffee00\n",
		"/bin/sh":                           elf(62),
	}
}

// elf is the beginning of a program for a machine of this number.
func elf(machine byte) string {
	b := make([]byte, 64)
	copy(b, "\x7fELF\x02\x01\x01")
	b[18] = machine
	return string(b)
}

// cloud is a local EC2 whose metadata a test may overlay.
type cloud struct {
	*ec2sim.Sim
	url   string
	conns atomic.Int32
	// overlay may answer a metadata request in the sim's place.
	overlay func(w http.ResponseWriter, r *http.Request) bool
}

func start(t *testing.T, cfg ec2sim.Config) *cloud {
	t.Helper()
	c := &cloud{Sim: ec2sim.New(cfg)}
	h := c.Sim.Handler()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c.overlay == nil || !c.overlay(w, r) {
			h.ServeHTTP(w, r)
		}
	}))
	s.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			c.conns.Add(1)
		}
	}
	s.Start()
	c.url = s.URL
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return c
}

func (c *cloud) env(name string) string {
	return map[string]string{"AWS_EC2_METADATA_SERVICE_ENDPOINT": c.url, "AWS_ENDPOINT_URL": c.url}[name]
}

// client is the metadata client that the agent would make on h.
func (c *cloud) client(t *testing.T, h *host.Host) *imds.Client {
	t.Helper()
	m, err := identify.Metadata(h, c.env)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// describer asks the sim's EC2 API with the instance's role, as the agent does.
func (c *cloud) describer(m *imds.Client) func(context.Context, string, string) (map[string]string, error) {
	return func(ctx context.Context, instance, region string) (map[string]string, error) {
		cfg, err := awsconf.Load(ctx, awsconf.Options{Env: c.env, IMDS: m, Region: region})
		if err != nil {
			return nil, err
		}
		cfg.RetryMaxAttempts = 2
		return awsconf.InstanceTags(ctx, cfg.Config, instance)
	}
}

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

func table(f *facts.Facts) string {
	var b strings.Builder
	for _, name := range f.Names() {
		if name == "pending-time" { // now
			continue
		}
		v := f.Values[name]
		fmt.Fprintf(&b, "%s=%s %s %s\n", name, v.Value, v.Stage, v.Source)
	}
	return b.String()
}

func TestInstance(t *testing.T) {
	t.Parallel()
	h := tree(t, al2023())
	c := start(t, ec2sim.Config{
		Tags:         map[string]string{"Role": "web", "aws:autoscaling:groupName": "web-asg", "a+b=c.d,e_f:g@h-i": "", "Note": " spaced "},
		TagsInIMDS:   true,
		TargetState:  "InService",
		LifeCycle:    "spot",
		BlockDevices: map[string]string{"ami": "xvda", "root": "/dev/xvda", "ephemeral0": "sdb", "ebs1": "/dev/sdf"},
		UserData:     "#amiagent\nhush",
	})
	f, err := identify.Identify(t.Context(), identify.Options{Host: h, IMDS: c.client(t, h)})
	if err != nil {
		t.Fatal(err)
	}
	want := `account=123456789012 launch imds
arch=amd64 bake machine
block.ebs1=/dev/sdf launch imds
block.ephemeral0=/dev/sdb launch imds
block.root=ebs launch imds
block.root-device=/dev/xvda launch imds
boot-id=1f0c5a0e-0d5d-4c5c-9a3b-5a4f5d6c7b8a launch kernel
hostname=ip-10-0-0-10.eu-west-1.compute.internal launch imds
image-id=ami-0ec2517a0c0ffee00 launch imds
instance-id=i-0ec2517a0c0ffee00 launch imds
instance-type=m7i.large launch imds
kernel=6.1.155-176.282.amzn2023.x86_64 launch kernel
life-cycle=spot launch imds
machine-id=ec2a5b6c7d8e9f00112233445566778 launch machine-id
network.local-ipv4=10.0.0.10 launch imds
network.mac=0a:ec:25:17:00:01 launch imds
network.subnet-id=subnet-0ec2517a0c0ffee00 launch imds
network.vpc-id=vpc-0ec2517a0c0ffee00 launch imds
os.id=amzn bake os-release
os.like=fedora bake os-release
os.version=2023 bake os-release
packages=dnf bake machine
region=eu-west-1 launch imds
tags.Note= spaced  launch imds
tags.Role=web launch imds
tags.a+b=c.d,e_f:g@h-i= launch imds
tags.aws:autoscaling:groupName=web-asg launch imds
target-lifecycle-state=InService launch imds
virt=amazon launch machine
zone=eu-west-1a launch imds
`
	if got := table(f); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if f.Tags != (facts.Tags{State: facts.TagsPresent, Source: "imds"}) || f.Notes != nil {
		t.Errorf("tags %+v, notes %q", f.Tags, f.Notes)
	}
	if n := c.conns.Load(); n > 2 {
		t.Errorf("%d connections, want 2 at most", n)
	}
	// The token, the document, 9 fixed values, 2 lists, 3 devices, 4 tags.
	if n := c.Count("imds", ""); n != 20 {
		t.Errorf("%d requests, want 20: %v", n, c.Requests())
	}
	if c.Count("imds", "user-data") != 0 {
		t.Error("user data was read without being asked for")
	}
}

func TestUserDataIsReadWhenAskedFor(t *testing.T) {
	t.Parallel()
	h := tree(t, nil)
	c := start(t, ec2sim.Config{UserData: "#amiagent\n"})
	if b, err := c.client(t, h).UserData(t.Context()); err != nil || string(b) != "#amiagent\n" {
		t.Errorf("%q, %v", b, err)
	}
	c.SetUserData(nil)
	if _, err := c.client(t, h).UserData(t.Context()); !errors.Is(err, imds.ErrAbsent) {
		t.Errorf("err = %v", err)
	}
}

// The whole phase takes some milliseconds; the bound leaves room for a busy machine.
func TestIdentifyIsQuick(t *testing.T) {
	h := tree(t, al2023())
	c := start(t, ec2sim.Config{Tags: map[string]string{"Role": "web", "Name": "web-1"}, TagsInIMDS: true})
	best := time.Hour
	for range 5 {
		o := identify.Options{Host: h, IMDS: c.client(t, h)}
		begun := time.Now()
		if _, err := identify.Identify(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		best = min(best, time.Since(begun))
	}
	t.Logf("identified in %s", best)
	if best > 100*time.Millisecond {
		t.Errorf("took %s at best", best)
	}
}

// Each state of the tags says why, and exactly what to do.
// Peers' rows 11 to 14: no peer tells these apart.
func TestTagStates(t *testing.T) {
	t.Parallel()
	const enable = "aws ec2 modify-instance-metadata-options --instance-id i-0ec2517a0c0ffee00 --instance-metadata-tags enabled --region eu-west-1"
	web := map[string]string{"Role": "web", "Patch Group": "a", "aws:autoscaling:groupName": "web-asg"}
	for _, tc := range []struct {
		name  string
		cfg   ec2sim.Config
		fault *ec2sim.Fault
		api   bool
		want  facts.Tags
		keys  string
	}{
		{name: "present, by metadata", cfg: ec2sim.Config{Tags: map[string]string{"Role": "web"}, TagsInIMDS: true}, api: true,
			want: facts.Tags{State: facts.TagsPresent, Source: "imds"}, keys: "Role"},
		{name: "empty", cfg: ec2sim.Config{TagsInIMDS: true}, api: true,
			want: facts.Tags{State: facts.TagsEmpty, Source: "imds"}},
		{name: "disabled", cfg: ec2sim.Config{Tags: web},
			want: facts.Tags{State: facts.TagsDisabled, Source: "imds", Hint: "enable tags in instance metadata: " + enable}},
		{name: "present, by the API", cfg: ec2sim.Config{Tags: web}, api: true,
			want: facts.Tags{State: facts.TagsPresent, Source: "ec2:DescribeTags", Hint: "each launch costs a call of the EC2 API, which a fleet shares; enable tags in instance metadata: " + enable},
			keys: "Patch Group Role aws:autoscaling:groupName"},
		{name: "denied", cfg: ec2sim.Config{Tags: web}, api: true, fault: &ec2sim.Fault{Service: "ec2", Do: ec2sim.Deny},
			want: facts.Tags{State: facts.TagsDenied, Source: "ec2:DescribeTags", Hint: `allow the action ec2:DescribeTags on resource "*" in the instance's role, or enable tags in instance metadata: ` + enable}},
		{name: "throttled", cfg: ec2sim.Config{Tags: web}, api: true, fault: &ec2sim.Fault{Service: "ec2", Do: ec2sim.Throttle},
			want: facts.Tags{State: facts.TagsThrottled, Source: "ec2:DescribeTags", Hint: "the EC2 API limits DescribeTags for the whole account; enable tags in instance metadata: " + enable}},
		{name: "not there yet", cfg: ec2sim.Config{}, api: true,
			want: facts.Tags{State: facts.TagsNotYet, Source: "ec2:DescribeTags", Hint: "the EC2 API knows no tag of i-0ec2517a0c0ffee00 after 300ms; tags in instance metadata are there from the start: " + enable}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			h := tree(t, nil)
			c := start(t, tc.cfg)
			if tc.fault != nil {
				c.SetFault(*tc.fault)
			}
			m := c.client(t, h)
			o := identify.Options{Host: h, IMDS: m, TagWait: 300 * time.Millisecond}
			if tc.api {
				o.DescribeTags = c.describer(m)
			}
			f, err := identify.Identify(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if f.Tags != tc.want {
				t.Errorf("got  %+v\nwant %+v", f.Tags, tc.want)
			}
			if got := strings.Join(f.TagKeys(), " "); got != tc.keys {
				t.Errorf("keys %q, want %q", got, tc.keys)
			}
			if !tc.api && c.Count("ec2", "") != 0 || tc.want.Source == "imds" && c.Count("ec2", "") != 0 {
				t.Errorf("the EC2 API was asked: %v", c.Requests())
			}
			if f.Get(facts.Region) != "eu-west-1" {
				t.Error("the other facts are missing")
			}
		})
	}
}

// With tags disabled the folder has been seen to answer 200 and nothing, and 404.
func TestDisabledTagsMayAnswerWithNothing(t *testing.T) {
	t.Parallel()
	h := tree(t, nil)
	c := start(t, ec2sim.Config{Tags: map[string]string{"Role": "web"}})
	c.overlay = func(_ http.ResponseWriter, r *http.Request) bool {
		return r.URL.Path == "/latest/meta-data/tags/instance"
	}
	f, err := identify.Identify(t.Context(), identify.Options{Host: h, IMDS: c.client(t, h)})
	if err != nil || f.Tags.State != facts.TagsDisabled {
		t.Errorf("tags %+v, %v", f.Tags, err)
	}
}

func TestAnOldInstanceWithoutTagsIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	h := tree(t, nil)
	c := start(t, ec2sim.Config{})
	c.overlay = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/document") {
			return false
		}
		fmt.Fprint(w, `{"instanceId":"i-old","region":"eu-west-1","pendingTime":"2020-01-01T00:00:00Z"}`)
		return true
	}
	m := c.client(t, h)
	f, err := identify.Identify(t.Context(), identify.Options{Host: h, IMDS: m, DescribeTags: c.describer(m)})
	if err != nil || f.Tags != (facts.Tags{State: facts.TagsEmpty, Source: "ec2:DescribeTags"}) || c.Count("ec2", "DescribeTags") != 1 {
		t.Errorf("tags %+v, %v, requests %v", f.Tags, err, c.Requests())
	}
}

// Peers' row 11: propagation lags.
func TestPeerRow11TagsThatComeLateAreWaitedFor(t *testing.T) {
	t.Parallel()
	h := tree(t, nil)
	c := start(t, ec2sim.Config{})
	m := c.client(t, h)
	ask := c.describer(m)
	calls := 0
	f, err := identify.Identify(t.Context(), identify.Options{Host: h, IMDS: m,
		DescribeTags: func(ctx context.Context, instance, region string) (map[string]string, error) {
			if calls++; calls == 2 {
				c.SetTag("Role", "web")
			}
			return ask(ctx, instance, region)
		}})
	if role, _ := f.Tag("Role"); err != nil || role != "web" || calls != 2 || f.Tags.State != facts.TagsPresent {
		t.Errorf("tags %+v, %q, %d calls, %v", f.Tags, role, calls, err)
	}
}

func TestAPIThatCannotBeAskedIsNamed(t *testing.T) {
	t.Parallel()
	h := tree(t, nil)
	c := start(t, ec2sim.Config{})
	f, err := identify.Identify(t.Context(), identify.Options{Host: h, IMDS: c.client(t, h),
		DescribeTags: func(context.Context, string, string) (map[string]string, error) {
			return nil, errors.New("no route to host")
		}})
	if err != nil || f.Tags.State != facts.TagsDisabled || !strings.HasSuffix(f.Tags.Hint, "(the EC2 API was of no help: no route to host)") {
		t.Errorf("tags %+v, %v", f.Tags, err)
	}
}

// A tag may vanish between the list and its value.
func TestTagRemovedMeanwhileIsNoFault(t *testing.T) {
	t.Parallel()
	h := tree(t, nil)
	c := start(t, ec2sim.Config{Tags: map[string]string{"Role": "web", "Gone": "x"}, TagsInIMDS: true})
	c.overlay = func(w http.ResponseWriter, r *http.Request) bool {
		if gone := strings.HasSuffix(r.URL.Path, "/Gone"); gone {
			w.WriteHeader(http.StatusNotFound)
			return true
		}
		return false
	}
	f, err := identify.Identify(t.Context(), identify.Options{Host: h, IMDS: c.client(t, h)})
	if got := strings.Join(f.TagKeys(), " "); err != nil || got != "Role" {
		t.Errorf("keys %q, %v", got, err)
	}
}

// Peers' trap 11, the part of this phase: 404 for the target state is normal
// before the first transition.
func TestPeerTrap11NoTargetStateIsNormal(t *testing.T) {
	t.Parallel()
	h := tree(t, nil)
	c := start(t, ec2sim.Config{})
	f, err := identify.Identify(t.Context(), identify.Options{Host: h, IMDS: c.client(t, h)})
	if _, known := f.Lookup(facts.TargetState); err != nil || known {
		t.Errorf("known %v, %v", known, err)
	}
}

func TestRootOnInstanceStore(t *testing.T) {
	t.Parallel()
	h := tree(t, map[string]string{
		"/sys/block/nvme1n1/device/model": "Amazon EC2 NVMe Instance Storage        \n",
		"/sys/block/nvme0n1/device/model": "Amazon Elastic Block Store              \n",
		"/sys/block/nvme2n1/device/model": "Amazon EC2 NVMe Instance Storage        \n",
		"/sys/block/loop0/size":           "0\n",
	})
	c := start(t, ec2sim.Config{})
	c.overlay = func(w http.ResponseWriter, r *http.Request) bool {
		mine := strings.HasSuffix(r.URL.Path, "/ami-manifest-path")
		if mine {
			fmt.Fprint(w, "bucket/image.manifest.xml")
		}
		return mine
	}
	f, err := identify.Identify(t.Context(), identify.Options{Host: h, IMDS: c.client(t, h)})
	if err != nil || f.Get("block.root") != "instance-store" || f.Get("block.instance-store") != "/dev/nvme1n1 /dev/nvme2n1" {
		t.Errorf("%v\n%s", err, table(f))
	}
}

func deadEnd(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

func TestOutsideEC2(t *testing.T) {
	t.Parallel()
	h := tree(t, map[string]string{"/etc/os-release": "ID=debian\nVERSION_ID=\"12\"\n", "/etc/machine-id": "abc\n", "/etc/hostname": "laptop\n"})
	dead := imds.New(imds.Options{Endpoints: []string{deadEnd(t)}, Silence: 30 * time.Millisecond})
	f, err := identify.Identify(t.Context(), identify.Options{Host: h, IMDS: dead,
		Flags: map[string]string{"tags.Role": "web", "region": "eu-north-1", "os.version": "13"}})
	if err != nil {
		t.Fatal(err)
	}
	want := `hostname=laptop launch machine
machine-id=abc launch machine-id
os.id=debian bake os-release
os.version=13 bake flag
packages= bake machine
region=eu-north-1 launch flag
tags.Role=web launch flag
`
	got := table(f)
	_, got, _ = strings.Cut(got, "\n") // arch is this test's own
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if want := "not on EC2: no instance metadata service answers; facts are those of the OS and of --fact"; !slices.Equal(f.Notes, []string{want}) {
		t.Errorf("notes %q, want %q", f.Notes, want)
	}
	if f.Tags != (facts.Tags{State: facts.TagsPresent, Source: "flag"}) || f.Instance() != "abc" {
		t.Errorf("tags %+v, instance %s", f.Tags, f.Instance())
	}
}

func TestNoTagsOutsideEC2(t *testing.T) {
	t.Parallel()
	f, err := identify.Identify(t.Context(), identify.Options{Host: tree(t, nil)})
	if err != nil || f.Tags.State != facts.TagsNoIMDS {
		t.Errorf("tags %+v, %v", f.Tags, err)
	}
}

func TestFlagsStandAboveTheInstance(t *testing.T) {
	t.Parallel()
	h := tree(t, nil)
	c := start(t, ec2sim.Config{Tags: map[string]string{"Role": "web", "Name": "n"}, TagsInIMDS: true})
	f, err := identify.Identify(t.Context(), identify.Options{Host: h, IMDS: c.client(t, h), Flags: map[string]string{"tags.Role": "db", "mine": ""}})
	if err != nil {
		t.Fatal(err)
	}
	role, _ := f.Tag("Role")
	name, _ := f.Tag("Name")
	if _, mine := f.Lookup("mine"); role != "db" || name != "n" || !mine || f.Tags.Source != "imds" {
		t.Errorf("role %s, name %s, mine %v, tags %+v", role, name, mine, f.Tags)
	}
}

// What is wrong with the metadata service, and whether that is a note or an error.
func TestMetadataThatIsNotToBeHad(t *testing.T) {
	t.Parallel()
	answer := func(code int) func(w http.ResponseWriter, r *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			w.WriteHeader(code)
			return true
		}
	}
	hang := func(_ http.ResponseWriter, r *http.Request) bool {
		<-r.Context().Done()
		return true
	}
	onEC2 := func(o *imds.Options) { o.OnEC2, o.Instance, o.Region = true, "i-0abc", "eu-north-1" }
	explicit := func(o *imds.Options) { o.Explicit = true }
	for _, tc := range []struct {
		name    string
		overlay func(w http.ResponseWriter, r *http.Request) bool
		dead    bool
		options func(*imds.Options)
		note    string // what a note or an error ends or begins with
		err     string
		hint    string
	}{
		{name: "refused", overlay: answer(403), options: onEC2,
			note: "no instance metadata: the service refuses this instance (the metadata service is disabled for this instance; enable it with: aws ec2 modify-instance-metadata-options --instance-id i-0abc --http-endpoint enabled"},
		{name: "another cloud", overlay: answer(404), note: "not on EC2: what answers at the address of instance metadata does not offer IMDSv2"},
		{name: "version 1 only, where the firmware says EC2", overlay: answer(404), options: onEC2,
			err: "cannot read instance metadata dynamic/instance-identity/document: no token is to be had there: ", hint: "version 1 is never used"},
		{name: "version 1 only, at a named endpoint", overlay: answer(405), options: explicit,
			err: "cannot read instance metadata dynamic/instance-identity/document: no token is to be had there: ", hint: "AWS_EC2_METADATA_DISABLED=true"},
		{name: "hanging, not on EC2", overlay: hang, note: "not on EC2: no instance metadata service answers"},
		{name: "hanging, on EC2", overlay: hang, options: onEC2,
			err: "cannot read instance metadata dynamic/instance-identity/document: gave up after ", hint: "--instance-id i-0abc --http-put-response-hop-limit 2 --region eu-north-1"},
		{name: "absent, on EC2", dead: true, options: onEC2,
			err: "cannot read instance metadata dynamic/instance-identity/document: gave up after ", hint: "is the network up"},
		{name: "absent, at a named endpoint", dead: true, options: explicit,
			err: "cannot read instance metadata dynamic/instance-identity/document: ", hint: "unset it outside EC2"},
		{name: "failing", overlay: answer(500), err: "cannot read instance metadata dynamic/instance-identity/document: gave up after "},
		{name: "without a document", overlay: func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodGet {
				w.WriteHeader(http.StatusNotFound)
			}
			return r.Method == http.MethodGet
		}, err: "cannot read instance metadata dynamic/instance-identity/document: not there"},
		{name: "switched off", options: func(o *imds.Options) { o.Off, o.Explicit = "AWS_EC2_METADATA_DISABLED is true", true },
			note: "no instance metadata: AWS_EC2_METADATA_DISABLED is true; facts are those of the OS and of --fact"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := start(t, ec2sim.Config{})
			c.overlay = tc.overlay
			o := imds.Options{Endpoints: []string{c.url}, Silence: 200 * time.Millisecond, Attempt: 200 * time.Millisecond, Deadline: 450 * time.Millisecond}
			if tc.dead {
				o.Endpoints = []string{deadEnd(t)}
			}
			if tc.options != nil {
				tc.options(&o)
			}
			f, err := identify.Identify(t.Context(), identify.Options{Host: tree(t, al2023()), IMDS: imds.New(o)})
			if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.HasPrefix(err.Error(), tc.err)) {
				t.Errorf("err = %v, want %q", err, tc.err)
			}
			if !strings.Contains(diag.Hint(err), tc.hint) {
				t.Errorf("hint %q, want %q", diag.Hint(err), tc.hint)
			}
			if notes := strings.Join(f.Notes, "\n"); !strings.HasPrefix(notes, tc.note) || tc.note == "" && notes != "" {
				t.Errorf("notes %q, want %q", notes, tc.note)
			}
			if f.Get(facts.OSID) != "amzn" || f.Tags.State != facts.TagsNoIMDS {
				t.Errorf("facts of the OS are missing, or tags are %+v", f.Tags)
			}
		})
	}
}

func TestRefusedMetadataExplainsTheTags(t *testing.T) {
	t.Parallel()
	h := tree(t, al2023())
	c := start(t, ec2sim.Config{})
	c.overlay = func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusForbidden)
		return true
	}
	f, err := identify.Identify(t.Context(), identify.Options{Host: h, IMDS: c.client(t, h)})
	want := "enable instance metadata, and tags in it: aws ec2 modify-instance-metadata-options --instance-id i-0ec2517a0c0ffee00 --http-endpoint enabled --http-tokens required --instance-metadata-tags enabled"
	if err != nil || f.Tags.Hint != want {
		t.Errorf("%v, hint %q\nwant %q", err, f.Tags.Hint, want)
	}
}

func TestServiceThatBreaksMidwayIsAnError(t *testing.T) {
	t.Parallel()
	h := tree(t, nil)
	c := start(t, ec2sim.Config{})
	c.overlay = func(w http.ResponseWriter, r *http.Request) bool {
		broken := strings.HasSuffix(r.URL.Path, "/instance-life-cycle")
		if broken {
			w.WriteHeader(http.StatusBadGateway)
		}
		return broken
	}
	begun := time.Now()
	f, err := identify.Identify(t.Context(), identify.Options{Host: h, IMDS: c.client(t, h), Deadline: 200 * time.Millisecond})
	if err == nil || f.Get(facts.InstanceID) == "" || time.Since(begun) > 2*time.Second {
		t.Errorf("err = %v after %s", err, time.Since(begun))
	}
}

func TestAnswerThatMakesNoSenseEndsAllReads(t *testing.T) {
	t.Parallel()
	h := tree(t, nil)
	c := start(t, ec2sim.Config{})
	c.overlay = func(w http.ResponseWriter, r *http.Request) bool {
		broken := strings.HasSuffix(r.URL.Path, "/mac")
		if broken {
			w.WriteHeader(http.StatusTeapot)
		}
		return broken
	}
	_, err := identify.Identify(t.Context(), identify.Options{Host: h, IMDS: c.client(t, h)})
	if want := "cannot read instance metadata meta-data/mac: answered 418 I'm a teapot"; err == nil || err.Error() != want {
		t.Errorf("err = %v, want %s", err, want)
	}
}

// EC2 refuses such keys where tags are in metadata; other services may not.
func TestTagKeysAreEscaped(t *testing.T) {
	t.Parallel()
	h := tree(t, nil)
	c := start(t, ec2sim.Config{Tags: map[string]string{"Role": "web"}, TagsInIMDS: true})
	c.overlay = func(w http.ResponseWriter, r *http.Request) bool {
		switch r.URL.EscapedPath() {
		case "/latest/meta-data/tags/instance":
			fmt.Fprint(w, "Patch Group\nteam/name\n100%")
		case "/latest/meta-data/tags/instance/Patch%20Group", "/latest/meta-data/tags/instance/team%2Fname", "/latest/meta-data/tags/instance/100%25":
			fmt.Fprint(w, r.URL.Path)
		default:
			return false
		}
		return true
	}
	f, err := identify.Identify(t.Context(), identify.Options{Host: h, IMDS: c.client(t, h)})
	if got := strings.Join(f.TagKeys(), ","); err != nil || got != "100%,Patch Group,team/name" {
		t.Errorf("keys %q, %v", got, err)
	}
}

func TestCancelEndsIdentify(t *testing.T) {
	t.Parallel()
	h := tree(t, nil)
	c := start(t, ec2sim.Config{})
	c.overlay = func(_ http.ResponseWriter, r *http.Request) bool {
		<-r.Context().Done()
		return true
	}
	stop := errors.New("told to stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(30*time.Millisecond, func() { cancel(stop) })
	if _, err := identify.Identify(ctx, identify.Options{Host: h, IMDS: c.client(t, h)}); !errors.Is(err, stop) {
		t.Errorf("err = %v", err)
	}
}

func TestMetadataClientKnowsTheFirmware(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name     string
		files    map[string]string
		ec2      bool
		instance string
	}{
		{"Nitro", map[string]string{nitro: "Amazon EC2\n", "/sys/class/dmi/id/board_asset_tag": "i-0abc\n"}, true, "i-0abc"},
		{"Xen by its UUID", map[string]string{"/sys/hypervisor/uuid": "ec2e1916-9099-7caf-fd21-012345abcdef\n", nitro: "Xen\n"}, true, ""},
		{"Xen by DMI", map[string]string{"/sys/class/dmi/id/product_uuid": "EC2E1916-9099-7CAF-FD21-012345ABCDEF\n"}, true, ""},
		{"Xen with a swapped UUID", map[string]string{"/sys/class/dmi/id/product_uuid": "45E12AEC-DCD1-B213-94ED-012345ABCDEF\n", "/sys/class/dmi/id/bios_version": "4.11.amazon\n"}, true, ""},
		{"a laptop", map[string]string{nitro: "LENOVO\n", "/sys/class/dmi/id/board_asset_tag": "i-like-my-laptop\n"}, false, ""},
		{"nothing", nil, false, ""},
	} {
		m, err := identify.Metadata(tree(t, tc.files), func(string) string { return "" })
		if err != nil {
			t.Fatal(err)
		}
		if o := m.Options(); o.OnEC2 != tc.ec2 || o.Instance != tc.instance || !slices.Equal(o.Endpoints, []string{imds.IPv4, imds.IPv6}) {
			t.Errorf("%s: %+v", tc.name, o)
		}
	}
	if _, err := identify.Metadata(tree(t, nil), func(string) string { return "nonsense" }); err == nil {
		t.Error("a faulty setting was taken")
	}
}

func TestParseFlags(t *testing.T) {
	t.Parallel()
	got, err := identify.ParseFlags([]string{"tags.Role=web", "mine=", "x=a=b"})
	if want := map[string]string{"tags.Role": "web", "mine": "", "x": "a=b"}; err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	for _, arg := range []string{"role", "=web"} {
		if _, err := identify.ParseFlags([]string{arg}); err == nil || err.Error() != fmt.Sprintf("cannot use --fact %q: want name=value, as tags.Role=web", arg) {
			t.Errorf("%s: %v", arg, err)
		}
	}
}

// What identify finds, a capture keeps and another machine plans with.
func TestCaptureOfAnInstance(t *testing.T) {
	t.Parallel()
	h := tree(t, al2023())
	c := start(t, ec2sim.Config{Tags: map[string]string{"Role": "web"}, TagsInIMDS: true})
	f, err := identify.Identify(t.Context(), identify.Options{Host: h, IMDS: c.client(t, h)})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := f.Capture(&b); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "facts.json")
	if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := facts.LoadFile(name)
	if err != nil || table(got) != table(f) || got.Tags != f.Tags {
		t.Errorf("%v\n%s", err, table(got))
	}
}
