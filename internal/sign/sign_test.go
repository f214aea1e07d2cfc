package sign_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"aead.dev/minisign"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/sign"
)

// pair is a fresh key pair: both halves as minisign's files hold them.
func pair(t testing.TB) (public, private []byte) {
	t.Helper()
	pub, priv, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	public, _ = pub.MarshalText()
	if private, err = priv.MarshalText(); err != nil {
		t.Fatal(err)
	}
	return public, private
}

func machine(t *testing.T, keys map[string][]byte) *host.Host {
	t.Helper()
	root := t.TempDir()
	for name, text := range keys {
		name = filepath.Join(root, sign.TrustedDir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h, err := host.New(root, host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func noPassword() (string, error) { return "", errors.New("asked for a password") }

func signed(t testing.TB, private []byte, data string) []byte {
	t.Helper()
	s, _, err := sign.Sign(private, noPassword, "dir/web.yaml", []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAMachineTrustsItsKeysAndNobodyElse(t *testing.T) {
	webPub, web := pair(t)
	dbPub, db := pair(t)
	_, stranger := pair(t)
	ring, err := sign.Trusted(machine(t, map[string][]byte{"web.pub": webPub, "db.pub": dbPub, "README": []byte("no key")}))
	if err != nil || len(ring) != 2 {
		t.Fatal(ring, err)
	}
	for _, c := range []struct {
		name      string
		data      string
		signature []byte
		want      string
	}{
		{"signed by one", "x", signed(t, web, "x"), "web"},
		{"signed by the other", "x", signed(t, db, "x"), "db"},
		{"not signed", "x", nil, "refused: web.yaml is not signed, this machine trusts the keys " + ring[0].ID() + " (db), " + ring[1].ID() + " (web)"},
		{"edited since", "y", signed(t, web, "x"), "refused: the signature of web.yaml by key " + ring[1].ID() + " (web) is not of these bytes"},
		{"by a stranger", "x", signed(t, stranger, "x"), ", this machine trusts " + ring.String()},
		{"no signature at all", "x", []byte("<html>404</html>"), "refused: the signature of web.yaml is none of minisign"},
		{"with an edited comment", "x", []byte(strings.Replace(string(signed(t, web, "x")), "file:web.yaml", "file:db.yaml", 1)), "is not of these bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, err := ring.Verify("web.yaml", []byte(c.data), c.signature)
			got := k.Name
			if err != nil {
				got = err.Error()
				if !errors.Is(err, sign.ErrRefused) || diag.Hint(err) == "" {
					t.Errorf("no refusal with a hint: %v", err)
				}
			}
			if !strings.HasSuffix(got, c.want) && !strings.HasPrefix(got, c.want) {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
	var nobody sign.Keyring
	if _, err := nobody.Verify("web.yaml", []byte("x"), signed(t, web, "x")); !errors.Is(err, sign.ErrRefused) {
		t.Error("an empty ring trusts somebody:", err)
	}
}

// An id is not protected: a stranger can make a key with the id of a trusted one.
func TestAnIDIsNotTheKey(t *testing.T) {
	webPub, _ := pair(t)
	_, stranger := pair(t)
	ring, err := sign.Trusted(machine(t, map[string][]byte{"web.pub": webPub}))
	if err != nil {
		t.Fatal(err)
	}
	var s minisign.Signature
	var trusted minisign.PublicKey
	if err := errors.Join(s.UnmarshalText(signed(t, stranger, "x")), trusted.UnmarshalText(webPub)); err != nil {
		t.Fatal(err)
	}
	s.KeyID = trusted.ID()
	forged, err := s.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ring.Verify("web.yaml", []byte("x"), forged); !errors.Is(err, sign.ErrRefused) {
		t.Error("a forged id is trusted")
	}
}

func TestKeysThatCannotBeReadAreErrors(t *testing.T) {
	if ring, err := sign.Trusted(machine(t, nil)); len(ring) != 0 || err != nil {
		t.Error("a machine without keys:", ring, err)
	}
	public, private := pair(t)
	for name, text := range map[string][]byte{"empty": nil, "private": private, "long": append(public, make([]byte, sign.MaxBytes)...), "other": []byte("ssh-ed25519 AAAA")} {
		if ring, err := sign.Trusted(machine(t, map[string][]byte{"ok.pub": public, "x.pub": text})); err == nil {
			t.Errorf("%s: %v", name, ring)
		}
	}
	lines := strings.SplitAfter(string(public), "\n")
	if k, err := sign.ParseKey("web.pub", []byte(lines[len(lines)-1])); err != nil || k.Name != "web" {
		t.Error("the second line alone:", k, err)
	}
}

// A key with the password "hush". Its scrypt is the cheapest there is: what
// minisign -G takes needs a gigabyte and seconds, and is proved in the system test.
const (
	cheapPublic = "untrusted comment: minisign public key: DC55997C905470EC\nRWTscFSQfJlV3MSHB+Mx/I8hUdrrKhBZqqEV6ZA6U1sP9lGfWRcUKEcy\n"
	cheapKey    = "untrusted comment: minisign encrypted secret key\nRWRTY0IyAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8AgAAAAAAAAAAAAEAAAAAAbIgOkgXdhg87cf8uxRI16E6GbOhvoKLS1t3BbgkGkxItGVYGqpXpiUHfBi7IhZOw0hNiqMlXY0mEe0LlG6UYhHIwEUkZWh6a/IKV5AjD2gA865YVn0bm6qr/ppJK3GB9JZaXWYN59mI=\n"
)

func TestPrivateKeys(t *testing.T) {
	public, encrypted := []byte(cheapPublic), []byte(cheapKey)
	says := func(word string) func() (string, error) { return func() (string, error) { return word, nil } }
	k, err := sign.ParseKey("k.pub", public)
	if err != nil {
		t.Fatal(err)
	}
	s, id, err := sign.Sign(encrypted, says("hush"), "a/b.yaml", []byte("x"))
	if err != nil || id != k.ID() || !strings.Contains(string(s), "trusted comment: file:b.yaml\n") {
		t.Errorf("%s %v\n%s", id, err, s)
	}
	if _, err := (sign.Keyring{k}).Verify("b.yaml", []byte("x"), s); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct {
		key      []byte
		password func() (string, error)
		want     string
	}{
		"a wrong password":      {encrypted, says("nope"), "cannot open the key: the password is wrong"},
		"nobody to ask":         {encrypted, noPassword, "cannot read the password of the key: asked for a password"},
		"the public half":       {public, noPassword, "cannot open the key: it is no private key of minisign"},
		"nothing":               {nil, noPassword, "cannot open the key: it is no private key of minisign"},
		"a key of another kind": {[]byte("-----BEGIN OPENSSH PRIVATE KEY-----\nx\n"), noPassword, "cannot open the key: it is no private key of minisign"},
	} {
		if _, _, err := sign.Sign(c.key, c.password, "x", nil); err == nil || err.Error() != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	public, private := pair(f)
	k, err := sign.ParseKey("k.pub", public)
	if err != nil {
		f.Fatal(err)
	}
	good := signed(f, private, "x")
	f.Add([]byte("x"), good)
	f.Add([]byte("y"), good)
	f.Fuzz(func(t *testing.T, data, signature []byte) {
		if _, err := (sign.Keyring{k}).Verify("x", data, signature); err == nil && string(data) != "x" {
			t.Errorf("%q is signed", data)
		}
	})
}
