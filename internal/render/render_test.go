package render_test

import (
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/amiagent/amiagent/internal/decode"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/render"
)

func machine() *facts.Facts {
	f := facts.New()
	f.Set(facts.Arch, "arm64", facts.Bake, "kernel")
	f.Set(facts.OSID, "amzn", facts.Bake, "os-release")
	f.Set(facts.Region, "eu-west-1", facts.Launch, "imds")
	f.Set("tags.Role", "web", facts.Launch, "imds")
	f.Set("tags.Empty", "", facts.Launch, "imds")
	f.Tags = facts.Tags{State: facts.TagsPresent, Source: "imds"}
	return f
}

func fill(t *testing.T, text string) (string, []render.Read, error) {
	t.Helper()
	s := render.New(machine(), func(name string) (string, bool) { return "/root", name == "HOME" })
	var list diag.List
	var n yaml.Node
	_ = n.Encode(map[string]any{"version": "1.2", "ports": []int{80, 443}})
	s.SetVar("app", n.Content[3], decode.At(&list, "v", n.Content[3], ""))
	s.SetVar("ports", n.Content[1], decode.At(&list, "v", n.Content[1], ""))
	_ = n.Encode(`{{ tag "Role" }}-{{ .Region }}`)
	s.SetVar("derived", &n, decode.At(&list, "v", &n, ""))
	if err := list.Err(); err != nil {
		t.Fatal(err)
	}
	return s.String(text, diag.Pos{File: "t", Line: 3})
}

func TestTemplatesRender(t *testing.T) {
	for text, want := range map[string]string{
		"plain { text }":                                        "plain { text }",
		"{{ .Arch }}/{{ .OS }}/{{ .Region }}":                   "arm64/amzn/eu-west-1",
		"{{ .Vars.app }} {{ .Vars.derived }}":                   "1.2 web-eu-west-1",
		"{{ range .Vars.ports }}{{ . }} {{ end }}":              "80 443 ",
		`{{ tag "Role" }} {{ tag "X" "default" }}`:              "web default",
		`{{ tag "Empty" "default" }}`:                           "",
		`{{ fact "region" }} {{ fact "x" "y" }}`:                "eu-west-1 y",
		`{{ env "HOME" }} {{ env "NONE" "-" }}`:                 "/root -",
		`{{ "a,b" | split "," | join "+" }}`:                    "a+b",
		`{{ join "," .Vars.ports }}`:                            "80,443",
		`{{ "Abc" | lower }}{{ "Abc" | upper }}`:                "abcABC",
		`{{ "a-b" | replace "-" "_" }}`:                         "a_b",
		`{{ "x" | b64 | unb64 }}`:                               "x",
		`{{ json .Vars.ports }}`:                                "[80,443]",
		`{{ yaml .Vars.ports }}`:                                "- 80\n- 443",
		`{{ quote "a\"b" }}`:                                    `"a\"b"`,
		`{{ "a\nb" | indent 2 }}`:                               "a\n  b",
		`{{ required "no" "yes" }}`:                             "yes",
		`{{ if hasPrefix "a" "abc" }}{{ trim " x " }}{{ end }}`: "x",
		`{{ secret "ssm:/db" }}`:                                "«ssm:/db»",
	} {
		if got, _, err := fill(t, text); err != nil || got != want {
			t.Errorf("%s = %q, %v, want %q", text, got, err, want)
		}
	}
}

func TestWhatIsMissingIsAFaultThatNamesIt(t *testing.T) {
	for text, want := range map[string][2]string{
		`{{ tag "Roel" }}`:            {`the instance has no tag "Roel"`, `did you mean the tag "Role"?`},
		`{{ tag "Zone9" }}`:           {`the instance has no tag "Zone9"`, `{{ tag "Zone9" "VALUE" }}`},
		`{{ tag "X" | printf }}`:      {`the instance has no tag "X"`, ""},
		`{{ .Zone }}`:                 {"the fact zone is not known on this machine", "--fact zone=VALUE"},
		`{{ .Vars.nope }}`:            {`there is no variable "nope"`, "add it under vars:"},
		`{{ fact "regoin" }}`:         {"the fact regoin is not known on this machine", "did you mean region?"},
		`{{ env "NONE" }}`:            {"the agent's environment has no NONE", "drop-in"},
		`{{ required "say who" "" }}`: {"say who", ""},
		`{{ secret "/db" }}`:          {`"/db" names no secret`, "ssm:/path"},
		`{{ unb64 "%" }}`:             {"unb64: the text is not base64", ""},
		`{{ tga "x" }}`:               {`template: function "tga" not defined`, "did you mean tag?"},
		`{{ tag Role }}`:              {`template: function "Role" not defined`, `a text stands in quotes: {{ tag "Role" }}`},
		`{{ if }}`:                    {"template: missing value for if", ""},
		`{{ tag }}`:                   {"template: <tag>: wrong number of args for tag", ""},
	} {
		_, _, err := fill(t, text)
		if err == nil || !strings.HasPrefix(err.Error(), want[0]) || !strings.Contains(diag.Hint(err), want[1]) {
			t.Errorf("%s: %v (hint %q), want %q", text, err, diag.Hint(err), want)
		}
	}
}

func TestAMissingTagCarriesTheRemedyForUnreadableTags(t *testing.T) {
	f := facts.New()
	f.Tags = facts.Tags{State: facts.TagsDisabled, Hint: "aws ec2 modify-instance-metadata-options ..."}
	_, _, err := render.New(f, nil).String(`{{ tag "Role" }}`, diag.Pos{})
	if err == nil || err.Error() != `the instance has no tag "Role"; its tags are not readable: disabled in IMDS` || diag.Hint(err) != f.Tags.Hint {
		t.Errorf("%v, hint %q", err, diag.Hint(err))
	}
}

func TestADefaultIsForAMissingTagNotForOneThatCouldNotBeRead(t *testing.T) {
	for state, want := range map[facts.TagState]bool{
		facts.TagsPresent: true, facts.TagsEmpty: true, facts.TagsDisabled: true, facts.TagsNotYet: true, facts.TagsNoIMDS: true,
		facts.TagsDenied: false, facts.TagsThrottled: false,
	} {
		f := facts.New()
		f.Tags = facts.Tags{State: state, Hint: "the remedy"}
		out, _, err := render.New(f, nil).String(`{{ tag "Role" "web" }}`, diag.Pos{})
		if (err == nil) != want || want && out != "web" {
			t.Errorf("%s: %q, %v", state, out, err)
		}
	}
}

func TestReadsAreRecordedWithStageAndPlace(t *testing.T) {
	_, reads, err := fill(t, `{{ .Arch }} {{ if eq .OS "x" }}{{ .Region }}{{ end }} {{ tag "Role" }} {{ .Vars.derived }} {{ $.Vars.app }}`)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range reads {
		got = append(got, r.What+" "+r.Stage.String())
	}
	slices.Sort(got)
	want := "fact arch bake, fact os.id bake, fact region launch, fact region launch, tag Role launch, tag Role launch"
	if s := strings.Join(got, ", "); s != want {
		t.Errorf("reads are %s\nwant      %s", s, want)
	}
	if reads[0].Pos.Line != 3 {
		t.Errorf("read at %v", reads[0].Pos)
	}
}

func TestUserDataIsNoFactForTemplates(t *testing.T) {
	f := machine()
	f.Values[facts.UserData] = facts.Fact{Value: "password", Secret: true}
	if out, _, err := render.New(f, nil).String(`{{ fact "user-data" }}`, diag.Pos{}); err == nil {
		t.Errorf("a secret fact renders to %q", out)
	}
}

func TestSecretsFillInOnceKnown(t *testing.T) {
	s := render.New(machine(), nil)
	text := `url = {{ secret "ssm:/db" | b64 }}`
	if _, _, err := s.String(text, diag.Pos{}); err != nil || !slices.Equal(s.Secrets(), []string{"ssm:/db"}) {
		t.Fatal(err, s.Secrets())
	}
	s.SetSecrets(map[string]string{"ssm:/db": "pw"})
	if out, _, _ := s.String(text, diag.Pos{}); out != "url = cHc=" {
		t.Errorf("%q", out)
	}
	s.SetSecrets(map[string]string{})
	if _, _, err := s.String(text, diag.Pos{}); err == nil || err.Error() != "the secret ssm:/db could not be read" {
		t.Error(err)
	}
}

func node(t *testing.T, text string) (*yaml.Node, diag.At, *diag.List) {
	t.Helper()
	var list diag.List
	n := decode.Parse("m.yaml", []byte(text), &list)
	if err := list.Err(); err != nil {
		t.Fatal(err)
	}
	l := &diag.List{}
	return n, decode.At(l, "m.yaml", n, ""), l
}

func TestOnlyDecodedStringsAreTemplates(t *testing.T) {
	n, at, list := node(t, "name: \"{{ .Arch }}\"\ncount: \"{{ 2 }}\"\nlist: [\"{{ .OS }}\", x]\nraw: \"{{ .Nope }}\"\n")
	out, _ := render.New(machine(), nil).Node(n, at, "raw")
	var d struct {
		Name  string   `yaml:"name"`
		Count int      `yaml:"count"`
		List  []string `yaml:"list"`
		Raw   string   `yaml:"raw"`
	}
	decode.Into(out, &d, at)
	if err := list.Err(); err != nil {
		t.Fatal(err)
	}
	if d.Name != "arm64" || d.Count != 2 || d.List[0] != "amzn" || d.Raw != "{{ .Nope }}" {
		t.Errorf("%+v", d)
	}
	if n.Content[1].Value != "{{ .Arch }}" {
		t.Error("the document itself was changed")
	}
}

// A value cannot break out of its place: what a tag says never becomes YAML.
func TestAValueCannotAddKeys(t *testing.T) {
	f := machine()
	f.Set("tags.Evil", "x\nowner: root\n# {{ .Region }}", facts.Launch, "imds")
	n, at, _ := node(t, `content: '{{ tag "Evil" }}'`)
	out, _ := render.New(f, nil).Node(n, at)
	if len(out.Content) != 2 || out.Content[1].Value != "x\nowner: root\n# {{ .Region }}" {
		t.Errorf("%+v", out.Content[1])
	}
}

func TestFaultsStandAtTheirString(t *testing.T) {
	n, at, list := node(t, "a: ok\nlist:\n  - fine\n  - '{{ tag \"Nope\" }}'\n")
	render.New(machine(), nil).Node(n, at)
	if err := list.Err(); err == nil || !strings.HasPrefix(err.Error(), `m.yaml:4:5: list[1]: the instance has no tag "Nope"`) {
		t.Error(err)
	}
}

func TestValidateWithoutFacts(t *testing.T) {
	for text, want := range map[string]string{
		`a: '{{ .Regoin }}'`:                           "m.yaml:1:4: a: unknown name .Regoin, did you mean .Region?",
		`a: '{{ .Region }} {{ tag "any" }}'`:           "",
		`a: '{{ tga "x" }}'`:                           `m.yaml:1:4: a: template: function "tga" not defined`,
		`a: '{{ range .Vars.x }}{{ .Name }}{{ end }}'`: "",
	} {
		n, at, list := node(t, text)
		render.Validate(n, at)
		err := list.Err()
		if (want == "") != (err == nil) || err != nil && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

func TestEveryFunctionIsDocumented(t *testing.T) {
	for _, f := range render.Functions {
		if _, _, err := fill(t, "{{ "+f.Name+" }}"); err != nil && strings.Contains(err.Error(), "not defined") {
			t.Errorf("%s is documented and does not exist", f.Name)
		}
	}
}

func TestOutputIsBounded(t *testing.T) {
	s := render.New(machine(), nil)
	_, _, err := s.String(`{{ define "x" }}{{ printf "%01000000d" 0 }}{{ end }}{{ template "x" }}{{ template "x" }}{{ template "x" }}{{ template "x" }}{{ template "x" }}`, diag.Pos{})
	if err == nil || !strings.Contains(err.Error(), "makes more than") {
		t.Error(err)
	}
}
