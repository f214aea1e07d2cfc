package facts

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"
)

// Format is the format number of captured facts.
const Format = 1

// maxDocument bounds a document of captured facts.
const maxDocument = 8 << 20

// document is Facts as captured. Fields are added, never renamed.
type document struct {
	Format int             `json:"format"`
	Facts  map[string]Fact `json:"facts"`
	Tags   Tags            `json:"tags"`
	Notes  []string        `json:"notes,omitempty"`
}

// MarshalJSON writes the document that LoadFile reads. Secrets are left out.
func (f Facts) MarshalJSON() ([]byte, error) {
	d := document{Format: Format, Facts: map[string]Fact{}, Tags: f.Tags, Notes: f.Notes}
	for name, fact := range f.Values {
		if !fact.Secret {
			d.Facts[name] = fact
		}
	}
	return json.Marshal(d)
}

// UnmarshalJSON reads what MarshalJSON wrote. A format number that is not ours is refused.
func (f *Facts) UnmarshalJSON(b []byte) error {
	var d document
	if err := json.Unmarshal(b, &d); err != nil {
		return err
	}
	if d.Format != Format {
		return fmt.Errorf("format %d, this agent knows %d", d.Format, Format)
	}
	*f = Facts{Values: d.Facts, Tags: d.Tags, Notes: d.Notes}
	if f.Values == nil {
		f.Values = map[string]Fact{}
	}
	return nil
}

// Capture writes the facts as JSON, for LoadFile and for programs. Secrets are left out.
func (f *Facts) Capture(w io.Writer) error {
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// LoadFile reads captured facts from a file outside any root.
func LoadFile(name string) (*Facts, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("cannot read facts: %w", err)
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, maxDocument+1))
	if err == nil && len(b) > maxDocument {
		err = fmt.Errorf("more than %d bytes", maxDocument)
	}
	f := New()
	if err == nil {
		err = json.Unmarshal(b, f)
	}
	if err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			err = fmt.Errorf("not JSON: %w", err)
		}
		return nil, fmt.Errorf("cannot read facts %s: %w", name, err)
	}
	return f, nil
}

// String hides the value of a secret from every %v.
func (f Fact) String() string {
	if f.Secret {
		return "(secret)"
	}
	return f.Value
}

// WriteText prints the facts as a table for people, with the state of the tags
// and the notes below it. Secrets are named, not shown.
func (f *Facts) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tVALUE\tSTAGE\tSOURCE")
	for _, name := range f.Names() {
		fact := f.Values[name]
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", visible(name), visible(fact.String()), fact.Stage, fact.Source)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\ntags: %s", f.Tags.State)
	if f.Tags.Source != "" {
		fmt.Fprintf(&b, " (from %s)", f.Tags.Source)
	}
	b.WriteByte('\n')
	if f.Tags.Hint != "" {
		fmt.Fprintf(&b, "    hint: %s\n", f.Tags.Hint)
	}
	for _, note := range f.Notes {
		fmt.Fprintf(&b, "note: %s\n", note)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// visible keeps a value on its line: whoever sets a tag must not draw on the terminal.
func visible(s string) string {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}
