package journal

import (
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
)

type machine struct {
	*testing.T
	host *host.Host
	file string // the current file, outside the root
}

func newMachine(t *testing.T, root string) machine {
	t.Helper()
	h, err := host.New(root, host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return machine{t, h, filepath.Join(root, Dir, current)}
}

func (m machine) open() *Journal {
	m.Helper()
	j, err := Open(m.host, Dir)
	if err != nil {
		m.Fatal(err)
	}
	m.Cleanup(func() { j.Close() })
	return j
}

func (m machine) append(j *Journal, events ...Event) {
	m.Helper()
	for _, e := range events {
		if err := j.Append(e); err != nil {
			m.Fatal(err)
		}
	}
}

// story is what the journal tells, in short: "run-begin step-begin:files./x".
func (m machine) story() string {
	m.Helper()
	a, err := Read(m.host, Dir)
	if err != nil {
		m.Fatal(err)
	}
	var words []string
	for _, e := range a.Events {
		w := string(e.What)
		if e.Step != "" {
			w += ":" + e.Step
		}
		words = append(words, w)
	}
	if a.Damaged > 0 {
		words = append(words, fmt.Sprintf("(%d damaged)", a.Damaged))
	}
	if a.Torn {
		words = append(words, "(torn)")
	}
	return strings.Join(words, " ")
}

func (m machine) want(story string) {
	m.Helper()
	if got := m.story(); got != story {
		m.Errorf("the journal tells %q, want %q", got, story)
	}
}

var (
	begin = Event{What: RunBegin, Run: "r1"}
	stepX = Event{What: StepBegin, Run: "r1", Step: "files./x"}
	doneX = Event{What: StepEnd, Run: "r1", Step: "files./x", Outcome: "changed", Text: "is absent", Took: time.Millisecond}
	end   = Event{What: RunEnd, Run: "r1", Outcome: "ok"}
)

func TestARunIsToldInOrderAcrossRestarts(t *testing.T) {
	m := newMachine(t, t.TempDir())
	m.want("")
	j := m.open()
	m.append(j, begin, stepX)
	j.Close()
	j = m.open()
	m.append(j, doneX, end)
	m.want("run-begin step-begin:files./x step-end:files./x run-end")

	a, _ := Read(m.host, Dir)
	got := a.Events[2]
	if got.Time.IsZero() || time.Since(got.Time) > time.Minute {
		t.Errorf("time is %v", got.Time)
	}
	got.Time = time.Time{}
	if got != doneX {
		t.Errorf("wrote %+v, read %+v", doneX, got)
	}
	for path, mode := range map[string]os.FileMode{m.file: 0o600, filepath.Dir(m.file): 0o700} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s is %v, want %v (%v)", path, st.Mode(), mode, err)
		}
	}
}

func TestATornTailIsPassedOverThenCutOff(t *testing.T) {
	whole := func(m machine) []byte {
		j := m.open()
		m.append(j, begin, stepX, doneX)
		j.Close()
		b, err := os.ReadFile(m.file)
		if err != nil {
			m.Fatal(err)
		}
		return b
	}
	b := whole(newMachine(t, t.TempDir()))
	for cut := range len(b) + 1 { // a power cut at every byte
		m := newMachine(t, t.TempDir())
		if err := os.MkdirAll(filepath.Dir(m.file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(m.file, b[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		before := m.story()
		if torn := cut > 0 && b[cut-1] != '\n'; strings.Contains(before, "(torn)") != torn || strings.Contains(before, "damaged") {
			t.Fatalf("cut at %d of %d: %q", cut, len(b), before)
		}
		m.append(m.open(), end)
		kept := strings.TrimSpace(strings.TrimSuffix(before, "(torn)"))
		m.want(strings.TrimSpace(kept + " run-end"))
	}
}

func TestZerosLeftByAPowerCutAreCutOff(t *testing.T) {
	m := newMachine(t, t.TempDir())
	j := m.open()
	m.append(j, begin)
	j.Close()
	addTo(t, m.file, strings.Repeat("\x00", 4096))
	m.want("run-begin (torn)")
	m.append(m.open(), end)
	m.want("run-begin run-end")
}

func TestADamagedLineCostsOnlyItself(t *testing.T) {
	m := newMachine(t, t.TempDir())
	j := m.open()
	m.append(j, begin, stepX, doneX)
	j.Close()
	b, _ := os.ReadFile(m.file)
	damaged := strings.Replace(string(b), "step-begin", "step-bEgin", 1)
	if err := os.WriteFile(m.file, []byte(damaged), 0o600); err != nil {
		t.Fatal(err)
	}
	addTo(t, m.file, "no journal line\n\n")
	m.append(m.open(), end)
	m.want("run-begin step-end:files./x run-end (3 damaged)")
}

func TestAnotherFormatIsRefusedWithAHint(t *testing.T) {
	m := newMachine(t, t.TempDir())
	m.open().Close()
	line := lineOf(`{"format":7}`)
	if err := os.WriteFile(m.file, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(m.host, Dir)
	if !errors.Is(err, ErrFormat) || err.Error() != "cannot open journal: unknown journal format 7, this agent knows 1" {
		t.Errorf("error is %v", err)
	}
	if want := "move /var/lib/amiagent/journal/current.jsonl away; it is only an account"; diag.Hint(err) != want {
		t.Errorf("hint is %q", diag.Hint(err))
	}
	if _, err := Read(m.host, Dir); !errors.Is(err, ErrFormat) {
		t.Errorf("read: %v", err)
	}
	if b, _ := os.ReadFile(m.file); string(b) != line {
		t.Error("the other version's journal was touched")
	}
}

func TestItNeverGrowsBeyondTwoFiles(t *testing.T) {
	m := newMachine(t, t.TempDir())
	j := m.open()
	j.limit = 2000
	for i := range 100 {
		m.append(j, Event{What: Note, Step: fmt.Sprintf("n%02d", i)})
	}
	entries, _ := os.ReadDir(filepath.Dir(m.file))
	var total int64
	for _, e := range entries {
		info, _ := e.Info()
		total += info.Size()
	}
	if len(entries) != 2 || total > 2*(2000+200) {
		t.Errorf("%d files, %d bytes", len(entries), total)
	}
	words := strings.Fields(m.story())
	if len(words) < 15 || words[len(words)-1] != "note:n99" {
		t.Errorf("the journal tells %q", words)
	}
	for i, w := range words { // no gap between the old file and the new
		if want := fmt.Sprintf("note:n%02d", 100-len(words)+i); w != want {
			t.Fatalf("word %d is %s, want %s", i, w, want)
		}
	}
}

func TestAHugeFileIsSetAsideNotReadIntoMemory(t *testing.T) {
	m := newMachine(t, t.TempDir())
	m.open().Close()
	if err := os.Truncate(m.file, 3*limit); err != nil {
		t.Fatal(err)
	}
	m.append(m.open(), begin)
	if st, err := os.Stat(m.file); err != nil || st.Size() > 1000 {
		t.Errorf("%v, %v", st.Size(), err)
	}
}

func TestManyStepsTellAtOnce(t *testing.T) {
	m := newMachine(t, t.TempDir())
	j := m.open()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 25 {
				if err := j.Append(stepX); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(strings.Fields(m.story())); n != 200 {
		t.Errorf("%d events of 200", n)
	}
}

func TestAFullDiskIsAnErrorAndLeavesWholeLines(t *testing.T) {
	m := newMachine(t, t.TempDir())
	j := m.open()
	m.append(j, begin)
	// A file size limit fails a write in its midst, as a full disk does.
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	tight := syscall.Rlimit{Cur: uint64(j.size) + 20, Max: was.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &tight); err != nil {
		t.Fatal(err)
	}
	err := j.Append(stepX)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	if err == nil || !strings.HasPrefix(err.Error(), "cannot write journal: ") {
		t.Errorf("error is %v", err)
	}
	m.append(j, end)
	m.want("run-begin run-end")
}

func TestAnEventTooLongAndAClosedJournalAreErrors(t *testing.T) {
	m := newMachine(t, t.TempDir())
	j := m.open()
	if err := j.Append(Event{What: Note, Text: strings.Repeat("x", 2*maxLine)}); err == nil {
		t.Error("took an event beyond the limit")
	}
	m.append(j, begin)
	j.Close()
	if err := j.Append(end); !errors.Is(err, os.ErrClosed) {
		t.Errorf("error is %v", err)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
	m.want("run-begin")
}

func TestKilledInMidWriteTheNextRunGoesOn(t *testing.T) {
	if root := os.Getenv("JOURNAL_TEST_ROOT"); root != "" {
		j := newMachine(t, root).open()
		for {
			if err := j.Append(stepX); err != nil {
				t.Fatal(err)
			}
		}
	}
	m := newMachine(t, t.TempDir())
	for round := range 3 {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), "JOURNAL_TEST_ROOT="+m.host.Root())
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(60 * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		j := m.open()
		m.append(j, end)
		j.Close()
		story := m.story()
		if strings.Contains(story, "(") || !strings.HasSuffix(story, "run-end") {
			t.Fatalf("round %d: the journal ends in %q", round, story[max(0, len(story)-100):])
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(lineOf(`{"format":1}`) + lineOf(`{"what":"note"}`)))
	f.Add([]byte("00000000 \n\n \x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var a Account
		if err := a.add(b); err != nil && !errors.Is(err, ErrFormat) {
			t.Error(err)
		}
		if n, _ := wholeLines(b); n < 0 || n > len(b) {
			t.Errorf("%d whole bytes of %d", n, len(b))
		}
	})
}

func lineOf(data string) string {
	return fmt.Sprintf("%08x %s\n", crc32.Checksum([]byte(data), crc32.MakeTable(crc32.Castagnoli)), data)
}

func addTo(t *testing.T, file, text string) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}
