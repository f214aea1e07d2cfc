package docstest

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// linked are the packages of the program and the modules that they import, by
// following imports from cmd/amiagent.
func linked(t *testing.T) (packages, imports []string) {
	t.Helper()
	todo := []string{"cmd/amiagent"}
	for len(todo) > 0 {
		pkg := todo[0]
		todo = todo[1:]
		if slices.Contains(packages, pkg) {
			continue
		}
		packages = append(packages, pkg)
		files, _ := filepath.Glob(filepath.Join(root, pkg, "*.go"))
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range f.Imports {
				p, _ := strconv.Unquote(i.Path.Value)
				if ours, ok := strings.CutPrefix(p, module); ok {
					todo = append(todo, ours)
				} else if strings.Contains(p, ".") {
					imports = append(imports, p)
				}
			}
		}
	}
	if len(packages) < 30 || len(imports) < 20 {
		t.Fatalf("only %d packages and %d imports found", len(packages), len(imports))
	}
	return packages, imports
}

func spans(t *testing.T, name string) []string {
	var out []string
	for _, p := range pages(t) {
		if p.Name == name {
			for _, s := range p.Spans {
				out = append(out, s.Text)
			}
		}
	}
	return out
}

func TestTheMapIsComplete(t *testing.T) {
	named := spans(t, "ARCHITECTURE.md")
	packages, _ := linked(t)
	for _, p := range packages {
		if !slices.Contains(named, p) && !slices.Contains(named, path.Dir(p)+"/*") {
			t.Errorf("ARCHITECTURE.md says nothing of %s", p)
		}
	}
	for _, n := range named {
		if top, _, _ := strings.Cut(n, "/"); !slices.Contains([]string{"agent", "cmd", "internal", "packaging"}, top) || strings.Contains(n, " ") {
			continue
		}
		if _, err := os.Stat(filepath.Join(root, strings.TrimSuffix(n, "/*"))); err != nil {
			t.Errorf("ARCHITECTURE.md speaks of %s: %v", n, err)
		}
	}
}

func TestEveryDependencyHasItsReason(t *testing.T) {
	var modules []string
	for _, m := range regexp.MustCompile(`(?m)^(?:require )?\s*(\S+\.\S+/\S+) v\S+`).FindAllStringSubmatch(read(t, "go.mod"), -1) {
		modules = append(modules, m[1])
	}
	_, imports := linked(t)
	direct := map[string]bool{}
	for _, p := range imports {
		best := ""
		for _, m := range modules {
			if (p == m || strings.HasPrefix(p, m+"/")) && len(m) > len(best) {
				best = m
			}
		}
		if best == "" {
			t.Errorf("%s is of no module in go.mod", p)
		}
		direct[best] = true
	}
	text := read(t, "ARCHITECTURE.md")
	for m := range direct {
		if !strings.Contains(text, "\n| `"+m+"` | ") {
			t.Errorf("ARCHITECTURE.md gives no reason for %s", m)
		}
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\S+\\.\\S+/\\S+)` \\| ").FindAllStringSubmatch(text, -1) {
		if !direct[row[1]] {
			t.Errorf("the program does not import %s", row[1])
		}
	}
}

// A promise names the tests that would fail without it.
func TestTheTestsNamedAreThere(t *testing.T) {
	there := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func (Test\w+)\(t `)
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, "_test.go") {
			return err
		}
		text, err := os.ReadFile(name)
		for _, m := range function.FindAllSubmatch(text, -1) {
			there[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, page := range []string{"ARCHITECTURE.md", "CONTRIBUTING.md"} {
		for _, s := range spans(t, page) {
			if strings.HasPrefix(s, "Test") {
				count++
				if !there[s] {
					t.Errorf("%s names %s, which is not there", page, s)
				}
			}
		}
	}
	if count < 30 {
		t.Errorf("only %d tests are named", count)
	}
}
