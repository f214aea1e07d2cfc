package facts

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"go.yaml.in/yaml/v3"

	"github.com/amiagent/amiagent/internal/decode"
	"github.com/amiagent/amiagent/internal/diag"
)

// Load reads facts from a file outside any root: captured ones, as LoadFile, or
// some written by hand, as YAML. Nested names are joined by dots:
//
//	os: {id: amzn, version: "2023"}
//	arch: arm64
//	tags: {Role: web}
//
// Faults of what is written by hand are in a *diag.Error.
func Load(name string) (*Facts, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("cannot read facts: %w", err)
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, maxDocument+1))
	if err == nil && len(b) > maxDocument {
		err = fmt.Errorf("more than %d bytes", maxDocument)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read facts %s: %w", name, err)
	}
	if bytes.HasPrefix(bytes.TrimSpace(b), []byte("{")) {
		return LoadFile(name)
	}
	var list diag.List
	f := New()
	if root := decode.Parse(name, b, &list); root != nil {
		f.byHand("", root, decode.At(&list, name, root, ""))
	}
	if len(f.TagKeys()) > 0 {
		f.Tags = Tags{State: TagsPresent, Source: "by hand"}
	} else {
		f.Tags = Tags{State: TagsEmpty, Source: "by hand"}
	}
	return f, list.Err()
}

func (f *Facts) byHand(prefix string, n *yaml.Node, at diag.At) {
	keys, values := decode.Pairs(n, at)
	for i, k := range keys {
		name, at := prefix+k.Value, at.Field(k.Value)
		switch v := values[i]; v.Kind {
		case yaml.MappingNode:
			f.byHand(name+".", v, at)
		case yaml.ScalarNode:
			f.Set(name, v.Value, StageOf(name), "by hand")
		default:
			at.Err(diag.WithHint(errors.New("is no fact: a fact is one text"), "`amiagent facts` shows what there is"))
		}
	}
}

// families are the package managers by the OS that has them, for machines of
// which only the OS is known.
var families = map[string]string{
	"debian": "apt", "ubuntu": "apt",
	"rhel": "dnf", "fedora": "dnf", "centos": "dnf", "rocky": "dnf", "almalinux": "dnf", "ol": "dnf",
}

// likes are what ID_LIKE of os-release says on these.
var likes = map[string]string{
	"ubuntu": "debian", "amzn": "fedora", "rocky": "rhel centos fedora", "almalinux": "rhel centos fedora", "centos": "rhel fedora", "ol": "fedora",
}

// Complete adds what follows from the OS to facts of which that much is known:
// the package manager and the OS's relatives. What is known stays.
func (f *Facts) Complete() {
	set := func(name, value string) {
		if _, known := f.Values[name]; !known && value != "" {
			f.Set(name, value, StageOf(name), "by the OS")
		}
	}
	id := f.Get(OSID)
	set(OSLike, likes[id])
	family := families[id]
	if id == "amzn" {
		family = map[string]string{"2": "yum", "2018.03": "yum"}[f.Get(OSVersion)]
		if family == "" {
			family = "dnf"
		}
	}
	set(PackageFamily, family)
}
