package fetch_test

import (
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/fetch"
)

func TestValidateJudgesEachFieldOnce(t *testing.T) {
	const bytes = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
	for name, x := range map[string]struct {
		req  fetch.Request
		want string
	}{
		"right":              {fetch.Request{Source: "https://a/x.tar.gz", Mirrors: []string{"s3://b/x.tar.gz"}, Digest: bytes, Size: 7, Unpack: true, Strip: 1}, ""},
		"nothing":            {fetch.Request{}, ""},
		"templates":          {fetch.Request{Source: "{{ .Vars.x }}://", Digest: "{{ .Vars.digest }}"}, ""},
		"template as mirror": {fetch.Request{Source: "https://a/x", Mirrors: []string{"{{ .Vars.x }}"}}, ""},
		"an unknown scheme":  {fetch.Request{Source: "gopher://a/x"}, "artifacts.app.source: "},
		"plain http":         {fetch.Request{Source: "http://a/x"}, "artifacts.app.source: cannot use address \"http://a/x\": http without a digest could bring anything"},
		"a digest that is none, once, though the address is bad too": {
			fetch.Request{Source: "gopher://a/x", Digest: "sha256:zz"}, "artifacts.app.digest: digest \"sha256:zz\": sha256 has 64 digits 0-9 and a-f"},
		"less than nothing": {fetch.Request{Source: "https://a/x", Size: -1}, "artifacts.app.size: must not be negative, is -1"},
		"stripped below it": {fetch.Request{Source: "https://a/x", Strip: -1}, "artifacts.app.strip: must not be negative, is -1"},
		"mirrors of nothing": {fetch.Request{Mirrors: []string{"https://a/x"}},
			"artifacts.app.mirrors: mirrors are of a source, and there is none"},
		"an empty mirror": {fetch.Request{Source: "https://a/x", Mirrors: []string{""}}, "artifacts.app.mirrors[0]: must not be empty"},
	} {
		t.Run(name, func(t *testing.T) {
			var list diag.List
			x.req.Validate(diag.NewAt(&list, nil, "artifacts.app"))
			got := ""
			if err := list.Err(); err != nil {
				got = err.Error()
			}
			first, _, _ := strings.Cut(got, "\n")
			if x.want == "" && got != "" || !strings.HasPrefix(first, x.want) || list.Len() > 1 {
				t.Errorf("faults:\n%s\nwant: %s", got, x.want)
			}
		})
	}
}
