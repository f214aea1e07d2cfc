package ec2sim_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/amiagent/amiagent/internal/ec2sim"
)

// The example is read, every key of it arrives, and it serves.
func TestExample(t *testing.T) {
	const file = "testdata/example.yaml"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := ec2sim.ReadConfig(file, data)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "config", cfg, ec2sim.Config{
		InstanceID: "i-0123456789abcdef0", Region: "eu-west-1", Zone: "eu-west-1a", Account: "123456789012", Arch: "x86_64",
		ImageID: "ami-0123456789abcdef0", InstanceType: "m7i.large", Hostname: "ip-10-0-0-10.eu-west-1.compute.internal",
		PrivateIP: "10.0.0.10", MAC: "0a:ec:25:17:00:01", PublicKey: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ example",
		Tags: map[string]string{"Name": "web-1", "Role": "web"}, TagsInIMDS: true, LifeCycle: "on-demand", TargetState: "InService",
		BlockDevices: map[string]string{"ami": "/dev/xvda", "root": "/dev/xvda", "ebs1": "sdf"},
		UserData:     "#amiagent\namiagent: 1\nname: web\n", Role: "web",
		Parameters: map[string]ec2sim.Parameter{
			"/web/greeting":    {Value: ec2sim.Versions{"hello"}},
			"/web/db-password": {Type: "SecureString", Value: ec2sim.Versions{"old-password", "hunter2"}},
		},
		Secrets: map[string]ec2sim.Versions{"web/api-key": {"0123456789"}},
		Buckets: map[string]ec2sim.Bucket{
			"acme-artifacts": {Folder: "testdata/bucket"},
			"acme-config":    {Objects: map[string]ec2sim.Versions{"web/manifest.yaml": {"amiagent: 1\nname: web\n"}}},
			"acme-elsewhere": {Region: "us-east-1"},
		},
		Faults: []ec2sim.Fault{
			{Service: "s3", Operation: "GetObject", Do: ec2sim.Throttle, Count: 1},
			{Service: "imds", Path: "/latest/user-data", Latency: 50 * time.Millisecond},
		},
	})
	i := launch(t, cfg)
	_, err = i.object(t.Context(), "acme-artifacts", "app/app.conf")
	fails(t, err, "SlowDown")
	text, err := i.object(t.Context(), "acme-artifacts", "app/app.conf")
	if err != nil || text != "greeting = \"hello\"\n" {
		t.Errorf("%q, %v", text, err)
	}
}

// Every fault of a document is reported at once, each at its place.
func TestConfigFaults(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "ec2.yaml")
	if err := os.WriteFile(filepath.Join(dir, "plain"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := ec2sim.ReadConfig(file, []byte(`instance-typ: m7i.large
architecture: amd64
region: eu-west-1
availability-zone: eu-west-2a
life-cycle: sometimes
target-lifecycle-state: Running
tags-in-imds: true
tags: {has space: x, Role: web}
user-data: "`+strings.Repeat("x", 16<<10+1)+`"
user-data-file: missing
block-device-mapping: {disk: sda}
parameters:
  a: {type: Secret, value: x}
  b: {type: String}
secrets: {c: []}
buckets:
  d: {folder: missing}
  e: {folder: plain}
faults:
  - {service: sqs, do: throttle}
  - {do: explode}
  - {path: /x}
  - {do: fail, status: 200}
  - {do: deny, status: 500}
  - {do: deny, at: 3, count: -1}
`))
	if err == nil {
		t.Fatal("a faulty document was read")
	}
	equal(t, "faults", strings.Split(strings.ReplaceAll(err.Error(), dir+"/", ""), "\n"), []string{
		`ec2.yaml:1:1: instance-typ: unknown key, did you mean "instance-type"?`,
		`ec2.yaml:2:15: architecture: "amd64" is none of x86_64, arm64, i386`,
		`ec2.yaml:4:20: availability-zone: "eu-west-2a" is not in region "eu-west-1"`,
		`ec2.yaml:5:13: life-cycle: "sometimes" is none of on-demand, spot, scheduled, capacity-block`,
		`ec2.yaml:6:25: target-lifecycle-state: "Running" is none of InService, Terminated, Detached, Standby, Warmed:Hibernated, Warmed:Running, Warmed:Stopped, Warmed:Terminated`,
		`ec2.yaml:8:19: tags.has space: EC2 refuses this key while tags are in metadata: letters, digits and +-=.,_:@ only`,
		`ec2.yaml:9:12: user-data: has 16385 bytes, EC2 takes 16384`,
		`ec2.yaml:10:17: user-data-file: cannot read missing: no such file or directory`,
		`ec2.yaml:11:30: block-device-mapping.disk: must be ami, root, ebsN or ephemeralN`,
		`ec2.yaml:13:13: parameters.a.type: "Secret" is none of String, StringList, SecureString`,
		`ec2.yaml:14:6: parameters.b: has no value`,
		`ec2.yaml:15:14: secrets.c: must be a string, or a list of strings, oldest version first`,
		`ec2.yaml:17:15: buckets.d.folder: cannot read missing: no such file or directory`,
		`ec2.yaml:18:15: buckets.e.folder: "plain" is not a folder`,
		`ec2.yaml:20:15: faults[0].service: "sqs" is none of imds, ec2, ssm, secretsmanager, s3`,
		`ec2.yaml:21:10: faults[1].do: "explode" is none of fail, throttle, absent, deny, hang, reset, truncate, corrupt`,
		`ec2.yaml:22:5: faults[2]: does nothing: give do or latency`,
		`ec2.yaml:23:24: faults[3].status: must be 400 to 599, is 200`,
		`ec2.yaml:24:5: faults[4]: status and code are for do: fail`,
		`ec2.yaml:25:20: faults[5].at: is for do: truncate and do: corrupt`,
		`ec2.yaml:25:30: faults[5].count: must not be negative`,
	})
	_, err = ec2sim.ReadConfig("ec2.yaml", []byte("tags: [\n"))
	fails(t, err, "ec2.yaml:")
	fails(t, err, "not YAML")
}

func TestUserDataFromFile(t *testing.T) {
	dir := t.TempDir()
	gzip := "\x1f\x8b\x08\x00 not text" // user data may be bytes
	if err := os.WriteFile(filepath.Join(dir, "ud"), []byte(gzip), 0o644); err != nil {
		t.Fatal(err)
	}
	cfg, err := ec2sim.ReadConfig(filepath.Join(dir, "ec2.yaml"), []byte("user-data-file: ud\n"))
	if err != nil {
		t.Fatal(err)
	}
	i := launch(t, cfg)
	out, err := i.imds().GetUserData(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	n, _ := out.Content.Read(b)
	equal(t, "user data", string(b[:n]), gzip)
}

// What is left out is plausible, and of one piece.
func TestDefaults(t *testing.T) {
	got := ec2sim.New(ec2sim.Config{Region: "us-west-2", PrivateIP: "10.1.2.3"}).Config()
	equal(t, "zone", got.Zone, "us-west-2a")
	equal(t, "hostname", got.Hostname, "ip-10-1-2-3.us-west-2.compute.internal")
	equal(t, "role", got.Role, "instance-role")
	equal(t, "life cycle", got.LifeCycle, "on-demand")
	if got.TagsInIMDS {
		t.Error("tags are in the metadata without being asked for")
	}
	i := launch(t, ec2sim.Config{})
	if _, err := i.s3().ListBuckets(t.Context(), nil); err != nil {
		t.Error(err)
	}
	equal(t, "region of Env", i.srv.Env()[2], "AWS_REGION=eu-west-1")
}

func FuzzReadConfig(f *testing.F) {
	data, err := os.ReadFile("testdata/example.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(data))
	f.Add("faults: [{do: fail, at: -9223372036854775808}]")
	f.Add("buckets: {a: null, b: {objects: {k: [null]}}}")
	f.Fuzz(func(t *testing.T, doc string) {
		cfg, err := ec2sim.ReadConfig("testdata/fuzz.yaml", []byte(doc))
		if err == nil {
			ec2sim.New(cfg)
		}
	})
}
