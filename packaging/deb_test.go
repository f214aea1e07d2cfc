//go:build system

package packaging

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/amiagent/amiagent/internal/nspawntest"
)

// debs are a release and the next one, whose default configuration differs.
func debs(t *testing.T) (first, next string) {
	t.Helper()
	return pack(t, "deb", arch, "1.0.0"), pack(t, "deb", arch, "1.1.0")
}

func (x tree) dpkg(args ...string) string {
	x.Helper()
	return x.chroot(append([]string{"dpkg"}, args...)...)
}

func TestDebInAnImage(t *testing.T) {
	first, next := debs(t)
	x := newTree(t)

	out := x.dpkg("--install", x.copyIn(first))
	x.wantEnabled("enabled", units...)
	x.wantEnabled("static", "amiagent-ready.target")
	x.wantUser("amiagent-health")
	x.wantThere("/usr/bin/amiagent", "/etc/amiagent/agent.yaml", "/usr/share/man/man1/amiagent.1.gz",
		"/usr/share/bash-completion/completions/amiagent", "/usr/share/doc/amiagent/copyright")
	x.wantGone("/run/amiagent", "/var/lib/amiagent/journal")
	if strings.Contains(strings.ToLower(out), "warning") || strings.Contains(out, "Failed") {
		t.Errorf("the install complains:\n%s", out)
	}
	if v := x.chroot("amiagent", "version"); !strings.Contains(v, "1.0.0") {
		t.Errorf("the program in the tree says %q", v)
	}
	if bad := x.dpkg("--verify", "amiagent"); bad != "" {
		t.Errorf("files are not as packaged:\n%s", bad)
	}

	x.launched()
	run(t, nil, "systemctl", "--root="+x.root, "disable", "amiagent.service")
	x.dpkg("--install", x.copyIn(next))
	x.wantEnabled("disabled", "amiagent.service") // the administrator's choice
	x.wantEnabled("enabled", "amiagent-health.service")
	if got := x.read("/etc/amiagent/agent.yaml"); got != changed {
		t.Errorf("a configuration that nobody changed is still the old one:\n%s", got)
	}

	x.dpkg("--remove", "amiagent")
	x.wantGone("/usr/bin/amiagent", "/lib/systemd/system/amiagent.service")
	x.wantThere("/var/lib/amiagent/journal/1", "/etc/amiagent/agent.yaml", "/etc/amiagent/manifest.d/web.yaml")

	x.dpkg("--purge", "amiagent")
	x.wantGone("/var/lib/amiagent", "/etc/amiagent", "/run/amiagent")
	x.wantUser("amiagent-health") // its number must not go to another
	if left := run(t, nil, "find", x.path("/etc/systemd"), x.path("/var/lib/systemd"), "-name", "*amiagent*"); left != "" {
		t.Errorf("the purge left:\n%s", left)
	}
}

func TestDebKeepsAConfigurationThatWasChanged(t *testing.T) {
	first, next := debs(t)
	x := newTree(t)
	x.dpkg("--install", x.copyIn(first))
	const mine = "amiagent: 1\ndeadline: 5m\n"
	x.write("/etc/amiagent/agent.yaml", mine)
	x.dpkg("--force-confdef", "--force-confold", "--install", x.copyIn(next))
	if got := x.read("/etc/amiagent/agent.yaml"); got != mine {
		t.Errorf("the configuration is now\n%s", got)
	}
	x.wantThere("/etc/amiagent/agent.yaml.dpkg-dist")
	x.dpkg("--remove", "amiagent")
	x.dpkg("--install", x.copyIn(next))
	if got := x.read("/etc/amiagent/agent.yaml"); got != mine {
		t.Errorf("after a new install the configuration is\n%s", got)
	}
}

func TestDebMakesItsUserWithoutSysusers(t *testing.T) {
	x := newTree(t)
	for _, name := range []string{"/usr/bin/systemd-sysusers", "/bin/systemd-sysusers"} {
		_ = os.Remove(x.path(name))
	}
	x.dpkg("--install", x.copyIn(pack(t, "deb", arch, "1.0.0")))
	x.wantUser("amiagent-health")
}

func TestDebOnARunningMachine(t *testing.T) {
	first, next := debs(t)
	x := newTree(t)
	old, newer := x.copyIn(first), x.copyIn(next)

	x.running("inactive")
	x.dpkg("--install", old)
	x.wantAsked("daemon-reload") // and nothing is started

	x.running("active")
	x.dpkg("--install", newer)
	x.wantAsked("daemon-reload", "try-restart amiagent-health.service", "try-restart amiagent.service")

	for _, busy := range []string{"activating", "reloading", "failed"} {
		x.running(busy)
		x.dpkg("--install", newer)
		x.wantAsked("daemon-reload", "try-restart amiagent-health.service")
	}

	x.running("active")
	x.below("amiagent.service")
	x.dpkg("--install", newer)
	x.wantAsked("daemon-reload", "try-restart amiagent-health.service")
	x.dpkg("--remove", "amiagent")
	x.wantAsked("stop amiagent-health.service", "daemon-reload")

	x.dpkg("--install", newer)
	x.asked()
	x.below("ssh.service")
	x.dpkg("--remove", "amiagent")
	x.wantAsked("stop amiagent-health.service", "stop amiagent.service", "daemon-reload")
}

// In a real boot, the installed agent waits for the next one.
func TestDebStartsNothingOnABootedMachine(t *testing.T) {
	x := newTree(t)
	deb := x.copyIn(pack(t, "deb", arch, "1.0.0"))
	x.write("/etc/systemd/system/builder.service", `[Service]
ExecStart=/var/tmp/builder
ExecStopPost=/usr/bin/systemctl poweroff
[Install]
WantedBy=multi-user.target
`)
	x.write("/var/tmp/builder", `#!/bin/sh
exec >/var/tmp/said 2>&1
dpkg --install `+deb+`
for unit in amiagent.service amiagent-health.service; do
	echo "$unit $(systemctl is-enabled $unit) $(systemctl is-active $unit)"
done
`)
	if err := os.Chmod(x.path("/var/tmp/builder"), 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, nil, "systemctl", "--root="+x.root, "enable", "builder.service")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := nspawntest.Boot(ctx, x.root, nspawntest.Options{}); err != nil {
		t.Fatal(err)
	}
	said := x.read("/var/tmp/said")
	for _, want := range []string{"amiagent.service enabled inactive", "amiagent-health.service enabled inactive"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not in what the builder said:\n%s", want, said)
		}
	}
}
