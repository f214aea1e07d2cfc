package render

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/template"

	"go.yaml.in/yaml/v3"

	"github.com/amiagent/amiagent/internal/decode"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
)

// Function documents one template function, for the reference.
type Function struct{ Name, Usage, Doc string }

// Functions are all functions beyond Go's own (and, eq, if, index, len, printf, ...).
var Functions = []Function{
	{"tag", `tag "Name" ["default"]`, "an instance tag; a fault when it is missing and no default is given"},
	{"fact", `fact "name" ["default"]`, "any fact that `amiagent facts` prints; a fault when it is not known and no default is given"},
	{"env", `env "NAME" ["default"]`, "a variable of the agent's own environment"},
	{"secret", `secret "ssm:/path" | "secretsmanager:name[#key]"`, "an SSM parameter or a Secrets Manager secret (with #key, one key of its JSON); never printed, journaled or baked"},
	{"required", `required "message" value`, "value, or a fault with the message when it is empty"},
	{"json", `json value`, "value as JSON"},
	{"yaml", `yaml value`, "value as YAML"},
	{"b64", `b64 text`, "base64"},
	{"unb64", `unb64 text`, "the text behind base64"},
	{"lower", `lower text`, "lower case"},
	{"upper", `upper text`, "upper case"},
	{"trim", `trim text`, "without white space at both ends"},
	{"replace", `replace "old" "new" text`, "every old replaced by new"},
	{"split", `split "sep" text`, "a list"},
	{"join", `join "sep" list`, "one string"},
	{"contains", `contains "part" text`, "whether part is in text"},
	{"hasPrefix", `hasPrefix "start" text`, "whether text starts so"},
	{"hasSuffix", `hasSuffix "end" text`, "whether text ends so"},
	{"quote", `quote text`, "in double quotes, escaped as in Go and JSON"},
	{"indent", `indent 4 text`, "every line after the first indented by so many spaces"},
}

func functionNames() []string {
	names := make([]string, len(Functions))
	for i, f := range Functions {
		names[i] = f.Name
	}
	return names
}

func (s *Scope) functions() template.FuncMap {
	return template.FuncMap{
		"tag":    s.tag,
		"fact":   s.fact,
		"env":    s.environment,
		"secret": s.secret,
		"required": func(message string, v any) (any, error) {
			if v == nil || v == "" {
				return nil, fault{errors.New(message)}
			}
			return v, nil
		},
		"json": func(v any) (string, error) {
			b, err := json.Marshal(v)
			return string(b), err
		},
		"yaml": func(v any) (string, error) {
			b, err := yaml.Marshal(v)
			return strings.TrimSuffix(string(b), "\n"), err
		},
		"b64": func(v string) string { return base64.StdEncoding.EncodeToString([]byte(v)) },
		"unb64": func(v string) (string, error) {
			b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(v))
			if err != nil {
				return "", fault{errors.New("unb64: the text is not base64")}
			}
			return string(b), nil
		},
		"lower":     strings.ToLower,
		"upper":     strings.ToUpper,
		"trim":      strings.TrimSpace,
		"replace":   func(old, new, text string) string { return strings.ReplaceAll(text, old, new) },
		"split":     func(sep, text string) []string { return strings.Split(text, sep) },
		"join":      join,
		"contains":  func(part, text string) bool { return strings.Contains(text, part) },
		"hasPrefix": func(start, text string) bool { return strings.HasPrefix(text, start) },
		"hasSuffix": func(end, text string) bool { return strings.HasSuffix(text, end) },
		"quote":     func(v any) string { return fmt.Sprintf("%q", fmt.Sprint(v)) },
		"indent": func(n int, text string) string {
			return strings.ReplaceAll(text, "\n", "\n"+strings.Repeat(" ", n))
		},
	}
}

func join(sep string, list any) (string, error) {
	switch l := list.(type) {
	case []string:
		return strings.Join(l, sep), nil
	case []any:
		parts := make([]string, len(l))
		for i, v := range l {
			parts[i] = fmt.Sprint(v)
		}
		return strings.Join(parts, sep), nil
	}
	return "", fault{fmt.Errorf("join: needs a list, got %T", list)}
}

func fallback(def []string, err error) (string, error) {
	switch len(def) {
	case 0:
		return "", fault{err}
	case 1:
		return def[0], nil
	}
	return "", fault{errors.New("takes a name and at most one default")}
}

func (s *Scope) tag(key string, def ...string) (string, error) {
	s.reads = append(s.reads, Read{What: "tag " + key, Stage: facts.Launch, Pos: s.pos})
	if v, ok := s.facts.Tag(key); ok {
		return v, nil
	}
	why := ""
	switch st := s.facts.Tags.State; st {
	case facts.TagsPresent, "":
	case facts.TagsEmpty:
		why = "; it has no tags"
	default:
		why = fmt.Sprintf("; its tags are not readable: %s", st)
	}
	err := fmt.Errorf("the instance has no tag %q%s", key, why)
	switch {
	case s.facts.Tags.Hint != "":
		err = diag.WithHint(err, "%s", s.facts.Tags.Hint)
	case s.facts.Tags.State == facts.TagsNoIMDS:
		err = diag.WithHint(err, "off EC2, give it with --fact %s%s=VALUE", facts.TagPrefix, key)
	default:
		hint := fmt.Sprintf("tag the instance, or give a default: {{ tag %q \"VALUE\" }}", key)
		if near := decode.Nearest(key, s.facts.TagKeys()); near != "" {
			hint = fmt.Sprintf("did you mean the tag %q? else %s", near, hint)
		}
		err = diag.WithHint(err, "%s", hint)
	}
	if s.facts.Tags.Doubtful() {
		def = nil // the tag may be there: a default would be a guess
	}
	return fallback(def, err)
}

func (s *Scope) fact(name string, def ...string) (string, error) {
	f, ok := s.readFact(name)
	if ok && !f.Secret {
		return f.Value, nil
	}
	err := fmt.Errorf("the fact %s is not known on this machine", name)
	if near := decode.Nearest(name, s.facts.Names()); near != "" {
		err = diag.WithHint(err, "did you mean %s? `amiagent facts` prints them all", near)
	} else {
		err = diag.WithHint(err, "`amiagent facts` prints them all; off EC2, give it with --fact %s=VALUE", name)
	}
	return fallback(def, err)
}

func (s *Scope) environment(name string, def ...string) (string, error) {
	s.reads = append(s.reads, Read{What: "env " + name, Stage: facts.Launch, Pos: s.pos})
	if v, ok := s.env(name); ok {
		return v, nil
	}
	return fallback(def, diag.WithHint(fmt.Errorf("the agent's environment has no %s", name), "set it in a drop-in of amiagent.service, or give a default"))
}

// Placeholder stands for a secret until it is fetched, and where one may not be shown.
func Placeholder(ref string) string { return "«" + ref + "»" }

func (s *Scope) secret(ref string) (string, error) {
	scheme, rest, ok := strings.Cut(ref, ":")
	if !ok || rest == "" || scheme != "ssm" && scheme != "secretsmanager" {
		return "", fault{diag.WithHint(fmt.Errorf("%q names no secret", ref), "write ssm:/path/of/parameter or secretsmanager:name")}
	}
	s.reads = append(s.reads, Read{What: "secret " + ref, Stage: facts.Launch, Pos: s.pos})
	s.wanted[ref] = true
	if s.secrets == nil {
		return Placeholder(ref), nil
	}
	v, ok := s.secrets[ref]
	if !ok {
		return "", fault{fmt.Errorf("the secret %s could not be read", ref)}
	}
	return v, nil
}
