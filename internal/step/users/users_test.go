package users

import (
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/step/steptest"
)

// The fake tools change the scratch machine's account files as the real ones
// do: under a lock, and by a rename or not at all. A user without a number of
// its own gets that of whoever runs the test, who can then give it a home.
var tools = map[string]string{
	"useradd": edit + `
name=$(for a; do :; done; echo "$a") uid=$(id -u) home= shell=/bin/sh comment= groups=
grep -q "^$name:" $p && { echo "useradd: user '$name' already exists" >&2; exit 9; }
while [ $# -gt 1 ]; do case $1 in
	--home-dir) home=$2; shift ;;
	--shell) shell=$2; shift ;;
	--comment) comment=$2; shift ;;
	--groups) groups=$2; shift ;;
	--uid) uid=$2; shift ;;
	--gid) shift ;;
esac; shift; done
for one in $(echo $groups | tr , ' '); do sed "s/^\($one:.*:\)\(.*\)$/\1$name/" $g >$new && save $g; done
{ cat $p; echo "$name:x:$uid:$(id -g):$comment:${home:-/home/$name}:$shell"; } >$new && save $p`,
	"usermod": edit + `
name=$(for a; do :; done; echo "$a")
field() { awk -F: -v OFS=: -v n=$name -v f=$1 -v v="$2" '$1==n{$f=v} {print}' $3 >$new && save $3; }
while [ $# -gt 1 ]; do case $1 in
	--home) field 6 $2 $p; shift ;;
	--shell) field 7 $2 $p; shift ;;
	--comment) field 5 "$2" $p; shift ;;
	--gid) field 4 $(grep "^$2:" $g | cut -d: -f3) $p; shift ;;
	--uid) field 3 $2 $p; shift ;;
	--groups) for one in $(echo $2 | tr , ' '); do sed "s/^\($one:.*:\)\(.*\)$/\1$name/" $g >$new && save $g; done; shift ;;
	--lock) sed "s/^$name:/$name:!/" $s >$new && save $s ;;
esac; shift; done`,
	"userdel": edit + `grep -v "^$1:" $p >$new; save $p`,
}

const edit = `exec 9>$AMIAGENT_ROOT/../lock; flock 9
p=$AMIAGENT_ROOT/etc/passwd g=$AMIAGENT_ROOT/etc/group s=$AMIAGENT_ROOT/etc/shadow
new=$(mktemp $AMIAGENT_ROOT/../new.XXXXXX)
save() { chmod 644 $new; mv $new $1; }
`

func with(name, script string) map[string]string {
	all := maps.Clone(tools)
	all[name] = script
	return all
}

var (
	uid, gid = os.Geteuid(), os.Getegid()
	mallory  = fmt.Sprintf("mallory:x:%d:%d:Mallory:/home/mallory:/bin/sh", uid, gid)
)

// A machine with one user, mallory, who has no home yet, and two groups.
func base(_ *testing.T, m *steptest.Machine) {
	m.Write("/etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n"+mallory+"\n")
	m.Write("/etc/group", 0o644, fmt.Sprintf("own:x:%d:\nadm:x:77002:\ndocker:x:77000:\nvideo:x:77001:mallory\n", gid))
	m.Write("/etc/shadow", 0o644, "root:*:1::::::\nmallory:$y$hash:1::::::\n")
	m.Write("/etc/skel/.profile", 0o644, "# skel\n")
	m.Mkdir("/home", 0)
	m.Mkdir("/usr/sbin", 0)
	m.Write("/usr/sbin/nologin", 0o755, "")
}

// atHome is base, with a home for mallory.
func atHome(t *testing.T, m *steptest.Machine) {
	base(t, m)
	m.Mkdir("/home/mallory", 0o700)
}

const (
	key1 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGFh one@example.com"
	key2 = `from="10.0.0.0/8" ssh-rsa AAAAB3NzaC1yc2EAAAADAQAB`
)

// passwd is what the fake useradd leaves, with one line more than base has.
func passwd(format string) string {
	line := fmt.Sprintf(format, uid, gid)
	return fmt.Sprintf("/etc/passwd 0644 %q", "root:x:0:0:root:/root:/bin/sh\n"+mallory+"\n"+line+"\n")
}

func TestUsers(t *testing.T) {
	steptest.Run(t, Kind(), []steptest.Case{
		{
			Name: "a person", Entry: "ann", Body: "{comment: Ann, shell: /bin/bash}", Programs: tools, Setup: base,
			Drift: "does not exist",
			Want: passwd("ann:x:%d:%d:Ann:/home/ann:/bin/bash") + `
				/home/ann/ 0700
				/home/ann/.profile 0644 "# skel\n"`,
			Breaks: []steptest.Break{
				{Name: "home removed", Do: func(m *steptest.Machine) { m.Remove("/home/ann") }, Drift: "home /home/ann does not exist"},
			},
		},
		{
			Name: "a service has a home where one is named, and no shell", Entry: "app", Body: "{system: true, home: /var/lib/app}",
			Programs: tools, Setup: base,
			Want: passwd("app:x:%d:%d::/var/lib/app:/usr/sbin/nologin") + `
				/var/ 0755
				/var/lib/ 0755
				/var/lib/app/ 0700
				/var/lib/app/.profile 0644 "# skel\n"`,
		},
		{
			Name: "a service without a home", Entry: "svc", Body: "{system: true}", Programs: tools, Setup: base,
			Want: passwd("svc:x:%d:%d::/home/svc:/usr/sbin/nologin"),
		},
		{
			Name: "the distribution's mode of homes", Entry: "ann", Body: "{}", Programs: tools,
			Setup: func(t *testing.T, m *steptest.Machine) {
				base(t, m)
				m.Write("/etc/login.defs", 0o644, "# HOME_MODE 0777\nUMASK 022\nHOME_MODE\t0750\n")
			},
			Want: passwd("ann:x:%d:%d::/home/ann:/bin/sh") + `
				/home/ann/ 0750
				/home/ann/.profile 0644 "# skel\n"`,
		},
		{
			Name: "a home that exists stays as it is", Entry: "ann", Body: "{}", Programs: tools,
			Setup: func(t *testing.T, m *steptest.Machine) {
				base(t, m)
				m.Mkdir("/home/ann", 0o711)
				m.Write("/home/ann/thesis", 0o600, "chapter 1")
			},
			Want: passwd("ann:x:%d:%d::/home/ann:/bin/sh"),
		},
		{
			Name: "everything of an account changed at once", Entry: "mallory", Programs: tools, Setup: base,
			Body:  "{group: docker, groups: [video, docker, adm], shell: /bin/zsh, comment: Mal, locked: true, create-home: false}",
			Drift: `primary group is own, want docker; shell is /bin/sh, want /bin/zsh; comment is "Mallory", want "Mal"; is not in group adm; password is not locked`,
		},
		{
			Name: "further groups are added to, never taken away", Entry: "mallory", Body: "{groups: [docker]}", Programs: tools, Setup: atHome,
			Drift: "is not in group docker",
			Want:  fmt.Sprintf(`/etc/group 0644 "own:x:%d:\nadm:x:77002:\ndocker:x:77000:mallory\nvideo:x:77001:mallory\n"`, gid),
		},
		{
			Name: "a password locked", Entry: "mallory", Body: "{locked: true}", Programs: tools, Setup: atHome,
			Drift: "password is not locked",
			Want:  `/etc/shadow 0644 "root:*:1::::::\nmallory:!$y$hash:1::::::\n"`,
		},
		{
			Name: "keys are the whole file", Entry: "mallory", Programs: tools,
			Body: fmt.Sprintf("ssh-authorized-keys: ['%s', '%s']", key1, key2),
			Setup: func(t *testing.T, m *steptest.Machine) {
				atHome(t, m)
				m.Mkdir("/home/mallory/.ssh", 0o700)
				m.Write("/home/mallory/.ssh/authorized_keys", 0o600, "ssh-rsa AAAA intruder\n")
			},
			Drift: "authorized_keys differs",
			Want:  fmt.Sprintf("/home/mallory/.ssh/authorized_keys 0600 %q", key1+"\n"+key2+"\n"),
			Breaks: []steptest.Break{
				{Name: "a key more", Drift: "authorized_keys differs",
					Do: func(m *steptest.Machine) {
						m.Write("/home/mallory/.ssh/authorized_keys", 0o600, key1+"\n"+key2+"\n"+"ssh-rsa AAAA x\n")
					}},
				{Name: "readable by all", Drift: "mode is 0644, want 0600",
					Do: func(m *steptest.Machine) { m.Chmod("/home/mallory/.ssh/authorized_keys", 0o644) }},
				{Name: "removed", Drift: "there is no authorized_keys",
					Do: func(m *steptest.Machine) { m.Remove("/home/mallory/.ssh") }},
				{Name: "a link put in its place", Drift: "authorized_keys: ",
					Do: func(m *steptest.Machine) {
						m.Remove("/home/mallory/.ssh/authorized_keys")
						m.Link("/etc/shadow", "/home/mallory/.ssh/authorized_keys")
					}},
			},
		},
		{
			Name: "no key at all", Entry: "mallory", Body: "{ssh-authorized-keys: []}", Programs: tools, Setup: atHome,
			Drift: "there is no authorized_keys",
			Want: `/home/mallory/.ssh/ 0700
				/home/mallory/.ssh/authorized_keys 0600 ""`,
		},
		{
			Name: "a new user with a key", Entry: "ann", Body: "ssh-authorized-keys: ['" + key1 + "']", Programs: tools, Setup: base,
			Drift: "does not exist",
		},
		{
			Name: "absent, and its files stay", Entry: "mallory", Body: "{absent: true}", Programs: tools, Setup: atHome,
			Drift: "exists, want it absent",
			Want:  `/etc/passwd 0644 "root:x:0:0:root:/root:/bin/sh\n"`,
		},
		{Name: "there already", Entry: "mallory", Body: "{comment: Mallory, groups: [video, own], shell: /bin/sh}", Programs: tools, Setup: atHome, None: true},
		{Name: "absent already", Entry: "ann", Body: "{absent: true}", Programs: tools, Setup: base, None: true},
		{Name: "an account that is locked without a password", Entry: "root", Body: "{locked: true, create-home: false}", Programs: tools, Setup: base, None: true},
		{
			Name: "known to a directory service", Entry: "ldap", Body: "{}", Setup: base,
			Programs: with("useradd", "echo \"useradd: user 'ldap' already exists\" >&2; exit 9"),
			Error:    "useradd exited with 9: useradd: user 'ldap' already exists", Hint: "a directory service (LDAP, SSSD) has it",
		},
		{
			Name: "a group that nobody made", Entry: "ann", Body: "{groups: [ghost]}", Setup: base,
			Programs: with("useradd", "echo \"useradd: group 'ghost' does not exist\" >&2; exit 6"),
			Error:    "group 'ghost' does not exist", Hint: "add the group to the manifest's groups",
		},
		{
			Name: "a user at work cannot go", Entry: "mallory", Body: "{absent: true}", Setup: base,
			Programs: with("userdel", "echo 'userdel: user mallory is currently used by process 7' >&2; exit 8"),
			Error:    "currently used by process 7", Hint: "running processes",
		},
		{
			Name: "keys without a home", Entry: "mallory", Body: "{create-home: false, ssh-authorized-keys: []}", Programs: tools, Setup: base,
			Error: "cannot write the keys of mallory", Hint: "the home /home/mallory does not exist, and create-home is not true",
		},
		{
			Name: "a link in the home to a folder of root's", Entry: "mallory", Body: "ssh-authorized-keys: ['" + key1 + "']", Programs: tools,
			Setup: func(t *testing.T, m *steptest.Machine) {
				atHome(t, m)
				m.Mkdir("/root/.ssh", 0o700)
				m.Write("/root/.ssh/authorized_keys", 0o600, key2+"\n")
				m.Link("/root/.ssh", "/home/mallory/.ssh")
			},
			Error: "/home/mallory/.ssh is not safe to use: not a folder", Hint: "the user controls its home",
		},
		{
			Name: "login.defs that makes no sense", Entry: "mallory", Body: "{}", Programs: tools,
			Setup: func(t *testing.T, m *steptest.Machine) {
				base(t, m)
				m.Write("/etc/login.defs", 0o644, "HOME_MODE rwx\n")
			},
			Error: `cannot read HOME_MODE of /etc/login.defs: "rwx" is no mode`,
		},
	})
}

// What the tools are asked is what RHEL 7's shadow-utils 4.1.5 and Debian's 4.13 both understand.
func TestTheToolsAreAsked(t *testing.T) {
	for _, c := range []struct{ name, entry, body, want string }{
		{"the least", "ann", "{}", "useradd --no-create-home --user-group ann"},
		{"a group of this name is there", "docker", "{}", "useradd --no-create-home --gid docker docker"},
		{"all of it", "ann",
			"{uid: 1500, group: own, groups: [docker, video], system: true, home: /srv/ann, shell: /bin/bash, comment: A B, create-home: false}",
			"useradd --no-create-home --system --uid 1500 --gid own --groups docker,video --home-dir /srv/ann --shell /bin/bash --comment 'A B' ann"},
		{"a service", "svc", "{system: true}", "useradd --no-create-home --system --user-group --shell /usr/sbin/nologin svc"},
		{"another number", "mallory", "{uid: 77, create-home: false}", "usermod --uid 77 mallory"},
		{"another home", "mallory", "{home: /srv/m, create-home: false}", "usermod --home /srv/m mallory"},
		{"several groups", "mallory", "{groups: [own, docker, adm]}", "usermod --append --groups docker,adm mallory"},
		{"gone", "mallory", "{absent: true}", "userdel mallory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := steptest.NewMachine(t, steptest.Options{Programs: tools})
			base(t, m)
			st, err := steptest.Decode(Kind(), c.entry, c.body)
			if err != nil {
				t.Fatal(err)
			}
			if err := st.Apply(t.Context(), m.Env(id(c.entry), "key")); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(m.Log(), "\n"); got != c.want {
				t.Errorf("asked\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}
