package logging_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/amiagent/amiagent/internal/logging"
)

func TestJSONLinesHaveTheFixedNames(t *testing.T) {
	var b bytes.Buffer
	log := logging.New(logging.Options{Out: &b})
	log.Debug("not told")
	log.With(zap.String(logging.Phase, "fetch")).Info("done", zap.String(logging.Step, "artifacts.app"), zap.Duration(logging.Took, 1500*time.Millisecond), zap.Error(errors.New("e")))
	var got map[string]any
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatalf("%s: %v", b.String(), err)
	}
	if when, err := time.Parse(time.RFC3339Nano, fmt.Sprint(got["time"])); err != nil || time.Since(when) > time.Minute {
		t.Errorf("time is %v", got["time"])
	}
	delete(got, "time")
	want := map[string]any{"level": "info", "msg": "done", "phase": "fetch", "step": "artifacts.app", "took": "1.5s", "error": "e"}
	if !maps.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestDebugIsToldWhenAsked(t *testing.T) {
	var b bytes.Buffer
	logging.New(logging.Options{Out: &b, Debug: true}).Debug("told")
	if !strings.Contains(b.String(), `"level":"debug","time":`) {
		t.Errorf("got %s", b.String())
	}
}

func TestNoSecretLeavesInAnyType(t *testing.T) {
	var b bytes.Buffer
	log := logging.New(logging.Options{Out: &b, Redact: func(s string) string { return strings.ReplaceAll(s, "hunter2", "X") }})
	const s = "a hunter2"
	log.With(zap.String("with", s)).Error(s, zap.String("s", s), zap.Error(errors.New(s)), zap.Any("map", map[string]string{"k": s}),
		zap.Strings("list", []string{s}), zap.Stringer("stringer", time.FixedZone(s, 0)), zap.ByteString("bytes", []byte(s)), zap.Reflect("r", struct{ F string }{s}))
	if got := b.String(); strings.Contains(got, "hunter2") || strings.Count(got, "a X") != 9 || !json.Valid(b.Bytes()) {
		t.Errorf("got %s", got)
	}
}

func TestWritersThatFailHurtNobody(t *testing.T) {
	r, w := io.Pipe()
	r.Close()
	logging.New(logging.Options{Out: w}).Error("into the void")
	logging.New(logging.Options{}).Error("into the void")
}

func TestOnlyTheNamedStreamIsTheJournal(t *testing.T) {
	f, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, _ := f.Stat()
	sys := st.Sys().(*syscall.Stat_t)
	for stream, want := range map[string]bool{
		fmt.Sprintf("%d:%d", sys.Dev, sys.Ino):   true,
		fmt.Sprintf("%d:%d", sys.Dev, sys.Ino+1): false, // standard error was redirected
		"":                                       false,
		"8":                                      false,
		"x:y":                                    false,
	} {
		if got := logging.Connected(stream, f); got != want {
			t.Errorf("%q: %v", stream, got)
		}
	}
}

// The journal's end of the protocol, as systemd.io/JOURNAL_NATIVE_PROTOCOL has it.
func TestEntriesInTheJournal(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "socket")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// Linked against this socket: as a plain user nobody can listen at journald's.
	say := filepath.Join(dir, "say")
	build := exec.Command("go", "build", "-ldflags=-X github.com/coreos/go-systemd/v22/journal.journalSocket="+socket, "-o", say, "./testdata/say")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := exec.Command(say).CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("%v\n%s", err, out)
	}
	want := []map[string]string{
		{"PRIORITY": "6", "MESSAGE": "step done phase=converge step=files./etc/motd outcome=changed took=12ms",
			"AMIAGENT_PHASE": "converge", "AMIAGENT_STEP": "files./etc/motd", "AMIAGENT_OUTCOME": "changed", "AMIAGENT_TOOK": "12ms", "SYSLOG_IDENTIFIER": "amiagent"},
		{"PRIORITY": "3", "MESSAGE": `step failed with «redacted» phase=converge step=commands.x odd-name=3 error="exit 1\npassword «redacted» \"refused\""`,
			"AMIAGENT_PHASE": "converge", "AMIAGENT_STEP": "commands.x", "AMIAGENT_ODD_NAME": "3", "AMIAGENT_ERROR": "exit 1\npassword «redacted» \"refused\"", "SYSLOG_IDENTIFIER": "amiagent"},
		{"PRIORITY": "4", "MESSAGE": "large phase=converge text=" + strings.Repeat("x", 1<<20),
			"AMIAGENT_PHASE": "converge", "AMIAGENT_TEXT": strings.Repeat("x", 1<<20), "SYSLOG_IDENTIFIER": "amiagent"},
	}
	for i, w := range want {
		got := receive(t, l)
		if !maps.Equal(got, w) {
			t.Errorf("entry %d is\n%.300q, want\n%.300q", i, got, w)
		}
	}
}

// receive reads one entry: from the datagram, or from the file that it passes.
func receive(t *testing.T, l *net.UnixConn) map[string]string {
	t.Helper()
	_ = l.SetReadDeadline(time.Now().Add(5 * time.Second))
	data, oob := make([]byte, 1<<20), make([]byte, 100)
	n, oobn, _, _, err := l.ReadMsgUnix(data, oob)
	if err != nil {
		t.Fatal(err)
	}
	data = data[:n]
	if n == 0 {
		messages, err := syscall.ParseSocketControlMessage(oob[:oobn])
		if err != nil || len(messages) != 1 {
			t.Fatal(messages, err)
		}
		fds, err := syscall.ParseUnixRights(&messages[0])
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fds[0]), "entry")
		defer f.Close()
		if data, err = io.ReadAll(io.NewSectionReader(f, 0, 1<<30)); err != nil {
			t.Fatal(err)
		}
	}
	entry := map[string]string{}
	for len(data) > 0 {
		line, rest, _ := bytes.Cut(data, []byte{'\n'})
		name, value, simple := bytes.Cut(line, []byte{'='})
		if !simple {
			size := binary.LittleEndian.Uint64(rest)
			value, rest = rest[8:8+size], rest[8+size+1:]
		}
		entry[string(name)], data = string(value), rest
	}
	return entry
}
