package docstest

import (
	_ "embed"
	"fmt"
	"reflect"
	"strings"
	"text/template"
	"time"

	"github.com/amiagent/amiagent/internal/probe"
	"github.com/amiagent/amiagent/internal/render"
	"github.com/amiagent/amiagent/internal/step"
	"github.com/amiagent/amiagent/internal/step/kinds"
)

// frame is the reference without what the code knows better. Its delimiters are
// << and >>, since it speaks of templates itself.
//
//go:embed manifest.md.tmpl
var frame string

const module = "github.com/amiagent/amiagent/"

// Reference is the text of docs/manifest.md. root is the folder of the module.
func Reference(root string) (string, error) {
	r := reference{root: root}
	t, err := template.New("manifest.md").Delims("<<", ">>").Funcs(template.FuncMap{
		"kinds":     r.kinds,
		"probes":    r.probes,
		"functions": r.functions,
		"fields":    r.fields,
		"words":     r.words,
		"facts":     r.facts,
	}).Parse(frame)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = t.Execute(&b, nil)
	return b.String(), err
}

type reference struct{ root string }

func (r reference) parse(pkg string) (*source, error) { return parse(r.root, pkg) }

// kinds is a section for each kind: what it is, an example, its fields.
func (r reference) kinds() (string, error) {
	var b strings.Builder
	for _, k := range kinds.All() {
		body := reflect.TypeOf(k.New()).Elem()
		s, err := r.parse(strings.TrimPrefix(body.PkgPath(), module))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "### %s\n\n%s\n\n", k.Name, k.Doc)
		if about := s.about(body.Name()); about != "" {
			fmt.Fprintf(&b, "%s\n\n", about)
		}
		fmt.Fprintf(&b, "```yaml\n%s\n```\n\n", strings.TrimSpace(k.Example))
		if err := s.tables(&b, body.Name(), defaults(k), map[string]bool{}); err != nil {
			return "", err
		}
	}
	return strings.TrimSpace(b.String()), nil
}

// about is what a type's comment says beyond that the type is one thing.
func (s *source) about(name string) string {
	_, more, _ := strings.Cut(s.docs[name], ". ")
	fields, _ := s.fields(name)
	return s.inKeys(more, fields)
}

// tables writes a struct's fields, then those of the structs behind them, each once.
func (s *source) tables(b *strings.Builder, name string, defaults map[string]string, seen map[string]bool) error {
	fields, err := s.fields(name)
	if err != nil {
		return err
	}
	table(b, fields, defaults)
	for _, f := range fields {
		if f.inner == "" || seen[f.inner] {
			continue
		}
		seen[f.inner] = true
		inner, err := s.fields(f.inner)
		if err != nil {
			return err
		}
		about := strings.TrimPrefix(s.docs[f.inner], f.inner+" is ")
		fmt.Fprintf(b, "`%s`: %s\n\n", f.key, s.inKeys(about, inner))
		if err := s.tables(b, f.inner, nil, seen); err != nil {
			return err
		}
	}
	return nil
}

// table has one row for each comment: neighbours that share one share a row.
func table(b *strings.Builder, fields []field, defaults map[string]string) {
	b.WriteString("| key | type | |\n|---|---|---|\n")
	for i := 0; i < len(fields); {
		var keys, types []string
		j := i
		for ; j < len(fields) && (j == i || fields[i].comment != "" && fields[j].comment == fields[i].comment); j++ {
			keys = append(keys, "`"+fields[j].key+"`")
			if len(types) == 0 || types[len(types)-1] != fields[j].kind {
				types = append(types, fields[j].kind)
			}
		}
		text := fields[i].comment
		if d := defaults[fields[i].key]; d != "" && !strings.Contains(strings.ToLower(text), "default") {
			text += "; default `" + d + "`"
		}
		if fields[i].literal && !strings.Contains(text, "no template") {
			text += "; no template"
		}
		if text == "" && fields[i].inner != "" {
			text = "see `" + fields[i].key + "` below"
		}
		fmt.Fprintf(b, "| %s | %s | %s |\n", strings.Join(keys, ", "), strings.Join(types, ", "), cell(text, keys))
		i = j
	}
	b.WriteString("\n")
}

// cell is a comment as a table's cell. The key stands beside it and is not said again.
func cell(text string, keys []string) string {
	if len(keys) == 1 {
		if rest, ok := strings.CutPrefix(text, keys[0]+" "); ok {
			text = strings.TrimPrefix(strings.TrimPrefix(rest, "is "), "are ")
		}
	}
	text = strings.ReplaceAll(text, ".; ", "; ")
	if !strings.Contains(text, ". ") {
		text = strings.TrimSuffix(text, ".")
	}
	return strings.ReplaceAll(text, "|", `\|`)
}

// defaults are the values that an empty body has, by key.
func defaults(k step.Kind) map[string]string {
	out := map[string]string{}
	v := reflect.ValueOf(k.New()).Elem()
	for i := range v.NumField() {
		key, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		if key == "" || v.Field(i).IsZero() {
			continue
		}
		if d, ok := v.Field(i).Interface().(time.Duration); ok {
			out[key] = d.String()
		} else {
			out[key] = fmt.Sprint(v.Field(i).Interface())
		}
	}
	return out
}

// probes is a table for each kind of probe.
func (r reference) probes() (string, error) {
	s, err := r.parse("internal/probe")
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, kind := range probe.Kinds() {
		_, about, _ := strings.Cut(s.docs[kind+"Body"], "Body ")
		fmt.Fprintf(&b, "`%s` %s\n\n", kind, about)
		if err := s.tables(&b, kind+"Body", nil, map[string]bool{}); err != nil {
			return "", err
		}
	}
	return strings.TrimSpace(b.String()), nil
}

func (r reference) functions() string {
	var b strings.Builder
	b.WriteString("| function | |\n|---|---|\n")
	for _, f := range render.Functions {
		fmt.Fprintf(&b, "| `%s` | %s |\n", strings.ReplaceAll(f.Usage, "|", `\|`), cell(f.Doc, nil))
	}
	return strings.TrimSpace(b.String())
}

// fields is the table of one struct.
func (r reference) fields(pkg, name string) (string, error) {
	s, err := r.parse(pkg)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = s.tables(&b, name, nil, map[string]bool{})
	return strings.TrimSpace(b.String()), err
}

// words is a list of the constants of a type.
func (r reference) words(pkg, name string) (string, error) {
	s, err := r.parse(pkg)
	if err != nil {
		return "", err
	}
	all := s.words(name)
	if len(all) == 0 {
		return "", fmt.Errorf("%s has no constants of type %s", pkg, name)
	}
	var b strings.Builder
	for _, c := range all {
		fmt.Fprintf(&b, "- `%s`: %s\n", c.value, c.comment)
	}
	return strings.TrimSpace(b.String()), nil
}

// facts is a table of the facts that code names.
func (r reference) facts() (string, error) {
	s, err := r.parse("internal/facts")
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("| fact | |\n|---|---|\n")
	for _, c := range s.consts {
		if c.kind != "" || c.name == "TagPrefix" || c.name == "UserData" || c.name != strings.ToUpper(c.name[:1])+c.name[1:] || c.name == "Format" {
			continue
		}
		fmt.Fprintf(&b, "| `%s` | %s |\n", c.value, cell(c.comment, nil))
	}
	return strings.TrimSpace(b.String()), nil
}
