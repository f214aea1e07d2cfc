package bench

import (
	_ "embed"
	"regexp"
	"strings"
)

//go:embed fifty.yaml
var fifty string

//go:embed check.sh
var checkText string

//go:embed keep.sh
var keepText string

var digestOf = regexp.MustCompile(`DIGEST\(([^)]+)\)`)

// manifest is fifty.yaml for one tree: its disk, and the digests of what it serves.
func manifest(disk string, digests map[string]string) string {
	text := digestOf.ReplaceAllStringFunc(fifty, func(m string) string { return digests[digestOf.FindStringSubmatch(m)[1]] })
	return strings.ReplaceAll(text, "DISK", disk)
}
