package channel_test

import (
	"crypto/sha256"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/amiagent/amiagent/internal/channel"
)

// instances are ids as EC2 gives them out: i- and 17 hex digits, the first of
// them 0. They come in batches that differ in few digits, as those of one Auto
// Scaling group do, so that a weak hash would show.
func instances(n int) []string {
	ids := make([]string, 0, n)
	for i := range n {
		batch := sha256.Sum256(fmt.Append(nil, "batch", i/50))
		ids = append(ids, fmt.Sprintf("i-0%x%04x", batch[:6], uint16(batch[7])+uint16(i%50)*3))
	}
	return ids
}

var stableLock = digestOf("stable")

func digestOf(s string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(s))) }

func at(t *testing.T, s string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Of 10,000 instances, the waves 5, 25 and 100 % get their percentage to within
// one point, in every channel and by every candidate tried. In the middle chance
// alone is wider than that, a point or more in one channel of twenty, so the
// middle is held with 40,000, where it would take a faulty hash.
func TestWavesAreWithinOnePointOfTheirShare(t *testing.T) {
	t.Parallel()
	ids := instances(40_000)
	seen := map[string]bool{}
	for _, id := range ids {
		if len(id) != len("i-0123456789abcdef0") || seen[id] {
			t.Fatalf("%q is no instance id, or comes twice", id)
		}
		seen[id] = true
	}
	for _, tc := range []struct {
		instances int
		shares    []int
	}{
		{10_000, []int{0, 1, 5, 25, 100}},
		{40_000, []int{33, 50, 75}},
	} {
		for _, name := range []string{"stable", "web", "eu-west-1.batch"} {
			for _, candidate := range []string{"one", "two", "three"} {
				t.Run(fmt.Sprint(tc.instances, name, candidate), func(t *testing.T) {
					t.Parallel()
					c := channel.Channel{Name: name, Stable: stableLock, Candidate: &channel.Candidate{Lock: digestOf(candidate)}}
					taken := map[string]bool{}
					for _, c.Candidate.Share = range tc.shares {
						for _, id := range ids[:tc.instances] {
							switch onTrial := c.Choose(id, time.Time{}).Role == channel.OnTrial; {
							case onTrial:
								taken[id] = true
							case taken[id]:
								t.Fatalf("%s was in a smaller share, and is not in %d %%", id, c.Candidate.Share)
							}
						}
						got := 100 * float64(len(taken)) / float64(tc.instances)
						if math.Abs(got-float64(c.Candidate.Share)) > 1 || c.Candidate.Share%100 == 0 && got != float64(c.Candidate.Share) {
							t.Errorf("a share of %d %% has %.2f %% of the instances", c.Candidate.Share, got)
						}
					}
				})
			}
		}
	}
}

// Every single wave has its hundredth, within what chance does to 10,000:
// 100 instances give or take 10, so 50 would be wonder.
func TestEveryWaveHasItsHundredth(t *testing.T) {
	t.Parallel()
	var count [channel.Waves + 2]int
	for _, id := range instances(10_000) {
		count[channel.Wave("web", "2026-11", id)]++
	}
	for w, n := range count {
		if inside := w >= 1 && w <= channel.Waves; inside && (n < 50 || n > 150) || !inside && n != 0 {
			t.Errorf("wave %d has %d of 10,000 instances", w, n)
		}
	}
}

// The waves are a part of the file format: they must not change from run to
// run, nor from version to version, or a share would become another set of
// instances. A failure here means that the formula was changed: change it back.
func TestWavesNeverChange(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, seed, instance string
		want                 int
	}{
		{"stable", "sha256:0000000000000000000000000000000000000000000000000000000000000000", "i-0123456789abcdef0", 21},
		{"stable", "sha256:0000000000000000000000000000000000000000000000000000000000000000", "i-0123456789abcdef1", 42},
		{"stable", "sha256:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff", "i-0123456789abcdef0", 40},
		{"web", "2026-11", "i-0123456789abcdef0", 38},
		{"web", "2026-11", "i-1a2b3c4d", 64},                       // an id of 2015 and before
		{"web", "2026-11", "6d1e0f2a3b4c5d6e7f8091a2b3c4d5e6", 36}, // a machine id, outside EC2
		{"web", "", "i-0123456789abcdef0", 40},
	} {
		if got := channel.Wave(tc.name, tc.seed, tc.instance); got != tc.want {
			t.Errorf("Wave(%q, %q, %q) = %d, want %d", tc.name, tc.seed, tc.instance, got, tc.want)
		}
	}
	sum := sha256.New()
	for _, id := range instances(10_000) {
		fmt.Fprintln(sum, id, channel.Wave("stable", stableLock, id))
	}
	if got, want := fmt.Sprintf("%x", sum.Sum(nil)), "37a4b0ac43669a7d6ce40105ca653f716f7d9d4239c1f2277905c1e02798ed86"; got != want {
		t.Errorf("the waves of 10,000 instances have the digest %s, want %s", got, want)
	}
}

// Each candidate meets other instances first: of those first by one, about as
// many are first by the next as by chance. A seed keeps them.
func TestTheSameInstancesAreNotAlwaysFirst(t *testing.T) {
	t.Parallel()
	first := func(c channel.Channel) map[string]bool {
		set := map[string]bool{}
		for _, id := range instances(10_000) {
			if c.Choose(id, time.Time{}).Role == channel.OnTrial {
				set[id] = true
			}
		}
		return set
	}
	both := func(a, b map[string]bool) (n int) {
		for id := range a {
			if b[id] {
				n++
			}
		}
		return n
	}
	with := func(name, lock, seed string) map[string]bool {
		return first(channel.Channel{Name: name, Stable: stableLock, Candidate: &channel.Candidate{Lock: digestOf(lock), Share: 10, Seed: seed}})
	}
	a := with("web", "one", "")
	if n := both(a, with("web", "two", "")); n < 50 || n > 150 {
		t.Errorf("%d of %d are first by the next candidate too, by chance it is 100", n, len(a))
	}
	if n := both(a, with("db", "one", "")); n < 50 || n > 150 {
		t.Errorf("%d of %d are first in another channel too, by chance it is 100", n, len(a))
	}
	a = with("web", "one", "november")
	if n := both(a, with("web", "fixed", "november")); n != len(a) {
		t.Errorf("with the same seed %d of %d stay first", n, len(a))
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	candidate := digestOf("candidate")
	const early, late = "i-0123456789abcdef0", "i-0123456789abcdef1" // waves 38 and 97
	schedule := []channel.From{
		{Share: 5, From: channel.At(at(t, "2026-11-23T09:00:00Z"))},
		{Share: 60, From: channel.At(at(t, "2026-11-24T09:00:00Z"))},
		{Share: 100, From: channel.At(at(t, "2026-11-26T09:00:00Z"))},
	}
	type cand = channel.Candidate
	for _, tc := range []struct {
		name      string
		candidate *cand
		instance  string
		now       string
		want      string // role wave share: why
	}{
		{"no candidate", nil, early, "2026-11-23T00:00:00Z", "stable 0 0: the channel has no candidate"},
		{"no id", &cand{Share: 100}, "", "2026-11-23T00:00:00Z", "stable 0 0: the machine has no instance id, which would say its wave"},
		{"share of 0", &cand{}, early, "2026-11-23T00:00:00Z", "stable 38 0: wave 38 of 100, candidate share 0"},
		{"just outside", &cand{Share: 37}, early, "2026-11-23T00:00:00Z", "stable 38 37: wave 38 of 100, candidate share 37"},
		{"just inside", &cand{Share: 38}, early, "2026-11-23T00:00:00Z", "candidate 38 38: wave 38 of 100, candidate share 38"},
		{"all", &cand{Share: 100}, late, "2026-11-23T00:00:00Z", "candidate 97 100: wave 97 of 100, candidate share 100"},
		{"paused", &cand{Share: 100, Paused: true}, early, "2026-11-23T00:00:00Z", "stable 38 0: wave 38 of 100, the candidate is paused"},
		{"before the schedule", &cand{Share: -1, Schedule: schedule}, early, "2026-11-23T08:59:59Z", "stable 38 0: wave 38 of 100, the candidate's schedule begins 2026-11-23T09:00:00Z"},
		{"first wave", &cand{Share: -1, Schedule: schedule}, early, "2026-11-23T09:00:00Z", "stable 38 5: wave 38 of 100, candidate share 5"},
		{"second wave", &cand{Share: -1, Schedule: schedule}, early, "2026-11-24T09:00:00Z", "candidate 38 60: wave 38 of 100, candidate share 60"},
		{"second wave, late", &cand{Share: -1, Schedule: schedule}, late, "2026-11-26T08:59:59Z", "stable 97 60: wave 97 of 100, candidate share 60"},
		{"last wave", &cand{Share: -1, Schedule: schedule}, late, "2027-01-01T00:00:00Z", "candidate 97 100: wave 97 of 100, candidate share 100"},
	} {
		c := channel.Channel{Name: "web", Stable: stableLock, Candidate: tc.candidate}
		if tc.candidate != nil {
			tc.candidate.Lock, tc.candidate.Seed = candidate, "2026-11"
		}
		got := c.Choose(tc.instance, at(t, tc.now))
		if s := fmt.Sprintf("%s %d %d: %s", got.Role, got.Wave, got.Share, got.Why); s != tc.want {
			t.Errorf("%s: got\n%s\nwant\n%s", tc.name, s, tc.want)
		}
		if lock := map[channel.Role]string{channel.Stable: stableLock, channel.OnTrial: candidate}[got.Role]; got.Lock != lock {
			t.Errorf("%s: role %s with lock %s", tc.name, got.Role, got.Lock)
		}
	}
}
