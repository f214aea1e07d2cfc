package fetch

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/amiagent/amiagent/internal/diag"
)

var digestRule = regexp.MustCompile(`^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$`)

// Validate records the faults of a request that a body makes by its fields
// source, mirrors, digest, size and strip. Values that still hold template text are not judged.
func (r Request) Validate(at diag.At) {
	if r.Digest != "" && !strings.Contains(r.Digest, "{{") && !digestRule.MatchString(r.Digest) {
		at.Field("digest").Err(diag.WithHint(
			fmt.Errorf("is no digest: %q", r.Digest),
			"write sha256: and 64 hexadecimal digits, as `sha256sum FILE` prints them, or sha512: and 128"))
	}
	if r.Size < 0 {
		at.Field("size").Errorf("must not be negative, is %d", r.Size)
	}
	if r.Strip < 0 {
		at.Field("strip").Errorf("must not be negative, is %d", r.Strip)
	}
	if r.Source == "" && len(r.Mirrors) > 0 {
		at.Field("mirrors").Errorf("mirrors are of a source, and there is none")
	}
	for i, m := range r.Mirrors {
		if m == "" {
			at.Field("mirrors").Index(i).Errorf("must not be empty")
		}
	}
}
