// Package journal is the append-only account of every run: what began, what
// ended, and how.
//
// It is the story, not the truth: nothing is skipped because the journal says
// that it was done. So it may lose its last moments to a power cut, and a tail
// that was torn by one is passed over and cut off, never an obstacle.
//
// A journal is a file of lines. Each is the CRC32C of its JSON in eight hex
// digits, a blank, the JSON. The first line of a file says its format number.
// When a file has grown to its limit it becomes the old one and a new one begins.
package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path"
	"sync"
	"time"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
)

// Dir is where the agent keeps its journal, inside the root.
const Dir = "/var/lib/amiagent/journal"

// Format is the format number of the files.
const Format = 1

const (
	current = "current.jsonl"
	old     = "old.jsonl"
	// limit is where a file ends and the next begins. A launch of 50 steps
	// writes about 20 KB, so two files hold some hundred launches.
	limit = 1 << 20
	// maxLine bounds an event; what is longer is an error of its writer.
	maxLine = 64 << 10
	// syncDelay is how long the account of a step may wait to be synced with
	// others'. Steps of one run take milliseconds, a sync may take ten.
	syncDelay = 100 * time.Millisecond
)

// ErrFormat is a journal that another version of the agent wrote.
var ErrFormat = errors.New("unknown journal format")

// What happened.
type What string

const (
	RunBegin  What = "run-begin"
	RunEnd    What = "run-end"
	PhaseDone What = "phase"
	StepBegin What = "step-begin"
	StepEnd   What = "step-end"
	Note      What = "note"
)

// Event is one line of the account. It holds no secret: texts are redacted by those who append.
type Event struct {
	Time    time.Time     `json:"t"`
	Run     string        `json:"run,omitempty"` // report id
	What    What          `json:"what"`
	Step    string        `json:"step,omitempty"` // or the phase
	Key     string        `json:"key,omitempty"`
	Outcome string        `json:"outcome,omitempty"`
	Text    string        `json:"text,omitempty"` // drift, error or note
	Took    time.Duration `json:"took_ns,omitempty"`
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header is the first line of a file.
type header struct {
	Format int `json:"format"`
}

// Journal is the journal, opened to be written by one process. It is safe for
// concurrent use: events of one caller keep their order.
type Journal struct {
	host  *host.Host
	dir   string
	now   func() time.Time
	limit int64

	mu    sync.Mutex
	file  *os.File
	size  int64
	timer *time.Timer // a sync to come
	err   error       // of a sync that nobody waited for
}

// Open opens the journal in dir, mode 0700, making both where they are missing
// and cutting off a torn tail. A journal of an unknown format is ErrFormat.
func Open(h *host.Host, dir string) (*Journal, error) {
	j := &Journal{host: h, dir: dir, now: time.Now, limit: limit}
	err := h.MkdirAll(dir)
	if err == nil {
		err = h.SetMeta(dir, 0o700, host.Keep, host.Keep)
	}
	if err == nil {
		err = j.open()
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open journal: %w", err)
	}
	return j, nil
}

func (j *Journal) path(name string) string { return path.Join(j.dir, name) }

// open opens the current file behind its last whole line.
func (j *Journal) open() error {
	// Twice the limit is far more than this package leaves behind.
	b, err := j.host.ReadLimited(j.path(current), 2*j.limit+maxLine)
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, host.ErrTooLarge) {
		return err
	}
	if errors.Is(err, host.ErrTooLarge) {
		if err := j.host.Rename(j.path(current), j.path(old)); err != nil {
			return err
		}
		b = nil
	}
	end, err := wholeLines(b)
	if err != nil {
		return diag.WithHint(err, "move %s away; it is only an account", j.path(current))
	}
	f, err := j.host.OpenAppend(j.path(current), 0o600)
	if err != nil {
		return err
	}
	j.file, j.size = f, int64(end)
	if end < len(b) {
		err = f.Truncate(int64(end))
	}
	if err == nil && end == 0 {
		err = j.begin()
	}
	if err != nil {
		f.Close()
		j.file = nil
	}
	return err
}

// begin writes the first line of a file and makes the file's name durable.
func (j *Journal) begin() error {
	if err := j.write(header{Format}); err != nil {
		return err
	}
	if err := j.file.Sync(); err != nil {
		return err
	}
	dir, err := j.host.Path(j.dir)
	if err != nil {
		return err
	}
	return host.SyncDir(dir)
}

// write appends one line in one write, so that a reader sees it whole or as a torn tail.
func (j *Journal) write(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(data) > maxLine {
		return fmt.Errorf("an event of %d bytes, the limit is %d", len(data), maxLine)
	}
	line := fmt.Appendf(nil, "%08x %s\n", crc32.Checksum(data, castagnoli), data)
	n, err := j.file.Write(line)
	if err != nil && n > 0 {
		// A full disk took a part of the line: what comes later must not be glued to it.
		if terr := j.file.Truncate(j.size); terr != nil {
			return errors.Join(err, terr)
		}
		return err
	}
	j.size += int64(n)
	return err
}

// Append adds an event; a zero Time becomes now. The end of a run is durable
// when Append returns, all else within a tenth of a second: no launch waits for
// its own account. Whoever gets an error may go on without a journal.
func (j *Journal) Append(e Event) error {
	if e.Time.IsZero() {
		e.Time = j.now().UTC()
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.append(e); err != nil {
		return fmt.Errorf("cannot write journal: %w", err)
	}
	return nil
}

func (j *Journal) append(e Event) error {
	if j.file == nil {
		return os.ErrClosed
	}
	if j.size >= j.limit {
		if err := j.rotate(); err != nil {
			return err
		}
	}
	if err := j.write(e); err != nil {
		return err
	}
	if e.What == RunEnd {
		return j.sync()
	}
	if j.timer == nil {
		j.timer = time.AfterFunc(syncDelay, func() {
			j.mu.Lock()
			defer j.mu.Unlock()
			if j.timer != nil && j.file != nil {
				j.err = errors.Join(j.err, j.sync())
			}
		})
	}
	return nil
}

// sync makes all that was written durable, and tells of a failed sync before.
func (j *Journal) sync() error {
	if j.timer != nil {
		j.timer.Stop()
		j.timer = nil
	}
	err := errors.Join(j.err, j.file.Sync())
	j.err = nil
	return err
}

func (j *Journal) rotate() error {
	if err := j.sync(); err != nil {
		return err
	}
	if err := j.host.Rename(j.path(current), j.path(old)); err != nil {
		return err
	}
	j.file.Close()
	j.file = nil
	return j.open()
}

// Close syncs and closes. A closed journal takes no events.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return nil
	}
	err := j.sync()
	err = errors.Join(err, j.file.Close())
	j.file = nil
	return err
}

var _ io.Closer = (*Journal)(nil)
