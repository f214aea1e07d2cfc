package report_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/report"
)

func scratch(t *testing.T) *host.Host {
	t.Helper()
	h, err := host.New(t.TempDir(), host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func publish(t *testing.T, h *host.Host, opt report.PublisherOptions) *report.Publisher {
	t.Helper()
	p, err := report.Publish(h, report.Status{Agent: "0.1.0", State: report.Launching}, opt)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func load(t *testing.T, h *host.Host) report.Status {
	t.Helper()
	s, err := report.LoadStatus(h, report.StatusPath)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTheStatusIsThereFromTheStart(t *testing.T) {
	h := scratch(t)
	if _, err := report.LoadStatus(h, report.StatusPath); !errors.Is(err, report.ErrNoStatus) {
		t.Fatalf("before: %v", err)
	}
	p := publish(t, h, report.PublisherOptions{})
	s := load(t, h)
	if s.State != report.Launching || s.PID != os.Getpid() || s.Beat != report.DefaultBeat || s.Since.IsZero() || !s.Fresh(time.Now()) {
		t.Errorf("status is %+v", s)
	}
	// The clock may be set by hours: neither makes the agent look dead.
	for _, d := range []time.Duration{time.Hour, -time.Hour} {
		if !s.Fresh(time.Now().Add(d)) {
			t.Errorf("silent after the clock was set by %v", d)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}

func TestANewStateIsInTheFileAtOnce(t *testing.T) {
	h := scratch(t)
	p := publish(t, h, report.PublisherOptions{})
	defer p.Close()
	before := load(t, h).Since
	p.Update(func(s *report.Status) { s.State = report.Ready })
	if s := load(t, h); s.State != report.Ready || !s.Since.After(before) {
		t.Errorf("status is %+v", s)
	}
}

func TestProgressIsWrittenTenTimesASecondAtMost(t *testing.T) {
	h := scratch(t)
	synctest.Test(t, func(t *testing.T) {
		p := publish(t, h, report.PublisherOptions{})
		writes, last := 0, time.Time{}
		for i := range 1000 { // one second of a busy launch
			p.Update(func(s *report.Status) { s.Done = i + 1 })
			time.Sleep(time.Millisecond)
			if u := load(t, h).Updated; !u.Equal(last) {
				writes, last = writes+1, u
			}
		}
		if writes < 8 || writes > 12 {
			t.Errorf("%d writes", writes)
		}
		time.Sleep(100 * time.Millisecond)
		if s := load(t, h); s.Done != 1000 {
			t.Errorf("the last update is lost, done is %d", s.Done)
		}
		p.Close()
	})
}

func TestAnIdleAgentGivesSignsOfLife(t *testing.T) {
	h := scratch(t)
	synctest.Test(t, func(t *testing.T) {
		p := publish(t, h, report.PublisherOptions{Beat: 2 * time.Second})
		for range 5 {
			time.Sleep(2*time.Second + time.Millisecond)
			synctest.Wait()
			if age := time.Since(load(t, h).Updated); age > 2*time.Second {
				t.Errorf("last sign %v ago", age)
			}
		}
		p.Update(func(s *report.Status) { s.State = report.Stopping })
		p.Close()
		last := load(t, h)
		time.Sleep(time.Hour)
		if s := load(t, h); !s.Updated.Equal(last.Updated) || s.State != report.Stopping {
			t.Errorf("a closed publisher writes: %+v", s)
		}
	})
}

func TestTheStatusHoldsNoSecret(t *testing.T) {
	h := scratch(t)
	red := &report.Redactor{}
	red.Add("hunter2hunter2")
	p := publish(t, h, report.PublisherOptions{Redact: red})
	defer p.Close()
	const text = "GET /?k=hunter2hunter2: 401"
	p.Update(func(s *report.Status) {
		s.State, s.Reason, s.Hint = report.NotReady, text, text
		s.Notes, s.Probes = []string{text}, []report.Probe{{Name: "http", Error: text}}
	})
	b, err := h.ReadFile(report.StatusPath)
	if err != nil || strings.Contains(string(b), "hunter2") {
		t.Errorf("%s, %v", b, err)
	}
}

// Who may read depends on who writes and on the group of the responder.
func TestWhoMayReadTheStatus(t *testing.T) {
	publishError := func(h *host.Host) (report.Status, os.FileInfo) {
		p := publish(t, h, report.PublisherOptions{})
		defer p.Close()
		p.Update(func(s *report.Status) {
			s.State, s.Step, s.Reason, s.Probes = report.DidFail, "units.x", "it said: hello", []report.Probe{{Name: "http", Error: "e"}}
		})
		if p.Status().Reason == "" {
			t.Error("the agent itself lost the reason")
		}
		st, err := h.Stat(report.StatusPath)
		if err != nil {
			t.Fatal(err)
		}
		return load(t, h), st
	}
	withGroup := scratch(t)
	if err := withGroup.MkdirAll("/etc"); err != nil {
		t.Fatal(err)
	}
	group := fmt.Sprintf("root:x:0:\n%s:x:%d:\n", report.ReaderGroup, 4321)
	if err := os.WriteFile(filepath.Join(withGroup.Root(), "etc/group"), []byte(group), 0o644); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		for _, h := range []*host.Host{scratch(t), withGroup} {
			if s, st := publishError(h); st.Mode().Perm() != 0o600 || s.Reason == "" {
				t.Errorf("a plain user's: %v, reason %q", st.Mode(), s.Reason)
			}
		}
		return
	}
	s, st := publishError(withGroup)
	if st.Mode().Perm() != 0o640 || st.Sys().(*syscall.Stat_t).Gid != 4321 || s.Reason == "" {
		t.Errorf("with the group: %v, group %d, reason %q", st.Mode(), st.Sys().(*syscall.Stat_t).Gid, s.Reason)
	}
	s, st = publishError(scratch(t))
	if st.Mode().Perm() != 0o644 || s.Reason != "" || s.Probes[0].Error != "" || s.Step != "units.x" {
		t.Errorf("without the group: %v, %+v", st.Mode(), s)
	}
}

func TestAFolderThatCannotBeWrittenIsToldOnce(t *testing.T) {
	h := scratch(t)
	var mu sync.Mutex
	var told []string
	p := publish(t, h, report.PublisherOptions{Failed: func(err error) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, err.Error())
	}})
	dir := filepath.Join(h.Root(), filepath.Dir(report.StatusPath))
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for _, state := range []report.State{report.Ready, report.NotReady, report.Ready} {
		p.Update(func(s *report.Status) { s.State = state })
	}
	mu.Lock()
	if len(told) != 1 || !strings.HasPrefix(told[0], "cannot publish status: open /run/amiagent/") {
		t.Errorf("told %q", told)
	}
	mu.Unlock()
	if err := p.Close(); err == nil {
		t.Error("closed without an error")
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := report.Publish(h, report.Status{}, report.PublisherOptions{}); err == nil || !strings.HasPrefix(err.Error(), "cannot publish status: ") {
		t.Errorf("error is %v", err)
	}
}

func TestReadersNeverSeeAPartOfTheStatus(t *testing.T) {
	h := scratch(t)
	p := publish(t, h, report.PublisherOptions{})
	defer p.Close()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := report.LoadStatus(h, report.StatusPath); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 300 {
		p.Update(func(s *report.Status) { s.Reason = strings.Repeat("x", i*37%5000) })
		if err := p.Flush(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
}

func TestAStatusThatIsNoneIsRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{"format":2}`: "cannot read status: format 2, this agent knows 1",
		`{`:            "cannot read status: unexpected end of JSON input",
	} {
		if _, err := report.ParseStatus([]byte(text)); err == nil || err.Error() != want {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestTheLastTwentyReportsAreKept(t *testing.T) {
	h := scratch(t)
	if _, err := report.Latest(h, report.Dir); !errors.Is(err, report.ErrNone) {
		t.Fatalf("before: %v", err)
	}
	var ids []string
	for i := range 25 {
		rep := sample()
		rep.ID = report.NewID(began.Add(time.Duration(i) * time.Minute))
		ids = append(ids, rep.ID)
		for range 2 { // saved again when a deferred step is proved
			if err := report.Save(h, report.Dir, rep); err != nil {
				t.Fatal(err)
			}
		}
	}
	kept, err := report.List(h, report.Dir)
	if err != nil || len(kept) != 20 || kept[0] != ids[5] {
		t.Errorf("%d kept from %v, %v", len(kept), kept, err)
	}
	rep, err := report.Latest(h, report.Dir)
	if err != nil || rep.ID != ids[24] || rep.Cause == nil {
		t.Errorf("latest is %s, %v", rep.ID, err)
	}
	for name, mode := range map[string]os.FileMode{report.Dir: 0o700, report.Dir + "/" + ids[24] + ".json": 0o600} {
		if st, err := h.Stat(name); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s is %v, %v", name, st.Mode(), err)
		}
	}
}

func TestReportsThatCannotBe(t *testing.T) {
	h := scratch(t)
	for _, id := range []string{"", "../../etc/passwd", ".hidden", "a\x00b"} {
		if err := report.Save(h, report.Dir, report.Report{Format: 1, ID: id}); err == nil {
			t.Errorf("saved %q", id)
		}
	}
	if err := report.Save(h, report.Dir, report.Report{Format: 9, ID: "20300101-x"}); err != nil {
		t.Fatal(err)
	}
	_, err := report.Latest(h, report.Dir)
	if err == nil || err.Error() != "cannot read report 20300101-x: format 9, this agent knows 1" {
		t.Errorf("error is %v", err)
	}
	if _, err := report.Load(h, report.Dir, "none"); err == nil || diag.Hint(err) != "" {
		t.Errorf("error is %v", err)
	}
}
