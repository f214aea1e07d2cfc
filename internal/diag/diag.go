// Package diag says what is wrong with a document, and where.
//
// Every fault of a document is collected, not only the first, and each is
// printed as "file:line:col: field: sentence". Validators know fields, not
// lines: they are given an At, which knows where a field stands.
//
// The package also carries hints: what a person may try about an error. A hint
// travels beside the error text, never inside it.
package diag

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Pos is a place in a document. Line and Col count from 1; zero means unknown.
type Pos struct {
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
	Col  int    `json:"col,omitempty"`
}

// String renders file:line:col, without the parts that are unknown.
func (p Pos) String() string {
	switch {
	case p.Line == 0:
		return p.File
	case p.Col == 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col)
}

// Problem is one fault at one place.
type Problem struct {
	Pos
	Field   string `json:"field,omitempty"` // dotted path of the field, as "files./etc/motd.mode"
	Message string `json:"message"`         // one sentence, lower case, no period
	Hint    string `json:"hint,omitempty"`  // what to try
}

// String renders "file:line:col: field: sentence".
func (p Problem) String() string {
	var parts []string
	for _, s := range []string{p.Pos.String(), p.Field, p.Message} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, ": ")
}

// List collects the faults of one or more documents. The zero List is ready.
type List struct{ problems []Problem }

// Add appends a fault.
func (l *List) Add(p Problem) { l.problems = append(l.problems, p) }

// Len is the number of faults so far.
func (l *List) Len() int { return len(l.problems) }

// Err is nil when there is no fault, else an *Error with all of them, sorted by place.
func (l *List) Err() error {
	if len(l.problems) == 0 {
		return nil
	}
	sorted := slices.Clone(l.problems)
	slices.SortStableFunc(sorted, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
	return &Error{Problems: slices.Compact(sorted)}
}

// Error is a document that cannot be used, with every reason why.
type Error struct{ Problems []Problem }

func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
		if p.Hint != "" {
			lines[i] += "\n    hint: " + p.Hint
		}
	}
	return strings.Join(lines, "\n")
}

// Place is something with a position whose parts have positions: a node of a
// document. Part gives the receiver itself for a part that is not there.
type Place interface {
	Pos() Pos
	Part(name string) Place
}

// At is where a validator stands: a place, the field's dotted path, and the
// list that collects faults. The zero At discards faults; it serves bodies made in code.
type At struct {
	list  *List
	place Place
	field string
}

// NewAt starts at a place. field may be "".
func NewAt(list *List, place Place, field string) At { return At{list, place, field} }

// Field steps into a field or a map entry.
func (a At) Field(name string) At {
	if a.place != nil {
		a.place = a.place.Part(name)
	}
	if a.field != "" {
		name = a.field + "." + name
	}
	a.field = name
	return a
}

// Index steps into a list's element, counted from 0.
func (a At) Index(i int) At {
	if a.place != nil {
		a.place = a.place.Part(fmt.Sprint(i))
	}
	a.field = fmt.Sprintf("%s[%d]", a.field, i)
	return a
}

// Errorf records a fault at this place: one sentence, lower case, without a period.
func (a At) Errorf(format string, args ...any) { a.add(fmt.Sprintf(format, args...), "") }

// Err records an error at this place, with its hint if it carries one.
func (a At) Err(err error) { a.add(err.Error(), Hint(err)) }

func (a At) add(msg, hint string) {
	if a.list == nil {
		return
	}
	var pos Pos
	if a.place != nil {
		pos = a.place.Pos()
	}
	a.list.Add(Problem{Pos: pos, Field: a.field, Message: msg, Hint: hint})
}

// Pos is the position of this place.
func (a At) Pos() Pos {
	if a.place == nil {
		return Pos{}
	}
	return a.place.Pos()
}

type hinted struct {
	err  error
	hint string
}

func (h *hinted) Error() string { return h.err.Error() }
func (h *hinted) Unwrap() error { return h.err }

// WithHint attaches what to try to an error, leaving its text alone. A nil error stays nil.
func WithHint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &hinted{err, fmt.Sprintf(format, args...)}
}

// Hint is the outermost hint that err carries, or "".
func Hint(err error) string {
	var h *hinted
	if errors.As(err, &h) {
		return h.hint
	}
	return ""
}

// Onto stands at another place of the same document, below a's field.
func Onto(a At, p Place, name string) At {
	b := a.Field(name)
	b.place = p
	return b
}
