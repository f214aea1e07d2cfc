package ec2sim_test

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"

	"github.com/amiagent/amiagent/internal/ec2sim"
)

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// ask makes one request to the metadata service: "status body".
func (i *instance) ask(t *testing.T, method, path string, headers ...string) string {
	t.Helper()
	req, err := http.NewRequest(method, i.srv.IMDSURL()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(headers); n += 2 {
		req.Header.Set(headers[n], headers[n+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Status[:3] + " " + string(b)
}

func (i *instance) token(t *testing.T) string {
	t.Helper()
	status, token, _ := strings.Cut(i.ask(t, "PUT", "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds", "60"), " ")
	if status != "200" {
		t.Fatalf("no token: %s", status)
	}
	return token
}

func (i *instance) get(t *testing.T, token, path string) string {
	t.Helper()
	return i.ask(t, "GET", path, "X-aws-ec2-metadata-token", token)
}

func TestTokenRules(t *testing.T) {
	const ttl = "X-aws-ec2-metadata-token-ttl-seconds"
	i := launch(t, ec2sim.Config{})
	for _, c := range []struct {
		name, method, path string
		headers            []string
		want               string
	}{
		{"shortest", "PUT", "/latest/api/token", []string{ttl, "1"}, "200"},
		{"longest", "PUT", "/latest/api/token", []string{ttl, "21600"}, "200"},
		{"zero", "PUT", "/latest/api/token", []string{ttl, "0"}, "400"},
		{"too long", "PUT", "/latest/api/token", []string{ttl, "21601"}, "400"},
		{"no number", "PUT", "/latest/api/token", []string{ttl, "soon"}, "400"},
		{"no header", "PUT", "/latest/api/token", nil, "400"},
		{"dated path", "PUT", "/2021-03-23/api/token", []string{ttl, "60"}, "403"},
		{"through a proxy", "PUT", "/latest/api/token", []string{ttl, "60", "X-Forwarded-For", "10.0.0.1"}, "403"},
		{"GET", "GET", "/latest/api/token", []string{ttl, "60"}, "405"},
		{"IMDSv1", "GET", "/latest/meta-data/instance-id", nil, "401"},
		{"IMDSv1 listing", "GET", "/", nil, "401"},
		{"invented token", "GET", "/latest/meta-data/instance-id", []string{"X-aws-ec2-metadata-token", "AQAE"}, "401"},
	} {
		if got := i.ask(t, c.method, c.path, c.headers...); got[:3] != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got[:3], c.want)
		}
	}
}

func TestTokenEnds(t *testing.T) {
	i := launch(t, ec2sim.Config{})
	client, token := i.imds(), i.token(t)
	read := func() error {
		_, err := client.GetMetadata(t.Context(), &imds.GetMetadataInput{Path: "mac"})
		return err
	}
	if err := read(); err != nil {
		t.Fatal(err)
	}
	i.ExpireTokens()
	if got := i.get(t, token, "/latest/meta-data/mac"); got[:3] != "401" {
		t.Errorf("an ended token got %s", got)
	}
	fails(t, read(), "401")
	if err := read(); err != nil { // the SDK drops its token after a 401
		t.Errorf("a new token did not help: %v", err)
	}
}

// The tree, as a curl on an instance shows it.
func TestMetadataTree(t *testing.T) {
	i := launch(t, ec2sim.Config{
		InstanceID: "i-0123456789abcdef0", Region: "us-gov-west-1", Zone: "us-gov-west-1b", Hostname: "web-1", PrivateIP: "10.1.2.3",
		MAC: "0a:00:00:00:00:01", PublicKey: "ssh-ed25519 AAAA ec2sim", LifeCycle: "spot", Role: "web", UserData: "#amiagent\n",
		TagsInIMDS: true, Tags: map[string]string{"Role": "web", "Name": "", "has space": "x"},
		BlockDevices: map[string]string{"ami": "xvda", "root": "/dev/xvda", "ephemeral0": "sdb", "ebs1": "sdf"},
	})
	token := i.token(t)
	for path, want := range map[string]string{
		"/latest":                                           "dynamic\nmeta-data\nuser-data",
		"/latest/":                                          "dynamic\nmeta-data\nuser-data",
		"/2009-04-04/":                                      "dynamic\nmeta-data\nuser-data",
		"/latest/meta-data/instance-id":                     "i-0123456789abcdef0",
		"/1.0/meta-data/instance-id":                        "i-0123456789abcdef0",
		"/latest/meta-data/hostname":                        "web-1",
		"/latest/meta-data/local-ipv4":                      "10.1.2.3",
		"/latest/meta-data/instance-life-cycle":             "spot",
		"/latest/meta-data/placement":                       "availability-zone\navailability-zone-id\nregion",
		"/latest/meta-data/placement/region":                "us-gov-west-1",
		"/latest/meta-data/placement/availability-zone":     "us-gov-west-1b",
		"/latest/meta-data/placement/availability-zone-id":  "usgovw1-az2",
		"/latest/meta-data/services/partition":              "aws-us-gov",
		"/latest/meta-data/block-device-mapping/":           "ami\nebs1\nephemeral0\nroot",
		"/latest/meta-data/block-device-mapping/ephemeral0": "sdb",
		"/latest/meta-data/public-keys/":                    "0=ec2sim",
		"/latest/meta-data/public-keys/0":                   "openssh-key",
		"/latest/meta-data/public-keys/0/openssh-key":       "ssh-ed25519 AAAA ec2sim",
		"/latest/meta-data/network/interfaces/macs/":        "0a:00:00:00:00:01/",
		"/latest/meta-data/network/interfaces/macs/0a:00:00:00:00:01/subnet-ipv4-cidr-block": "10.1.2.0/24",
		"/latest/meta-data/iam/":                         "info\nsecurity-credentials/",
		"/latest/meta-data/iam/security-credentials/":    "web",
		"/latest/meta-data/tags":                         "instance/",
		"/latest/meta-data/tags/instance":                "Name\nRole",
		"/latest/meta-data/tags/instance/Role":           "web",
		"/latest/meta-data/tags/instance/Name":           "",
		"/2021-03-23/meta-data/tags/instance/Role":       "web",
		"/latest/meta-data/events/maintenance/scheduled": "[]",
		"/latest/dynamic":                                "instance-identity/",
		"/latest/dynamic/instance-identity/":             "document\npkcs7\nrsa2048\nsignature",
		"/latest/user-data":                              "#amiagent\n",
		"/2021-07-15/user-data":                          "#amiagent\n",
	} {
		if got := i.get(t, token, path); got != "200 "+want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
	for _, path := range []string{
		"/latest/meta-data/nothing", "/latest/meta-data/instance-id/", "/latest/meta-data/autoscaling/target-lifecycle-state",
		"/latest/meta-data/spot/instance-action", "/latest/meta-data/tags/instance/has space", "/latest/meta-data/tags/instance/Missing",
		"/2020-10-27/meta-data/tags/instance/Role", "/2008-02-01/dynamic/instance-identity/document",
		"/2021-03-24/meta-data/instance-id", "/earliest/meta-data/instance-id",
	} {
		got := i.get(t, token, strings.ReplaceAll(path, " ", "%20"))
		if !strings.HasPrefix(got, `404 <?xml version="1.0" encoding="iso-8859-1"?>`) || !strings.Contains(got, "<title>404 - Not Found</title>") {
			t.Errorf("%s: got %q, want AWS's page for 404", path, got)
		}
	}
	versions := i.get(t, token, "/")
	if !strings.HasPrefix(versions, "200 1.0\n2007-01-19\n") || !strings.HasSuffix(versions, "\nlatest") {
		t.Errorf("the versions are %q", versions)
	}
	for _, v := range strings.Split(strings.TrimPrefix(versions, "200 "), "\n") {
		if got := i.get(t, token, "/"+v+"/meta-data/ami-id"); got[:3] != "200" {
			t.Errorf("version %s is listed and not served: %s", v, got)
		}
	}
}

func TestTagsAreThreeDifferentThings(t *testing.T) {
	i := launch(t, ec2sim.Config{Tags: map[string]string{"Role": "web"}})
	token := i.token(t)
	tags := func() string { return i.get(t, token, "/latest/meta-data/tags/instance") }
	if got := tags(); got[:3] != "404" {
		t.Errorf("disabled: got %s", got)
	}
	i.SetTagsInIMDS(true)
	equal(t, "enabled", tags(), "200 Role")
	i.SetTag("Env", "test")
	equal(t, "another tag", tags(), "200 Env\nRole")
	i.DeleteTag("Env")
	i.DeleteTag("Role")
	equal(t, "enabled, none", tags(), "200 ")
}

func TestTargetLifecycleState(t *testing.T) {
	i := launch(t, ec2sim.Config{})
	token := i.token(t)
	const path = "/latest/meta-data/autoscaling/target-lifecycle-state"
	if got := i.get(t, token, path); got[:3] != "404" {
		t.Errorf("before the first transition: got %s", got)
	}
	i.SetTargetState("Warmed:Stopped")
	equal(t, "state", i.get(t, token, path), "200 Warmed:Stopped")
}

func TestIdentityDocument(t *testing.T) {
	i := launch(t, ec2sim.Config{InstanceID: "i-0123456789abcdef0", Region: "eu-west-1", Arch: "arm64"})
	// The text, field by field and space by space; only the time differs.
	got := strings.TrimPrefix(i.get(t, i.token(t), "/latest/dynamic/instance-identity/document"), "200 ")
	var pending struct{ PendingTime string }
	if err := json.Unmarshal([]byte(got), &pending); err != nil {
		t.Fatal(err)
	}
	equal(t, "document", got, `{
  "accountId" : "123456789012",
  "architecture" : "arm64",
  "availabilityZone" : "eu-west-1a",
  "billingProducts" : null,
  "devpayProductCodes" : null,
  "marketplaceProductCodes" : null,
  "imageId" : "ami-0ec2517a0c0ffee00",
  "instanceId" : "i-0123456789abcdef0",
  "instanceType" : "m7g.large",
  "kernelId" : null,
  "pendingTime" : "`+pending.PendingTime+`",
  "privateIp" : "10.0.0.10",
  "ramdiskId" : null,
  "region" : "eu-west-1",
  "version" : "2017-09-30"
}`)
	// And as the SDK reads it.
	doc, err := i.imds().GetInstanceIdentityDocument(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "instance", doc.InstanceID, "i-0123456789abcdef0")
	if doc.PendingTime.IsZero() {
		t.Error("no pending time")
	}
}

func TestInstanceProfile(t *testing.T) {
	i := launch(t, ec2sim.Config{Role: "web"})
	info, err := i.imds().GetIAMInfo(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "profile", info.InstanceProfileArn, "arn:aws:iam::123456789012:instance-profile/web")
	key, err := i.aws.Credentials.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(key.AccessKeyID, "ASIA") || len(key.AccessKeyID) != 20 || len(key.SecretAccessKey) != 40 || key.SessionToken == "" || !key.CanExpire {
		t.Errorf("these are no temporary credentials: %+v", key)
	}

	without := launch(t, ec2sim.Config{Role: ec2sim.NoRole})
	_, err = without.aws.Credentials.Retrieve(t.Context())
	fails(t, err, "404")
	_, err = without.parameter(t, "x")
	fails(t, err, "no EC2 IMDS role found")
}

// HEAD has the headers of GET and no body.
func TestMetadataHead(t *testing.T) {
	i := launch(t, ec2sim.Config{})
	equal(t, "HEAD", i.ask(t, "HEAD", "/latest/meta-data/mac", "X-aws-ec2-metadata-token", i.token(t)), "200 ")
	if got := i.ask(t, "POST", "/latest/meta-data/mac", "X-aws-ec2-metadata-token", i.token(t)); got[:3] != "405" {
		t.Errorf("POST got %s", got[:3])
	}
}
