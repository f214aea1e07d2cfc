package report

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// Redacted stands where a secret was.
const Redacted = "«redacted»"

// minSecret is the shortest text that is taken for a secret: a shorter one
// would blot out words by chance, and "yes" is no secret.
const minSecret = 6

// Redactor knows the secrets of one run and takes them out of texts: program
// output, errors, logs. It also knows the forms they commonly take on the way
// there: a line of them, quoted, percent-encoded, base64. It is a net below the
// rule that nobody prints a secret, not a reason to print one.
//
// The nil and the zero Redactor know none. It is safe for concurrent use.
type Redactor struct {
	mu       sync.RWMutex
	forms    map[string]bool
	replacer *strings.Replacer
}

// Add makes a secret known. One of fewer than six bytes is passed over.
func (r *Redactor) Add(secret string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.forms == nil {
		r.forms = map[string]bool{}
	}
	known := len(r.forms)
	for _, s := range append(strings.Split(secret, "\n"), secret) {
		s = strings.TrimSpace(s)
		if len(s) < minSecret {
			continue
		}
		quoted, _ := json.Marshal(s)
		for _, form := range []string{
			s,
			string(quoted[1 : len(quoted)-1]),
			url.QueryEscape(s),
			url.PathEscape(s),
			strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(s)), "="),
			strings.TrimRight(base64.URLEncoding.EncodeToString([]byte(s)), "="),
		} {
			r.forms[form] = true
		}
	}
	if len(r.forms) == known {
		return
	}
	// Of two secrets that begin alike, the longer one is tried first: else its end would stay.
	forms := make([]string, 0, len(r.forms))
	for f := range r.forms {
		forms = append(forms, f)
	}
	slices.SortFunc(forms, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	pairs := make([]string, 0, 2*len(forms))
	for _, f := range forms {
		pairs = append(pairs, f, Redacted)
	}
	r.replacer = strings.NewReplacer(pairs...)
}

// Clean is s with every known secret replaced.
func (r *Redactor) Clean(s string) string {
	if r == nil {
		return s
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.replacer == nil {
		return s
	}
	return r.replacer.Replace(s)
}
