package users

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/amiagent/amiagent/internal/step"
	"github.com/amiagent/amiagent/internal/step/steptest"
)

func id(name string) step.ID { return step.ID{Kind: "users", Name: name} }

func TestEveryFaultStandsAtItsField(t *testing.T) {
	const body = `uid: -5
group: "a,b"
groups: [ok, "x:y"]
home: var/lib/app
shell: bash
comment: "a:b"
ssh-authorized-keys:
  - /home/me/.ssh/id_ed25519.pub
  - ssh-ed25519 not-base64!
  - "-----BEGIN OPENSSH PRIVATE KEY-----"
  - ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGFh fine
`
	_, err := steptest.Decode(Kind(), "app", body)
	want := `manifest.yaml:1:6: users.app.uid: must be between 0 and 2147483647, is -5
manifest.yaml:2:8: users.app.group: "a,b" cannot name a group
manifest.yaml:3:14: users.app.groups[1]: "x:y" cannot name a group
manifest.yaml:4:7: users.app.home: must be a plain absolute path, is "var/lib/app"
manifest.yaml:5:8: users.app.shell: must be a plain absolute path, is "bash"
manifest.yaml:6:10: users.app.comment: must be one line without ':', which ends a field of /etc/passwd
manifest.yaml:8:5: users.app.ssh-authorized-keys[0]: is not one line of authorized_keys: [options] type base64 [comment]
manifest.yaml:9:5: users.app.ssh-authorized-keys[1]: is not one line of authorized_keys: [options] type base64 [comment]
manifest.yaml:10:5: users.app.ssh-authorized-keys[2]: is not one line of authorized_keys: [options] type base64 [comment]`
	if err == nil {
		t.Fatal("no fault")
	}
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Error(diff)
	}
}

func TestNamesAndAbsence(t *testing.T) {
	for _, c := range []struct{ entry, body, want string }{
		{"1000", "{}", `"1000" cannot name a user`},
		{"-x", "{}", `"-x" cannot name a user`},
		{"a\nb", "{}", "cannot name a user"},
		{strings.Repeat("a", 33), "{}", "at most 32"},
		{"root", "{absent: true}", "users.root.absent: the user root cannot be removed"},
		{"root", "{uid: 5}", "users.root.uid: root has uid 0, is 5"},
		{"app", "{absent: true, home: /x}", "users.app.absent: an absent user has no other field"},
		{"app", "{absent: true, create-home: false}", "users.app.absent: an absent user has no other field"},
		{"app", "{homes: /x}", `users.app.homes: unknown key, did you mean "home"?`},
		{"app", "{home: /x/../y}", `must be a plain absolute path, is "/x/../y"`},
	} {
		_, err := steptest.Decode(Kind(), c.entry, c.body)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %s\n got %v\nwant %s", c.entry, c.body, err, c.want)
		}
	}
}

func TestTemplateTextIsNotJudged(t *testing.T) {
	_, err := steptest.Decode(Kind(), "app", `
uid: "{{ .Vars.uid }}"
home: "{{ .Vars.home }}"
group: "{{ .Vars.group }}"
groups: ["{{ .Vars.group }}"]
comment: "{{ tag \"a:b\" }}"
ssh-authorized-keys: ["{{ tag \"key\" }}"]`)
	if err != nil {
		t.Error(err)
	}
}

func TestAUserWaitsForItsGroups(t *testing.T) {
	st, err := steptest.Decode(Kind(), "app", "{group: web, groups: [docker, video]}")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, id := range st.(step.Needer).Needs() {
		got = append(got, id.String())
	}
	want := []string{"groups.web", "groups.app", "groups.docker", "groups.video"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
