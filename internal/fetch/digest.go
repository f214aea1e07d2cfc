package fetch

import (
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"regexp"
	"strings"

	"github.com/amiagent/amiagent/internal/diag"
)

var (
	hexOnly   = regexp.MustCompile(`^[0-9a-f]+$`)
	commitHex = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
)

// CheckDigest tells what is wrong with a digest of a Request: it must be
// sha256:HEX, sha512:HEX or, for git, git:COMMIT. "" is no digest and right.
func CheckDigest(digest string) error {
	if digest == "" {
		return nil
	}
	_, err := splitDigest(digest)
	return err
}

func splitDigest(digest string) (algorithm string, err error) {
	algorithm, hex, _ := strings.Cut(digest, ":")
	want := map[string]int{"sha256": 64, "sha512": 128}[algorithm]
	switch {
	case algorithm == "git" && commitHex.MatchString(hex):
		return algorithm, nil
	case algorithm == "md5", algorithm == "sha1":
		return "", diag.WithHint(fmt.Errorf("digest %q: %s can be forged", digest, algorithm), "use sha256")
	case want == 0:
		return "", diag.WithHint(fmt.Errorf("digest %q has no known algorithm", digest), "write sha256:HEX or sha512:HEX")
	case len(hex) != want || !hexOnly.MatchString(hex):
		return "", fmt.Errorf("digest %q: %s has %d digits 0-9 and a-f", digest, algorithm, want)
	}
	return algorithm, nil
}

// checksum reads go-getter's checksum=: type:value, or a bare value.
func checksum(sum string) (string, error) {
	if strings.HasPrefix(sum, "file:") {
		return "", diag.WithHint(errors.New("checksum=file: is not supported: such a file proves nothing that the same server does not"),
			"write checksum=sha256:HEX, or digest in the manifest")
	}
	sum = strings.ToLower(sum)
	if !strings.Contains(sum, ":") {
		switch len(sum) {
		case 32:
			sum = "md5:" + sum
		case 40:
			sum = "sha1:" + sum
		case 128:
			sum = "sha512:" + sum
		default:
			sum = "sha256:" + sum
		}
	}
	_, err := splitDigest(sum)
	return sum, err
}

func newHash(algorithm string) hash.Hash {
	if algorithm == "sha512" {
		return sha512.New()
	}
	return sha256.New()
}
