package channel

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"
	"time"
)

// Waves is how many waves there are: one for each percent.
const Waves = 100

// Wave is the wave of an instance, from 1 to Waves: instances whose wave is at
// most the candidate's share launch with the candidate. So an instance that is
// in a share is in every larger one, and a growing share moves nobody back.
//
// The waves are uniform: of many instances each has a hundredth, give or take
// what chance does. The same arguments give the same wave for ever, on every
// machine and in every version of the agent: the formula is a part of the file
// format. It is the first 64 bits of
//
//	SHA-256("amiagent-wave-1\n" name "\n" seed "\n" instance)
//
// as a big-endian fraction of 2⁶⁴, times Waves, rounded down, plus 1. The seed,
// by default the candidate's digest, makes each candidate meet other instances
// first. (Bottlerocket's updater draws a seed per host instead and keeps it; an
// instance that is replaced then changes its wave, and nobody else can know it.)
func Wave(name, seed, instance string) int {
	sum := sha256.Sum256([]byte("amiagent-wave-1\n" + name + "\n" + seed + "\n" + instance))
	hi, _ := bits.Mul64(binary.BigEndian.Uint64(sum[:8]), Waves)
	return int(hi) + 1
}

// Role is which of a channel's two locks is meant.
type Role string

const (
	Stable  Role = "stable"
	OnTrial Role = "candidate"
)

// Choice is which lock a launch uses, and why.
type Choice struct {
	Role  Role   `json:"role"`
	Lock  string `json:"lock"`           // sha256:HEX
	Wave  int    `json:"wave,omitempty"` // of the instance; 0 when the channel has no candidate or the machine no id
	Share int    `json:"share"`          // of the candidate at that time, in percent
	Why   string `json:"why"`            // a clause for people
}

// Choose is the lock for a launch of an instance at a time. It is a pure
// function. A machine without an id launches with the stable lock.
func (c *Channel) Choose(instance string, now time.Time) Choice {
	ch := Choice{Role: Stable, Lock: c.Stable}
	cand := c.Candidate
	switch {
	case cand == nil:
		ch.Why = "the channel has no candidate"
		return ch
	case instance == "":
		ch.Why = "the machine has no instance id, which would say its wave"
		return ch
	}
	ch.Wave = Wave(c.Name, cand.seed(), instance)
	ch.Share = cand.ShareAt(now)
	wave := fmt.Sprintf("wave %d of %d", ch.Wave, Waves)
	switch {
	case cand.Paused:
		ch.Why = wave + ", the candidate is paused"
	case ch.Wave <= ch.Share:
		ch.Role, ch.Lock = OnTrial, cand.Lock
		ch.Why = fmt.Sprintf("%s, candidate share %d", wave, ch.Share)
	case len(cand.Schedule) > 0 && now.Before(cand.Schedule[0].From.Time):
		ch.Why = fmt.Sprintf("%s, the candidate's schedule begins %s", wave, cand.Schedule[0].From)
	default:
		ch.Why = fmt.Sprintf("%s, candidate share %d", wave, ch.Share)
	}
	return ch
}

// ShareAt is the candidate's share at a time, in percent: 0 while it is paused.
func (c *Candidate) ShareAt(now time.Time) int {
	if c.Paused {
		return 0
	}
	return c.shareAt(now)
}

// shareAt is the share that the file names for a time, paused or not.
func (c *Candidate) shareAt(now time.Time) int {
	if len(c.Schedule) == 0 {
		return c.Share
	}
	share := 0
	for _, s := range c.Schedule {
		if !now.Before(s.From.Time) {
			share = s.Share
		}
	}
	return share
}

func (c *Candidate) seed() string {
	if c.Seed != "" {
		return c.Seed
	}
	return c.Lock
}
