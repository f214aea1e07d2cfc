package fetch

import (
	"slices"
	"strings"

	"github.com/amiagent/amiagent/internal/diag"
)

// Validate records the faults of a request that a body makes by its fields
// source, mirrors, digest, size and strip. What still holds template text is not judged.
func (r Request) Validate(at diag.At) {
	whole := r.Source != "" && static(r.Source) && static(r.Digest) && !slices.ContainsFunc(r.Mirrors, func(m string) bool { return !static(m) })
	if static(r.Digest) {
		if err := CheckDigest(r.Digest); err != nil {
			at.Field("digest").Err(err)
			whole = false
		}
	}
	for name, n := range map[string]int64{"size": r.Size, "strip": int64(r.Strip)} {
		if n < 0 {
			at.Field(name).Errorf("must not be negative, is %d", n)
			whole = false
		}
	}
	if r.Source == "" && len(r.Mirrors) > 0 {
		at.Field("mirrors").Errorf("mirrors are of a source, and there is none")
	}
	for i, m := range r.Mirrors {
		if m == "" {
			at.Field("mirrors").Index(i).Errorf("must not be empty")
			whole = false
		}
	}
	if !whole {
		return // what is wrong with the parts is said
	}
	if err := Check(r); err != nil {
		at.Field("source").Err(err)
	}
}

func static(s string) bool { return !strings.Contains(s, "{{") }
