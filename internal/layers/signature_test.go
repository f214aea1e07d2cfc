package layers_test

import (
	"errors"
	"strings"
	"testing"

	"aead.dev/minisign"

	"github.com/amiagent/amiagent/internal/config"
	"github.com/amiagent/amiagent/internal/layers"
	"github.com/amiagent/amiagent/internal/sign"
)

// signer is a key, and a ring that trusts it.
func signer(t *testing.T) (sign.Keyring, func(text string) string) {
	t.Helper()
	public, private, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := public.MarshalText()
	key, err := sign.ParseKey("ci.pub", text)
	if err != nil {
		t.Fatal(err)
	}
	return sign.Keyring{key}, func(text string) string { return string(minisign.Sign(private, []byte(text))) }
}

func asking(ring sign.Keyring) func(string, []byte, []byte) error {
	return func(name string, data, signature []byte) error {
		_, err := ring.Verify(name, data, signature)
		return err
	}
}

func TestTheSignatureLiesBesideTheDocument(t *testing.T) {
	ring, signed := signer(t)
	_, stranger := signer(t)
	for _, c := range []struct {
		name, address, signature string // where the signature is looked for
	}{
		{"an object", "s3://b/web.yaml", "s3://b/web.yaml.minisig"},
		{"a version of it", "s3::https://s3.eu-west-1.amazonaws.com/b/web.yaml?versionId=7&region=x", "s3::https://s3.eu-west-1.amazonaws.com/b/web.yaml.minisig?region=x"},
		{"a page", "https://h/web.yaml?checksum=sha256:00", "https://h/web.yaml.minisig"},
		{"a file of a repository", "git::https://h/r.git//web.yaml?ref=main", "git::https://h/r.git//web.yaml.minisig?ref=main"},
		{"a parameter", "ssm:/m", "ssm:/m.minisig"},
		{"a version of it", "ssm:/m:3", "ssm:/m.minisig"},
		{"another account's", "ssm:arn:aws:ssm:eu-west-1:1:parameter/m", "ssm:arn:aws:ssm:eu-west-1:1:parameter/m.minisig"},
	} {
		t.Run(c.name+" "+c.address, func(t *testing.T) {
			s := sources{c.address: "text", c.signature: signed("text")}
			opt, _ := options(t, s)
			opt.Signed = asking(ring)
			if got := tell(layers.Resolve(t.Context(), refs(c.address), opt)); !strings.HasSuffix(got, "=text") {
				t.Error(got)
			}
			for what, sig := range map[string]any{"is not signed": nil, "is not of these bytes": signed("other"), "this machine trusts": stranger("text"), "none of minisign": "<html>"} {
				s[c.signature] = sig
				_, _, err := layers.Resolve(t.Context(), refs(c.address), opt)
				if !errors.Is(err, sign.ErrRefused) || !strings.Contains(err.Error(), what) {
					t.Errorf("want %q, got %v", what, err)
				}
			}
			s[c.signature] = errors.New("connection reset")
			if _, _, err := layers.Resolve(t.Context(), refs(c.address), opt); err == nil || errors.Is(err, sign.ErrRefused) || !strings.Contains(err.Error(), "its signature ") {
				t.Errorf("a signature out of reach: %v", err)
			}
		})
	}
}

func TestWhatIsInTheImageNeedsNoSignature(t *testing.T) {
	ring, _ := signer(t)
	opt, root := options(t, nil)
	opt.Signed = asking(ring)
	write(t, root, "etc/m.yaml", "x")
	if got := tell(layers.Resolve(t.Context(), refs("/etc/m.yaml"), opt)); got != "/etc/m.yaml=x" {
		t.Error(got)
	}
}

func TestUserDataMayOnlyPointToWhatIsSigned(t *testing.T) {
	ring, signed := signer(t)
	s := sources{"user-data": "#amiagent\namiagent: 1\n"}
	opt, _ := options(t, s)
	opt.Signed = asking(ring)
	if got := tell(layers.Resolve(t.Context(), refs("user-data"), opt)); !strings.HasPrefix(got, "error: refused: user-data is not signed") || !strings.Contains(got, "| user data cannot be signed: ") {
		t.Error(got)
	}
	s["user-data"] = "#amiagent\namiagent: 1\nlayers:\n  - {source: s3://b/m, digest: " + sha + "}\n"
	s["s3://b/m"] = "aaa"
	if got := tell(layers.Resolve(t.Context(), refs("user-data"), opt)); !strings.HasPrefix(got, "error: refused: s3://b/m is not signed") {
		t.Error(got)
	}
	s["s3://b/m.minisig"] = signed("aaa")
	if got := tell(layers.Resolve(t.Context(), refs("user-data"), opt)); got != "s3://b/m=aaa" {
		t.Error(got)
	}
}

func TestAKeptLayerKeepsItsSignature(t *testing.T) {
	ring, signed := signer(t)
	s := sources{"s3://b/m": "good", "s3://b/m.minisig": signed("good")}
	opt, root := options(t, s)
	write(t, root, "var/lib/amiagent/x", "")
	opt.Signed = asking(ring)
	docs, _, err := layers.Resolve(t.Context(), refs("s3://b/m"), opt)
	if err != nil {
		t.Fatal(err)
	}
	if err := layers.Keep(t.Context(), opt.Host, "i-1", docs); err != nil {
		t.Fatal(err)
	}
	if opt.Kept, err = layers.Kept(opt.Host, "i-1"); err != nil {
		t.Fatal(err)
	}
	s["s3://b/m"] = errors.New("connection refused")
	if got := tell(layers.Resolve(t.Context(), refs("s3://b/m"), opt)); !strings.HasPrefix(got, "s3://b/m=good (kept)") {
		t.Error(got)
	}
	opt.Kept[0].Signature = nil // kept before a key was trusted
	if got := tell(layers.Resolve(t.Context(), refs("s3://b/m"), opt)); !strings.HasPrefix(got, "error: cannot read the layer s3://b/m: connection refused") {
		t.Error(got)
	}
}

func TestWhatDependsOnTheLaunchIsMarked(t *testing.T) {
	s := sources{"s3://b/web.yaml": "one", "s3://b/base.yaml": "two", "s3://b/m": "aaa",
		"user-data": "#amiagent\namiagent: 1\nlayers:\n  - {source: s3://b/m, digest: " + sha + "}\n"}
	opt, root := options(t, s)
	opt.Varies = func(address string) bool { return strings.Contains(address, "tag ") }
	write(t, root, "etc/web.yaml", "three")
	docs, _, err := layers.Resolve(t.Context(), refs("s3://b/base.yaml", `s3://b/{{ tag "Role" }}.yaml`, `/etc/{{ tag "Role" }}.yaml`, "user-data"), opt)
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, d := range docs {
		if d.Varies {
			got += d.Source + " "
		}
	}
	if got != "s3://b/web.yaml /etc/web.yaml s3://b/m " {
		t.Errorf("marked: %s", got)
	}
}

func TestOtherDocumentsThanLayersAreCalledByTheirName(t *testing.T) {
	opt, _ := options(t, sources{"s3://b/l": "x"})
	opt.What = "lock"
	for _, ref := range []config.Layer{{Source: "/etc/l"}, {Source: "s3://b/none"}, {Source: "s3://b/l", Digest: sha}} {
		if _, _, err := layers.Resolve(t.Context(), []config.Layer{ref}, opt); err == nil || !strings.Contains(err.Error(), "the lock "+ref.Source) || strings.Contains(err.Error(), "layer") {
			t.Errorf("%v", err)
		}
	}
}
