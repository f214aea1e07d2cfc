package repositories

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/amiagent/amiagent/internal/decode"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/step"
)

// RPM is a repository of dnf and yum. Its fields are those of yum.conf(5) and
// dnf.conf(5); their variables ($basearch, $releasever) work.
type RPM struct {
	Name       string `yaml:"name"` // for people; default is the entry's name
	BaseURL    Words  `yaml:"baseurl"`
	MirrorList string `yaml:"mirrorlist"`
	MetaLink   string `yaml:"metalink"`

	GPGKey       *Key  `yaml:"gpgkey"`
	GPGCheck     *bool `yaml:"gpgcheck"`      // packages are signed; default true
	RepoGPGCheck bool  `yaml:"repo-gpgcheck"` // the metadata is signed too

	Enabled        *bool `yaml:"enabled"` // default true
	Priority       int   `yaml:"priority"`
	IncludePkgs    Words `yaml:"includepkgs"`
	Exclude        Words `yaml:"exclude"`
	ModuleHotfixes bool  `yaml:"module-hotfixes"`
}

func (r *RPM) key() *Key {
	if r == nil {
		return nil
	}
	return r.GPGKey
}

func (r *RPM) enabled() bool { return isOn(r.Enabled) }

func isOn(b *bool) bool { return b == nil || *b }

func (*RPM) file(name string) string            { return "/etc/yum.repos.d/" + name + ".repo" }
func (*RPM) keyFile(name string, _ bool) string { return "/etc/pki/rpm-gpg/RPM-GPG-KEY-" + name }

// head tells a person who finds the file where it comes from.
const head = "# Written by amiagent from the manifest. Changes made here do not last.\n"

func (r *RPM) text(name, key string) string {
	var b strings.Builder
	b.WriteString(head)
	fmt.Fprintf(&b, "[%s]\n", name)
	line := func(field, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s=%s\n", field, value)
		}
	}
	flag := func(field string, on bool) { line(field, map[bool]string{true: "1", false: "0"}[on]) }
	if r.Name == "" {
		line("name", name)
	}
	line("name", r.Name)
	line("baseurl", strings.Join(r.BaseURL, " "))
	line("mirrorlist", r.MirrorList)
	line("metalink", r.MetaLink)
	flag("enabled", r.enabled())
	flag("gpgcheck", isOn(r.GPGCheck))
	flag("repo_gpgcheck", r.RepoGPGCheck)
	if key != "" {
		line("gpgkey", "file://"+key)
	}
	if r.Priority != 0 {
		line("priority", fmt.Sprint(r.Priority))
	}
	line("includepkgs", strings.Join(r.IncludePkgs, " "))
	line("exclude", strings.Join(r.Exclude, " "))
	if r.ModuleHotfixes {
		flag("module_hotfixes", true)
	}
	return b.String()
}

func (r *RPM) validate(at diag.At, insecure bool) {
	sources := 0
	for _, given := range []bool{len(r.BaseURL) > 0, r.MirrorList != "", r.MetaLink != ""} {
		if given {
			sources++
		}
	}
	if sources != 1 {
		at.Errorf("needs one of baseurl, mirrorlist and metalink")
	}
	for i, u := range r.BaseURL {
		address(at.Field("baseurl").Index(i), u)
	}
	address(at.Field("mirrorlist"), r.MirrorList)
	address(at.Field("metalink"), r.MetaLink)
	oneLine(at.Field("name"), r.Name)
	for field, words := range map[string]Words{"includepkgs": r.IncludePkgs, "exclude": r.Exclude} {
		for i, w := range words {
			word(at.Field(field).Index(i), w)
		}
	}
	if r.Priority < 0 || r.Priority > 99 {
		at.Field("priority").Errorf("must be between 1 and 99, is %d", r.Priority)
	}
	if !isOn(r.GPGCheck) && !insecure {
		at.Field("gpgcheck").Errorf("is off: packages from there could be anybody's; say `insecure: true` beside rpm if that is meant")
	}
	switch {
	case r.GPGKey != nil:
		r.GPGKey.validate(at.Field("gpgkey"))
	case isOn(r.GPGCheck) || r.RepoGPGCheck:
		at.Field("gpgkey").Errorf("is missing: packages are checked with it")
	}
}

// Words is a list of words, or one alone.
type Words []string

// DecodeNode takes a list, or one word.
func (w *Words) DecodeNode(n *yaml.Node, at diag.At) {
	if n.Kind == yaml.ScalarNode {
		*w = Words{n.Value}
		return
	}
	decode.Into(n, (*[]string)(w), at)
}

// address judges the address of a repository. Only what would break the file or surely
// cannot work is a fault: the managers know many schemes, plugins add more.
func address(at diag.At, s string) {
	if s == "" || !step.StaticText(s) {
		return
	}
	scheme, _, ok := strings.Cut(strings.ToLower(s), ":")
	if !ok || scheme == "" || strings.Trim(scheme, "abcdefghijklmnopqrstuvwxyz0123456789+.-_${}") != "" {
		at.Errorf("must be an address as https://example.com/repo, is %q", s)
		return
	}
	word(at, s)
}

// word judges a value that stands among others on one line.
func word(at diag.At, s string) {
	if !step.StaticText(s) {
		return
	}
	if s == "" || strings.ContainsAny(s, " \t") {
		at.Errorf("must be one word, is %q", s)
		return
	}
	oneLine(at, s)
}

// oneLine refuses what would add lines, and so fields, to the file.
func oneLine(at diag.At, s string) {
	if step.StaticText(s) && strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		at.Errorf("must be one line, is %q", s)
	}
}
