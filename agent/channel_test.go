package agent_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"

	"github.com/amiagent/amiagent/agent"
	"github.com/amiagent/amiagent/internal/channel"
	"github.com/amiagent/amiagent/internal/ec2sim"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/fetch"
	"github.com/amiagent/amiagent/internal/lock"
	"github.com/amiagent/amiagent/internal/report"
	"github.com/amiagent/amiagent/internal/sign"
)

// fleet is a machine that follows the channel s3://acme/channels/stable.yaml,
// with two locks in S3. What the locks hold is one object in two versions: the
// text of /app. A program of the machine tries it.
type fleet struct {
	*machine
	stable, candidate string // digests
	ch                *channel.Channel
}

const tried = `amiagent: 1
artifacts:
  app: {source: s3://acme/app, file: /app}
commands:
  try: {run: [try], needs: [artifacts.app]}
`

func newFleet(t *testing.T, good, next string) *fleet {
	t.Helper()
	f := &fleet{machine: newMachine(t, tried, map[string]string{
		"try": `case $(cat "$AMIAGENT_ROOT/app") in bad*) echo it is bad >&2; exit 1;; hang*) exec sleep 60;; esac; echo x >>"$AMIAGENT_ROOT/tries"`,
	})}
	f.stable, f.candidate = f.lock(good), f.lock(next)
	f.cfg.Channel = `s3://acme/channels/{{ tag "amiagent:channel" "stable" }}.yaml`
	var err error
	if f.ch, err = channel.New("stable", f.stable, time.Now(), ""); err != nil {
		t.Fatal(err)
	}
	f.put()
	return f
}

// lock puts a version of the app into S3 and its lock beside the channel.
func (f *fleet) lock(app string) (digest string) { return f.lockWith(app, tried) }

func (f *fleet) lockWith(app, manifest string) (digest string) {
	f.t.Helper()
	at := f.PutObject("acme", "manifest.yaml", []byte(manifest))
	version := f.PutObject("acme", "app", []byte(app))
	target := "debian-12/" + runtime.GOARCH
	layers := []lock.Layer{{Source: "s3://acme/manifest.yaml", Digest: sum(manifest), Origin: "s3://acme/manifest.yaml?versionId=" + at}}
	l := lock.Lock{Format: lock.Format, From: lock.From{Manifest: []string{"s3://acme/manifest.yaml"}},
		Manifests: map[string]lock.Manifest{"web": {Target: target, Digest: lock.Digest(layers), Layers: layers}},
		Targets: map[string]lock.Target{target: {Artifacts: map[string]map[string]lock.Artifact{
			"artifacts.app": {"s3://acme/app": {Digest: sum(app), Size: int64(len(app)), Version: version}},
		}}}}
	b, err := l.Bytes()
	if err != nil {
		f.t.Fatal(err)
	}
	digest = sum(string(b))
	f.PutObject("acme", "channels/locks/"+strings.Replace(digest, ":", "-", 1)+".lock", b)
	return digest
}

func sum(text string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(text))) }

// put uploads the channel.
func (f *fleet) put() { f.PutObject("acme", "channels/stable.yaml", f.ch.Bytes()) }

// trust makes the machine trust a key; the function signs an object of S3 with it.
func (f *fleet) trust() (put func(key string, data []byte)) {
	f.t.Helper()
	public, private, err := minisign.GenerateKey(nil)
	if err != nil {
		f.t.Fatal(err)
	}
	pub, _ := public.MarshalText()
	priv, _ := private.MarshalText()
	f.write(sign.TrustedDir+"/ops.pub", string(pub))
	return func(key string, data []byte) {
		s, _, err := sign.Sign(priv, nil, key, data)
		if err != nil {
			f.t.Fatal(err)
		}
		f.PutObject("acme", key+sign.Suffix, s)
	}
}

// promote gives the candidate to a share, and uploads.
func (f *fleet) promote(share int) {
	f.t.Helper()
	if _, err := f.ch.Promote(channel.Promotion{Lock: f.candidate, Share: share, Now: time.Now()}); err != nil {
		f.t.Fatal(err)
	}
	f.put()
}

// advance asks the next convergence to read the channel.
func (f *fleet) advance() {
	f.t.Helper()
	if err := agent.Advance(f.t.Context(), f.agent().Host()); err != nil {
		f.t.Fatal(err)
	}
}

// has holds what the machine runs and what its report says of the channel.
func (f *fleet) has(rep report.Report, app, role string) report.Channel {
	f.t.Helper()
	if rep.Channel == nil {
		f.t.Fatalf("the report names no channel; %s, %+v", rep.Outcome, rep.Cause)
	}
	if got := f.read("/app"); got != app || rep.Channel.Role != role {
		f.t.Errorf("the machine has %q as %s, want %q as %s", got, rep.Channel.Role, app, role)
	}
	return *rep.Channel
}

// as runs the agent on an instance of this id.
func as(id string) func(*agent.Options) {
	return func(o *agent.Options) { o.Facts = map[string]string{facts.InstanceID: id} }
}

func noted(rep report.Report, text string) bool {
	return strings.Contains(strings.Join(rep.Notes, "\n"), text)
}

// An instance launches with one lock and keeps it: whatever becomes of the
// channel, with nobody to ask, until it is told to advance.
func TestAnInstanceKeepsTheLockItLaunchedWith(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "app 1", "app 2")
	ch := f.has(f.converged("artifacts.app changed; commands.try changed"), "app 1", "stable")
	want := report.Channel{Source: "s3://acme/channels/stable.yaml", Name: "stable", Revision: 1, Role: "stable", Lock: f.stable, Why: "the channel has no candidate", Chosen: ch.Chosen}
	if ch != want || time.Since(ch.Chosen) > time.Minute {
		t.Errorf("channel %+v, want %+v", ch, want)
	}

	f.promote(100)
	f.ForgetRequests()
	rep := f.converged("")
	if ch := f.has(rep, "app 1", "stable"); !ch.Kept || ch.Revision != 1 {
		t.Errorf("channel %+v", ch)
	}
	if !noted(rep, "the lock is "+f.stable+", the stable of the channel stable at revision 1: the channel has no candidate; chosen 20") {
		t.Errorf("notes %q", rep.Notes)
	}
	for _, r := range f.Requests() {
		if strings.Contains(r.String(), "channels/") {
			t.Errorf("asked again: %s", r)
		}
	}
	f.SetFault(ec2sim.Fault{Do: ec2sim.Fail})
	f.has(f.converged(""), "app 1", "stable")
	f.ClearFaults()

	// Another channel by tag changes nothing either, and is told.
	f.SetTag("amiagent:channel", "edge")
	rep = f.converged("")
	f.has(rep, "app 1", "stable")
	if !noted(rep, "the channel is now s3://acme/channels/edge.yaml, this instance keeps its lock from s3://acme/channels/stable.yaml; `amiagent channel advance` follows") {
		t.Errorf("notes %q", rep.Notes)
	}
	f.DeleteTag("amiagent:channel")

	f.advance()
	ch = f.has(f.converged("artifacts.app changed"), "app 2", "candidate")
	if ch.Share != 100 || ch.Wave < 1 || ch.Wave > 100 || ch.Revision != 2 || ch.Kept || ch.Why != fmt.Sprintf("wave %d of 100, candidate share 100", ch.Wave) {
		t.Errorf("channel %+v", ch)
	}
	if ch := f.has(f.converged(""), "app 2", "candidate"); !ch.Kept {
		t.Error("one advance was taken for two")
	}

	// A disk that becomes another instance chooses for itself.
	_, _ = f.ch.Pause(time.Now(), "")
	f.put()
	if ch := f.has(f.converged("artifacts.app changed", as("i-0fedcba9876543210")), "app 1", "stable"); ch.Kept {
		t.Errorf("channel %+v", ch)
	}
}

// The two locks of a channel may hold two manifests of one address: each launch
// reads the version that its lock names, signed or not.
func TestTwoManifestsOfOneAddress(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "app 1", "app 2")
	next := tried + "files: {/etc/next: {content: next}}\n"
	f.candidate = f.lockWith("app 2", next) // the object is now this
	f.has(f.converged("artifacts.app changed; commands.try changed"), "app 1", "stable")
	if f.read("/etc/next") != "" {
		t.Error("the stable lock brought the candidate's manifest")
	}
	f.promote(100)
	f.advance()
	f.has(f.converged("artifacts.app changed; files./etc/next changed"), "app 2", "candidate")

	// The signature beside the object is that of the newer one, and the lock,
	// which the signed channel names, stands for the older one.
	f = newFleet(t, "app 1", "app 2")
	put := f.trust()
	f.lockWith("app 2", next)
	put("manifest.yaml", []byte(next))
	put("channels/stable.yaml", f.ch.Bytes())
	f.has(f.converged("artifacts.app changed; commands.try changed"), "app 1", "stable")

	// Where S3 has no such version any more, both sides are named. (The first request is for no version.)
	f = newFleet(t, "app 1", "app 2")
	f.candidate = f.lockWith("app 2", next)
	f.SetFault(ec2sim.Fault{Service: "s3", Path: "/acme/manifest.yaml", Do: ec2sim.Absent, Skip: 1})
	if rep, err := f.apply(); !errors.Is(err, lock.ErrRefused) || !strings.Contains(err.Error(), sum(next)) || !strings.Contains(err.Error(), sum(tried)) {
		t.Errorf("%v; notes %q", err, rep.Notes)
	}
}

// Each instance gets what the channel says of its id, and `plan` says the same and keeps nothing.
func TestWavesPartAFleet(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "app 1", "app 2")
	f.promote(50)
	roles := map[string]int{}
	for i := range 8 {
		id := fmt.Sprintf("i-0123456789abcdef%x", i)
		want := f.ch.Choose(id, time.Now())
		p, err := f.agent(as(id)).Plan(t.Context())
		if err != nil || !strings.Contains(strings.Join(p.Notes, "\n"), want.Lock) {
			t.Errorf("plan of %s: %v, %q; want %+v", id, err, p.Notes, want)
		}
		if f.read("/var/lib/amiagent/channel.json") != "" {
			t.Fatal("the plan keeps a choice")
		}
		rep, err := f.apply(as(id))
		if err != nil {
			t.Fatal(err)
		}
		app := map[channel.Role]string{channel.Stable: "app 1", channel.OnTrial: "app 2"}[want.Role]
		if ch := f.has(rep, app, string(want.Role)); ch.Wave != want.Wave || ch.Lock != want.Lock || ch.Why != want.Why || ch.Share != 50 {
			t.Errorf("%s: %+v, want %+v", id, ch, want)
		}
		roles[string(want.Role)]++
		f.remove("/var/lib/amiagent")
	}
	if roles["stable"] == 0 || roles["candidate"] == 0 {
		t.Errorf("a poor choice of instances: %v", roles)
	}
}

// A launch that fails with the candidate launches again with the stable lock,
// and both launches are told of. The instance stays with stable.
func TestACandidateThatFailsFallsBack(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "app 1", "bad 2")
	f.ch.OnCandidateFailure = channel.FallBack
	f.promote(100)
	rep := f.converged("artifacts.app changed; commands.try changed")
	ch := f.has(rep, "app 1", "stable")
	if ch.Failed == nil || ch.Failed.Lock != f.candidate || ch.Failed.Step != "commands.try" || ch.Failed.Phase != report.Converge || !strings.Contains(ch.Failed.Error, "it is bad") || ch.Lock != f.stable {
		t.Fatalf("channel %+v, failed %+v", ch, ch.Failed)
	}
	if !noted(rep, "the launch "+ch.Failed.Report+" with the candidate "+f.candidate+" failed: ") {
		t.Errorf("notes %q", rep.Notes)
	}
	first, err := report.Load(f.agent().Host(), agent.ReportsDir, ch.Failed.Report)
	if err != nil || first.Outcome != report.Failed || first.Channel == nil || first.Channel.Role != "candidate" || first.Channel.Lock != f.candidate {
		t.Errorf("report of the candidate: %v, %+v", err, first)
	}
	if last, err := report.Latest(f.agent().Host(), agent.ReportsDir); err != nil || last.ID != rep.ID {
		t.Errorf("the last report is %s, want %s: %v", last.ID, rep.ID, err)
	}
	if ch := f.has(f.converged(""), "app 1", "stable"); ch.Failed == nil || !ch.Kept {
		t.Errorf("a boot later: %+v", ch)
	}
}

// Whether it falls back is for agent.yaml to say, else for the channel, else it fails.
func TestOnCandidateFailure(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		channel, config channel.OnFailure
		back            bool
	}{
		{"", "", false},
		{channel.FailLaunch, "", false},
		{channel.FallBack, "", true},
		{channel.FallBack, channel.FailLaunch, false},
		{"", channel.FallBack, true},
	} {
		f := newFleet(t, "app 1", "bad 2")
		f.ch.OnCandidateFailure, f.cfg.OnCandidateFailure = tc.channel, tc.config
		f.promote(100)
		rep, err := f.apply()
		if tc.back != (err == nil) || tc.back != (rep.Channel.Role == "stable") {
			t.Errorf("channel %q, agent.yaml %q: %s, %v", tc.channel, tc.config, rep.Channel.Role, err)
		}
		if !tc.back && (!errors.Is(err, agent.ErrFailed) || f.read("/app") != "bad 2") {
			t.Errorf("channel %q, agent.yaml %q: %v with %q", tc.channel, tc.config, err, f.read("/app"))
		}
	}
}

// A candidate that worked once is this instance's lock: a failure later is no
// verdict on it, and must not put an older state over a newer one.
func TestAProvenCandidateStays(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "app 1", "app 2")
	f.ch.OnCandidateFailure = channel.FallBack
	f.promote(100)
	f.has(f.converged("artifacts.app changed; commands.try changed"), "app 2", "candidate")
	f.remove("/app")
	f.write("/app/in-the-way", "")
	rep, err := f.apply()
	if err == nil {
		t.Fatal("nothing failed")
	}
	f.has(rep, "", "candidate")
	f.remove("/app")
	f.has(f.converged("artifacts.app changed"), "app 2", "candidate")
}

// One that hangs leaves half of the time for the stable lock.
func TestACandidateThatHangsFallsBackInTime(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "app 1", "hang 2")
	f.cfg.Deadline = 2 * time.Second
	f.cfg.OnCandidateFailure = channel.FallBack
	f.promote(100)
	begin := time.Now()
	rep, err := f.apply()
	if err != nil {
		t.Fatalf("%v after %s", err, time.Since(begin))
	}
	ch := f.has(rep, "app 1", "stable")
	if !strings.Contains(ch.Failed.Error, "took longer than 1s, half of the deadline") {
		t.Errorf("failed: %+v", ch.Failed)
	}
}

// A candidate whose lock cannot be had, or is another's bytes, fails as any other.
func TestACandidateWithoutItsLock(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "app 1", "app 2")
	f.promote(100)
	f.PutObject("acme", "channels/locks/"+strings.Replace(f.candidate, ":", "-", 1)+".lock", []byte("format: 1\n"))
	before := strings.Join(f.tree(), "\n")
	_, err := f.apply()
	want := "cannot read the candidate lock s3://acme/channels/locks/" + strings.Replace(f.candidate, ":", "-", 1) + ".lock: digest does not match: got " + sum("format: 1\n") + ", the channel stable names " + f.candidate
	if !errors.Is(err, fetch.ErrDigest) || err.Error() != want {
		t.Errorf("err = %v\nwant  %s", err, want)
	}
	for _, line := range f.tree() {
		if !strings.Contains(before, line) && !strings.HasPrefix(line, "/var") {
			t.Errorf("touched: %s", line)
		}
	}
	f.cfg.OnCandidateFailure = channel.FallBack
	ch := f.has(f.converged("artifacts.app changed; commands.try changed"), "app 1", "stable")
	if ch.Failed == nil || ch.Failed.Phase != report.Resolve || !strings.Contains(ch.Failed.Error, "digest does not match") {
		t.Errorf("failed: %+v", ch.Failed)
	}
}

// An instance that was told to advance, and failed, does not go on with the lock
// it had before while it reports the other.
func TestAnAdvanceThatFailedIsNotForgotten(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "app 1", "bad 2")
	f.has(f.converged("artifacts.app changed; commands.try changed"), "app 1", "stable")
	next := strings.Replace(tried, "run: [try]", "run: [try, again]", 1)
	f.candidate = f.lockWith("bad 2", next)
	f.promote(100)
	f.advance()
	rep, err := f.apply()
	if !errors.Is(err, agent.ErrFailed) {
		t.Fatalf("err = %v", err)
	}
	f.has(rep, "bad 2", "candidate")
	f.DeleteObject("acme", "manifest.yaml") // out of reach, and kept is only that of the lock before
	rep, err = f.apply()
	if !errors.Is(err, lock.ErrRefused) {
		t.Errorf("err = %v", err)
	}
	f.has(rep, "bad 2", "candidate")
}

// An old channel with a good signature is still an old channel.
func TestAnOlderChannelIsRefused(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "app 1", "app 2")
	old := f.ch.Bytes()
	f.promote(100)
	f.has(f.converged("artifacts.app changed; commands.try changed"), "app 2", "candidate")
	f.PutObject("acme", "channels/stable.yaml", old)
	f.advance()
	_, err := f.apply()
	const want = "refused: the channel s3://acme/channels/stable.yaml is at revision 1, this instance has seen 2"
	if !errors.Is(err, channel.ErrRefused) || err.Error() != want {
		t.Errorf("err = %v, want %s", err, want)
	}
	if f.read("/app") != "app 2" {
		t.Errorf("the machine has %q", f.read("/app"))
	}
}

// Where keys are trusted, a channel needs the signature of one of them.
func TestAnUnsignedChannelIsRefused(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "app 1", "app 2")
	put := f.trust()
	put("manifest.yaml", []byte(tried))
	if _, err := f.apply(); !errors.Is(err, sign.ErrRefused) || !strings.Contains(err.Error(), "channels/stable.yaml is not signed") {
		t.Errorf("err = %v", err)
	}
	put("channels/stable.yaml", f.ch.Bytes())
	f.has(f.converged("artifacts.app changed; commands.try changed"), "app 1", "stable")
	f.promote(100) // the signature is that of the file before
	f.advance()
	if _, err := f.apply(); !errors.Is(err, sign.ErrRefused) {
		t.Errorf("err = %v", err)
	}
	put("channels/stable.yaml", f.ch.Bytes())
	f.has(f.converged("artifacts.app changed"), "app 2", "candidate")
}

// The daemon's status names the channel, also after a restart of the agent, and
// a reload advances if it was asked for before. A boot does not fail for an
// advance that can wait.
func TestADaemonFollowsItsChannel(t *testing.T) {
	t.Parallel()
	f := newFleet(t, "app 1", "app 2")
	d := f.run()
	s := d.untilState(report.Ready)
	if s.Channel == nil || s.Channel.Lock != f.stable || s.Channel.Kept {
		t.Errorf("status %+v", s.Channel)
	}
	if err := d.end(); err != nil {
		t.Fatal(err)
	}
	f.ForgetRequests()
	d = f.run()
	d.until("followed", func(s report.Status) bool { return s.Channel != nil && s.Channel.Kept })
	if n := len(f.Requests()); n != 0 {
		t.Errorf("%d requests after a restart: %v", n, f.Requests())
	}

	f.promote(100)
	f.advance()
	d.Reload()
	d.until("advanced", func(s report.Status) bool {
		return s.Channel != nil && s.Channel.Lock == f.candidate && f.read("/app") == "app 2"
	})
	d.until("told of the reload", func(report.Status) bool { return strings.Contains(d.news.all(), "reload ready") })
	if err := d.end(); err != nil {
		t.Fatal(err)
	}

	f.remove("/run/amiagent") // a boot
	f.advance()
	f.SetFault(ec2sim.Fault{Service: "s3", Do: ec2sim.Fail})
	d = f.run()
	s = d.untilState(report.Ready)
	if s.Channel == nil || s.Channel.Lock != f.candidate || !strings.Contains(strings.Join(s.Notes, "\n"), "cannot advance, this instance stays with the lock it has: ") {
		t.Errorf("status %+v, notes %q", s.Channel, s.Notes)
	}
	f.ClearFaults()
	_, _ = f.ch.Pause(time.Now(), "")
	f.put()
	d.Reload() // the advance is still wanted
	d.until("advanced", func(s report.Status) bool { return s.Channel != nil && s.Channel.Lock == f.stable })
}
