package docstest

import (
	"flag"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/step"
	"github.com/amiagent/amiagent/internal/step/kinds"
)

var update = flag.Bool("update", false, "write docs/manifest.md")

const root = "../.."

func TestTheReferenceIsCurrent(t *testing.T) {
	want, err := Reference(root)
	if err != nil {
		t.Fatal(err)
	}
	const file = root + "/docs/manifest.md"
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil || string(have) != want {
		t.Errorf("docs/manifest.md is not what the code says; run: go generate ./internal/docstest (%v)", err)
	}
}

func TestEveryKindAndFieldIsInTheReference(t *testing.T) {
	text, err := Reference(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range kinds.All() {
		_, section, ok := strings.Cut(text, "\n### "+k.Name+"\n")
		if !ok {
			t.Errorf("kind %s is not in the reference", k.Name)
			continue
		}
		section, _, _ = strings.Cut(section, "\n### ")
		for _, key := range keys(t, k) {
			if !strings.Contains(section, "`"+key+"`") {
				t.Errorf("%s: %s is not in the reference", k.Name, key)
			}
		}
	}
	if left := regexp.MustCompile(`(?m)^.*(<<|>>|%!|\bNil\b|\bnil\b).*$`).FindAllString(text, -1); left != nil {
		t.Errorf("it speaks of the code: %q", left)
	}
}

// keys are the keys of a kind's body as its decoder knows them.
func keys(t *testing.T, k step.Kind) []string {
	t.Helper()
	var out []string
	body := reflect.TypeOf(k.New()).Elem()
	for i := range body.NumField() {
		if key, _, _ := strings.Cut(body.Field(i).Tag.Get("yaml"), ","); key != "" {
			out = append(out, key)
		}
	}
	if len(out) == 0 {
		t.Fatalf("kind %s has no keys", k.Name)
	}
	return out
}
