package groups

import (
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/step"
	"github.com/amiagent/amiagent/internal/step/steptest"
)

// The fake tools change the scratch machine's group file as the real ones do:
// under a lock, and by a rename or not at all.
var tools = map[string]string{
	"groupadd": `
exec 9>$AMIAGENT_ROOT/../lock; flock 9
gid=4000; [ "$1" = --system ] && { gid=900; shift; }
[ "$1" = --gid ] && { gid=$2; shift 2; }
g=$AMIAGENT_ROOT/etc/group
grep -q "^$1:" $g && { echo "groupadd: group '$1' already exists" >&2; exit 9; }
new=$(mktemp $AMIAGENT_ROOT/../new.XXXXXX)
{ cat $g; echo "$1:x:$gid:"; } >$new && chmod 644 $new && mv $new $g`,
	"groupmod": `
exec 9>$AMIAGENT_ROOT/../lock; flock 9
g=$AMIAGENT_ROOT/etc/group
new=$(mktemp $AMIAGENT_ROOT/../new.XXXXXX)
sed "s/^$3:x:[0-9]*:/$3:x:$2:/" $g >$new && chmod 644 $new && mv $new $g`,
	"groupdel": `
exec 9>$AMIAGENT_ROOT/../lock; flock 9
g=$AMIAGENT_ROOT/etc/group
new=$(mktemp $AMIAGENT_ROOT/../new.XXXXXX)
grep -v "^$1:" $g >$new; chmod 644 $new && mv $new $g`,
}

func with(name, script string) map[string]string {
	all := map[string]string{}
	for n, s := range tools {
		all[n] = s
	}
	all[name] = script
	return all
}

const before = "root:x:0:\nadm:x:4:syslog\n"

func groupFile(lines string) func(*testing.T, *steptest.Machine) {
	return func(_ *testing.T, m *steptest.Machine) { m.Write("/etc/group", 0o644, lines) }
}

func TestGroups(t *testing.T) {
	steptest.Run(t, Kind(), []steptest.Case{
		{
			Name: "a new group", Entry: "app", Body: "{}", Programs: tools, Setup: groupFile(before),
			Drift: "does not exist",
			Want:  `/etc/group 0644 "root:x:0:\nadm:x:4:syslog\napp:x:4000:\n"`,
			Breaks: []steptest.Break{
				{Name: "removed by hand", Do: func(m *steptest.Machine) { m.Write("/etc/group", 0o644, before) }, Drift: "does not exist"},
			},
		},
		{
			Name: "a system group with its number", Entry: "app", Body: "{system: true, gid: 950}", Programs: tools,
			Setup: groupFile(before),
			Want:  `/etc/group 0644 "root:x:0:\nadm:x:4:syslog\napp:x:950:\n"`,
			Breaks: []steptest.Break{
				{Name: "renumbered", Do: func(m *steptest.Machine) { m.Write("/etc/group", 0o644, before+"app:x:951:\n") },
					Drift: "gid is 951, want 950"},
			},
		},
		{
			Name: "a new number keeps the members", Entry: "adm", Body: "{gid: 40}", Programs: tools, Setup: groupFile(before),
			Drift: "gid is 4, want 40",
			Want:  `/etc/group 0644 "root:x:0:\nadm:x:40:syslog\n"`,
		},
		{
			Name: "an absent group", Entry: "adm", Body: "{absent: true}", Programs: tools, Setup: groupFile(before),
			Drift: "exists, want it absent",
			Want:  `/etc/group 0644 "root:x:0:\n"`,
		},
		{Name: "there already", Entry: "adm", Body: "{}", Programs: tools, Setup: groupFile(before), None: true},
		{Name: "there already, of whatever sort", Entry: "adm", Body: "{system: true}", Programs: tools, Setup: groupFile(before), None: true},
		{Name: "absent already", Entry: "app", Body: "{absent: true}", Programs: tools, Setup: groupFile(before), None: true},
		{Name: "absent from no file at all", Entry: "app", Body: "{absent: true}", Programs: tools, None: true},
		{
			Name: "known to a directory service", Entry: "ldap", Body: "{}", Setup: groupFile(before),
			Programs: with("groupadd", "echo \"groupadd: group 'ldap' already exists\" >&2; exit 9"),
			Error:    "groupadd exited with 9: groupadd: group 'ldap' already exists",
			Hint:     "a directory service (LDAP, SSSD) has it",
		},
		{
			Name: "a user's primary group cannot go", Entry: "adm", Body: "{absent: true}", Setup: groupFile(before),
			Programs: with("groupdel", "echo \"groupdel: cannot remove the primary group of user 'adm'\" >&2; exit 8"),
			Error:    "cannot remove the primary group of user 'adm'",
			Hint:     "remove the user",
		},
		{
			Name: "a locked group file", Entry: "app", Body: "{}", Setup: groupFile(before),
			Programs: with("groupadd", "echo 'groupadd: cannot lock /etc/group; try again later.' >&2; exit 10"),
			Error:    "cannot lock /etc/group; try again later.",
			Hint:     "on-failure: retry",
		},
	})
}

func TestAFaultStandsAtItsField(t *testing.T) {
	for _, c := range []struct{ entry, body, want string }{
		{"app", "{gid: -1}", "manifest.yaml:1:7: groups.app.gid: must be between 0 and 2147483647, is -1"},
		{"app", "{gid: 2147483648}", "manifest.yaml:1:7: groups.app.gid: must be between 0 and 2147483647, is 2147483648"},
		{"app", "{gid: many}", `manifest.yaml:1:7: groups.app.gid: must be a number, is "many"`},
		{"app", "{member: [x]}", "manifest.yaml:1:2: groups.app.member: unknown key"},
		{"app", "{absent: true, gid: 5}", "manifest.yaml:1:10: groups.app.absent: an absent group has no other field"},
		{"root", "{absent: true}", "manifest.yaml:1:10: groups.root.absent: the group root cannot be removed"},
		{"2000", "{}", `"2000" cannot name a group`},
		{"a:b", "{}", `"a:b" cannot name a group`},
		{"--root", "{}", `"--root" cannot name a group`},
		{strings.Repeat("a", 33), "{}", "at most 32"},
	} {
		_, err := steptest.Decode(Kind(), c.entry, c.body)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %s\n got %v\nwant %s", c.entry, c.body, err, c.want)
		}
	}
}

func TestTemplateTextIsNotJudged(t *testing.T) {
	if _, err := steptest.Decode(Kind(), "{{ .Vars.group }}", `{gid: "{{ .Vars.gid }}"}`); err != nil {
		t.Error(err)
	}
}

func TestAMissingToolSaysWhatToInstall(t *testing.T) {
	m := steptest.NewMachine(t, steptest.Options{})
	st, err := steptest.Decode(Kind(), "app", "{}")
	if err != nil {
		t.Fatal(err)
	}
	env := m.Env(step.ID{Kind: "groups", Name: "app"}, "key")
	env.Host = emptyPath(t, m)
	err = st.Apply(t.Context(), env)
	wantHint(t, err, "no such program", "passwd on Debian, shadow-utils on Amazon Linux")
}
