package steptest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/amiagent/amiagent/internal/decode"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/manifest"
	"github.com/amiagent/amiagent/internal/step"
)

// Fault is a body, and all that is wrong with it.
type Fault struct {
	Name  string
	Entry string // the entry's name; default "example"
	Body  string
	// Want is every fault and hint as a person sees them, indentation aside:
	// "manifest.yaml:1:7: files./etc/motd.mode: ...", then "hint: ...". ""
	// means that nothing is wrong.
	Want string
}

// Faults proves that each body has exactly its faults.
func Faults(t *testing.T, kind step.Kind, faults []Fault) {
	for _, f := range faults {
		t.Run(f.Name, func(t *testing.T) {
			c := Case{Entry: f.Entry}
			got := ""
			if _, err := Decode(kind, c.entry(), strings.TrimPrefix(f.Body, "\n")); err != nil {
				got = err.Error()
			}
			if want := trim(f.Want); trim(got) != want {
				t.Errorf("faults are:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

// common are the keys that every entry may have, whatever its kind.
var common = []string{"when", "needs", "on-failure", "bake"}

// example proves that the kind's example is a manifest with the kind's section
// in it, each entry without a fault while no fact is known.
func example(kind step.Kind) error {
	var list diag.List
	root := decode.Parse("example.yaml", []byte(kind.Example), &list)
	if root == nil {
		return list.Err()
	}
	if kind.Doc == "" {
		return errors.New("the kind has no Doc")
	}
	at := decode.At(&list, "example.yaml", root, "")
	section, version := (*yaml.Node)(nil), false
	keys, values := decode.Pairs(root, at)
	for i, k := range keys {
		version = version || k.Value == "amiagent"
		if k.Value == kind.Name {
			section = values[i]
		}
	}
	if section == nil || !version {
		return fmt.Errorf("the example needs the keys amiagent and %s", kind.Name)
	}
	names, bodies := decode.Pairs(section, at.Field(kind.Name))
	if kind.Name == manifest.PinSection { // one body, no named entries
		names, bodies = []*yaml.Node{{Value: "release"}}, []*yaml.Node{section}
	}
	if len(names) == 0 {
		return fmt.Errorf("the example's section %s is empty", kind.Name)
	}
	for i, name := range names {
		at := decode.At(&list, "example.yaml", bodies[i], kind.Name+"."+name.Value)
		st := kind.New()
		decode.Into(own(bodies[i]), st, at)
		if named, ok := st.(step.Named); ok {
			named.SetName(name.Value)
		}
		st.Validate(at)
	}
	return list.Err()
}

// own is a body without the keys that every entry may have.
func own(body *yaml.Node) *yaml.Node {
	if body.Kind != yaml.MappingNode {
		return body
	}
	n := *body
	n.Content = nil
	for i := 0; i+1 < len(body.Content); i += 2 {
		if !slices.Contains(common, body.Content[i].Value) {
			n.Content = append(n.Content, body.Content[i], body.Content[i+1])
		}
	}
	return &n
}
