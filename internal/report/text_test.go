package report_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/amiagent/amiagent/internal/report"
)

var began = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func sample() report.Report {
	at := func(ms int) time.Time { return began.Add(time.Duration(ms) * time.Millisecond) }
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	return report.Report{
		Format: 1, ID: "20260301T120000.000Z-abcdef", Agent: "0.1.0", Command: "run",
		Name: "web", Instance: "i-0abc", Started: began, Ended: at(4000), Outcome: report.Failed, Fetched: 12_345_678,
		Phases: []report.Span{
			{Phase: report.Identify, Started: at(0), Took: ms(8)},
			{Phase: report.Resolve, Started: at(8), Took: ms(92)},
			{Phase: report.Fetch, Started: at(100), Took: ms(1900)},
			{Phase: report.Converge, Started: at(2000), Took: ms(2000)},
		},
		Steps: []report.Step{
			{ID: "artifacts.app", Outcome: report.Changed, Drift: "/opt/app is absent", Check: ms(1), Apply: ms(300)},
			{ID: "files./etc/motd", Outcome: report.OK, Check: ms(1)},
			{ID: "files./etc/app/conf.d/a-rather-long-name-for-a-file.toml", Outcome: report.Changed, Drift: "mode is 0600, want 0644, and this sentence goes on and on until no line can hold it", Check: ms(1), Apply: ms(2)},
			{ID: "units.app.service", Outcome: report.Failed, Error: "cannot start app.service: the process exited with 203/EXEC, which is to say that its program is not there", Hint: "journalctl -u app.service", Pos: "manifest.yaml:31:3", Attempts: 2, Apply: ms(1500), Output: []string{"starting", "no such file"}},
			{ID: "commands.warm", Outcome: report.Blocked, Reason: "needs units.app.service, which failed"},
		},
		Probes: []report.Probe{{Name: "http", Kind: "http", Error: "GET http://127.0.0.1:8080/health: connection refused"}, {Name: "port", Kind: "tcp", OK: true, Took: ms(4)}},
		Layers: []report.Layer{{Source: "s3://acme/web.yaml", Origin: "kept"}, {Source: "/etc/amiagent/manifest.d/web.yaml", Origin: "fresh"}},
		Cause:  &report.Failure{Phase: report.Converge, Step: "units.app.service", Error: "cannot start"},
		Notes:  []string{"tags are disabled in IMDS"},
	}
}

const sampleText = `web (i-0abc): failed at units.app.service, in 4.00s
run 20260301T120000.000Z-abcdef, 2026-03-01 12:00:00 UTC, amiagent 0.1.0

  identify     8.0ms  =
  resolve       92ms  =
  fetch        1.90s   ============================
  converge     2.00s                               =============================

5 steps: 1 failed, 1 blocked, 2 changed, 1 ok; fetched 12.3 MB

slowest
  units.app.service                           1.50s  ==========================
  artifacts.app                               301ms  =====
  files./etc/app/conf.d/a-rather-long-n...    3.0ms  =
  files./etc/motd                             1.0ms  =

changed
  artifacts.app                             /opt/app is absent
  files./etc/app/conf.d/a-rather-long-n...  mode is 0600, want 0644, and this...

failed
  units.app.service (manifest.yaml:31:3), 2 attempts
    cannot start app.service: the process exited with 203/EXEC, which is to say
    that its program is not there
    hint: journalctl -u app.service
    | starting
    | no such file

not tried
  commands.warm  needs units.app.service, which failed

probes
  http         GET http://127.0.0.1:8080/health: connection refused
  port         ok, after 4.0ms

layers out of reach, their last good copies in use
  s3://acme/web.yaml

notes
  tags are disabled in IMDS
`

func text(t *testing.T, rep report.Report, width int) string {
	t.Helper()
	var b bytes.Buffer
	if err := report.Text(&b, rep, width); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestAFailedLaunchReadsTopDown(t *testing.T) {
	if got := text(t, sample(), 0); got != sampleText {
		t.Errorf("got\n%s", got)
	}
}

func TestTextKeepsItsWidth(t *testing.T) {
	rep := sample()
	rep.Phases = append(rep.Phases, report.Span{Phase: report.Prove, Started: began.Add(4 * time.Second)})
	for _, width := range []int{1, 40, 57, 80, 133} {
		for line := range strings.Lines(text(t, rep, width)) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > max(40, width) && strings.Contains(strings.TrimSpace(line), " ") {
				t.Errorf("width %d: %d columns: %s", width, n, line)
			}
		}
	}
}

func TestAQuietLaunchIsShort(t *testing.T) {
	rep := report.Report{ID: "x", Agent: "0.1.0", Started: began, Ended: began.Add(30 * time.Millisecond), Outcome: report.OK,
		Phases: []report.Span{{Phase: report.Converge, Started: began, Took: 30 * time.Millisecond}, {Phase: report.Watch, Started: began, Took: time.Hour}},
		Steps:  []report.Step{{ID: "files./etc/motd", Outcome: report.OK}}}
	want := "this machine: ok, nothing to do, in 30ms\nrun x, 2026-03-01 12:00:00 UTC, amiagent 0.1.0\n\n" +
		"  converge      30ms  ==========================================================\n\n1 step: 1 ok\n"
	if got := text(t, rep, 80); got != want {
		t.Errorf("got\n%s", got)
	}
	if got := text(t, report.Report{}, 80); !strings.Contains(got, "no steps") {
		t.Errorf("an empty report reads\n%s", got)
	}
}

func TestAFailedPhaseWithoutAStep(t *testing.T) {
	rep := report.Report{Started: began, Ended: began.Add(time.Second), Outcome: report.Failed,
		Cause: &report.Failure{Phase: report.Resolve, Error: "m.yaml:1:1: filse: unknown key\nm.yaml:2:1: units: must be a mapping", Hint: "run amiagent validate"}}
	got := text(t, rep, 80)
	for _, want := range []string{"failed at resolve, in 1.00s", "failed\n  resolve: m.yaml:1:1: filse: unknown key\n  m.yaml:2:1: units: must be a mapping\n    hint: run amiagent validate\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

func TestTextCannotMoveTheCursor(t *testing.T) {
	rep := sample()
	rep.Steps[3].Error = "\x1b[2Jcleared"
	rep.Notes = []string{"\x1b]0;title\x07"}
	rep.Name = "w\x1beb\nsecond"
	if got := text(t, rep, 80); strings.ContainsAny(got, "\x1b\x07") {
		t.Errorf("got %q", got)
	}
}

func TestDurationsAreShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.0ms", 340 * time.Microsecond: "0.3ms", 12 * time.Millisecond: "12ms", 1240 * time.Millisecond: "1.24s",
		125 * time.Second: "2m05s", 3*time.Hour + 61*time.Second: "3h01m", -time.Second: "-1.00s",
	} {
		if got := report.Short(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}

func TestJSONComesBackTheSame(t *testing.T) {
	var b bytes.Buffer
	if err := report.JSON(&b, sample()); err != nil {
		t.Fatal(err)
	}
	rep, err := report.Parse(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	want, _ := json.Marshal(sample())
	if got, _ := json.Marshal(rep); !bytes.Equal(got, want) {
		t.Errorf("wrote %s, read %s", want, got)
	}
}

func statusText(t *testing.T, s report.Status, now time.Time) string {
	t.Helper()
	var b bytes.Buffer
	if err := report.StatusText(&b, s, now, 80); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTheStatusAsText(t *testing.T) {
	s := report.Status{Format: 1, Agent: "0.1.0", PID: 7, Instance: "i-0abc", Launch: "20260301-1", State: report.Launching,
		Phase: report.Converge, Step: "packages.nginx", Reason: "waiting for the lock of dpkg, held by pid 9",
		Done: 3, Total: 12, Since: began, Updated: began.Add(20 * time.Second), Beat: 5 * time.Second, Notes: []string{"no IMDS"}}
	want := `launching: converge, 3 of 12 steps, packages.nginx: waiting for the lock of
dpkg, held by pid 9
  since    2026-03-01 12:00:00 UTC (21.00s)
  instance i-0abc
  launch   20260301-1
  agent    0.1.0
  pid      7

notes
  no IMDS
`
	if got := statusText(t, s, began.Add(21*time.Second)); got != want {
		t.Errorf("got\n%s", got)
	}
	if got := statusText(t, s, began.Add(time.Minute)); !strings.Contains(got, "the agent is silent: last heard 40.00s ago") || strings.Contains(got, "\n  pid") {
		t.Errorf("of a dead agent:\n%s", got)
	}
}

// Of several faults each has its line, where there is room for lines.
func TestStatusKeepsTheLinesOfItsReason(t *testing.T) {
	var b strings.Builder
	s := report.Status{State: report.DidFail, Phase: report.Resolve, Reason: "a.yaml:1:1: x\na.yaml:2:1: y"}
	if err := report.StatusText(&b, s, time.Now(), 80); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(b.String(), "failed: resolve: a.yaml:1:1: x\na.yaml:2:1: y\n") {
		t.Errorf("got\n%s", b.String())
	}
}

func TestHeadlines(t *testing.T) {
	for want, s := range map[string]report.Status{
		"unknown":                        {},
		"ready":                          {State: report.Ready, Phase: report.Watch, Step: "units.x"},
		"not ready: probe http: refused": {State: report.NotReady, Reason: "probe http: refused"},
		"failed: units.app.service: no such file":       {State: report.DidFail, Step: "units.app.service", Reason: "no such file"},
		"failed: resolve":                               {State: report.DidFail, Phase: report.Resolve},
		"failed: launch":                                {State: report.DidFail},
		"failed: resolve: a.yaml:1:1: x; a.yaml:2:1: y": {State: report.DidFail, Phase: report.Resolve, Reason: "a.yaml:1:1: x\na.yaml:2:1: y"},
		"launching":                                     {State: report.Launching},
		"launching: fetch":                              {State: report.Launching, Phase: report.Fetch},
	} {
		if got := s.Headline(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
