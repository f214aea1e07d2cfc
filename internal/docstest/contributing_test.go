package docstest

import (
	"strings"
	"testing"
)

// The kind that CONTRIBUTING.md walks through is one that is compiled and tested.
func TestTheWalkThroughIsRealCode(t *testing.T) {
	code := read(t, "internal/docstest/motd/motd.go") + read(t, "internal/docstest/motd/motd_test.go")
	count := 0
	for _, p := range pages(t) {
		for _, b := range p.Blocks {
			if b.Info != "go" {
				continue
			}
			count++
			if !strings.Contains(code, b.Text) {
				t.Errorf("%s:%d: not in internal/docstest/motd:\n%s", p.Name, b.Line, b.Text)
			}
		}
	}
	if count < 4 {
		t.Errorf("only %d blocks found", count)
	}
}

// A new machine knows nothing of ours, and readers know no tool but git, Go and make.
func TestDocumentsSpeakOfNoMachine(t *testing.T) {
	for _, p := range pages(t) {
		for _, word := range []string{"/home/", "/root/", "localhost:", "TODO", "FIXME"} {
			if strings.Contains(p.Text, word) {
				t.Errorf("%s has %q", p.Name, word)
			}
		}
		for i, line := range strings.Split(p.Text, "\n") {
			if strings.TrimRight(line, " \t") != line {
				t.Errorf("%s:%d: blanks at the end", p.Name, i+1)
			}
		}
	}
}
