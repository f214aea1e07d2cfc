package layers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/amiagent/amiagent/internal/config"
	"github.com/amiagent/amiagent/internal/diag"
)

// signatureSuffix and signatureBytes are minisign's: a signature lies beside
// what it signs, and has some 300 bytes.
const (
	signatureSuffix = ".minisig"
	signatureBytes  = 8 << 10
)

func (r *reader) varies(ref config.Layer) bool {
	return r.opt.Varies != nil && r.opt.Varies(ref.Source)
}

// signature reads what lies beside a document; nil when nothing does.
func (r *reader) signature(ctx context.Context, address string) (sig []byte, err error) {
	at := beside(address)
	if name, ok := strings.CutPrefix(at, "ssm:"); ok {
		var text string
		text, err = r.opt.Parameter(ctx, name)
		sig = []byte(text)
	} else {
		sig, _, err = r.opt.Remote(ctx, at, signatureBytes)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, diag.WithHint(fmt.Errorf("its signature %s: %w", redact(at), err), "%s", diag.Hint(err))
	}
	return sig, nil
}

// beside is the address of a document's signature. What names one version or
// the bytes of the document says nothing of its signature.
func beside(address string) string {
	if name, ok := strings.CutPrefix(address, "ssm:"); ok && !strings.HasPrefix(name, "arn:") {
		name, _, _ = strings.Cut(name, ":") // the selector of a version or a label
		return "ssm:" + name + signatureSuffix
	}
	base, query, _ := strings.Cut(address, "?")
	var kept []string
	for part := range strings.SplitSeq(query, "&") {
		if k, _, _ := strings.Cut(part, "="); part != "" && !slices.Contains([]string{"versionId", "version", "checksum", "archive"}, k) {
			kept = append(kept, part)
		}
	}
	base += signatureSuffix
	if len(kept) > 0 {
		base += "?" + strings.Join(kept, "&")
	}
	return base
}

// signedUserData refuses a manifest in user data where signatures are asked
// for: nothing lies beside user data. What user data only points to is signed itself.
func (r *reader) signedUserData(doc Document) error {
	if r.opt.Signed == nil {
		return nil
	}
	return diag.WithHint(r.opt.Signed(doc.File, doc.Data, nil),
		"user data cannot be signed: put the manifest into S3 or behind HTTPS with its signature, and name it in the user data under layers:")
}
