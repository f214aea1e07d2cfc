// Package sign makes and checks the signatures of locks and manifests, in the
// format of minisign (https://jedisct1.github.io/minisign/): a signature lies
// beside what it signs, under the same name with .minisig at its end.
//
// An image that holds public keys trusts them and nobody else: everything that
// the agent then reads from outside must be signed by one of them.
package sign

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"aead.dev/minisign"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
)

// TrustedDir holds the public keys that a machine trusts, one a file, as minisign -G writes them.
const TrustedDir = "/etc/amiagent/trusted.d"

// Suffix is what the name of a signature ends in.
const Suffix = ".minisig"

// MaxBytes bounds a signature and a key. One of minisign has some 300 bytes.
const MaxBytes = 8 << 10

// ErrRefused marks a document that no trusted key has signed. The program's exit code is 6.
var ErrRefused = errors.New("refused")

// Key is one public key.
type Key struct {
	Name string // of its file, without .pub
	key  minisign.PublicKey
}

// ParseKey reads a public key: minisign's two lines, or the second alone.
func ParseKey(name string, text []byte) (Key, error) {
	k := Key{Name: strings.TrimSuffix(path.Base(name), ".pub")}
	if err := k.key.UnmarshalText(text); err != nil {
		return k, diag.WithHint(fmt.Errorf("cannot read the public key %s: it is none of minisign", name), "`minisign -G` makes one; the file is the .pub")
	}
	return k, nil
}

// ID is the key's id as minisign shows it.
func (k Key) ID() string { return keyID(k.key.ID()) }

// String is the id and the name.
func (k Key) String() string { return k.ID() + " (" + k.Name + ")" }

func keyID(id uint64) string { return fmt.Sprintf("%016X", id) }

// Keyring is the keys that a machine trusts. The empty one trusts nobody.
type Keyring []Key

// Trusted reads the keys of a machine. None is no error; one that cannot be
// read is, for its machine would trust less or more than was meant.
func Trusted(h *host.Host) (Keyring, error) {
	entries, err := h.ReadDir(TrustedDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the trusted keys: %w", err)
	}
	var ring Keyring
	for _, e := range entries {
		if path.Ext(e.Name()) != ".pub" {
			continue
		}
		name := path.Join(TrustedDir, e.Name())
		text, err := h.ReadLimited(name, MaxBytes)
		if err != nil {
			return nil, fmt.Errorf("cannot read the trusted key %s: %w", name, host.Cause(err))
		}
		k, err := ParseKey(name, text)
		if err != nil {
			return nil, err
		}
		ring = append(ring, k)
	}
	return ring, nil
}

// Verify tells which key of the ring has signed data. A signature of another
// key, of other bytes, or none at all (nil) is an error marked by ErrRefused,
// which names the keys. name is the document's, for messages.
func (r Keyring) Verify(name string, data, signature []byte) (Key, error) {
	if len(signature) == 0 {
		return Key{}, diag.WithHint(fmt.Errorf("%w: %s is not signed, this machine trusts the keys %s", ErrRefused, name, r),
			"`amiagent sign KEY FILE` writes the signature; put it beside the document, as %s%s", name, Suffix)
	}
	var s minisign.Signature
	if err := s.UnmarshalText(signature); err != nil {
		return Key{}, diag.WithHint(fmt.Errorf("%w: the signature of %s is none of minisign", ErrRefused, name), "`amiagent sign KEY FILE` writes one")
	}
	i := slices.IndexFunc(r, func(k Key) bool { return k.key.ID() == s.KeyID })
	if i < 0 {
		return Key{}, diag.WithHint(fmt.Errorf("%w: %s is signed by key %s, this machine trusts %s", ErrRefused, name, keyID(s.KeyID), r),
			"sign it with a trusted key, or put the public key into %s of the image", TrustedDir)
	}
	for _, k := range r[i:] { // ids are not protected: two keys may have one
		if k.key.ID() == s.KeyID && minisign.Verify(k.key, data, signature) {
			return k, nil
		}
	}
	return Key{}, diag.WithHint(fmt.Errorf("%w: the signature of %s by key %s is not of these bytes", ErrRefused, name, r[i]),
		"it was edited after it was signed: look at the change, then sign it again")
}

// String lists the keys.
func (r Keyring) String() string {
	if len(r) == 0 {
		return "none"
	}
	all := make([]string, len(r))
	for i, k := range r {
		all[i] = k.String()
	}
	return strings.Join(all, ", ")
}

// Sign signs data with a private key as minisign -G wrote it. password is asked
// only if the key is encrypted. name is the document's, and stays readable in
// the signature; it is signed too.
func Sign(key []byte, password func() (string, error), name string, data []byte) (signature []byte, id string, err error) {
	var private minisign.PrivateKey
	if minisign.IsEncrypted(key) {
		word, err := password()
		if err != nil {
			return nil, "", fmt.Errorf("cannot read the password of the key: %w", err)
		}
		if private, err = minisign.DecryptKey(word, key); err != nil {
			return nil, "", errors.New("cannot open the key: the password is wrong")
		}
	} else if err := private.UnmarshalText(key); err != nil {
		return nil, "", diag.WithHint(errors.New("cannot open the key: it is no private key of minisign"), "`minisign -G` makes a pair; this is the file without .pub")
	}
	id = keyID(private.ID())
	name = path.Base(name)
	return minisign.SignWithComments(private, data, "file:"+name, "signature of "+name+" by key "+id), id, nil
}
