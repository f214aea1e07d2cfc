package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path"
	"strconv"

	"github.com/amiagent/amiagent/internal/host"
)

// Account is what a journal holds.
type Account struct {
	Events  []Event
	Damaged int  // whole lines that are not what was written
	Torn    bool // the last line is not whole: a crash, or a writer in the midst of it
}

// Read reads the journal in dir, oldest event first, also while another process
// writes it. No journal is an empty account. Damaged lines are counted and left out.
func Read(h *host.Host, dir string) (Account, error) {
	var a Account
	for _, name := range []string{old, current} {
		b, err := h.ReadLimited(path.Join(dir, name), 2*limit+maxLine)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = a.add(b)
		}
		if err != nil {
			return a, fmt.Errorf("cannot read journal %s: %w", path.Join(dir, name), err)
		}
	}
	return a, nil
}

func (a *Account) add(b []byte) error {
	if err := checkHeader(b); err != nil {
		return err
	}
	for i := 0; len(b) > 0; i++ {
		line, rest, whole := bytes.Cut(b, []byte{'\n'})
		b = rest
		if !whole {
			a.Torn = true
			break
		}
		data, ok := content(line)
		if !ok {
			a.Damaged++
			continue
		}
		if i == 0 {
			continue // the header
		}
		var e Event
		if json.Unmarshal(data, &e) != nil {
			a.Damaged++
			continue
		}
		a.Events = append(a.Events, e)
	}
	return nil
}

// content is a line's JSON, if its checksum is right.
func content(line []byte) ([]byte, bool) {
	hex, data, ok := bytes.Cut(line, []byte{' '})
	if !ok || len(hex) != 8 {
		return nil, false
	}
	sum, err := strconv.ParseUint(string(hex), 16, 32)
	return data, err == nil && uint32(sum) == crc32.Checksum(data, castagnoli)
}

// checkHeader refuses a file of another format. A damaged first line passes:
// the lines behind it have checksums of their own.
func checkHeader(b []byte) error {
	line, _, whole := bytes.Cut(b, []byte{'\n'})
	data, ok := content(line)
	if !whole || !ok {
		return nil
	}
	var h header
	if err := json.Unmarshal(data, &h); err != nil || h.Format != Format {
		return fmt.Errorf("%w %d, this agent knows %d", ErrFormat, h.Format, Format)
	}
	return nil
}

// wholeLines is the length of a file without its torn tail: bytes behind the
// last newline, zeros included, which is what some file systems leave after a power cut.
func wholeLines(b []byte) (int, error) {
	return bytes.LastIndexByte(b, '\n') + 1, checkHeader(b)
}
