package terminal_test

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/amiagent/amiagent/internal/report"
	"github.com/amiagent/amiagent/internal/terminal"
)

// launch shows a small launch.
func launch(v *terminal.View) {
	v.Phase(report.Fetch)
	v.Plan(3)
	v.Fetch("", 512, 1024)
	v.Fetch("", 1024, 1024)
	v.Phase(report.Converge)
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			id := fmt.Sprintf("files./etc/%d", i)
			v.Begin(id)
			v.Line(id, "waiting for hunter2")
			time.Sleep(5 * time.Millisecond)
			s := report.Step{ID: id, Outcome: report.Changed, Drift: "is missing", Apply: 2 * time.Millisecond}
			switch i {
			case 1:
				s.Outcome = report.OK
			case 2:
				s.Outcome, s.Error = report.Failed, "no hunter2 today"
			}
			v.End(s)
		})
	}
	wg.Wait()
	v.Close()
}

func clean(s string) string { return strings.ReplaceAll(s, "hunter2", "***") }

func TestOffATerminalEachEventIsALine(t *testing.T) {
	var out bytes.Buffer
	var mu sync.Mutex
	launch(terminal.New(writer(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return out.Write(p)
	}), clean))
	got := out.String()
	for _, want := range []string{"fetch\n", "converge\n", "  changed files./etc/0: is missing (2.0ms)\n", "  failed files./etc/2: no *** today\n", "  files./etc/1: waiting for ***\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "\x1b") || strings.Contains(got, "hunter2") || strings.Contains(got, "ok files") {
		t.Errorf("escape sequences, a secret or a step that did nothing in\n%q", got)
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// pty opens a pseudo terminal: what is written to tty is read from far.
func pty(t *testing.T) (far, tty *os.File) {
	t.Helper()
	far, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(far.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 100}); err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close(); tty.Close() })
	return far, tty
}

func TestOnATerminalBarsAreDrawn(t *testing.T) {
	far, tty := pty(t)
	if w := terminal.Width(tty); w != 100 {
		t.Errorf("the width is %d, want 100", w)
	}
	var seen bytes.Buffer
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 4096)
		for {
			n, err := far.Read(b)
			seen.Write(b[:n])
			if err != nil {
				return
			}
		}
	}()
	launch(terminal.New(tty, clean))
	tty.Close()
	<-done // the far end fails once the near one is closed
	got := regexp.MustCompile(`\x1b\[[0-9;?]*[A-Za-z]`).ReplaceAllString(seen.String(), "")
	for _, want := range []string{"steps", "3/3", "fetch", "1.0 KiB / 1.0 KiB", "failed files./etc/2: no *** today"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "hunter2") {
		t.Errorf("a secret is shown:\n%s", got)
	}
}

func TestWidthOfWhatIsNoTerminal(t *testing.T) {
	if w := terminal.Width(&bytes.Buffer{}); w != 80 {
		t.Errorf("the width is %d, want 80", w)
	}
}
