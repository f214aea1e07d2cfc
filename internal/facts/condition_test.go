package facts_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/decode"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
)

// machine is a web server on Ubuntu, at launch.
func machine() *facts.Facts {
	f := facts.New()
	for name, value := range map[string]string{
		facts.Arch: "arm64", facts.OSID: "ubuntu", facts.OSVersion: "22.04", facts.ImageName: "web-base",
		facts.Region: "eu-north-1", facts.Zone: "eu-north-1a", facts.Account: "000123456789",
		facts.InstanceType: "m7g.large", facts.LifeCycle: "spot", facts.ImageID: "ami-0abc",
		"tags.Role": "web", "tags.Path": "/srv/app/v2", "tags.Empty": "", "network.mac": "0e:49:61:0f:c3:11",
	} {
		f.Set(name, value, facts.StageOf(name), "test")
	}
	f.Values[facts.UserData] = facts.Fact{Value: "hush", Stage: facts.Launch, Secret: true}
	return f
}

func condition(t *testing.T, text string) (facts.Condition, error) {
	t.Helper()
	var list diag.List
	var c facts.Condition
	n := decode.Parse("m.yaml", []byte(text), &list)
	if n == nil {
		t.Fatal(list.Err())
	}
	decode.Into(n, &c, decode.At(&list, "m.yaml", n, "when"))
	return c, list.Err()
}

func TestMatch(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		when  string
		why   string // "" for a match
		reads string
	}{
		{"{}", "", ""},
		{"arch: arm64", "", "arch"},
		{"arch: amd64", "arch is arm64, want amd64", "arch"},
		{"arch: [amd64, arm64]", "", "arch"},
		{"arch: [amd64, 386]", "arch is arm64, want amd64 or 386", "arch"},
		{"os: ubuntu", "", "os.id os.version"},
		{"os: ubuntu:22.04", "", "os.id os.version"},
		{"os: ubuntu:22", "", "os.id os.version"},
		{"os: ubuntu:2", "os is ubuntu 22.04, want ubuntu:2", "os.id os.version"},
		{"os: 'ubuntu:2*'", "", "os.id os.version"},
		{"os: ['amzn:2023', 'ubuntu:20.*']", "os is ubuntu 22.04, want amzn:2023 or ubuntu:20.*", "os.id os.version"},
		{"os: debian", "os is ubuntu 22.04, want debian", "os.id os.version"},
		{"region: eu-*", "", "region"},
		{"zone: '*b'", "zone is eu-north-1a, want *b", "zone"},
		{"account: 000123456789", "", "account"},
		{"instance-type: 'm7?.*'", "", "instance-type"},
		{"instance-type: 't[2-4]*'", "instance type is m7g.large, want t[2-4]*", "instance-type"},
		{"life-cycle: on-demand", "life cycle is spot, want on-demand", "life-cycle"},
		{"image: web-*", "", "image.name"},
		{"image: ami-0abc", "", "image-id"},
		{"image: [ami-1, web-base]", "", "image-id image.name"},
		{"image: [ami-1, db]", "image is ami-0abc web-base, want ami-1 or db", "image-id image.name"},
		{"tags: {Role: web}", "", "tags.Role"},
		{"tags: {Role: [db, web]}", "", "tags.Role"},
		{"tags: {Role: db}", "tag Role is web, want db", "tags.Role"},
		{"tags: {Stage: '*'}", "tag Stage is not set, want *", "tags.Stage"},
		{"tags: {Empty: '*'}", "", "tags.Empty"},
		{"tags: {Empty: x}", `tag Empty is "", want x`, "tags.Empty"},
		{"tags: {Path: '*'}", "", "tags.Path"},
		{"tags: {Path: /srv/*}", "", "tags.Path"},
		{"tags: {Path: /etc/*}", "tag Path is /srv/app/v2, want /etc/*", "tags.Path"},
		{"facts: {network.mac: '0e:*'}", "", "network.mac"},
		{"facts: {nosuch: x}", "fact nosuch is not set, want x", "nosuch"},
		{"facts: {user-data: x}", "fact user-data does not match", "user-data"},
		// Bake facts decide first, whatever the order in the document.
		{"{tags: {Role: web}, region: eu-*, arch: amd64}", "arch is arm64, want amd64", "arch"},
		{"{tags: {Role: web}, image: db, region: eu-*}", "image is web-base, want db", "image.name"},
		{"{tags: {Role: web, A: b}, region: us-*}", "region is eu-north-1, want us-*", "region"},
		{"{tags: {Role: web}, arch: arm64, facts: {os.id: ubuntu, hostname: x}}", "fact hostname is not set, want x", "arch os.id hostname"},
		{"{tags: {Role: web}, arch: arm64, region: eu-*}", "", "arch region tags.Role"},
	} {
		c, err := condition(t, tc.when)
		if err != nil {
			t.Errorf("%s: %v", tc.when, err)
			continue
		}
		ok, reads, why := c.Match(machine())
		if ok != (tc.why == "") || why != tc.why {
			t.Errorf("%s: %v, %q, want %q", tc.when, ok, why, tc.why)
		}
		if got := strings.Join(reads, " "); got != tc.reads {
			t.Errorf("%s: reads %q, want %q", tc.when, got, tc.reads)
		}
	}
}

func TestNoConditionMatches(t *testing.T) {
	t.Parallel()
	var c *facts.Condition
	if ok, reads, why := c.Match(machine()); !ok || reads != nil || why != "" {
		t.Errorf("%v %v %q", ok, reads, why)
	}
}

// What an image bake knows decides a condition, or the reads say what is missing.
func TestConditionAtBake(t *testing.T) {
	t.Parallel()
	baked := machine().AtBake()
	c, _ := condition(t, "{arch: arm64, tags: {Role: web}}")
	ok, reads, _ := c.Match(baked)
	if ok || !slices.Equal(reads, []string{"arch", "tags.Role"}) {
		t.Errorf("%v %q: a tag is unknown at bake", ok, reads)
	}
	c, _ = condition(t, "{arch: amd64, tags: {Role: web}}")
	if ok, reads, _ = c.Match(baked); ok || !slices.Equal(reads, []string{"arch"}) {
		t.Errorf("%v %q: the architecture decides", ok, reads)
	}
}

// A tag that nobody could look at is not a tag that is not there.
func TestUnreadableTagsAreSaidSo(t *testing.T) {
	t.Parallel()
	c, _ := condition(t, "tags: {Stage: prod}")
	for state, want := range map[facts.TagState]string{
		facts.TagsPresent: "tag Stage is not set, want prod",
		facts.TagsEmpty:   "tag Stage is not set, want prod",
		facts.TagsNoIMDS:  "tag Stage is not set, want prod",
		facts.TagsDenied:  "tag Stage is not readable (tags are denied by IAM), want prod",
		facts.TagsNotYet:  "tag Stage is not readable (tags are not there yet), want prod",
	} {
		f := machine()
		f.Tags.State = state
		if ok, _, why := c.Match(f); ok || why != want {
			t.Errorf("%s: %v, %q, want %q", state, ok, why, want)
		}
	}
}

func TestFaultyConditions(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"arch: '[a'":              `m.yaml:1:7: when.arch: "[a" is not a pattern`,
		"tags: {Role: [a, '[b']}": `m.yaml:1:18: when.tags.Role[1]: "[b" is not a pattern`,
		"os: []":                  "m.yaml:1:5: when.os: is an empty list, which no machine matches",
		"os: {id: debian}":        "m.yaml:1:5: when.os: must be a list, is a mapping",
		"architecture: arm":       "m.yaml:1:1: when.architecture: unknown key, known are account, arch, facts, image, instance-type, life-cycle, os, region, tags, zone",
		"regoin: eu-north-1":      `m.yaml:1:1: when.regoin: unknown key, did you mean "region"?`,
		"arch: [[arm64]]":         "m.yaml:1:8: when.arch[0]: must be a string, is a list",
	} {
		if _, err := condition(t, text); err == nil || err.Error() != want {
			t.Errorf("%s:\n got %v\nwant %s", text, err, want)
		}
	}
}

func TestTemplateInAConditionIsNotJudged(t *testing.T) {
	t.Parallel()
	if _, err := condition(t, `tags: {Role: "{{ index .X [0 }}"}`); err != nil {
		t.Error(err)
	}
}
