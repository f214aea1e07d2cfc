package docstest

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/agent"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/report"
)

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Programs read these documents: what they find in them is in docs/status.md.
func TestEveryFieldForProgramsIsDocumented(t *testing.T) {
	text := read(t, "docs/status.md")
	for heading, types := range map[string][]any{
		"Status": {report.Status{}, report.Probe{}},
		"Report": {report.Report{}, report.Span{}, report.Step{}, report.Layer{}, report.Failure{}},
		"Plan":   {agent.PlanReport{}, agent.PlanStep{}},
		"Facts":  {facts.Fact{}, facts.Tags{}},
	} {
		_, section, ok := strings.Cut(text, "\n## "+heading+"\n")
		section, _, _ = strings.Cut(section, "\n## ")
		if !ok {
			t.Errorf("there is no section %s", heading)
		}
		for _, v := range types {
			for _, key := range jsonKeys(reflect.TypeOf(v)) {
				if !strings.Contains(section, "`"+key+"`") && !strings.Contains(text, "| `"+key+"`") {
					t.Errorf("%s: %T has a field %s that is not documented", heading, v, key)
				}
			}
		}
	}
}

func jsonKeys(t reflect.Type) []string {
	var out []string
	for i := range t.NumField() {
		if key, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); key != "" && key != "-" {
			out = append(out, key)
		}
	}
	return out
}

// Each word for a state or an outcome is there, as the code has it.
func TestEveryWordIsDocumented(t *testing.T) {
	for _, c := range []struct{ pkg, kind, page string }{
		{"internal/report", "State", "docs/status.md"},
		{"internal/report", "Outcome", "docs/status.md"},
		{"internal/report", "Phase", "docs/status.md"},
		{"internal/facts", "TagState", "docs/howto.md"},
		{"internal/manifest", "OnFailure", "docs/manifest.md"},
	} {
		s, err := parse(root, c.pkg)
		if err != nil {
			t.Fatal(err)
		}
		words := s.words(c.kind)
		if len(words) < 3 {
			t.Errorf("%s.%s has only %d words", c.pkg, c.kind, len(words))
		}
		text := read(t, c.page)
		for _, w := range words {
			if !strings.Contains(text, "`"+w.value+"`") {
				t.Errorf("%s says nothing of %q (%s.%s)", c.page, w.value, c.pkg, w.name)
			}
		}
	}
}

func TestEveryExitCodeIsDocumented(t *testing.T) {
	s, err := parse(root, "internal/command")
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, c := range s.consts {
		if !strings.HasPrefix(c.name, "Exit") {
			continue
		}
		count++
		for _, page := range []string{"README.md", "docs/status.md"} {
			if !strings.Contains(read(t, page), "\n| "+c.value+" | ") {
				t.Errorf("%s says nothing of exit code %s (%s)", page, c.value, c.name)
			}
		}
	}
	if count < 7 {
		t.Errorf("only %d exit codes found", count)
	}
}
