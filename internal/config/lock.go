package config

import (
	"errors"

	"go.yaml.in/yaml/v3"

	"github.com/amiagent/amiagent/internal/decode"
	"github.com/amiagent/amiagent/internal/diag"
)

// Lock says where the lock of this image's launches is. With one, everything
// that is not in it is refused.
type Lock struct {
	Source string `yaml:"source"` // as a layer's: a path, or an address; a template over facts
	Digest string `yaml:"digest"` // sha256:HEX or sha512:HEX of its bytes; "" accepts any
	// Floating is what becomes of a layer that depends on facts of the launch
	// for which the lock was not made, as user data: refuse, the default, or
	// allow. What such a layer fetches and installs must be in the lock all the same.
	Floating string `yaml:"floating"`
}

// Words of Lock.Floating.
const (
	Refuse = "refuse"
	Allow  = "allow"
)

// DecodeNode accepts an address alone, or a mapping.
func (l *Lock) DecodeNode(n *yaml.Node, at diag.At) {
	if n.Kind == yaml.ScalarNode {
		decode.Into(n, &l.Source, at)
	} else {
		type plain Lock
		decode.Into(n, (*plain)(l), at)
	}
	switch l.Source {
	case "":
		at.Errorf("a lock needs a source")
	case UserData:
		at.Err(diag.WithHint(errors.New("the lock cannot be in the user data"), "put it into the image, into S3 or behind HTTPS, and name it here"))
	}
	if l.Floating != "" && l.Floating != Refuse && l.Floating != Allow {
		at.Field("floating").Errorf("must be %s or %s, is %q", Refuse, Allow, l.Floating)
	}
}
