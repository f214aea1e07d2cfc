package agent_test

import (
	"errors"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"aead.dev/minisign"

	"github.com/amiagent/amiagent/agent"
	"github.com/amiagent/amiagent/internal/config"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/ec2sim"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/fetch"
	"github.com/amiagent/amiagent/internal/layers"
	"github.com/amiagent/amiagent/internal/lock"
	"github.com/amiagent/amiagent/internal/pkgmgr/pkgmgrtest"
	"github.com/amiagent/amiagent/internal/sign"
)

// target is what the scratch machine is.
var target = "debian-12/" + runtime.GOARCH

// lockFor is a lock of one layer, the machine's manifest, with this for its target.
func lockFor(manifest string, t lock.Target) *lock.Lock {
	all := []lock.Layer{{Source: "s3://acme/manifest.yaml", Digest: sum(manifest)}}
	return &lock.Lock{Format: lock.Format, From: lock.From{Manifest: []string{"s3://acme/manifest.yaml"}},
		Manifests: map[string]lock.Manifest{"web": {Target: target, Digest: lock.Digest(all), Layers: all}},
		Targets:   map[string]lock.Target{target: t}}
}

func text(t *testing.T, l *lock.Lock) string {
	t.Helper()
	b, err := l.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func heldBy(text string) func(*agent.Options) {
	return func(o *agent.Options) {
		o.Lock = &layers.Document{Source: "amiagent.lock", File: "amiagent.lock", Data: []byte(text)}
	}
}

// Repositories move on, and a launch installs what was locked.
func TestALaunchInstallsTheLockedVersion(t *testing.T) {
	t.Parallel()
	const manifest = "amiagent: 1\npackages: {nginx: {}}\n"
	m := newMachine(t, manifest, pkgmgrtest.Apt())
	m.write("/var/lib/dpkg/status", "Package: dpkg\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.21\n\n")
	m.write("/repo", "nginx 1.28.0-1\nnginx 1.26.3-1\n")
	held := heldBy(text(t, lockFor(manifest, lock.Target{Packages: map[string]lock.Package{"nginx": {Version: "1.26.3-1"}}})))
	m.converged("packages.nginx changed", held)
	if status := m.read("/var/lib/dpkg/status"); !strings.Contains(status, "Version: 1.26.3-1") {
		t.Errorf("installed is\n%s", status)
	}
	m.converged("", held)

	// What somebody upgraded by hand goes back.
	m.write("/var/lib/dpkg/status", strings.Replace(m.read("/var/lib/dpkg/status"), "1.26.3-1", "1.28.0-1", 1))
	m.converged("", func(*agent.Options) {})
	m.converged("packages.nginx changed", held)

	// A repository that has dropped the version is no reason to take another.
	m.write("/var/lib/dpkg/status", "")
	m.write("/repo", "nginx 1.28.0-1\n")
	m.write("/var/lib/apt/lists/known", m.read("/repo"))
	if _, err := m.apply(held); err == nil || !strings.Contains(err.Error(), "no repository has version 1.26.3-1, only 1.28.0-1") {
		t.Errorf("err = %v", err)
	}
}

// With the whole transaction in the lock, what a package needs comes in its locked version too.
func TestWhatComesAlongIsLockedToo(t *testing.T) {
	t.Parallel()
	const manifest = "amiagent: 1\npackages: {nginx: {}}\n"
	m := newMachine(t, manifest, pkgmgrtest.Apt())
	m.write("/var/lib/dpkg/status", "Package: dpkg\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.21\n\n")
	m.write("/repo", "nginx 1.26.3-1\nlibpcre 10.43-1\nlibpcre 10.42-4\n")
	locked := lock.Target{Packages: map[string]lock.Package{"nginx": {Version: "1.26.3-1"}},
		Transaction: map[string]lock.Package{"nginx": {Version: "1.26.3-1"}, "libpcre": {Version: "10.42-4"}}}
	m.converged("packages.nginx changed", heldBy(text(t, lockFor(manifest, locked))))
	if status := m.read("/var/lib/dpkg/status"); !strings.Contains(status, "Package: libpcre\nStatus: install ok installed\nArchitecture: amd64\nVersion: 10.42-4") {
		t.Errorf("installed is\n%s", status)
	}

	// Where it cannot be had, the package that needs it is not done.
	m.write("/var/lib/dpkg/status", "")
	locked.Transaction["libpcre"] = lock.Package{Version: "10.41-1"}
	if _, err := m.apply(heldBy(text(t, lockFor(manifest, locked)))); err == nil || !strings.Contains(err.Error(), "cannot install libpcre: no repository has version 10.41-1") {
		t.Errorf("err = %v", err)
	}
}

// The lock comes from anywhere that layers come from, and is kept like them.
func TestALockFromSSM(t *testing.T) {
	t.Parallel()
	const manifest = "amiagent: 1\nfiles: {/etc/motd: {content: hello}}\n"
	m := newMachine(t, manifest, nil)
	m.cfg.Lock = &config.Lock{Source: `ssm:/{{ tag "Role" }}/lock`}
	_, err := m.apply()
	if err == nil || err.Error() != "cannot read the lock ssm:/web/lock: there is no SSM parameter /web/lock" || m.read("/etc/motd") != "" {
		t.Errorf("without the lock that is named nothing may run: %v", err)
	}
	locked := text(t, lockFor(manifest, lock.Target{}))
	m.PutParameter("/web/lock", "String", locked)
	rep := m.converged("files./etc/motd changed")
	if notes := strings.Join(rep.Notes, "\n"); !strings.Contains(notes, "held by the lock ssm:/web/lock ("+sum(locked)+") for "+target+", role web") {
		t.Error(notes)
	}
	m.SetFault(ec2sim.Fault{Service: "ssm", Do: ec2sim.Hang})
	rep = m.converged("")
	if notes := strings.Join(rep.Notes, "\n"); !strings.Contains(notes, "the lock ssm:/web/lock is out of reach, its last good copy serves") {
		t.Error(notes)
	}
	m.manifest("amiagent: 1\nfiles: {/etc/motd: {content: other}}\n")
	rep = m.converged("")
	if notes := strings.Join(rep.Notes, "\n"); !strings.Contains(notes, "what could be read does not fit together") {
		t.Error(notes)
	}
	m.ClearFaults()
	if _, err := m.apply(); !errors.Is(err, lock.ErrRefused) {
		t.Errorf("err = %v", err)
	}
	m.cfg.Lock.Digest = sum("another")
	if _, err := m.apply(); !errors.Is(err, layers.ErrDigest) || !strings.Contains(err.Error(), "the lock ssm:/web/lock is sha256:") {
		t.Errorf("err = %v", err)
	}
}

func TestALockThatIsNone(t *testing.T) {
	t.Parallel()
	m := newMachine(t, "amiagent: 1\n", nil)
	m.write("/etc/locks/a.lock", "format: 1\n")
	m.cfg.Lock = &config.Lock{Source: "/etc/locks"}
	if _, err := m.apply(); err == nil {
		t.Error("a folder is a lock")
	}
	m.write("/etc/locks/a.yaml", "format: 3\n")
	m.cfg.Lock = &config.Lock{Source: "/etc/locks/a.yaml"}
	var faults *diag.Error
	if _, err := m.apply(); !errors.As(err, &faults) || !strings.Contains(err.Error(), "/etc/locks/a.yaml:1:9: format: ") {
		t.Errorf("err = %v", err)
	}
}

// Other bytes are refused in the phase fetch, with what to run, and nothing is touched.
func TestOtherBytesThanTheLocksAreRefusedBeforeAnyChange(t *testing.T) {
	t.Parallel()
	const manifest = "amiagent: 1\nartifacts: {app: {source: s3://acme/app, file: /opt/app}}\nfiles: {/etc/motd: {content: hello}}\n"
	m := newMachine(t, manifest, nil)
	m.PutObject("acme", "app", []byte("evil"))
	a := lock.Artifact{Digest: sum("good"), Size: 4}
	locked := text(t, lockFor(manifest, lock.Target{Artifacts: map[string]map[string]lock.Artifact{"artifacts.app": {"s3://acme/app": a}}}))
	rep, err := m.apply(heldBy(locked))
	if !errors.Is(err, lock.ErrRefused) || !errors.Is(err, fetch.ErrDigest) || !strings.Contains(diag.Hint(err), "`amiagent lock --update artifacts.app`") {
		t.Errorf("err = %v | %s", err, diag.Hint(err))
	}
	if rep.Cause == nil || rep.Cause.Phase != "fetch" || m.read("/etc/motd")+m.read("/opt/app") != "" {
		t.Errorf("%+v, /etc/motd is %q", rep.Cause, m.read("/etc/motd"))
	}
	m.PutObject("acme", "app", []byte("good"))
	m.converged("artifacts.app changed; files./etc/motd changed", heldBy(locked))
}

// A machine that trusts a key takes neither lock nor layer without its signature.
func TestSignedLockAndLayers(t *testing.T) {
	t.Parallel()
	const manifest = "amiagent: 1\nfiles: {/etc/motd: {content: hello}}\n"
	m := newMachine(t, manifest, nil)
	public, private, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key, _ := public.MarshalText()
	m.write(sign.TrustedDir+"/ci.pub", string(key))
	m.cfg.Lock = &config.Lock{Source: "ssm:/lock"}
	locked := text(t, lockFor(manifest, lock.Target{}))
	m.PutParameter("/lock", "String", locked)
	refused := func(what string) {
		t.Helper()
		if _, err := m.apply(); !errors.Is(err, sign.ErrRefused) || !strings.Contains(err.Error(), what) {
			t.Errorf("want %q refused, got %v", what, err)
		}
	}
	refused("ssm:/lock is not signed, this machine trusts the keys ")
	m.PutParameter("/lock.minisig", "String", string(minisign.Sign(private, []byte(locked))))
	refused("s3://acme/manifest.yaml is not signed")
	m.PutObject("acme", "manifest.yaml.minisig", minisign.Sign(private, []byte("other")))
	refused("is not of these bytes")
	m.PutObject("acme", "manifest.yaml.minisig", minisign.Sign(private, []byte(manifest)))
	m.converged("files./etc/motd changed")
}

// The API of `amiagent lock`: what is locked is what a launch then wants.
func TestLockOfAMachineHoldsItsLaunch(t *testing.T) {
	t.Parallel()
	const manifest = "amiagent: 1\nartifacts: {app: {source: 's3://acme/{{ tag \"Role\" }}', file: /opt/app}}\n"
	m := newMachine(t, manifest, nil)
	m.PutObject("acme", "web", []byte("v1"))
	a := m.agent()
	known, err := a.Facts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	opt := agent.LockOptions{Roles: []agent.LockRole{{Name: "web", Facts: known}}, Dir: t.TempDir()}
	l, _, err := a.Lock(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	got := l.Targets[target].Artifacts["artifacts.app"]["s3://acme/web"]
	if got.Digest != sum("v1") || got.Size != 2 || got.Version == "" {
		t.Errorf("%+v", got)
	}
	m.PutObject("acme", "web", []byte("v2"))
	m.converged("artifacts.app changed", heldBy(text(t, l)))
	if m.read("/opt/app") != "v1" {
		t.Errorf("/opt/app is %q", m.read("/opt/app"))
	}

	// With Only, the rest is not asked for.
	opt.Old, opt.Only = l, []string{"packages"}
	m.ForgetRequests()
	again, _, err := a.Lock(t.Context(), opt)
	if err != nil || len(lock.Diff(l, again)) > 0 || m.Count("s3", "GetObject") != 1 { // the layer
		t.Errorf("%v %v, %d requests", err, lock.Diff(l, again), m.Count("s3", "GetObject"))
	}
	opt.Only = []string{"app"}
	if again, _, err = a.Lock(t.Context(), opt); err != nil || again.Targets[target].Artifacts["artifacts.app"]["s3://acme/web"].Digest != sum("v2") {
		t.Errorf("%v %+v", err, again)
	}
	left, _ := filepath.Glob(filepath.Join(opt.Dir, "*"))
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestRolesOfOneTargetMustAgree(t *testing.T) {
	t.Parallel()
	m := newMachine(t, "amiagent: 1\npackages: {nginx: {version: '{{ tag \"Nginx\" }}'}}\n", nil)
	role := func(name, version string) agent.LockRole {
		f := facts.New()
		for k, v := range map[string]string{"os.id": "debian", "os.version": "12", "arch": "amd64", "tags.Nginx": version, "region": "eu-west-1"} {
			f.Set(k, v, facts.StageOf(k), "test")
		}
		return agent.LockRole{Name: name, Facts: f}
	}
	_, _, err := m.agent().Lock(t.Context(), agent.LockOptions{Roles: []agent.LockRole{role("a", "1.26*"), role("b", "1.28*")}, Dir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "cannot lock the package nginx for debian-12/amd64: one role wants version 1.26*, another 1.28*") {
		t.Error(err)
	}
}
