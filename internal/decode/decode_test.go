package decode_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/amiagent/amiagent/internal/decode"
	"github.com/amiagent/amiagent/internal/diag"
)

type inner struct {
	Kind  string `yaml:"kind"`
	Count int    `yaml:"count"`
}

// either accepts a word or a mapping.
type either struct{ Word, Deep string }

func (e *either) DecodeNode(n *yaml.Node, at diag.At) {
	if n.Kind == yaml.ScalarNode {
		decode.Into(n, &e.Word, at)
		return
	}
	var m struct {
		Deep string `yaml:"deep"`
	}
	decode.Into(n, &m, at)
	e.Deep = m.Deep
}

type even int

func (e *even) UnmarshalText(b []byte) error {
	if _, err := fmt.Sscan(string(b), (*int)(e)); err != nil || *e%2 != 0 {
		return diag.WithHint(fmt.Errorf("%q is not even", b), "double it")
	}
	return nil
}

type shared struct {
	Owner string `yaml:"owner"`
}

type doc struct {
	shared `yaml:",inline"`
	Name   string            `yaml:"name"`
	Mode   string            `yaml:"mode"`
	On     bool              `yaml:"on"`
	Maybe  *bool             `yaml:"maybe"`
	Count  int               `yaml:"count"`
	Small  uint8             `yaml:"small"`
	Ratio  float64           `yaml:"ratio"`
	Wait   time.Duration     `yaml:"wait"`
	List   []string          `yaml:"list"`
	Map    map[string]inner  `yaml:"map"`
	Labels map[string]string `yaml:"labels"`
	Either either            `yaml:"either"`
	Even   even              `yaml:"even"`
	Any    any               `yaml:"any"`
	Text   string            `yaml:"text,literal"`
}

func decodeDoc(t *testing.T, text string) (doc, string) {
	t.Helper()
	var list diag.List
	d := doc{Count: 7}
	if root := decode.Parse("t.yaml", []byte(text), &list); root != nil {
		decode.Into(root, &d, decode.At(&list, "t.yaml", root, ""))
	}
	if err := list.Err(); err != nil {
		return d, err.Error()
	}
	return d, ""
}

func TestEveryShapeDecodes(t *testing.T) {
	got, faults := decodeDoc(t, `
owner: root
name: web
mode: 0644
on: true
maybe: false
small: 255
ratio: 1.5
wait: 1m30s
list: [a, b]
map: {x: {kind: k, count: 3}}
labels: {version: 1.10}
either: {deep: sea}
even: 4
any: {a: [1, two]}
text: "{{ not a template }}"
`)
	if faults != "" {
		t.Fatal(faults)
	}
	no := false
	want := doc{shared: shared{"root"}, Name: "web", Mode: "0644", On: true, Maybe: &no, Count: 7, Small: 255, Ratio: 1.5,
		Wait: 90 * time.Second, List: []string{"a", "b"}, Map: map[string]inner{"x": {"k", 3}},
		Labels: map[string]string{"version": "1.10"}, Either: either{Deep: "sea"}, Even: 4,
		Any: map[string]any{"a": []any{1, "two"}}, Text: "{{ not a template }}"}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(doc{}, shared{})); diff != "" {
		t.Error(diff)
	}
}

func TestEveryFaultIsNamedWithItsPlace(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"unknown keys, all of them", "nmae: x\nmodes: 1\n",
			"t.yaml:1:1: nmae: unknown key, did you mean \"name\"?\nt.yaml:2:1: modes: unknown key, did you mean \"mode\"?"},
		{"a key without a neighbour", "zzzzzzzz: x\n",
			"t.yaml:1:1: zzzzzzzz: unknown key, known are any, count, either, even, labels, list, map, maybe, mode, name, on, owner, ratio, small, text, wait"},
		{"given twice", "name: a\non: true\nname: b\n", "t.yaml:3:1: name: given twice, first on line 1"},
		{"wrong types", "on: perhaps\ncount: many\nlist: x\nname: [a]\nmap: 3\nwait: 5\nsmall: 256\n", strings.Join([]string{
			`t.yaml:1:5: on: must be true or false, is "perhaps"`,
			`t.yaml:2:8: count: must be a number, is "many"`,
			`t.yaml:3:7: list: must be a list, is "x"`,
			`t.yaml:4:7: name: must be a string, is a list`,
			`t.yaml:5:6: map: must be a mapping, is "3"`,
			`t.yaml:6:7: wait: must be a duration such as 30s or 5m, is "5"`,
			`t.yaml:7:8: small: must be a number, is "256"`}, "\n")},
		{"deep inside", "map:\n  x:\n    kind: k\n    cuont: 3\n", `t.yaml:4:5: map.x.cuont: unknown key, did you mean "count"?`},
		{"in a list", "list:\n  - ok\n  - [no]\n", "t.yaml:3:5: list[1]: must be a string, is a list"},
		{"a type's own words and hint", "even: 3\n", "t.yaml:1:7: even: \"3\" is not even\n    hint: double it"},
		{"not YAML", "a: b\n\t- c\n", "t.yaml:2: not YAML: found a tab character that violates indentation\n    hint: indent with spaces; quote a value that starts with a special character"},
		{"two documents", "name: a\n---\nname: b\n", "t.yaml:2:1: a second document in one file\n    hint: write it as a file of its own"},
		{"not a mapping", "- a\n", "t.yaml:1:1: must be a mapping, is a list"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, got := decodeDoc(t, c.text); got != c.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, c.want)
			}
		})
	}
}

func TestTemplateTextIsLeftForLater(t *testing.T) {
	d, faults := decodeDoc(t, `{name: "{{ .Vars.x }}", count: "{{ .Vars.n }}", even: "{{ 3 }}", wait: "{{ .Vars.w }}"}`)
	if faults != "" || d.Name != "{{ .Vars.x }}" || d.Count != 7 {
		t.Errorf("%+v %s", d, faults)
	}
}

func TestEmptyAndNullDocumentsAreEmptyMappings(t *testing.T) {
	for _, text := range []string{"", "# only a comment\n", "~\n"} {
		if d, faults := decodeDoc(t, text); faults != "" || d.Count != 7 {
			t.Errorf("%q: %s", text, faults)
		}
	}
}

func TestAliasesDecodeButDoNotMultiply(t *testing.T) {
	d, faults := decodeDoc(t, "labels: &l {a: b}\nany: *l\n")
	if faults != "" || d.Any.(map[string]any)["a"] != "b" {
		t.Error(d.Any, faults)
	}
	bomb := "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
	for i := 1; i < 9; i++ {
		bomb += fmt.Sprintf("a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 10), ","))
	}
	if _, faults := decodeDoc(t, bomb); !strings.Contains(faults, "more than 200000 values") {
		t.Error(faults)
	}
}

func TestNearest(t *testing.T) {
	for _, c := range []struct{ word, want string }{{"pacakges", "packages"}, {"file", "files"}, {"Files", "files"}, {"xyzzy", ""}} {
		if got := decode.Nearest(c.word, []string{"packages", "files", "units"}); got != c.want {
			t.Errorf("Nearest(%q) = %q, want %q", c.word, got, c.want)
		}
	}
}

func TestLiterals(t *testing.T) {
	if diff := cmp.Diff([]string{"text"}, decode.Literals(&doc{})); diff != "" {
		t.Error(diff)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("name: x\nmap: {a: {kind: b}}\n")
	f.Add("a: &a [*a]\n")
	f.Add("? [a]\n: b\n")
	f.Fuzz(func(t *testing.T, text string) {
		var list diag.List
		if root := decode.Parse("f", []byte(text), &list); root != nil {
			var d doc
			decode.Into(root, &d, decode.At(&list, "f", root, ""))
		}
		_ = list.Err()
	})
}
