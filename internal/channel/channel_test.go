package channel_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/amiagent/amiagent/internal/channel"
)

const zeros, ones = "sha256:0000000000000000000000000000000000000000000000000000000000000000", "sha256:1111111111111111111111111111111111111111111111111111111111111111"

const whole = `# A channel of amiagent: which of two locks a launch uses.
# Written by ` + "`amiagent channel promote|pause`" + `, which keeps no other comments.
# ` + "`amiagent channel show FILE --instance ID`" + ` says what an instance would get.
format: 1
name: "web"
revision: 7

# What launches use unless they are in the candidate's share.
stable: ` + zeros + `

# What an instance launches with if its wave, from 1 to 100, is at most the share.
candidate:
  lock: ` + ones + `
  schedule:
    - {share: 5, from: 2026-11-23T09:00:00Z}
    - {share: 25, from: 2026-11-24T09:00:00Z}
  paused: true # no further launch takes the candidate; who has it keeps it
  paused-at: 2026-11-23T12:00:00Z
  seed: "november: \"the first\""

# What a launch does that fails with the candidate: fail, or launch again with stable.
on-candidate-failure: stable

# Where locks lie; {hex} is the digits of the digest.
locks: "s3://acme-locks/{hex}.lock"

# The last changes, newest first.
history:
  - at: 2026-11-23T12:00:00Z
    by: "Ann Ö. #1"
    what: "pause"
  - at: 2026-11-22T12:00:00Z
    what: "create"
`

func TestAWholeFileThereAndBack(t *testing.T) {
	t.Parallel()
	got, err := channel.Parse("web.yaml", []byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	when := func(s string) channel.Time { return channel.At(at(t, s)) }
	want := &channel.Channel{
		Format: 1, Name: "web", Revision: 7, Stable: zeros,
		Candidate: &channel.Candidate{
			Lock: ones, Share: -1, Paused: true, PausedAt: when("2026-11-23T12:00:00Z"), Seed: `november: "the first"`,
			Schedule: []channel.From{{Share: 5, From: when("2026-11-23T09:00:00Z")}, {Share: 25, From: when("2026-11-24T09:00:00Z")}},
		},
		OnCandidateFailure: channel.FallBack, Locks: "s3://acme-locks/{hex}.lock",
		History: []channel.Change{{At: when("2026-11-23T12:00:00Z"), By: "Ann Ö. #1", What: "pause"}, {At: when("2026-11-22T12:00:00Z"), What: "create"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(whole, string(got.Bytes())); diff != "" {
		t.Error(diff)
	}
}

// A person may write the least, with a time of their own zone.
func TestTheLeast(t *testing.T) {
	t.Parallel()
	c, err := channel.Parse("c", []byte("format: 1\nname: c\nrevision: 1\nstable: "+zeros+"\ncandidate: {lock: "+ones+", share: 0, paused: true, paused-at: 2026-11-23T10:00:00.75+01:00}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if c.Candidate.Share != 0 || c.Candidate.PausedAt.String() != "2026-11-23T09:00:00Z" {
		t.Errorf("%+v", c.Candidate)
	}
}

func TestEveryFaultAtItsPlace(t *testing.T) {
	t.Parallel()
	const good = "format: 1\nname: web\nrevision: 1\nstable: " + zeros + "\n"
	for _, tc := range []struct{ name, text, want string }{
		{"nothing", "", "c:1:1: no format number\n    hint: begin the file with the line: format: 1"},
		{"another format, other keys", "format: 2\nlanes: {}\n", `c:1:9: format: channel format "2" is not known, this agent reads format 1`},
		{"not a mapping", "- a\n", "c:1:1: no format number\n    hint: begin the file with the line: format: 1"},
		{"the least is missing", "format: 1\n", `c:1:1: name: must be up to 64 letters, digits, dots, dashes and underscores, is ""
c:1:1: revision: must be at least 1, is 0
c:1:1: stable: must be the digest of a lock, sha256: and 64 hex digits in lower case, is ""
    hint: ` + "`sha256sum amiagent.lock` prints the digits"},
		{"misspelt", good + "candidat: {}\n", `c:5:1: candidat: unknown key, did you mean "candidate"?`},
		{"twice", good + "name: x\n", "c:5:1: name: given twice, first on line 2"},
		{"a name that would break out of the hash", strings.Replace(good, "name: web", `name: "web\nx"`, 1), `c:2:7: name: must be up to 64 letters, digits, dots, dashes and underscores, is "web\nx"`},
		{"upper case", strings.Replace(good, zeros, "sha256:"+strings.Repeat("A", 64), 1), `c:4:9: stable: must be the digest of a lock, sha256: and 64 hex digits in lower case, is "sha256:` + strings.Repeat("A", 64) + "\"\n    hint: `sha256sum amiagent.lock` prints the digits"},
		{"no share", good + "candidate:\n  lock: " + ones + "\n", "c:6:3: candidate: needs a share in percent, or a schedule"},
		{"share and schedule", good + "candidate:\n  lock: " + ones + "\n  share: 5\n  schedule: [{share: 5, from: 2026-11-23T09:00:00Z}]\n",
			"c:7:10: candidate.share: must not stand beside schedule, which says the share by time"},
		{"shares beyond", good + "candidate: {lock: " + ones + ", share: 101}\n", "c:5:99: candidate.share: must be a percentage from 0 to 100, is 101"},
		{"a share of -1 is not the same as none", good + "candidate: {lock: " + ones + ", share: -2}\n", "c:5:99: candidate.share: must be a percentage from 0 to 100, is -2"},
		{"the same lock", good + "candidate:\n  lock: " + zeros + "\n  share: 5\n", "c:6:9: candidate.lock: is the stable lock"},
		{"a schedule that falls", good + "candidate:\n  lock: " + ones + "\n  schedule:\n  - {share: 25, from: 2026-11-23T09:00:00Z}\n  - {share: 5, from: 2026-11-23T09:00:00Z}\n  - {share: 50}\n",
			`c:9:13: candidate.schedule[1].share: must be more than the 25 before it, is 5
c:9:22: candidate.schedule[1].from: must be later than the 2026-11-23T09:00:00Z before it, is 2026-11-23T09:00:00Z
c:10:5: candidate.schedule[2].from: must say when the share begins to hold
c:10:5: candidate.schedule[2].from: must be later than the 2026-11-23T09:00:00Z before it, is 0001-01-01T00:00:00Z`},
		{"no time", good + "candidate:\n  lock: " + ones + "\n  schedule: [{share: 5, from: tomorrow}]\n", `c:7:31: candidate.schedule[0].from: must be a time such as 2026-11-23T09:00:00Z, is "tomorrow"
c:7:31: candidate.schedule[0].from: must say when the share begins to hold`},
		{"a pause of a schedule without its time", good + "candidate:\n  lock: " + ones + "\n  paused: true\n  schedule: [{share: 5, from: 2026-11-23T09:00:00Z}]\n",
			"c:7:11: candidate.paused: needs paused-at beside a schedule, so that resuming can move what is left of it"},
		{"a time of no pause", good + "candidate:\n  lock: " + ones + "\n  share: 5\n  paused-at: 2026-11-23T09:00:00Z\n", "c:8:14: candidate.paused-at: has no meaning without paused: true"},
		{"on-candidate-failure", good + "on-candidate-failure: ignore\n", `c:5:23: on-candidate-failure: must be stable or fail, is "ignore"`},
		{"locks that are all the same", good + "locks: s3://b/web.lock\n", "c:5:8: locks: must have {hex} where the digits of the digest go"},
		{"locks elsewhere", good + "locks: ../../other/{hex}\n", `c:5:8: locks: must not leave the channel's folder with "..", write the whole address`},
		{"history", good + "history:\n- {what: \"a\\tb\"}\n", "c:6:3: history[0].at: must say when\nc:6:10: history[0].what: must be one printable line, has '\\t'"},
		{"too large", good + strings.Repeat("# filler\n", 10_000), "c: a channel has at most 65536 bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c, err := channel.Parse("c", []byte(tc.text))
			if err == nil || err.Error() != tc.want {
				t.Errorf("got:\n%v\nwant:\n%s", err, tc.want)
			}
			if c != nil {
				t.Error("a faulty channel is given out")
			}
		})
	}
}

func TestWhereLocksLie(t *testing.T) {
	t.Parallel()
	hex := strings.Repeat("0", 64)
	for _, tc := range []struct{ from, locks, want string }{
		{"s3://acme/channels/web.yaml", "", "s3://acme/channels/locks/sha256-" + hex + ".lock"},
		{"s3://acme/web.yaml?versionId=7", "", "s3://acme/locks/sha256-" + hex + ".lock"},
		{"s3::https://s3.eu-west-1.amazonaws.com/acme/web.yaml", "all/{hex}", "s3::https://s3.eu-west-1.amazonaws.com/acme/all/" + hex},
		{"https://acme.example/a/web.yaml?token=a/b", "", "https://acme.example/a/locks/sha256-" + hex + ".lock"},
		{"git::https://acme.example/fleet.git//channels/web.yaml?ref=main&depth=1", "", "git::https://acme.example/fleet.git//channels/locks/sha256-" + hex + ".lock?ref=main"},
		{"/etc/amiagent/web.yaml", "", "/etc/amiagent/locks/sha256-" + hex + ".lock"},
		{"s3://acme/web.yaml", "s3://other/{hex}.lock?x=1", "s3://other/" + hex + ".lock?x=1"},
		{"s3://acme/web.yaml", "/var/locks/{hex}", "/var/locks/" + hex},
	} {
		c := &channel.Channel{Locks: tc.locks}
		if got := c.LockAddress(tc.from, zeros); got != tc.want {
			t.Errorf("LockAddress of %q from %s = %s, want %s", tc.locks, tc.from, got, tc.want)
		}
	}
}

// Whatever Parse accepts, Bytes writes so that Parse reads the same, and writes
// the same bytes again; and no accepted channel makes a choice that is none of its locks.
func FuzzParse(f *testing.F) {
	f.Add([]byte(whole), "i-0123456789abcdef0", int64(1_795_000_000))
	f.Add([]byte("format: 1\nname: a\nrevision: 1\nstable: "+zeros+"\ncandidate: {lock: "+ones+", share: 0x10}\n"), "", int64(0))
	f.Add([]byte("format: 1\nname: &a a\nrevision: 1\nstable: "+zeros+"\nhistory: [{at: 2026-01-01T00:00:00Z, what: *a, by: \"\\u2028\"}]\n"), "x\ny", int64(-1))
	f.Fuzz(func(t *testing.T, data []byte, instance string, now int64) {
		c, err := channel.Parse("c", data)
		if err != nil {
			return
		}
		b := c.Bytes()
		again, err := channel.Parse("c", b)
		if err != nil {
			t.Fatalf("%v of\n%s", err, b)
		}
		empty := func(s []channel.Change) []channel.Change {
			if len(s) == 0 {
				return nil
			}
			return s
		}
		c.History = empty(c.History)
		if k := c.Candidate; k != nil && len(k.Schedule) == 0 {
			k.Schedule = nil
		}
		if diff := cmp.Diff(c, again); diff != "" {
			t.Fatalf("%s\n%s", diff, b)
		}
		if !bytes.Equal(b, again.Bytes()) {
			t.Fatal("not the same bytes")
		}
		ch := c.Choose(instance, time.Unix(now, 0))
		if ch.Why == "" || ch.Lock != c.Stable && (c.Candidate == nil || ch.Lock != c.Candidate.Lock) {
			t.Fatalf("%+v", ch)
		}
	})
}
