package console_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/report"
	"github.com/amiagent/amiagent/internal/sink"
	"github.com/amiagent/amiagent/internal/sink/console"
)

func failed() report.Report {
	began := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	return report.Report{
		Format: 1, ID: "20260301T120000.000Z-abcdef", Command: "run", Name: "web", Instance: "i-0abc",
		Started: began, Ended: began.Add(4200 * time.Millisecond), Outcome: report.Failed,
		Steps: []report.Step{
			{ID: "files./etc/motd", Outcome: report.OK},
			{ID: "units.app.service", Outcome: report.Failed, Output: []string{"1", "2", "3", "4", "5", "starting", "no such file"}},
		},
		Cause: &report.Failure{Phase: report.Converge, Step: "units.app.service", Error: "cannot start app.service: exited with 203", Hint: "journalctl -u app.service"},
	}
}

const failedText = `
amiagent: {"format":1,"outcome":"failed","id":"20260301T120000.000Z-abcdef","command":"run","name":"web","instance":"i-0abc","took_ms":4200,"phase":"converge","step":"units.app.service","steps":{"failed":1,"ok":1}}
amiagent: failed: units.app.service: cannot start app.service: exited with 203
amiagent: hint: journalctl -u app.service
amiagent: | 3
amiagent: | 4
amiagent: | 5
amiagent: | starting
amiagent: | no such file
`

func scratch(t *testing.T, live bool) *host.Host {
	t.Helper()
	h, err := host.New(t.TempDir(), host.Options{Live: &live})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestAFailureTellsWhichStepAndWhyAndWhatToTry(t *testing.T) {
	var b bytes.Buffer
	s := console.New(scratch(t, false), &b)
	rep := failed()
	if err := s.Send(t.Context(), sink.Event{Kind: sink.Failed, Report: &rep}); err != nil {
		t.Fatal(err)
	}
	if b.String() != failedText {
		t.Errorf("the console shows\n%s", b.String())
	}
}

func TestOnlyTheEndOfALaunchIsTold(t *testing.T) {
	var b bytes.Buffer
	s := console.New(scratch(t, false), &b)
	rep := report.Report{Outcome: report.OK}
	for _, e := range []sink.Event{{Kind: sink.Began}, {Kind: sink.Progress, Report: &rep}, {Kind: sink.Ready}, {Kind: sink.NotReady, Report: &rep}, {Kind: sink.Stopping}} {
		if err := s.Send(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	if b.Len() != 0 {
		t.Errorf("the console shows %q", b.String())
	}
	if err := s.Send(t.Context(), sink.Event{Kind: sink.Ready, Report: &rep}); err != nil {
		t.Fatal(err)
	}
	if got := b.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, `"outcome":"ok"`) {
		t.Errorf("the console shows %q", got)
	}
}

// Whatever a launch holds, a program can read its account and 4 KiB hold it.
func TestTheAccountIsSmallAndOneLineIsForPrograms(t *testing.T) {
	rep := failed()
	long := strings.Repeat("a very long wörd\x1b[2J\x00\" ", 2000)
	rep.Name, rep.Instance, rep.Cause.Hint, rep.Cause.Step = long, long, long, long
	rep.Cause.Error = strings.Repeat(long+"\n", 50)
	rep.Steps[1].ID = long
	for i := range rep.Steps[1].Output {
		rep.Steps[1].Output[i] = long
	}
	got := console.Account(rep)
	if len(got) > 4096 || strings.ContainsAny(got, "\x1b\x00") {
		t.Errorf("%d bytes: %q", len(got), got)
	}
	for i, line := range strings.Split(strings.Trim(got, "\n"), "\n") {
		rest, ok := strings.CutPrefix(line, console.Prefix)
		if !ok {
			t.Errorf("line %d begins otherwise: %q", i, line)
		}
		var v map[string]any
		if err := json.Unmarshal([]byte(rest), &v); (err == nil) != (i == 0) {
			t.Errorf("line %d: %v", i, err)
		}
	}
}

func TestTheMachinesOwnConsoleIsUsedWhereItRuns(t *testing.T) {
	h := scratch(t, true)
	s := console.New(h, nil)
	rep := failed()
	e := sink.Event{Kind: sink.Failed, Report: &rep}
	if err := s.Send(t.Context(), e); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a console: %v", err)
	}
	dev := filepath.Join(h.Root(), console.Device)
	if err := os.MkdirAll(filepath.Dir(dev), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dev, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Send(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(dev); string(b) != failedText {
		t.Errorf("the console shows\n%s", b)
	}
}

func TestAStuckConsoleHoldsNobodyUp(t *testing.T) {
	h := scratch(t, true)
	dev := filepath.Join(h.Root(), console.Device)
	if err := os.MkdirAll(filepath.Dir(dev), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(dev, 0o600); err != nil { // nobody reads it: opening blocks
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	rep := failed()
	err := console.New(h, nil).Send(ctx, sink.Event{Kind: sink.Failed, Report: &rep})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v", err)
	}
	r, err := os.OpenFile(dev, os.O_RDONLY|unix.O_NONBLOCK, 0) // let it go
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
}
