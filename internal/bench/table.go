package bench

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// The aims.
const (
	aimReady  = 50 * time.Millisecond
	aimTimes  = 30.0 // cloud-init's time, of ours
	aimIdle   = 16 << 20
	aimBinary = 20 << 20
)

// Size is one file that users get.
type Size struct {
	Name   string
	Bytes  int64
	Binary bool // a program, which has an aim
}

// spread is the middle of some figures, and how far they lie apart.
type spread struct{ median, min, max time.Duration }

func spreadOf(ds []time.Duration) spread {
	if len(ds) == 0 {
		return spread{}
	}
	s := slices.Sorted(slices.Values(ds))
	return spread{(s[(len(s)-1)/2] + s[len(s)/2]) / 2, s[0], s[len(s)-1]}
}

func (s spread) String() string {
	return fmt.Sprintf("%s  (%s to %s)", ms(s.median), ms(s.min), ms(s.max))
}

func ms(d time.Duration) string {
	if d >= time.Second {
		return fmt.Sprintf("%.0f ms", d.Seconds()*1000)
	}
	return fmt.Sprintf("%.1f ms", d.Seconds()*1000)
}

func mib(n int64) string { return fmt.Sprintf("%.2f MiB", float64(n)/(1<<20)) }

func walls(rs []Run) spread {
	var ds []time.Duration
	for _, r := range rs {
		ds = append(ds, r.Wall)
	}
	return spreadOf(ds)
}

func cpus(rs []Run) spread {
	var ds []time.Duration
	for _, r := range rs {
		ds = append(ds, r.CPU)
	}
	return spreadOf(ds)
}

// Uncaught are the mutations that the agent, or the script, has missed.
func (r Results) Uncaught() []string {
	var bad []string
	for _, c := range r.Caught {
		switch {
		case c.Drift == "":
			bad = append(bad, strings.TrimSpace(c.Step+": the agent changed nothing "+c.Left))
		case c.Script == "":
			bad = append(bad, c.Step+": the script saw nothing")
		case c.Left != "":
			bad = append(bad, c.Step+": not repaired: "+c.Left)
		}
	}
	return bad
}

// table prints figures beside their aims.
type table struct {
	w      io.Writer
	err    error
	missed int
}

func (t *table) printf(format string, args ...any) {
	if t.err == nil {
		_, t.err = fmt.Fprintf(t.w, format, args...)
	}
}

func (t *table) title(s string) { t.printf("\n%s\n", s) }

func (t *table) row(what, figure string) {
	t.printf("%s\n", strings.TrimRight(fmt.Sprintf("  %-50s %s", what, figure), " "))
}

// aim is a row with the word on its aim; because is the reason in figures when it is missed.
func (t *table) aim(what, figure, aim string, held bool, because string) {
	word := "held"
	if !held {
		t.missed++
		word = "missed"
		if because != "" {
			word += ", because " + because
		}
	}
	t.row(what, fmt.Sprintf("%-34s aim: %s: %s", figure, aim, word))
}

// Print prints what the two boots found, and the sizes. It gives the number of aims missed.
func Print(w io.Writer, proved, r Results, sizes []Size) (missed int, err error) {
	t := &table{w: w}
	t.title("The checks are real")
	bad := proved.Uncaught()
	t.aim(fmt.Sprintf("%d steps, each changed by hand once", proved.Steps),
		fmt.Sprintf("%d caught, %d missed", len(proved.Caught)-len(bad), len(bad)), fmt.Sprintf("%d caught", len(mutations)),
		len(bad) == 0 && len(proved.Caught) == len(mutations), strings.Join(bad, "; "))

	agent, script := walls(r.Agent), walls(r.Script)
	cloud := r.cloud()
	t.title("Everything as it should be: process start to READY, page cache warm")
	t.aim(fmt.Sprintf("amiagent, %d runs", len(r.Agent)), agent.String(), "at most "+ms(aimReady), agent.median <= aimReady, r.slow())
	t.row("  where the time goes (medians)", r.parts())
	t.row("  processor time, until stopped again", cpus(r.Agent).String())
	times := 0.0
	if agent.median > 0 {
		times = float64(cloud.median) / float64(agent.median)
	}
	t.aim(fmt.Sprintf("cloud-init, boot without news, %d runs", len(r.Cloud)), cloud.String(), fmt.Sprintf("at least %.0f times ours", aimTimes),
		times >= aimTimes, fmt.Sprintf("it is %.1f times", times))
	t.row("  times ours", fmt.Sprintf("%.1f", times))
	for _, s := range stages {
		var ds []time.Duration
		for _, c := range r.Cloud {
			ds = append(ds, c.Stages[s.name])
		}
		t.row("  cloud-init "+strings.Join(s.args, " "), spreadOf(ds).String())
	}
	t.row(fmt.Sprintf("shell script, the same %d things, %d runs", proved.Steps, len(r.Script)), script.String())
	t.row("  its processor time", cpus(r.Script).String())

	t.title("The same in the machine's own second boot (one, everything else starts beside it)")
	t.row("amiagent, by systemd's clock", ms(r.Boot.Agent))
	var sum time.Duration
	for _, d := range r.Boot.Cloud {
		sum += d
	}
	t.row("cloud-init's stages, by its own clock", ms(sum))

	t.title(fmt.Sprintf("Page cache dropped before each of %d runs", len(r.Cold)))
	t.row("amiagent", walls(r.Cold).String())
	t.row("shell script", walls(r.ColdSh).String())

	t.title("Memory")
	memory := func(m Memory) string {
		return fmt.Sprintf("%s (anon %s, file %s)", mib(m.Resident), mib(m.Anon), mib(m.File))
	}
	t.row("agent, 12 s after the boot's end", memory(r.Idle))
	t.aim("agent, 24 s later", memory(r.Later), "at most "+mib(aimIdle), r.Later.Resident <= aimIdle,
		fmt.Sprintf("%s are clean pages of the program, which the page cache has once for all its processes", mib(r.Later.File)))
	t.row("agent, peak of the launch", mib(r.Idle.Peak))
	t.row("health responder", memory(r.Health))

	t.title("Sizes")
	for _, s := range sizes {
		figure := fmt.Sprintf("%s (%d bytes)", mib(s.Bytes), s.Bytes)
		if s.Binary {
			t.aim(s.Name, figure, "at most "+mib(aimBinary), s.Bytes <= aimBinary, fmt.Sprintf("%d bytes too many", s.Bytes-aimBinary))
		} else {
			t.row(s.Name, figure)
		}
	}
	t.title(counted)
	return t.missed, t.err
}

const counted = `What is counted: wall time on the bench's clock, median (least to most). amiagent: from before
fork and exec of "amiagent run" until READY=1 comes in on its notify socket; IMDS is asked, the
manifest read, 50 steps checked, 5 probes asked. cloud-init 22.4: the sum of the run times of the
processes of its four stages, started one after the other as by a second boot of the same
instance (per-instance work is done, /run/cloud-init emptied), with a user-data of "#cloud-config
{}" from the same IMDS; neither its generator nor the gaps between units are counted. It looks
at none of the 50 things. The script: from fork to exit; it asks no IMDS.`

func (r Results) cloud() spread {
	var ds []time.Duration
	for _, c := range r.Cloud {
		ds = append(ds, c.Wall)
	}
	return spreadOf(ds)
}

var parts = []string{"start", "identify", "resolve", "fetch", "converge", "prove", "tell"}

// part is the median of one part of the agent's runs.
func (r Results) part(name string) time.Duration {
	var ds []time.Duration
	for _, run := range r.Agent {
		ds = append(ds, run.Phases[name])
	}
	return spreadOf(ds).median
}

func (r Results) parts() string {
	var out []string
	for _, p := range parts {
		out = append(out, fmt.Sprintf("%s %.1f", p, r.part(p).Seconds()*1000))
	}
	return strings.Join(out, ", ")
}

// slow names the longest part, for an aim that is missed.
func (r Results) slow() string {
	most := slices.MaxFunc(parts, func(a, b string) int { return int(r.part(a) - r.part(b)) })
	return fmt.Sprintf("%s alone takes %s", most, ms(r.part(most)))
}
