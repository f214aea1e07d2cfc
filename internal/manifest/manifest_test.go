package manifest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/manifest"
)

var sections = []string{"files", "units", "ready", "pin"}

func parse(t *testing.T, text string) (*manifest.Manifest, string) {
	t.Helper()
	var list diag.List
	m := manifest.Parse("m.yaml", []byte(text), sections, &list)
	if err := list.Err(); err != nil {
		return m, err.Error()
	}
	return m, ""
}

// outline tells a manifest in one line an entry.
func outline(m *manifest.Manifest) string {
	var b strings.Builder
	fmt.Fprintf(&b, "name=%s\n", m.Name)
	for _, e := range m.Entries {
		var body []string
		for i := 0; i < len(e.Body.Content); i += 2 {
			body = append(body, e.Body.Content[i].Value+"="+e.Body.Content[i+1].Value)
		}
		fmt.Fprintf(&b, "%d %s {%s} needs=%v on-failure=%s %s\n", e.Order, e.ID(), strings.Join(body, " "), e.Needs, e.OnFailure, e.Pos)
	}
	return b.String()
}

func TestEntriesKeepTheirCommonKeysApartFromTheirBody(t *testing.T) {
	m, faults := parse(t, `amiagent: 1
name: web
files:
  /a: {content: x, needs: [units.b], on-failure: continue, when: {arch: arm64}}
  /b:
units:
  b: {bake: fetch}
`)
	want := `name=web
0 files./a {content=x} needs=[units.b] on-failure=continue m.yaml:4:3
1 files./b {} needs=[] on-failure= m.yaml:5:3
2 units.b {} needs=[] on-failure= m.yaml:7:3
`
	if got := outline(m); faults != "" || got != want {
		t.Errorf("%s\ngot:\n%s\nwant:\n%s", faults, got, want)
	}
	if m.Entries[0].When == nil || m.BakeOf(m.Entries[2], manifest.BakeNone) != manifest.BakeFetch {
		t.Error("when or bake was lost")
	}
}

// The section pin holds one body. It is an entry as all others, with its keys at their places.
func TestThePinIsOneEntry(t *testing.T) {
	m, faults := parse(t, `amiagent: 1
pin: {release: image, when: {os: amzn}}
files:
  /a:
`)
	want := `name=
0 pin.release {release=image} needs=[] on-failure= m.yaml:2:1
1 files./a {} needs=[] on-failure= m.yaml:4:3
`
	if got := outline(m); faults != "" || got != want {
		t.Errorf("%s\ngot:\n%s\nwant:\n%s", faults, got, want)
	}
	if m.Entries[0].When == nil {
		t.Error("when was lost")
	}
	var list diag.List
	m.Entries[0].At(&list).Field("release").Errorf("is odd")
	if got := list.Err().Error(); got != "m.yaml:2:16: pin.release: is odd" {
		t.Error(got)
	}
	over, _ := parse(t, "amiagent: 1\npin: {release: latest}\n")
	if got := outline(manifest.Merge(m, over)); got != strings.Replace(want, "release=image", "release=latest", 1) {
		t.Error(got)
	}
	if _, faults := parse(t, "amiagent: 1\npin: image\n"); faults != `m.yaml:2:6: pin: must be a mapping, is "image"` {
		t.Error(faults)
	}
}

func TestEveryFaultOfTheFrame(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"no version", "files: {}\n", "m.yaml:1:1: no manifest version\n    hint: begin the file with the line: amiagent: 1"},
		{"a version of the future", "amiagent: 2\n", "m.yaml:1:11: amiagent: manifest version 2 is not known, this agent reads version 1\n    hint: give the image a newer agent, or write the manifest for version 1"},
		{"a version that is none", "amiagent: x\n", `m.yaml:1:11: amiagent: must be a number, is "x"`},
		{"an unknown section", "amiagent: 1\nfilse: {}\n", `m.yaml:2:1: filse: unknown key, did you mean "files"?`},
		{"a duplicate name", "amiagent: 1\nfiles:\n  /a: {}\n  /a: {}\n", "m.yaml:4:3: files./a: given twice, first on line 3"},
		{"a section of the wrong shape", "amiagent: 1\nfiles: [a]\n", "m.yaml:2:8: files: must be a mapping, is a list"},
		{"an entry of the wrong shape", "amiagent: 1\nfiles: {/a: 3}\n", `m.yaml:2:13: files./a: must be a mapping, is "3"`},
		{"an unknown word", "amiagent: 1\nfiles: {/a: {on-failure: panic}}\n", `m.yaml:2:26: files./a.on-failure: must be one of fail, continue, retry, is "panic"`},
		{"a bake level", "amiagent: 1\nbake: {packages: much}\n", `m.yaml:2:18: bake.packages: must be one of none, fetch, install, all, is "much"`},
		{"several at once", "amiagent: 3\nfilse: {}\nunits: {b: {needs: x}}\n", `m.yaml:1:11: amiagent: manifest version 3 is not known, this agent reads version 1
    hint: give the image a newer agent, or write the manifest for version 1
m.yaml:2:1: filse: unknown key, did you mean "files"?
m.yaml:3:20: units.b.needs: must be a list, is "x"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, got := parse(t, c.text); got != c.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, c.want)
			}
		})
	}
	if _, got := parse(t, strings.Repeat("#", manifest.MaxBytes+1)); !strings.Contains(got, "more than the 4194304 allowed") {
		t.Error(got)
	}
}

func TestLaterLayersReplaceWholeEntries(t *testing.T) {
	base, _ := parse(t, "amiagent: 1\nname: base\nvars: {a: 1, b: 2}\nbake: install\nfiles:\n  /a: {content: old, mode: '0600'}\n  /b: {content: b}\n")
	over, _ := parse(t, "amiagent: 1\nvars: {b: 3}\nbake: {files: none}\nfiles:\n  /c: {content: c}\n  /a: {content: new}\n")
	m := manifest.Merge(base, over)
	want := `name=base
0 files./a {content=new} needs=[] on-failure= m.yaml:6:3
1 files./b {content=b} needs=[] on-failure= m.yaml:7:3
2 files./c {content=c} needs=[] on-failure= m.yaml:5:3
`
	if got := outline(m); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if m.Vars["a"].Node.Value != "1" || m.Vars["b"].Node.Value != "3" {
		t.Error("vars do not merge by name")
	}
	if m.BakeOf(m.Entries[0], manifest.BakeAll) != manifest.BakeNone || m.Bake.All != manifest.BakeInstall {
		t.Errorf("bake is %+v", m.Bake)
	}
	if base.Entries[0].Body.Content[1].Value != "old" {
		t.Error("merging changed a layer")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("amiagent: 1\nfiles: {/a: {needs: [x]}}\nvars: {a: *b}\n")
	f.Add("amiagent: 1\nfiles: &x\n  /a: *x\n")
	f.Fuzz(func(t *testing.T, text string) {
		var list diag.List
		m := manifest.Parse("f", []byte(text), sections, &list)
		if m == nil && list.Err() == nil {
			t.Error("nothing was read and nothing was said")
		}
	})
}
