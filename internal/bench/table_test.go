package bench

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func at(n float64) time.Duration { return time.Duration(n * float64(time.Millisecond)) }

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		of   []time.Duration
		want spread
		text string
	}{
		{nil, spread{}, "0.0 ms  (0.0 ms to 0.0 ms)"},
		{[]time.Duration{at(3)}, spread{at(3), at(3), at(3)}, "3.0 ms  (3.0 ms to 3.0 ms)"},
		{[]time.Duration{at(9), at(1), at(2)}, spread{at(2), at(1), at(9)}, "2.0 ms  (1.0 ms to 9.0 ms)"},
		{[]time.Duration{at(4), at(1), at(2), at(1200)}, spread{at(3), at(1), at(1200)}, "3.0 ms  (1.0 ms to 1200 ms)"},
	} {
		if got := spreadOf(c.of); got != c.want || got.String() != c.text {
			t.Errorf("%v: %v (%s), want %v (%s)", c.of, got, got, c.want, c.text)
		}
	}
}

// good are results with every aim held.
func good() (proved, measured Results) {
	for _, m := range mutations {
		proved.Caught = append(proved.Caught, Caught{Step: m.step, Drift: "differs", Script: "differs"})
	}
	proved.Steps = len(mutations)
	for i := range 3 {
		d := at(float64(30 + i))
		measured.Agent = append(measured.Agent, Run{Wall: d, Phases: map[string]time.Duration{"start": at(5), "converge": at(20)}})
		measured.Cold = append(measured.Cold, Run{Wall: 2 * d})
		measured.Script = append(measured.Script, Run{Wall: 3 * d})
		measured.ColdSh = append(measured.ColdSh, Run{Wall: 4 * d})
		measured.Cloud = append(measured.Cloud, Cloud{Wall: 40 * d, Stages: map[string]time.Duration{"init": 10 * d}})
	}
	measured.Idle = Memory{Resident: 10 << 20, Anon: 4 << 20, File: 6 << 20, Peak: 30 << 20}
	measured.Later, measured.Health = measured.Idle, measured.Idle
	return proved, measured
}

var small = []Size{{"amiagent-linux-amd64", 20 << 20, true}, {"amiagent.deb", 21 << 20, false}}

func print(t *testing.T, proved, measured Results, sizes []Size) (string, int) {
	t.Helper()
	var b strings.Builder
	missed, err := Print(&b, proved, measured, sizes)
	if err != nil {
		t.Fatal(err)
	}
	return b.String(), missed
}

func TestEveryAimHeld(t *testing.T) {
	proved, measured := good()
	text, missed := print(t, proved, measured, small)
	if missed != 0 || strings.Contains(text, "missed,") {
		t.Errorf("%d missed\n%s", missed, text)
	}
	if n := strings.Count(text, ": held\n"); n != 5 {
		t.Errorf("%d aims held, want 5\n%s", n, text)
	}
	for _, want := range []string{"31.0 ms  (30.0 ms to 32.0 ms)", "start 5.0", "converge 20.0", "40.0\n", "10.00 MiB (anon 4.00 MiB, file 6.00 MiB)", "21.00 MiB"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestEveryMissedAimSaysWhy(t *testing.T) {
	for _, c := range []struct {
		why   string
		spoil func(proved, measured *Results, sizes []Size)
		want  []string
	}{
		{"slow", func(_, m *Results, _ []Size) {
			for i := range m.Agent {
				m.Agent[i].Wall = at(60)
			}
		}, []string{"at most 50.0 ms: missed, because converge alone takes 20.0 ms", "at least 30 times ours: missed, because it is 20.7 times"}},
		{"fat", func(_, m *Results, _ []Size) { m.Later.Resident = 17 << 20 },
			[]string{"at most 16.00 MiB: missed, because 6.00 MiB are clean pages of the program"}},
		{"big", func(_, _ *Results, s []Size) { s[0].Bytes += 7 }, []string{"at most 20.00 MiB: missed, because 7 bytes too many"}},
		{"the agent is blind", func(p, _ *Results, _ []Size) { p.Caught[3].Drift = "" },
			[]string{"49 caught, 1 missed", "missed, because packages.bench-two: the agent changed nothing"}},
		{"the script is blind", func(p, _ *Results, _ []Size) { p.Caught[3].Script = "" }, []string{"missed, because packages.bench-two: the script saw nothing"}},
		{"not repaired", func(p, _ *Results, _ []Size) { p.Caught[3].Left = "still" }, []string{"missed, because packages.bench-two: not repaired: still"}},
		{"cut short", func(p, _ *Results, _ []Size) { p.Caught = p.Caught[:10] }, []string{"10 caught, 0 missed", "aim: 50 caught: missed"}},
	} {
		proved, measured := good()
		sizes := slices.Clone(small)
		c.spoil(&proved, &measured, sizes)
		text, missed := print(t, proved, measured, sizes)
		if missed != len(c.want) && len(c.want) == 1 || missed == 0 {
			t.Errorf("%s: %d missed", c.why, missed)
		}
		for _, want := range c.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q in\n%s", c.why, want, text)
			}
		}
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestPrintTellsThatItCouldNot(t *testing.T) {
	proved, measured := good()
	if _, err := Print(full{}, proved, measured, small); err == nil || err.Error() != "disk full" {
		t.Error(err)
	}
}
