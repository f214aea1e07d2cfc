package fetch

import (
	"slices"
	"strings"
)

// spoken are the query parameters whose values are no secret.
var spoken = []string{"ref", "depth", "archive", "checksum", "version", "versionId", "region"}

// Redact removes from an address what may be a secret: user and password, and
// the value of every query parameter that is not known to be harmless (a
// presigned address carries its signature and session token there). It also
// serves text that is no valid address. git@ and other bare users of ssh stay.
func Redact(address string) string {
	address, _, _ = strings.Cut(address, "#") // never sent, so never needed
	base, query, hasQuery := strings.Cut(address, "?")
	if i := strings.Index(base, "://"); i >= 0 {
		authority, path, hasPath := strings.Cut(base[i+3:], "/")
		if at := strings.LastIndexByte(authority, '@'); at >= 0 {
			user := authority[:at]
			if strings.HasSuffix(base[:i], "ssh") && !strings.Contains(user, ":") {
				user += "@"
			} else {
				user = "redacted@"
			}
			authority = user + authority[at+1:]
		}
		base = base[:i+3] + authority
		if hasPath {
			base += "/" + path
		}
	}
	if !hasQuery {
		return base
	}
	parts := strings.Split(query, "&")
	for i, part := range parts {
		key, _, found := strings.Cut(part, "=")
		if found && !slices.Contains(spoken, key) {
			parts[i] = key + "=redacted"
		} else if !found {
			parts[i] = "redacted"
		}
	}
	return base + "?" + strings.Join(parts, "&")
}
