// Package archtest_test holds the rules that keep this code's shape: who may import
// whom, and what no package does. A rule that matters is a test; the rest is taste.
package archtest_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/step/kinds"
)

const module = "github.com/amiagent/amiagent/"

// pkg is one package's files, by whether they are tests or testing aids.
type pkg struct {
	path  string // below the module, as internal/host
	files []*file
}

type file struct {
	name string
	ast  *ast.File
	text []byte
}

// aid tells whether a package serves tests, demos or builds, and is not in the packaged program.
func aid(p string) bool {
	return slices.ContainsFunc([]string{"internal/ec2sim", "internal/nspawntest", "internal/systemtest", "internal/archtest", "internal/bench", "cmd/demo", "cmd/ec2sim", "cmd/bench", "packaging", "tools"},
		func(root string) bool { return p == root || strings.HasPrefix(p, root+"/") }) || strings.HasSuffix(p, "test")
}

func load(t *testing.T) []*pkg {
	t.Helper()
	const root = "../.."
	var pkgs []*pkg
	by := map[string]*pkg{}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, name)
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && rel != "." || d.Name() == "testdata" || rel == "dist") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(rel, ".go") || strings.HasSuffix(rel, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), rel, text, parser.ParseComments)
		if err != nil {
			return err
		}
		dir := path.Dir(filepath.ToSlash(rel))
		if by[dir] == nil {
			by[dir] = &pkg{path: dir}
			pkgs = append(pkgs, by[dir])
		}
		by[dir].files = append(by[dir].files, &file{rel, f, text})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(pkgs) < 30 {
		t.Fatalf("only %d packages found: the rules would hold of nothing", len(pkgs))
	}
	return pkgs
}

func (f *file) imports() []string {
	var out []string
	for _, i := range f.ast.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		out = append(out, p)
	}
	return out
}

func below(p, root string) bool {
	if star, ok := strings.CutSuffix(root, "/*"); ok {
		return strings.HasPrefix(p, star+"/")
	}
	return p == root
}

// forbidden imports: packages on the left must not import those on the right.
// "x/*" is everything below x.
var forbidden = []struct {
	from, to []string
	because  string
}{
	{[]string{"internal/step/*"}, []string{"internal/manifest", "internal/plan", "internal/converge", "internal/journal", "internal/report", "internal/layers", "agent"},
		"a kind knows the machine, not how it came to be asked"},
	{[]string{"internal/manifest", "internal/render", "internal/layers"}, []string{"internal/step", "internal/step/*", "internal/plan", "internal/converge"},
		"a document knows no kind"},
	{[]string{"internal/plan"}, []string{"internal/host", "internal/fetch", "internal/imds", "internal/awsconf", "internal/converge", "internal/journal", "internal/report"},
		"the plan does no I/O"},
	{[]string{"internal/diag"}, []string{"internal/*"}, "diag is at the bottom"},
	{[]string{"internal/host"}, []string{"internal/step", "internal/step/*", "internal/facts", "internal/fetch", "internal/fetch/*", "agent"}, "host is the door, not what goes through it"},
	{[]string{"internal/fetch/source/*"}, []string{"internal/step", "internal/step/*", "internal/plan", "internal/manifest"}, "a source serves bytes"},
	{[]string{"internal/health"}, []string{"agent", "internal/converge", "internal/plan", "internal/fetch", "internal/step", "internal/step/*", "internal/awsconf"},
		"what listens on the network knows the status file and nothing else"},
	{[]string{"internal/sink/*", "internal/probe"}, []string{"agent", "internal/converge", "internal/plan", "internal/step", "internal/step/*"}, "arrows point down"},
	{[]string{"internal/*"}, []string{"agent"}, "arrows point down; only the command and the aids wire the agent"},
}

func TestArrowsPointDown(t *testing.T) {
	for _, p := range load(t) {
		for _, f := range p.files {
			for _, imp := range f.imports() {
				to, ours := strings.CutPrefix(imp, module)
				if !ours {
					continue
				}
				for _, rule := range forbidden {
					from := slices.ContainsFunc(rule.from, func(r string) bool { return below(p.path, r) })
					into := slices.ContainsFunc(rule.to, func(r string) bool { return below(to, r) })
					if from && into && !aid(p.path) && p.path != "internal/command" && p.path != "internal/step/kinds" {
						t.Errorf("%s imports %s: %s", f.name, to, rule.because)
					}
				}
				if aid(to) && !aid(p.path) {
					t.Errorf("%s imports %s, which is not for the packaged program", f.name, to)
				}
			}
		}
	}
}

// A kind is a folder and a line: it imports no other kind, and stands in the list.
func TestKindsAreApart(t *testing.T) {
	listed := map[string]bool{}
	for _, k := range kinds.All() {
		listed[k.Name] = true
		if k.Doc == "" || k.Example == "" || k.Level == 0 {
			t.Errorf("kind %s lacks a doc, an example or a level", k.Name)
		}
	}
	const root = "internal/step/"
	for _, p := range load(t) {
		name, ok := strings.CutPrefix(p.path, root)
		if !ok || strings.Contains(name, "/") || name == "kinds" || name == "steptest" {
			continue
		}
		if !listed[name] {
			t.Errorf("%s is not in the list of kinds", p.path)
		}
		for _, f := range p.files {
			for _, imp := range f.imports() {
				if other, ok := strings.CutPrefix(imp, module+root); ok {
					t.Errorf("%s imports %s: kinds never import each other", f.name, other)
				}
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range load(t) {
		if !slices.ContainsFunc(p.files, func(f *file) bool { return f.ast.Doc != nil && len(f.ast.Doc.Text()) > 40 }) {
			t.Errorf("%s has no package comment that a stranger understands", p.path)
		}
	}
}

// uses finds package.Name selectors, by import path.
func uses(f *file, imp string, names ...string) bool {
	local := path.Base(imp)
	found := false
	for _, i := range f.ast.Imports {
		if p, _ := strconv.Unquote(i.Path.Value); p == imp && i.Name != nil {
			local = i.Name.Name
		}
	}
	if !slices.Contains(f.imports(), imp) {
		return false
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && x.Name == local && slices.Contains(names, s.Sel.Name) {
				found = true
			}
		}
		return true
	})
	return found
}

func TestNothingHappensBehindTheBack(t *testing.T) {
	for _, p := range load(t) {
		for _, f := range p.files {
			for _, d := range f.ast.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
					t.Errorf("%s has an init function", f.name)
				}
			}
			if aid(p.path) {
				continue
			}
			door := strings.HasPrefix(p.path, "cmd/")
			if slices.Contains(f.imports(), "os/exec") && p.path != "internal/host" {
				t.Errorf("%s imports os/exec: programs are run through package host", f.name)
			}
			if !door && uses(f, "os", "Exit") {
				t.Errorf("%s exits: only a door does", f.name)
			}
			if !door && uses(f, "os", "Getenv", "LookupEnv", "Environ") {
				t.Errorf("%s reads the environment: only a door does", f.name)
			}
			if !door && slices.Contains(f.imports(), "flag") {
				t.Errorf("%s reads flags: only a door does", f.name)
			}
		}
	}
}

// A file of over 500 lines is two ideas.
func TestFilesHoldOneIdea(t *testing.T) {
	for _, p := range load(t) {
		for _, f := range p.files {
			if n := strings.Count(string(f.text), "\n"); n > 500 {
				t.Errorf("%s has %d lines", f.name, n)
			}
		}
	}
}

// Names that say nothing.
func TestPackagesHaveNames(t *testing.T) {
	for _, p := range load(t) {
		if slices.Contains([]string{"util", "utils", "common", "types", "core", "manager", "helper", "helpers", "misc", "base"}, path.Base(p.path)) {
			t.Errorf("%s has a name that says nothing", p.path)
		}
	}
}

// The program must not hold what a boot does not need.
func TestTheProgramStaysSmall(t *testing.T) {
	for _, p := range load(t) {
		if aid(p.path) {
			continue
		}
		for _, f := range p.files {
			for _, imp := range f.imports() {
				for _, heavy := range []string{"github.com/prometheus/client_golang", "html/template", "github.com/aws/aws-sdk-go/", "google.golang.org/grpc", "testing"} {
					if imp == heavy || strings.HasPrefix(imp, heavy+"/") {
						t.Errorf("%s imports %s, which is too heavy for the packaged program", f.name, imp)
					}
				}
			}
		}
	}
}
