package facts_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/facts"
)

func TestCapturedFactsPlanElsewhere(t *testing.T) {
	t.Parallel()
	f := machine()
	f.Tags = facts.Tags{State: facts.TagsPresent, Source: "imds"}
	f.Notes = []string{"a note"}
	name := filepath.Join(t.TempDir(), "facts.json")
	var b bytes.Buffer
	if err := f.Capture(&b); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := facts.LoadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	delete(f.Values, facts.UserData) // a secret is left out
	if !reflect.DeepEqual(got, f) {
		t.Errorf("got %+v\nwant %+v", got, f)
	}
}

// Whatever prints or keeps facts, user data is not in it.
func TestSecretsAreNeverShown(t *testing.T) {
	t.Parallel()
	f := machine()
	var table, doc bytes.Buffer
	if err := f.WriteText(&table); err != nil {
		t.Fatal(err)
	}
	if err := f.Capture(&doc); err != nil {
		t.Fatal(err)
	}
	direct, _ := json.Marshal(map[string]any{"pointer": f, "value": *f})
	for how, text := range map[string]string{
		"table": table.String(), "document": doc.String(), "json": string(direct),
		"%v": fmt.Sprintf("%v %+v", f.Values, f),
	} {
		if strings.Contains(text, "hush") {
			t.Errorf("%s shows a secret: %s", how, text)
		}
	}
	if !strings.Contains(table.String(), "user-data      (secret)") {
		t.Errorf("the table does not name the secret:\n%s", &table)
	}
}

func TestDocumentsThatAreRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for content, want := range map[string]string{
		`{"format":2,"facts":{}}`:  "format 2, this agent knows 1",
		`{"facts":{}}`:             "format 0, this agent knows 1",
		`{"format":1}{"format":1}`: "not JSON: invalid character '{' after top-level value",
		``:                         "not JSON: unexpected end of JSON input",
		`{"format":1,"facts":{"arch":{"value":"arm64","stage":"later"}}}`: `unknown stage "later", known are bake and launch`,
		strings.Repeat(" ", 8<<20) + `{"format":1}`:                       "more than 8388608 bytes",
	} {
		name := filepath.Join(dir, "f")
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := facts.LoadFile(name); err == nil || err.Error() != "cannot read facts "+name+": "+want {
			t.Errorf("err = %v\nwant %s", err, want)
		}
	}
	if _, err := facts.LoadFile(filepath.Join(dir, "none")); err == nil || !strings.HasPrefix(err.Error(), "cannot read facts: open ") {
		t.Errorf("err = %v", err)
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	f := facts.New()
	f.Set(facts.Arch, "arm64", facts.Bake, "machine")
	f.Set("tags.Role", "web\n\x1b[31m", facts.Launch, "imds")
	f.Set("tags.Empty", "", facts.Launch, "imds")
	f.Tags = facts.Tags{State: facts.TagsDisabled, Source: "imds", Hint: "enable them"}
	f.Notes = []string{"no IMDS"}
	var b bytes.Buffer
	if err := f.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	want := `NAME        VALUE             STAGE   SOURCE
arch        arm64             bake    machine
tags.Empty  ""                launch  imds
tags.Role   "web\n\x1b[31m"   launch  imds

tags: disabled in IMDS (from imds)
    hint: enable them
note: no IMDS
`
	if got := b.String(); strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(want), " ") {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestStageOf(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]facts.Stage{
		facts.OSID: facts.Bake, facts.Arch: facts.Bake, facts.PackageFamily: facts.Bake, facts.ImageName: facts.Bake,
		facts.ImageID: facts.Launch, facts.Kernel: facts.Launch, facts.Region: facts.Launch, "tags.os.id": facts.Launch, "mine": facts.Launch,
	} {
		if got := facts.StageOf(name); got != want {
			t.Errorf("StageOf(%s) = %s, want %s", name, got, want)
		}
	}
}

func TestAtBakeForgetsTheBuilder(t *testing.T) {
	t.Parallel()
	f := machine()
	before := len(f.Values)
	f.Set(facts.InstanceID, "i-builder", facts.Launch, "imds")
	b := f.AtBake()
	if got := strings.Join(b.Names(), " "); got != "arch image.name os.id os.version" {
		t.Errorf("at bake: %s", got)
	}
	if len(f.Values) != before+1 {
		t.Error("the facts themselves were changed")
	}
}

func TestInstanceIsTheMachineOutsideEC2(t *testing.T) {
	t.Parallel()
	f := facts.New()
	if f.Instance() != "" {
		t.Errorf("Instance() = %q", f.Instance())
	}
	f.Set(facts.MachineID, "4c4c", facts.Launch, "machine")
	if f.Instance() != "4c4c" {
		t.Errorf("Instance() = %q", f.Instance())
	}
	f.Set(facts.InstanceID, "i-1", facts.Launch, "imds")
	if f.Instance() != "i-1" {
		t.Errorf("Instance() = %q", f.Instance())
	}
}

func TestTagsAndDistro(t *testing.T) {
	t.Parallel()
	f := machine()
	if v, ok := f.Tag("Role"); v != "web" || !ok {
		t.Errorf("Tag(Role) = %q, %v", v, ok)
	}
	if _, ok := f.Tag("role"); ok {
		t.Error("tags are case sensitive")
	}
	if got := strings.Join(f.TagKeys(), " "); got != "Empty Path Role" {
		t.Errorf("TagKeys = %s", got)
	}
	for _, tc := range []struct{ id, like, want string }{
		{"amzn", "fedora", "amzn"}, {"amzn", "centos rhel fedora", "amzn"}, {"ubuntu", "debian", "debian"}, {"debian", "", "debian"},
		{"linuxmint", "ubuntu debian", "debian"}, {"rocky", "rhel centos fedora", "rhel"}, {"fedora", "", "rhel"}, {"opensuse-leap", "suse opensuse", "opensuse-leap"}, {"", "", ""},
	} {
		f := facts.New()
		f.Set(facts.OSID, tc.id, facts.Bake, "")
		f.Set(facts.OSLike, tc.like, facts.Bake, "")
		if got := f.Distro(); got != tc.want {
			t.Errorf("Distro of %s like %q = %s, want %s", tc.id, tc.like, got, tc.want)
		}
	}
}
