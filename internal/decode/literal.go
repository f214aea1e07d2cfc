package decode

import (
	"reflect"
	"slices"
	"strings"
)

// Literals are the names of the fields of a struct whose tag says "literal":
// their strings are not templates, as the text of a file that has braces of its own.
func Literals(v any) []string {
	t := reflect.TypeOf(v)
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	var names []string
	for i := range t.NumField() {
		name, opts, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		options := strings.Split(opts, ",")
		switch {
		case slices.Contains(options, "literal"):
			names = append(names, name)
		case slices.Contains(options, "inline"):
			names = append(names, Literals(reflect.Zero(t.Field(i).Type).Interface())...)
		}
	}
	return names
}

// Static tells whether a text holds no template, so that a validator may judge
// it before any fact is known.
func Static(text string) bool { return !strings.Contains(text, "{{") }
