// Package decode turns YAML nodes into Go structs, strictly.
//
// Strict means: an unknown key, a key given twice, a value of the wrong type
// is a fault, all faults are collected, and each carries file, line and column.
// Libraries stop at the first fault, or silently drop misspelt keys when they
// decode from a node; that is why this package exists.
//
// Fields are matched by their `yaml` tag. Scalars decode by the type of the
// field, so `mode: 0644` into a string keeps its text, as does `version: 1.10`.
package decode

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/amiagent/amiagent/internal/diag"
)

// NodeDecoder is implemented by fields that accept more than one shape, as a
// string or a mapping. Faults go to at; there is no other result.
type NodeDecoder interface {
	DecodeNode(n *yaml.Node, at diag.At)
}

// maxNodes bounds a document after its aliases are followed, so that a few
// lines of nested aliases cannot fill the memory.
const maxNodes = 200_000

// Parse reads one YAML document. Syntax errors are faults with their line.
// An empty document gives an empty mapping. A second document is a fault.
func Parse(file string, data []byte, list *diag.List) *yaml.Node {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: 1, Column: 1}
		}
		list.Add(syntax(file, err))
		return nil
	}
	if err := dec.Decode(&second); err == nil {
		list.Add(diag.Problem{Pos: diag.Pos{File: file, Line: second.Line, Col: second.Column},
			Message: "a second document in one file", Hint: "write it as a file of its own"})
		return nil
	} else if !errors.Is(err, io.EOF) {
		list.Add(syntax(file, err))
		return nil
	}
	root := doc.Content[0]
	budget := maxNodes
	if !within(root, &budget) {
		list.Add(diag.Problem{Pos: diag.Pos{File: file, Line: 1, Col: 1},
			Message: fmt.Sprintf("the document has more than %d values once its aliases are followed", maxNodes)})
		return nil
	}
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: root.Line, Column: root.Column}
	}
	return root
}

func within(n *yaml.Node, budget *int) bool {
	if *budget--; *budget < 0 {
		return false
	}
	if n.Kind == yaml.AliasNode {
		return within(n.Alias, budget)
	}
	for _, c := range n.Content {
		if !within(c, budget) {
			return false
		}
	}
	return true
}

var lineInError = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

func syntax(file string, err error) diag.Problem {
	p := diag.Problem{Pos: diag.Pos{File: file}, Message: "not YAML: " + err.Error()}
	if m := lineInError.FindStringSubmatch(err.Error()); m != nil {
		p.Line, _ = strconv.Atoi(m[1])
		p.Message = "not YAML: " + m[2]
		if strings.Contains(m[2], "tab character") || strings.Contains(m[2], "cannot start any token") {
			p.Hint = "indent with spaces; quote a value that starts with a special character"
		}
	}
	return p
}

// place finds positions inside a node tree.
type place struct {
	file string
	node *yaml.Node
}

func (p place) Pos() diag.Pos {
	return diag.Pos{File: p.file, Line: p.node.Line, Col: p.node.Column}
}

func (p place) Part(name string) diag.Place {
	n := resolve(p.node)
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == name {
				return place{p.file, n.Content[i+1]}
			}
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(n.Content) {
			return place{p.file, n.Content[i]}
		}
	}
	return p
}

// At stands at a node, for faults below it.
func At(list *diag.List, file string, n *yaml.Node, field string) diag.At {
	return diag.NewAt(list, place{file, n}, field)
}

// Pairs gives a mapping's keys and values in order; a key given twice is a
// fault and its second value is left out. A null node has no pairs.
func Pairs(n *yaml.Node, at diag.At) (keys, values []*yaml.Node) {
	n = resolve(n)
	if null(n) {
		return nil, nil
	}
	if n.Kind != yaml.MappingNode {
		at.Errorf("must be a mapping, is %s", describe(n))
		return nil, nil
	}
	seen := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if first, ok := seen[k.Value]; ok {
			keyAt(at, k).Errorf("given twice, first on line %d", first.Line)
			continue
		}
		seen[k.Value] = k
		keys, values = append(keys, k), append(values, v)
	}
	return keys, values
}

// keyAt stands on a key rather than on its value.
func keyAt(at diag.At, k *yaml.Node) diag.At {
	return diag.Onto(at, place{at.Pos().File, k}, k.Value)
}

// UnknownKey records that k is no key here, naming the nearest known one.
func UnknownKey(at diag.At, k *yaml.Node, known []string) {
	if near := Nearest(k.Value, known); near != "" {
		keyAt(at, k).Errorf("unknown key, did you mean %q?", near)
		return
	}
	slices.Sort(known)
	keyAt(at, k).Errorf("unknown key, known are %s", strings.Join(known, ", "))
}

func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// null is a value that is not given. A rendered template has no tag: one that
// came out empty is an empty text, not a field left out.
func null(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Tag != "" && n.ShortTag() == "!!null"
}

// IsTemplate tells whether a scalar still holds template text.
func IsTemplate(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && strings.Contains(n.Value, "{{")
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	return strconv.Quote(n.Value)
}

var (
	durationType    = reflect.TypeFor[time.Duration]()
	nodeDecoderType = reflect.TypeFor[NodeDecoder]()
	textType        = reflect.TypeFor[encoding.TextUnmarshaler]()
	nodeType        = reflect.TypeFor[*yaml.Node]()
)

// Into decodes n into the struct, map or slice that v points to. Fields that
// are absent keep their value, so defaults are set before. A scalar that still
// holds template text is left alone where the field is not a string: that is
// how a manifest is validated before any fact is known.
func Into(n *yaml.Node, v any, at diag.At) {
	value(n, reflect.ValueOf(v).Elem(), at)
}

func value(n *yaml.Node, v reflect.Value, at diag.At) {
	n = resolve(n)
	t := v.Type()
	if t == nodeType {
		v.Set(reflect.ValueOf(n))
		return
	}
	if null(n) {
		return
	}
	if reflect.PointerTo(t).Implements(nodeDecoderType) {
		v.Addr().Interface().(NodeDecoder).DecodeNode(n, at)
		return
	}
	if reflect.PointerTo(t).Implements(textType) {
		if n.Kind != yaml.ScalarNode {
			at.Errorf("must be a string, is %s", describe(n))
		} else if !IsTemplate(n) {
			if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(n.Value)); err != nil {
				at.Err(err)
			}
		}
		return
	}
	switch t.Kind() {
	case reflect.Pointer:
		p := reflect.New(t.Elem())
		value(n, p.Elem(), at)
		v.Set(p)
	case reflect.Struct:
		structure(n, v, at)
	case reflect.Map:
		mapping(n, v, at)
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			at.Errorf("must be a list, is %s", describe(n))
			return
		}
		s := reflect.MakeSlice(t, len(n.Content), len(n.Content))
		for i, c := range n.Content {
			value(c, s.Index(i), at.Index(i))
		}
		v.Set(s)
	case reflect.Interface:
		var x any
		if err := n.Decode(&x); err != nil {
			at.Errorf("cannot be read: %s", strings.TrimPrefix(err.Error(), "yaml: "))
			return
		}
		if x != nil {
			v.Set(reflect.ValueOf(x))
		}
	default:
		scalar(n, v, at)
	}
}

func structure(n *yaml.Node, v reflect.Value, at diag.At) {
	fields := map[string]reflect.Value{}
	collect(v, fields)
	keys, values := Pairs(n, at)
	for i, k := range keys {
		f, ok := fields[k.Value]
		if !ok {
			known := make([]string, 0, len(fields))
			for name := range fields {
				known = append(known, name)
			}
			UnknownKey(at, k, known)
			continue
		}
		value(values[i], f, at.Field(k.Value))
	}
}

func collect(v reflect.Value, into map[string]reflect.Value) {
	t := v.Type()
	for i := range t.NumField() {
		f := t.Field(i)
		name, opts, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case opts == "inline":
			collect(v.Field(i), into)
		case f.IsExported() && name != "" && name != "-":
			into[name] = v.Field(i)
		}
	}
}

func mapping(n *yaml.Node, v reflect.Value, at diag.At) {
	t := v.Type()
	m := reflect.MakeMap(t)
	keys, values := Pairs(n, at)
	for i, k := range keys {
		key, val := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
		value(k, key, keyAt(at, k))
		value(values[i], val, at.Field(k.Value))
		m.SetMapIndex(key, val)
	}
	v.Set(m)
}

func scalar(n *yaml.Node, v reflect.Value, at diag.At) {
	want := map[reflect.Kind]string{reflect.String: "a string", reflect.Bool: "true or false"}[v.Kind()]
	if v.Type() == durationType {
		want = "a duration such as 30s or 5m"
	} else if want == "" {
		want = "a number"
	}
	if n.Kind != yaml.ScalarNode {
		at.Errorf("must be %s, is %s", want, describe(n))
		return
	}
	if v.Kind() == reflect.String {
		v.SetString(n.Value)
		return
	}
	if IsTemplate(n) {
		return
	}
	var err error
	switch {
	case v.Type() == durationType:
		var d time.Duration
		if d, err = time.ParseDuration(n.Value); err == nil {
			v.SetInt(int64(d))
		}
	case v.Kind() == reflect.Bool:
		var b bool
		if err = n.Decode(&b); err == nil {
			v.SetBool(b)
		}
	case v.CanInt():
		var i int64
		if i, err = strconv.ParseInt(n.Value, 0, v.Type().Bits()); err == nil {
			v.SetInt(i)
		}
	case v.CanUint():
		var i uint64
		if i, err = strconv.ParseUint(n.Value, 0, v.Type().Bits()); err == nil {
			v.SetUint(i)
		}
	case v.CanFloat():
		var f float64
		if f, err = strconv.ParseFloat(n.Value, v.Type().Bits()); err == nil {
			v.SetFloat(f)
		}
	default:
		panic("decode: field of type " + v.Type().String())
	}
	if err != nil {
		at.Errorf("must be %s, is %q", want, n.Value)
	}
}

// Nearest is the known word that a misspelt one most likely means, or "".
func Nearest(word string, known []string) string {
	best, limit := "", max(1, len(word)/3)+1
	for _, k := range known {
		if d := distance(strings.ToLower(word), strings.ToLower(k)); d < limit || d == limit && best != "" && k < best {
			best, limit = k, d
		}
	}
	return best
}

// distance counts the insertions, deletions, changes and swaps of neighbours
// between two short words (optimal string alignment).
func distance(a, b string) int {
	var before, last []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before, last, row = last, row, make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			row[j+1] = last[j]
			if a[i] != b[j] {
				row[j+1] = 1 + min(last[j], last[j+1], row[j])
				if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
					row[j+1] = min(row[j+1], before[j-1]+1)
				}
			}
		}
	}
	return row[len(b)]
}
