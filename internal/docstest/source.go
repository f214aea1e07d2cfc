package docstest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// source is the Go source of one package, for what only comments say.
type source struct {
	root    string            // of the module
	imports map[string]string // by the name that the code uses
	structs map[string]*ast.StructType
	named   map[string]ast.Expr // all types, by what they are made of
	docs    map[string]string   // of types
	decodes map[string]bool     // types that decode from more than one shape
	consts  []constant
}

// constant is a constant whose value is written out.
type constant struct{ name, kind, value, comment string }

// field is one key that a document may have.
type field struct {
	goName, key, kind string
	comment           string
	literal           bool // not a template
	inner             string
}

func parse(root, pkg string) (*source, error) {
	s := &source{root: root, imports: map[string]string{}, structs: map[string]*ast.StructType{}, named: map[string]ast.Expr{}, docs: map[string]string{}, decodes: map[string]bool{}}
	files, err := filepath.Glob(filepath.Join(root, pkg, "*.go"))
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		s.file(f)
	}
	if len(s.named) == 0 {
		return nil, fmt.Errorf("cannot read %s: it defines no type", pkg)
	}
	return s, nil
}

func (s *source) file(f *ast.File) {
	for _, i := range f.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		name := path.Base(p)
		if i.Name != nil {
			name = i.Name.Name
		}
		s.imports[name] = p
	}
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv != nil && d.Name.Name == "DecodeNode" {
				if star, ok := d.Recv.List[0].Type.(*ast.StarExpr); ok {
					s.decodes[fmt.Sprint(star.X)] = true
				}
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					s.typ(d, spec)
				case *ast.ValueSpec:
					s.value(d, spec)
				}
			}
		}
	}
}

func (s *source) typ(d *ast.GenDecl, t *ast.TypeSpec) {
	s.named[t.Name.Name] = t.Type
	doc := t.Doc
	if doc == nil {
		doc = d.Doc
	}
	s.docs[t.Name.Name] = oneLine(doc)
	if st, ok := t.Type.(*ast.StructType); ok {
		s.structs[t.Name.Name] = st
	}
}

func (s *source) value(d *ast.GenDecl, v *ast.ValueSpec) {
	if d.Tok != token.CONST || len(v.Values) != 1 {
		return
	}
	lit, ok := v.Values[0].(*ast.BasicLit)
	if !ok {
		return
	}
	c := constant{name: v.Names[0].Name, value: lit.Value, comment: oneLine(v.Comment)}
	if v.Type != nil {
		c.kind = fmt.Sprint(v.Type)
	}
	if text, err := strconv.Unquote(lit.Value); err == nil {
		c.value = text
	}
	s.consts = append(s.consts, c)
}

// words are the constants of a type, in the order of writing.
func (s *source) words(kind string) []constant {
	return slices.DeleteFunc(slices.Clone(s.consts), func(c constant) bool { return c.kind != kind })
}

// fields lists a struct's keys. Neighbours that one comment is about share it.
func (s *source) fields(name string) ([]field, error) {
	st := s.structs[name]
	if st == nil {
		return nil, fmt.Errorf("there is no struct %s", name)
	}
	var out []field
	var run []int // fields without a comment, since the last that has one
	var about string
	for _, f := range st.Fields.List {
		if f.Tag == nil || len(f.Names) != 1 {
			continue
		}
		tag, _ := strconv.Unquote(f.Tag.Value)
		key, options, _ := strings.Cut(reflect.StructTag(tag).Get("yaml"), ",")
		if key == "" || key == "-" {
			continue
		}
		kind, inner, err := s.kind(f.Type)
		if err != nil {
			return nil, fmt.Errorf("%s.%s: %w", name, f.Names[0], err)
		}
		here := field{goName: f.Names[0].Name, key: key, kind: kind, inner: inner, literal: options == "literal"}
		switch {
		case f.Doc != nil || f.Comment != nil:
			here.comment = strings.TrimSpace(oneLine(f.Doc) + " " + oneLine(f.Comment))
			about, run = here.comment, nil
		default:
			run = append(run, len(out))
			if mentions(about, here.goName) {
				for _, i := range run {
					if i < len(out) {
						out[i].comment = about
					}
				}
				here.comment, run = about, nil
			}
		}
		out = append(out, here)
	}
	for i := range out {
		out[i].comment = s.inKeys(out[i].comment, out)
	}
	return out, nil
}

func mentions(text, name string) bool {
	ok, _ := regexp.MatchString(`(?i)\b`+name+`\b`, text)
	return ok
}

func plural(kind string) string { return strings.Replace(kind, " or ", "s or ", 1) + "s" }

var camel = regexp.MustCompile(`\b[A-Z][A-Za-z0-9]*\b`)

// inKeys writes a comment in the words of a manifest: keys for Go's fields, values for constants.
// A name all in capitals is a word of the trade too, and meant as a key only where it begins.
func (s *source) inKeys(text string, fields []field) string {
	begins, _, _ := strings.Cut(text, " ")
	return camel.ReplaceAllStringFunc(text, func(word string) string {
		if word == strings.ToUpper(word) && word == begins {
			begins = ""
		} else if word == strings.ToUpper(word) {
			return word
		}
		for _, f := range fields {
			if f.goName == word {
				return "`" + f.key + "`"
			}
		}
		for _, c := range s.consts {
			if c.name == word {
				return "`" + c.value + "`"
			}
		}
		if word == "Nil" {
			return "Leaving it out"
		}
		return word
	})
}

// kind is a type in the words of a person who writes YAML; inner is the local struct behind it.
func (s *source) kind(e ast.Expr) (kind, inner string, err error) {
	switch e := e.(type) {
	case *ast.StarExpr:
		return s.kind(e.X)
	case *ast.ArrayType:
		elem, inner, err := s.kind(e.Elt)
		return "list of " + plural(elem), inner, err
	case *ast.MapType:
		elem, inner, err := s.kind(e.Value)
		return "mapping of " + plural(elem), inner, err
	case *ast.SelectorExpr:
		full := fmt.Sprintf("%s.%s", e.X, e.Sel)
		words := map[string]string{"time.Duration": "duration", "step.ID": "step", "facts.Condition": "condition"}
		if words[full] != "" {
			return words[full], "", nil
		}
		pkg, ours := strings.CutPrefix(s.imports[fmt.Sprint(e.X)], module)
		if !ours {
			return "", "", fmt.Errorf("no word for the type %s", full)
		}
		other, err := parse(s.root, pkg)
		if err != nil {
			return "", "", err
		}
		kind, _, err := other.ident(e.Sel.Name) // what is behind it is that package's to tell
		return kind, "", err
	case *ast.Ident:
		return s.ident(e.Name)
	}
	return "", "", fmt.Errorf("no word for the type %T", e)
}

func (s *source) ident(name string) (kind, inner string, err error) {
	switch name {
	case "string":
		return "string", "", nil
	case "bool":
		return "boolean", "", nil
	case "int", "int64":
		return "number", "", nil
	case "Argv": // its DecodeNode takes a string only to refuse it well
		return "list of strings", "", nil
	}
	if s.structs[name] != nil {
		if s.decodes[name] {
			return "string or mapping", name, nil
		}
		return "mapping", name, nil
	}
	under, ok := s.named[name]
	if !ok {
		return "", "", fmt.Errorf("no word for the type %s", name)
	}
	kind, inner, err = s.kind(under)
	if s.decodes[name] && strings.HasPrefix(kind, "list of ") {
		kind = "string or list"
	}
	return kind, inner, err
}

func oneLine(c *ast.CommentGroup) string { return strings.Join(strings.Fields(c.Text()), " ") }
