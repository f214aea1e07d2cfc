//go:build system

package ec2sim_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/ec2sim"
)

// needs installs a Debian package; the test fails where that cannot be done.
func needs(t *testing.T, program, pkg string) {
	t.Helper()
	if _, err := os.Stat(program); err == nil {
		return
	}
	cmd := exec.Command("apt-get", "install", "-y", "--no-install-recommends", pkg)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cannot install %s: %v\n%s", pkg, err, out)
	}
}

// awscli runs Debian's aws in the instance's environment: what it printed, and how it ended.
func (i *instance) awscli(t *testing.T, args ...string) (string, error) {
	t.Helper()
	// Its version does not know AWS_ENDPOINT_URL.
	args = append([]string{"--endpoint-url", i.srv.APIURL(), "--cli-read-timeout", "10"}, args...)
	cmd := exec.Command("/usr/bin/aws", args...)
	cmd.Env = append(i.srv.Env(), "PATH=/usr/bin:/bin", "HOME="+t.TempDir(), "AWS_MAX_ATTEMPTS=1", "AWS_PAGER=", "AWS_DEFAULT_OUTPUT=text")
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// Debian's awscli, which signs with other code than the Go SDK, drives every API.
func TestAwscli(t *testing.T) {
	needs(t, "/usr/bin/aws", "awscli")
	i := launch(t, ec2sim.Config{
		InstanceID: "i-1", Tags: map[string]string{"Role": "web", "Name": "a b"},
		Parameters: map[string]ec2sim.Parameter{"/web/db": {Type: "SecureString", Value: ec2sim.Versions{"old", "hunter2"}}},
		Secrets:    map[string]ec2sim.Versions{"web/api": {"first", "second"}},
		Buckets: map[string]ec2sim.Bucket{
			"acme": {Objects: map[string]ec2sim.Versions{"dir/a b+c~d.txt": {"one", "0123456789"}}},
			"far":  {Region: "us-east-1"},
		},
	})
	file := filepath.Join(t.TempDir(), "got")
	for _, c := range []struct{ command, want string }{
		{"ec2 describe-tags --filters Name=resource-id,Values=i-1 Name=key,Values=Ro* --query Tags[].[Key,Value]", "Role\tweb"},
		{"ssm get-parameters --with-decryption --names /web/db /web/db:1 /nothing --query [Parameters[].Value,InvalidParameters]", "hunter2\told\n/nothing"},
		{"ssm get-parameter --with-decryption --name /web/db --query Parameter.[Value,Version]", "hunter2\t2"},
		{"secretsmanager get-secret-value --secret-id web/api --query SecretString", "second"},
		{"secretsmanager get-secret-value --secret-id web/api --version-stage AWSPREVIOUS --query SecretString", "first"},
		{"s3api list-buckets --query Buckets[].Name", "acme\tfar"},
		{"s3api head-bucket --bucket acme", ""},
		{"s3api get-bucket-location --bucket acme", "eu-west-1"},
		{"s3api list-objects-v2 --bucket acme --query Contents[].[Key,Size]", "dir/a b+c~d.txt\t10"},
		{"s3api head-object --bucket acme --key dir/a\u00a0b+c~d.txt --query ContentLength", "10"},
		{"s3api get-object --bucket acme --key dir/a\u00a0b+c~d.txt --range bytes=2-4 --query ContentRange " + file, "bytes 2-4/10"},
		{"s3 cp --quiet s3://acme/dir/a\u00a0b+c~d.txt " + file, ""},
	} {
		args := strings.Fields(strings.ReplaceAll(c.command, "\u00a0", "\x00"))
		for n := range args {
			args[n] = strings.ReplaceAll(args[n], "\x00", " ")
		}
		if got, err := i.awscli(t, args...); err != nil || got != c.want {
			t.Errorf("aws %s: got %q, %v, want %q", c.command, got, err, c.want)
		}
	}
	if b, err := os.ReadFile(file); string(b) != "0123456789" {
		t.Errorf("copied %q, %v", b, err)
	}

	out, err := i.awscli(t, "s3", "presign", "s3://acme/dir/a b+c~d.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := exec.Command("curl", "-sS", out).Output(); err != nil || string(got) != "0123456789" {
		t.Errorf("presigned %s: %q, %v", out, got, err)
	}

	for command, want := range map[string]string{
		"ssm get-parameter --name /nothing":                                                "(ParameterNotFound)",
		"secretsmanager get-secret-value --secret-id x":                                    "(ResourceNotFoundException)",
		"s3api get-object --bucket acme --key nothing " + file:                             "(NoSuchKey)",
		"s3api get-object --bucket none --key nothing " + file:                             "(NoSuchBucket)",
		"s3api head-object --bucket acme --key nothing":                                    "(404)",
		"ec2 describe-tags --filters Name=colour,Values=red":                               "(InvalidParameterValue)",
		"ec2 describe-instances":                                                           "(InvalidAction)",
		"s3api put-object --bucket acme --key k --body " + file:                            "(NotImplemented)",
		"ssm get-parameters --names a b c d e f g h i j k":                                 "(ValidationException)",
		"s3api get-object --bucket acme --key dir --range bytes=1- --version-id x " + file: "(NoSuchKey)",
	} {
		out, err := i.awscli(t, strings.Fields(command)...)
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("aws %s: got %q, want %s", command, out, want)
		}
	}

	for service, command := range map[string]string{
		"ssm": "ssm get-parameter --name /web/db", "ec2": "ec2 describe-tags", "s3": "s3api list-buckets",
		"secretsmanager": "secretsmanager get-secret-value --secret-id web/api",
	} {
		i.ClearFaults()
		i.SetFault(ec2sim.Fault{Service: service, Do: ec2sim.Deny})
		out, err := i.awscli(t, strings.Fields(command)...)
		if err == nil || !strings.Contains(out, "is not authorized to perform: "+service+":") {
			t.Errorf("denied %s: %s", service, out)
		}
	}
}

const crawl = `
import json, sys
from cloudinit import helpers
from cloudinit.sources import DataSourceEc2 as ec2
url, tmp = sys.argv[1:]
cfg = {"datasource": {"Ec2": {"metadata_urls": [url], "max_wait": 10, "timeout": 5}}}
ds = ec2.DataSourceEc2(cfg, None, helpers.Paths({"cloud_dir": tmp, "run_dir": tmp}))
ds._cloud_name = "aws"
assert ds._get_data()
print(json.dumps({"api": ds.get_metadata_api_version(), "id": ds.get_instance_id(), "zone": ds.availability_zone,
    "region": ds.region, "keys": ds.get_public_ssh_keys(), "classic": ds.is_classic_instance(),
    "meta": ds.metadata, "user-data": ds.userdata_raw.decode(), "identity": ds.identity}))
`

// cloud-init's Ec2 datasource crawls the whole tree, and finds what it needs.
func TestCloudInit(t *testing.T) {
	const module = "/usr/lib/python3/dist-packages/cloudinit/sources/DataSourceEc2.py"
	needs(t, module, "cloud-init")
	// The machine that runs the test must not become an EC2 instance itself.
	if err := os.WriteFile("/etc/cloud/cloud-init.disabled", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	i := launch(t, ec2sim.Config{
		InstanceID: "i-1", PublicKey: "ssh-ed25519 AAAA test", UserData: "#cloud-config\n{}\n",
		MAC: "0a:00:00:00:00:01", Tags: map[string]string{"Role": "web", "Env": ""}, TagsInIMDS: true,
		BlockDevices: map[string]string{"ami": "xvda", "root": "/dev/xvda", "ephemeral0": "sdb"},
	})
	cmd := exec.Command("/usr/bin/python3", "-c", crawl, i.srv.IMDSURL(), t.TempDir())
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	var got struct {
		API, ID, Zone, Region string
		Keys                  []string
		Classic               bool
		UserData              string `json:"user-data"`
		Identity              struct{ InstanceID, Region string }
		Meta                  struct {
			Tags    struct{ Instance map[string]string }
			Devices map[string]string `json:"block-device-mapping"`
			Network struct {
				Interfaces struct{ Macs map[string]map[string]string }
			}
			IAM map[string]any
		}
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	equal(t, "api", got.API, "2021-03-23")
	equal(t, "id", got.ID, "i-1")
	equal(t, "zone", got.Zone, "eu-west-1a")
	equal(t, "region", got.Region, "eu-west-1")
	equal(t, "keys", got.Keys, []string{"ssh-ed25519 AAAA test"})
	equal(t, "user data", got.UserData, "#cloud-config\n{}\n")
	equal(t, "identity", got.Identity.InstanceID, "i-1")
	equal(t, "tags", got.Meta.Tags.Instance, map[string]string{"Role": "web", "Env": ""})
	equal(t, "devices", got.Meta.Devices, map[string]string{"ami": "xvda", "root": "/dev/xvda", "ephemeral0": "sdb"})
	equal(t, "subnet", got.Meta.Network.Interfaces.Macs["0a:00:00:00:00:01"]["subnet-ipv4-cidr-block"], "10.0.0.0/24")
	if got.Classic {
		t.Error("cloud-init takes this for EC2 Classic")
	}
	for _, r := range i.Requests() {
		if r.Status >= 400 {
			t.Errorf("cloud-init met %s", r)
		}
	}
}
