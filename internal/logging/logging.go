// Package logging builds the agent's logger: structured entries to the journal
// by its own protocol where the agent is connected to it, JSON lines elsewhere.
//
// The names of the fields are fixed here, so that every entry about a step can
// be found by the same query, as `journalctl AMIAGENT_STEP=units.app.service`.
// Every text passes a redaction before it leaves the process.
package logging

import (
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/coreos/go-systemd/v22/journal"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Names of fields. In the journal they are upper case behind AMIAGENT_.
const (
	Phase   = "phase"
	Step    = "step" // kind.name
	Kind    = "kind"
	Outcome = "outcome"
	Took    = "took"
	Error   = "error"
	Hint    = "hint"
	Drift   = "drift"
	Launch  = "launch" // report id
)

// Identifier is the agent's SYSLOG_IDENTIFIER in the journal.
const Identifier = "amiagent"

// Options say where entries go. The zero options write JSON to nowhere.
type Options struct {
	Journal bool                // by the journal's protocol; see Connected
	Out     io.Writer           // for JSON, where Journal is false
	Debug   bool                // debug entries too
	Redact  func(string) string // takes secrets out of a text; nil: none
}

// New builds a logger. Errors of writing are dropped: there is nowhere to tell of them.
func New(opt Options) *zap.Logger {
	level := zapcore.InfoLevel
	if opt.Debug {
		level = zapcore.DebugLevel
	}
	redact := opt.Redact
	if redact == nil {
		redact = func(s string) string { return s }
	}
	var core zapcore.Core
	if opt.Journal {
		core = &journalCore{LevelEnabler: level, redact: redact, send: journal.Send}
	} else {
		out := opt.Out
		if out == nil {
			out = io.Discard
		}
		core = zapcore.NewCore(zapcore.NewJSONEncoder(jsonConfig()), zapcore.Lock(redacting{out, redact}), level)
	}
	return zap.New(core, zap.ErrorOutput(zapcore.AddSync(io.Discard)))
}

func jsonConfig() zapcore.EncoderConfig {
	return zapcore.EncoderConfig{
		TimeKey: "time", LevelKey: "level", MessageKey: "msg", NameKey: "logger", StacktraceKey: "stack",
		EncodeTime:     zapcore.RFC3339NanoTimeEncoder,
		EncodeLevel:    zapcore.LowercaseLevelEncoder,
		EncodeDuration: zapcore.StringDurationEncoder,
	}
}

// redacting cleans whole encoded lines: whatever type a field had, it is text by now.
type redacting struct {
	w      io.Writer
	redact func(string) string
}

func (r redacting) Write(p []byte) (int, error) {
	if _, err := io.WriteString(r.w, r.redact(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (r redacting) Sync() error { return nil }

// Connected tells whether f, the process's standard error or output, is the
// stream to the journal that stream, the value of JOURNAL_STREAM, names
// (systemd.exec(5)): only then may entries go there by the journal's own protocol.
func Connected(stream string, f *os.File) bool {
	var dev, ino uint64
	if n, err := fmt.Sscanf(stream, "%d:%d", &dev, &ino); n != 2 || err != nil {
		return false
	}
	st, err := f.Stat()
	if err != nil {
		return false
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && uint64(sys.Dev) == dev && sys.Ino == ino
}
