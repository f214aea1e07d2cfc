//go:build system

package users_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/nspawntest"
	"github.com/amiagent/amiagent/internal/step"
	"github.com/amiagent/amiagent/internal/step/groups"
	"github.com/amiagent/amiagent/internal/step/steptest"
	"github.com/amiagent/amiagent/internal/step/users"
)

// machine is a Debian tree whose own shadow tools are run in it, by chroot.
type machine struct {
	*testing.T
	host *host.Host
}

func newMachine(t *testing.T) machine {
	t.Helper()
	h, err := host.New(nspawntest.Tree(t), host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return machine{t, h}
}

// converge is check, apply, check, and apply once more.
func (m machine) converge(kind step.Kind, name, body string) (before step.Drift) {
	m.Helper()
	st, err := steptest.Decode(kind, name, body)
	if err != nil {
		m.Fatal(err)
	}
	env := step.Env{Host: m.host, Facts: facts.New(), ID: step.ID{Kind: kind.Name, Name: name}, Shared: &step.Shared{}}
	if before, err = st.Check(m.Context(), env); err != nil {
		m.Fatal(err)
	}
	for range 2 {
		if err := st.Apply(m.Context(), env); err != nil {
			m.Fatalf("%s: %v", env.ID, err)
		}
		if drift, err := st.Check(m.Context(), env); drift != "" || err != nil {
			m.Fatalf("%s still differs after Apply: %s %v", env.ID, drift, err)
		}
	}
	return before
}

// line is that of a name in one of the machine's account files.
func (m machine) line(file, name string) string {
	m.Helper()
	b, err := m.host.ReadFile(file)
	if err != nil {
		m.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, name+":") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

func (m machine) want(file, name, want string) {
	m.Helper()
	if got := m.line(file, name); got != want {
		m.Errorf("%s has\n%s\nwant\n%s", file, got, want)
	}
}

// owned tells mode and owner of a path and of what is below.
func (m machine) owned(root string) string {
	m.Helper()
	var all []string
	err := filepath.WalkDir(m.host.Root()+root, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		uid, gid := host.OwnerOf(st)
		all = append(all, fmt.Sprintf("%s %v %d:%d", strings.TrimPrefix(p, m.host.Root()), st.Mode(), uid, gid))
		return nil
	})
	if err != nil {
		m.Fatal(err)
	}
	return strings.Join(all, "\n")
}

func TestTheRealToolsMakeAndChangeAccounts(t *testing.T) {
	m := newMachine(t)

	m.converge(groups.Kind(), "deploy", "{gid: 2000}")
	m.want("/etc/group", "deploy", "deploy:x:2000:")
	m.converge(groups.Kind(), "svc", "{system: true}")
	if g, err := m.host.LookupGroup("svc"); err != nil || g.GID >= 1000 {
		t.Errorf("a system group has the number %d, %v", g.GID, err)
	}

	key := "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGFh ann@example.com"
	m.converge(users.Kind(), "ann", "{uid: 1500, groups: [deploy], shell: /bin/bash, comment: Ann Onym, ssh-authorized-keys: ['"+key+"']}")
	m.want("/etc/passwd", "ann", "ann:x:1500:1500:Ann Onym:/home/ann:/bin/bash")
	m.want("/etc/group", "deploy", "deploy:x:2000:ann")
	if f := strings.Split(m.line("/etc/shadow", "ann"), ":"); f[1] != "!" {
		t.Errorf("a new user has the password field %q", f[1])
	}
	if got, want := m.owned("/home/ann"), `/home/ann drwx------ 1500:1500
/home/ann/.bash_logout -rw-r--r-- 1500:1500
/home/ann/.bashrc -rw-r--r-- 1500:1500
/home/ann/.profile -rw-r--r-- 1500:1500
/home/ann/.ssh drwx------ 1500:1500
/home/ann/.ssh/authorized_keys -rw------- 1500:1500`; got != want {
		t.Errorf("the home is\n%s\nwant\n%s", got, want)
	}

	drift := m.converge(users.Kind(), "ann", "{uid: 1600, group: deploy, groups: [svc, adm], shell: /bin/sh, comment: Ann, home: /srv/ann}")
	for _, want := range []string{"uid is 1500, want 1600", "primary group is ann, want deploy", "home is /home/ann, want /srv/ann", "is not in group svc, adm"} {
		if !strings.Contains(string(drift), want) {
			t.Errorf("%q is not in the drift %q", want, drift)
		}
	}
	m.want("/etc/passwd", "ann", "ann:x:1600:2000:Ann:/srv/ann:/bin/sh")
	m.want("/etc/group", "deploy", "deploy:x:2000:ann") // nobody is put out of a group
	if !strings.HasPrefix(m.owned("/srv/ann"), "/srv/ann drwx------ 1600:2000\n") {
		t.Errorf("the new home is\n%s", m.owned("/srv/ann"))
	}

	m.converge(users.Kind(), "ann", "{absent: true}")
	m.want("/etc/passwd", "ann", "")
	m.want("/etc/shadow", "ann", "")
	if !m.host.Exists("/srv/ann/.profile") {
		t.Error("the home of a removed user is gone")
	}
	m.converge(groups.Kind(), "deploy", "{absent: true}")
	m.want("/etc/group", "deploy", "")
}

func TestAServiceUserOfAGroupThatIsThere(t *testing.T) {
	m := newMachine(t)
	m.converge(groups.Kind(), "app", "{system: true}")
	m.converge(users.Kind(), "app", "{system: true, home: /var/lib/app}")
	u, err := m.host.LookupUser("app")
	if err != nil {
		t.Fatal(err)
	}
	g, err := m.host.LookupGroup("app")
	if err != nil {
		t.Fatal(err)
	}
	if u.UID >= 1000 || u.GID != g.GID || u.Shell != "/usr/sbin/nologin" || u.Home != "/var/lib/app" {
		t.Errorf("the service user is %+v of group %d", u, g.GID)
	}
	if got, want := m.owned("/var/lib/app"), fmt.Sprintf("/var/lib/app drwx------ %d:%d", u.UID, u.GID); !strings.HasPrefix(got, want) {
		t.Errorf("the home is\n%s\nwant\n%s", got, want)
	}
}

func TestAPasswordIsLocked(t *testing.T) {
	m := newMachine(t)
	m.converge(users.Kind(), "ann", "{}")
	if _, err := m.host.Run(t.Context(), host.Cmd{Argv: []string{"chpasswd"}, Stdin: []byte("ann:correct horse\n")}); err != nil {
		t.Fatal(err)
	}
	if drift := m.converge(users.Kind(), "ann", "{locked: true}"); drift != "password is not locked" {
		t.Errorf("drift is %q", drift)
	}
	if f := strings.Split(m.line("/etc/shadow", "ann"), ":"); !strings.HasPrefix(f[1], "!$") {
		t.Errorf("the password field is %q", f[1])
	}
}

func TestWhatTheRealToolsRefuseIsTold(t *testing.T) {
	m := newMachine(t)
	m.converge(users.Kind(), "ann", "{}")
	for _, c := range []struct {
		kind                   step.Kind
		name, body, text, hint string
	}{
		{users.Kind(), "bob", "{groups: [ghost]}", "group 'ghost' does not exist", "add the group to the manifest's groups"},
		{users.Kind(), "bob", "{uid: 0}", "UID 0 is not unique", ""},
		{groups.Kind(), "ann", "{absent: true}", "cannot remove the primary group of user 'ann'", "remove the user"},
		{groups.Kind(), "twin", "{gid: 0}", "GID '0' already exists", ""},
	} {
		st, err := steptest.Decode(c.kind, c.name, c.body)
		if err != nil {
			t.Fatal(err)
		}
		err = st.Apply(t.Context(), step.Env{Host: m.host, Facts: facts.New(), Shared: &step.Shared{}})
		wantHint(t, err, c.text, c.hint)
	}
}

func wantHint(t *testing.T, err error, text, hint string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) || !strings.Contains(diag.Hint(err), hint) {
		t.Errorf("got %v (hint: %s)\nwant %s (hint: %s)", err, diag.Hint(err), text, hint)
	}
}
