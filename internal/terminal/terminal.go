// Package terminal shows a launch to a person who watches it: progress bars on
// a terminal, plain lines elsewhere.
package terminal

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/amiagent/amiagent/internal/report"
)

// View is one launch on one output. Its methods may be called concurrently.
type View struct {
	out   io.Writer
	clean func(string) string
	bars  *mpb.Progress // nil: plain lines

	mu    sync.Mutex
	steps *mpb.Bar
	bytes *mpb.Bar

	// A lock of its own: the bars ask for it while they draw, and whoever holds
	// mu may be waiting for a bar.
	nowMu sync.Mutex
	now   []string // steps under way, the oldest first
}

// New makes a view. On a terminal it draws bars; elsewhere each phase and each
// step that did something is a line. clean takes secrets out of what is shown.
func New(out io.Writer, clean func(string) string) *View {
	v := &View{out: out, clean: clean}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		v.bars = mpb.New(mpb.WithOutput(f), mpb.WithWidth(40), mpb.WithRefreshRate(100*time.Millisecond))
	}
	return v
}

// Width is the width of out in columns, 80 where it is no terminal.
func Width(out io.Writer) int {
	if f, ok := out.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			return w
		}
	}
	return 80
}

// line prints above the bars, or just prints.
func (v *View) line(format string, args ...any) {
	text := v.clean(fmt.Sprintf(format, args...)) + "\n"
	if v.bars != nil {
		_, _ = v.bars.Write([]byte(text))
		return
	}
	_, _ = io.WriteString(v.out, text)
}

// Phase tells that a phase begins.
func (v *View) Phase(p report.Phase) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.bars == nil {
		v.line("%s", p)
	}
}

// Plan tells how many steps there are.
func (v *View) Plan(total int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.bars == nil || total == 0 || v.steps != nil {
		return
	}
	v.steps = v.bars.AddBar(int64(total),
		mpb.PrependDecorators(decor.Name("steps ", decor.WCSyncSpaceR), decor.CountersNoUnit("%d/%d", decor.WCSyncSpace)),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return v.current() })))
}

func (v *View) current() string {
	v.nowMu.Lock()
	defer v.nowMu.Unlock()
	return " " + strings.Join(v.now, " ")
}

// Fetch tells how many bytes have come, and how many are to come in all (0: unknown).
func (v *View) Fetch(_ string, done, total int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.bars == nil {
		return
	}
	if v.bytes == nil {
		v.bytes = v.bars.AddBar(total,
			mpb.PrependDecorators(decor.Name("fetch ", decor.WCSyncSpaceR), decor.CountersKibiByte("% .1f / % .1f", decor.WCSyncSpace)),
			mpb.AppendDecorators(decor.AverageSpeed(decor.SizeB1024(0), " % .1f")))
	}
	v.bytes.SetTotal(total, false)
	v.bytes.SetCurrent(done)
}

// Begin tells that a step's apply begins.
func (v *View) Begin(step string) {
	v.nowMu.Lock()
	defer v.nowMu.Unlock()
	v.now = append(v.now, step)
}

// Line takes a short line from a step for people who wait.
func (v *View) Line(step, line string) { v.line("  %s: %s", step, line) }

// End tells how a step ended. Steps that were as wanted are not told.
func (v *View) End(s report.Step) {
	v.nowMu.Lock()
	v.now = slices.DeleteFunc(v.now, func(n string) bool { return n == s.ID })
	v.nowMu.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.steps != nil {
		v.steps.Increment()
	}
	why := ""
	for _, t := range []string{s.Drift, s.Reason, s.Error} {
		if t != "" {
			why = ": " + t
		}
	}
	switch s.Outcome {
	case report.OK, report.Skipped:
	case report.Changed:
		v.line("  %s %s%s (%s)", s.Outcome, s.ID, why, report.Short(s.Apply))
	default:
		v.line("  %s %s%s", s.Outcome, s.ID, why)
	}
}

// Close leaves the bars as they stand and returns when nothing more is drawn.
func (v *View) Close() {
	if v.bars == nil {
		return
	}
	v.mu.Lock()
	for _, b := range []*mpb.Bar{v.bytes, v.steps} {
		if b != nil {
			b.Abort(false)
		}
	}
	v.mu.Unlock()
	v.bars.Wait()
}
