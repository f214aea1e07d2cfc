package logging

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"go.uber.org/zap/zapcore"
)

// journalCore sends entries to journald. The message carries the fields too,
// since plain journalctl shows nothing else.
type journalCore struct {
	zapcore.LevelEnabler
	redact func(string) string
	send   func(string, journal.Priority, map[string]string) error
	fields []zapcore.Field
}

func (c *journalCore) With(fields []zapcore.Field) zapcore.Core {
	d := *c
	d.fields = slices.Concat(c.fields, fields)
	return &d
}

func (c *journalCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c *journalCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	vars := map[string]string{"SYSLOG_IDENTIFIER": Identifier}
	var text strings.Builder
	text.WriteString(c.redact(e.Message))
	for _, f := range slices.Concat(c.fields, fields) {
		f.AddTo(enc)
	}
	for _, name := range names(enc.Fields) {
		value := c.redact(valueText(enc.Fields[name]))
		vars[variable(name)] = value
		text.WriteString(" " + name + "=" + quoted(value))
	}
	return c.send(text.String(), priority(e.Level), vars)
}

func (c *journalCore) Sync() error { return nil }

// names are the fields in the order in which people read them: what it is
// about, then the rest, the error last.
func names(fields map[string]any) []string {
	rank := func(name string) int {
		if i := slices.Index([]string{Phase, Step, Kind, Outcome, Took}, name); i >= 0 {
			return i
		}
		return 100 + slices.Index([]string{Drift, Error, Hint}, name)
	}
	all := make([]string, 0, len(fields))
	for name := range fields {
		all = append(all, name)
	}
	slices.SortFunc(all, func(a, b string) int { return cmp.Or(rank(a)-rank(b), strings.Compare(a, b)) })
	return all
}

func valueText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case time.Duration:
		return v.String()
	case time.Time:
		return v.Format(time.RFC3339Nano)
	}
	return fmt.Sprint(v)
}

func quoted(s string) string {
	if s == "" || strings.ContainsAny(s, " \t\n\"=") {
		return strconv.Quote(s)
	}
	return s
}

// variable is a field's name in the journal: upper case letters, digits and
// underscores (systemd.journal-fields(7)).
func variable(name string) string {
	return "AMIAGENT_" + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, name)
}

func priority(l zapcore.Level) journal.Priority {
	switch {
	case l <= zapcore.DebugLevel:
		return journal.PriDebug
	case l == zapcore.InfoLevel:
		return journal.PriInfo
	case l == zapcore.WarnLevel:
		return journal.PriWarning
	case l == zapcore.ErrorLevel:
		return journal.PriErr
	}
	return journal.PriCrit
}
