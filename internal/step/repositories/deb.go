package repositories

import (
	"fmt"
	"strings"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/step"
)

// Deb is a repository of apt. Its fields are those of sources.list(5), deb822 style.
type Deb struct {
	Types         Words `yaml:"types"` // default deb
	URIs          Words `yaml:"uris"`
	Suites        Words `yaml:"suites"` // one that ends in "/" is a path, and takes no components
	Components    Words `yaml:"components"`
	Architectures Words `yaml:"architectures"` // default all that dpkg knows
	SignedBy      *Key  `yaml:"signed-by"`
	Enabled       *bool `yaml:"enabled"` // default true
	// Trusted takes packages without any signature.
	Trusted bool `yaml:"trusted"`
}

func (d *Deb) key() *Key {
	if d == nil {
		return nil
	}
	return d.SignedBy
}

func (d *Deb) enabled() bool { return isOn(d.Enabled) }

func (*Deb) file(name string) string { return "/etc/apt/sources.list.d/" + name + ".sources" }

// keyFile goes by the content: apt tells armour from binary by the file's extension.
func (*Deb) keyFile(name string, armoured bool) string {
	if armoured {
		return "/etc/apt/keyrings/" + name + ".asc"
	}
	return "/etc/apt/keyrings/" + name + ".gpg"
}

func (d *Deb) text(_, key string) string {
	var b strings.Builder
	b.WriteString(head)
	field := func(name string, values ...string) {
		if v := strings.Join(values, " "); v != "" {
			fmt.Fprintf(&b, "%s: %s\n", name, v)
		}
	}
	if len(d.Types) == 0 {
		field("Types", "deb")
	}
	field("Types", d.Types...)
	field("URIs", d.URIs...)
	field("Suites", d.Suites...)
	field("Components", d.Components...)
	field("Architectures", d.Architectures...)
	field("Signed-By", key)
	if d.Trusted {
		field("Trusted", "yes")
	}
	if !d.enabled() {
		field("Enabled", "no")
	}
	return b.String()
}

func (d *Deb) validate(at diag.At, insecure bool) {
	if len(d.URIs) == 0 {
		at.Field("uris").Errorf("is missing")
	}
	if len(d.Suites) == 0 {
		at.Field("suites").Errorf("is missing: name the release, or / for a flat repository")
	}
	for i, u := range d.URIs {
		address(at.Field("uris").Index(i), u)
	}
	lists := []struct {
		field string
		words Words
	}{{"types", d.Types}, {"suites", d.Suites}, {"components", d.Components}, {"architectures", d.Architectures}}
	for _, l := range lists {
		for i, w := range l.words {
			word(at.Field(l.field).Index(i), w)
		}
	}
	for i, t := range d.Types {
		if step.StaticText(t) && t != "deb" && t != "deb-src" {
			at.Field("types").Index(i).Errorf("must be deb or deb-src, is %q", t)
		}
	}
	flat := false
	for _, s := range d.Suites {
		flat = flat || strings.HasSuffix(s, "/") || !step.StaticText(s)
	}
	if len(d.Suites) > 0 && !flat && len(d.Components) == 0 {
		at.Field("components").Errorf("is missing: write main, or a suite that ends in / for a flat repository")
	}
	if d.Trusted && !insecure {
		at.Field("trusted").Errorf("is on: packages from there could be anybody's; say `insecure: true` beside deb if that is meant")
	}
	switch {
	case d.SignedBy != nil:
		d.SignedBy.validate(at.Field("signed-by"))
	case !d.Trusted:
		at.Field("signed-by").Errorf("is missing: the repository is checked with it")
	}
}
