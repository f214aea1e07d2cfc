package repositories

import (
	"bytes"
	"encoding/hex"
	"path"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/amiagent/amiagent/internal/decode"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/fetch"
	"github.com/amiagent/amiagent/internal/step"
)

// Key is the public key that signs a repository, in one of three shapes: the
// armoured text itself, a path on the machine, or an address with a digest. An
// address without a digest would trust whoever answers on that day.
type Key struct {
	Text string `yaml:"-"`
	Path string `yaml:"-"`

	URL    string `yaml:"url"`
	Digest string `yaml:"digest"`
}

const armour = "-----BEGIN PGP PUBLIC KEY BLOCK-----"

// DecodeNode takes text, a path or a mapping.
func (k *Key) DecodeNode(n *yaml.Node, at diag.At) {
	if n.Kind != yaml.ScalarNode {
		decode.Into(n, (*keyAddress)(k), at)
		return
	}
	if strings.HasPrefix(n.Value, "/") && !strings.Contains(strings.TrimSpace(n.Value), "\n") {
		k.Path = strings.TrimSpace(n.Value)
		return
	}
	k.Text = n.Value
}

// keyAddress is a Key without its own decoding.
type keyAddress Key

func (k *Key) url() bool { return k != nil && k.URL != "" }

func (k *Key) request(name string) fetch.Request {
	return fetch.Request{Name: step.ID{Kind: "repositories", Name: name}.String(), Source: k.URL, Digest: k.Digest}
}

// text is an inline key as its file holds it: gpg wants a newline at the end.
func (k *Key) text() []byte { return []byte(strings.TrimSpace(k.Text) + "\n") }

func (k *Key) matches(data []byte) bool { return sum(k.Digest, data) == strings.ToLower(k.Digest) }

func isArmoured(data []byte) bool { return bytes.Contains(data, []byte(armour)) }

func (k *Key) validate(at diag.At) {
	switch {
	case k.Path != "":
		if step.StaticText(k.Path) && path.Clean(k.Path) != k.Path {
			at.Errorf("must be a plain absolute path, is %q", k.Path)
		}
	case k.URL == "" && k.Digest == "":
		switch {
		case !step.StaticText(k.Text):
		case strings.HasPrefix(k.Text, "https://"), strings.HasPrefix(k.Text, "http://"):
			at.Errorf("an address needs a digest: write {url: ..., digest: \"sha256:...\"}")
		case strings.Contains(k.Text, "PRIVATE KEY BLOCK"):
			at.Errorf("is a private key, give the public one")
		case !strings.Contains(k.Text, armour):
			at.Errorf("must be an armoured public key, a path, or {url: ..., digest: ...}")
		}
	default:
		if step.StaticText(k.Digest) && !isDigest(k.Digest) {
			at.Field("digest").Errorf("must be sha256: or sha512: and its hex digits, is %q", k.Digest)
		}
		if k.URL == "" {
			at.Field("url").Errorf("is missing")
		}
	}
}

func isDigest(s string) bool {
	for prefix, size := range map[string]int{"sha256:": 32, "sha512:": 64} {
		if digits, ok := strings.CutPrefix(s, prefix); ok {
			b, err := hex.DecodeString(digits)
			return err == nil && len(b) == size
		}
	}
	return false
}
