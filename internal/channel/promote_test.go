package channel_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/amiagent/amiagent/internal/channel"
)

var monday = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

// locks are named by one letter in these stories.
func lockOf(letter string) string {
	if letter == "" {
		return ""
	}
	return "sha256:" + strings.Repeat(letter, 64)
}

// do applies a story: changes separated by "; ", each an hour after the last.
//
//	a 5      promote lock a to 5 %        5        promote the candidate to 5 %
//	a >      make lock a stable           >        make the candidate stable
//	a 5+25   schedule 5 % now, 25 % 24 h later
//	pause  resume
func do(t *testing.T, c *channel.Channel, story string) (string, error) {
	t.Helper()
	what, now := "", monday
	for _, change := range strings.Split(story, "; ") {
		var err error
		now = now.Add(time.Hour)
		words := strings.Fields(change)
		switch words[0] {
		case "pause":
			what, err = c.Pause(now, "ann")
		case "resume":
			what, err = c.Resume(now, "")
		case "wait":
			var days int
			fmt.Sscan(words[1], &days)
			now = now.AddDate(0, 0, days)
		default:
			p := channel.Promotion{Share: -1, Now: now, By: "bob"}
			if len(words) == 2 {
				p.Lock, words = lockOf(words[0]), words[1:]
			}
			shares := strings.Split(words[0], "+")
			switch {
			case words[0] == ">":
				p.ToStable = true
			case words[0] == "?":
			case len(shares) == 1:
				fmt.Sscan(words[0], &p.Share)
			default:
				for i, s := range shares {
					f := channel.From{From: channel.At(now.AddDate(0, 0, i))}
					fmt.Sscan(s, &f.Share)
					p.Schedule = append(p.Schedule, f)
				}
			}
			what, err = c.Promote(p)
		}
		if err != nil {
			return "", err
		}
	}
	return what, nil
}

// brief is a channel in a line.
func brief(c *channel.Channel) string {
	short := func(lock string) string { return lock[7:8] }
	s := fmt.Sprintf("r%d stable %s", c.Revision, short(c.Stable))
	if k := c.Candidate; k != nil {
		s += " candidate " + short(k.Lock)
		if len(k.Schedule) == 0 {
			s += fmt.Sprintf(" %d%%", k.Share)
		}
		for _, f := range k.Schedule {
			s += fmt.Sprintf(" %d%%@%s", f.Share, f.From.Format("02T15"))
		}
		if k.Paused {
			s += " paused"
		}
		if k.Seed != "" {
			s += " seed " + k.Seed
		}
	}
	return s
}

func TestAdvancing(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ story, want, what string }{
		{"b 5", "r2 stable a candidate b 5%", "5 % take candidate " + lockOf("b")},
		{"b 5; 25; 100; >", "r5 stable b", "stable is " + lockOf("b") + ", was " + lockOf("a")},
		{"b 25; 5", "r3 stable a candidate b 5%", "5 % take candidate " + lockOf("b")},
		{"b 25; c 5", "r3 stable a candidate c 5%", "5 % take candidate " + lockOf("c") + ", which replaces " + lockOf("b")},
		{"b 25; c >", "r3 stable c", "stable is " + lockOf("c") + ", was " + lockOf("a") + "; candidate " + lockOf("b") + " is dropped"},
		{"b 25; a >", "r3 stable a", "candidate " + lockOf("b") + " is dropped, stable stays " + lockOf("a")},
		{"b >", "r2 stable b", "stable is " + lockOf("b") + ", was " + lockOf("a")},
		{"b >; a >", "r3 stable a", "stable is " + lockOf("a") + ", was " + lockOf("b")},
		{"b 5+25", "r2 stable a candidate b 5%@23T10 25%@24T10", "5 % from 2026-11-23T10:00:00Z, 25 % from 2026-11-24T10:00:00Z take candidate " + lockOf("b")},
		{"b 5+25; 50", "r3 stable a candidate b 50%", "50 % take candidate " + lockOf("b")},
		{"b 25; pause", "r3 stable a candidate b 25% paused", "pause candidate " + lockOf("b") + " at 25 %"},
		{"b 25; pause; resume", "r4 stable a candidate b 25%", "resume candidate " + lockOf("b") + " at 25 %"},
		{"b 25; pause; c 5", "r4 stable a candidate c 5%", "5 % take candidate " + lockOf("c") + ", which replaces " + lockOf("b")},
		{"b 25; pause; a >", "r4 stable a", "candidate " + lockOf("b") + " is dropped, stable stays " + lockOf("a")},
		// A pause of three days and an hour: 25 % is still a day away from 5 %.
		{"b 5+25; pause; wait 3; resume", "r4 stable a candidate b 5%@23T10 25%@27T12", "resume candidate " + lockOf("b") + " at 5 %, what was to come is 74h0m0s later"},
	} {
		t.Run(tc.story, func(t *testing.T) {
			t.Parallel()
			c, err := channel.New("web", lockOf("a"), monday, "ann")
			if err != nil {
				t.Fatal(err)
			}
			what, err := do(t, c, tc.story)
			if err != nil {
				t.Fatal(err)
			}
			if got := brief(c); got != tc.want || what != tc.what {
				t.Errorf("got  %s\n     %s\nwant %s\n     %s", got, what, tc.want, tc.what)
			}
			if c.History[0].What != what || len(c.History) != c.Revision {
				t.Errorf("history %+v", c.History)
			}
			if _, err := channel.Parse("c", c.Bytes()); err != nil {
				t.Errorf("what was promoted cannot be read: %v", err)
			}
		})
	}
}

// Nonsense is refused, with what there is and what to do, and changes nothing.
func TestNonsenseIsRefused(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		before, story, want string
		refused             bool
	}{
		{"", "5", "refused: the channel has no candidate", true},
		{"", ">", "refused: the channel has no candidate to make stable", true},
		{"", "a 5", "refused: " + lockOf("a") + " is the stable lock already", true},
		{"", "a >", "refused: " + lockOf("a") + " is the stable lock already", true},
		{"", "pause", "refused: the channel has no candidate to pause", true},
		{"", "resume", "refused: no candidate is paused", true},
		{"b 5", "resume", "refused: no candidate is paused", true},
		{"b 5", "5", "refused: nothing would change: 5 % of the launches take " + lockOf("b") + " already", true},
		{"b 5", "a 10", "refused: " + lockOf("a") + " is the stable lock already", true},
		{"b 5; pause", "pause", "refused: the candidate is paused already, since 2026-11-23T11:00:00Z", true},
		{"b 5; pause", "25", "refused: the candidate is paused since 2026-11-23T11:00:00Z", true},
		{"b 5; pause", "b 25", "refused: the candidate is paused since 2026-11-23T11:00:00Z", true},
		{"b 5; pause", ">", "refused: the candidate is paused since 2026-11-23T11:00:00Z", true},
		{"", "b ?", "cannot promote: no share is given", false},
		{"", "b 101", "cannot promote: share: must be a percentage from 0 to 100, is 101", false},
		{"", "b 25+5", "cannot promote: schedule[1].share: must be more than the 25 before it, is 5", false},
		{"", "x 5", `cannot promote: "` + lockOf("x") + `" is no digest of a lock, which is sha256: and 64 hex digits in lower case`, false},
	} {
		t.Run(tc.before+"|"+tc.story, func(t *testing.T) {
			t.Parallel()
			c, _ := channel.New("web", lockOf("a"), monday, "")
			if tc.before != "" {
				if _, err := do(t, c, tc.before); err != nil {
					t.Fatal(err)
				}
			}
			before := string(c.Bytes())
			_, err := do(t, c, tc.story)
			if err == nil || err.Error() != tc.want || errors.Is(err, channel.ErrRefused) != tc.refused {
				t.Errorf("got:\n%v\nwant:\n%s", err, tc.want)
			}
			if after := string(c.Bytes()); after != before {
				t.Errorf("it was changed all the same:\n%s", after)
			}
		})
	}
	if _, err := channel.New("web/stable", lockOf("a"), monday, ""); err == nil {
		t.Error("a name with a slash")
	}
	if _, err := channel.New("web", lockOf("a"), monday, "ann\nname: x"); err == nil {
		t.Error("a line break would reach the file")
	}
	if _, err := channel.New("web", lockOf("a"), monday, strings.Repeat("a", 2000)); err == nil {
		t.Error("a long name would not be read again")
	}
}

// A seed stays with its candidate, and only with it.
func TestSeeds(t *testing.T) {
	t.Parallel()
	c, _ := channel.New("web", lockOf("a"), monday, "")
	promote := func(lock string, share int, seed, want string) {
		t.Helper()
		if _, err := c.Promote(channel.Promotion{Lock: lockOf(lock), Share: share, Seed: seed, Now: monday}); err != nil {
			t.Fatal(err)
		}
		if got := brief(c); !strings.HasSuffix(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	promote("b", 5, "november", "candidate b 5% seed november")
	promote("", 10, "", "candidate b 10% seed november")
	promote("c", 10, "november", "candidate c 10% seed november") // a fix goes to the same instances
	promote("d", 10, "", "candidate d 10%")
}

// The history stays short, and the file readable, however often a channel is moved
// and however long its schedule.
func TestTheHistoryIsBounded(t *testing.T) {
	t.Parallel()
	c, _ := channel.New("web", lockOf("a"), monday, "")
	long := channel.Promotion{Share: -1, Now: monday, By: strings.Repeat("é", 500)}
	for i := range 20 {
		long.Schedule = append(long.Schedule, channel.From{Share: i + 1, From: channel.At(monday.Add(time.Duration(i) * time.Hour))})
	}
	for i := range 60 {
		long.Lock = lockOf([]string{"b", "c"}[i%2])
		if _, err := c.Promote(long); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.History) != 20 || c.Revision != 61 {
		t.Errorf("%d entries at revision %d", len(c.History), c.Revision)
	}
	if _, err := channel.Parse("c", c.Bytes()); err != nil {
		t.Error(err)
	}
}
