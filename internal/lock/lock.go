// Package lock is the file amiagent.lock: what everything that moves was found
// to be, once, at a desk or in CI, so that every later launch gets the same.
//
// It holds the digest of each layer of the manifest, and for each OS and
// architecture the release of the package repositories, the version of every
// package, and the digest of everything that is fetched. A machine with a lock
// refuses whatever is not in it. This package reads and writes the file, tells
// two of them apart in words, and judges; it asks nobody and touches no machine.
package lock

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/amiagent/amiagent/internal/decode"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
)

// Format is the format number of the file.
const Format = 1

// File is the usual name of the file.
const File = "amiagent.lock"

// MaxBytes bounds the file. Root parses it.
const MaxBytes = 4 << 20

const header = `# What this manifest's inputs were found to be. A machine that has this lock
# refuses everything else. Written by amiagent; do not edit.
#
#   amiagent lock --check          has anything moved since?
#   amiagent lock --update NAME    move that, and nothing else
#   amiagent lock diff OLD NEW     what differs, in words
`

// Lock is the whole file.
type Lock struct {
	Format int  `yaml:"format"`
	From   From `yaml:"from"`
	// Manifests are what the lock was made for, by role: the layers, in order.
	Manifests map[string]Manifest `yaml:"manifests"`
	// Targets are by OS and architecture, as amzn-2023/arm64.
	Targets map[string]Target `yaml:"targets"`
}

// From is how the lock was made, so that it can be checked and updated without
// saying it again. Paths are relative to the lock's own folder.
type From struct {
	Manifest    []string          `yaml:"manifest"`
	Targets     []string          `yaml:"targets,omitempty"`
	Facts       []string          `yaml:"facts,omitempty"` // files, one a role
	Given       map[string]string `yaml:"given,omitempty"` // facts given by hand, for all roles
	Transaction bool              `yaml:"transaction,omitempty"`
}

// Manifest is the layers of one role.
type Manifest struct {
	Target string  `yaml:"target"`
	Digest string  `yaml:"digest"` // of the layers' digests in order, see Digest
	Layers []Layer `yaml:"layers"`
}

// Layer is one layer of a manifest.
type Layer struct {
	Source string `yaml:"source"` // a path, relative to the lock's folder, or an address
	Digest string `yaml:"digest"` // sha256:HEX of its bytes
	// Origin is the source with version id or commit, where there is one. It
	// says where the bytes were; the digest says what they are.
	Origin string `yaml:"origin,omitempty"`
	// Varies tells that the address depends on facts of the launch.
	Varies bool `yaml:"varies,omitempty"`
}

// Target is what one OS and architecture gets.
type Target struct {
	Pin      *Pin               `yaml:"pin,omitempty"`
	Packages map[string]Package `yaml:"packages,omitempty"`
	// Transaction is all packages that installing Packages on a fresh system brings, on request.
	Transaction map[string]Package `yaml:"transaction,omitempty"`
	// Artifacts are what is fetched: by step, then by address.
	Artifacts map[string]map[string]Artifact `yaml:"artifacts,omitempty"`
}

// Pin is the release of the distribution's repositories.
type Pin struct {
	Release      string                `yaml:"release"`
	Repositories map[string]Repository `yaml:"repositories,omitempty"` // by id
}

// Repository is the identity of one package repository.
type Repository struct {
	URL      string `yaml:"url,omitempty"`      // after mirror list and variables
	Metadata string `yaml:"metadata,omitempty"` // sha256:HEX of repomd.xml or InRelease
}

// Package is one package at a version.
type Package struct {
	Version    string `yaml:"version"`
	Repository string `yaml:"repository,omitempty"`
}

// Artifact is what one address had. One of Digest and Commit is set.
type Artifact struct {
	Digest  string `yaml:"digest,omitempty"`
	Commit  string `yaml:"commit,omitempty"` // git
	Size    int64  `yaml:"size,omitempty"`   // bytes
	Version string `yaml:"version-id,omitempty"`
}

// TargetOf names the target of a machine: OS, its version and architecture.
func TargetOf(f *facts.Facts) string {
	os := f.Get(facts.OSID)
	if v := f.Get(facts.OSVersion); v != "" {
		os += "-" + v
	}
	return os + "/" + f.Get(facts.Arch)
}

// SplitTarget is the inverse of TargetOf. The version is "" where the OS has none.
func SplitTarget(target string) (os, version, arch string, err error) {
	name, arch, ok := strings.Cut(target, "/")
	if i := strings.LastIndexByte(name, '-'); i >= 0 {
		name, version = name[:i], name[i+1:]
	}
	if !ok || name == "" || arch == "" || strings.Contains(arch, "/") {
		return "", "", "", diag.WithHint(fmt.Errorf("%q is no target", target), "write OS-VERSION/ARCH, as amzn-2023/arm64 or debian-13/amd64")
	}
	return name, version, arch, nil
}

// Digest is the digest of a manifest: of its layers' digests, in order.
func Digest(layers []Layer) string {
	h := sha256.New()
	for _, l := range layers {
		fmt.Fprintln(h, l.Digest)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// Parse reads a lock. Faults go to list, each at its place; an unknown format is one.
func Parse(file string, data []byte, list *diag.List) *Lock {
	if len(data) > MaxBytes {
		list.Add(diag.Problem{Pos: diag.Pos{File: file}, Message: fmt.Sprintf("the lock has more than the %d bytes allowed", MaxBytes)})
		return nil
	}
	root := decode.Parse(file, data, list)
	if root == nil {
		return nil
	}
	at := decode.At(list, file, root, "")
	if !known(root, at) {
		return nil // the rest may mean something else there
	}
	l := &Lock{}
	decode.Into(root, l, at)
	l.validate(at)
	return l
}

// known tells whether the format is ours.
func known(root *yaml.Node, at diag.At) bool {
	keys, values := decode.Pairs(root, at)
	i := slices.IndexFunc(keys, func(k *yaml.Node) bool { return k.Value == "format" })
	if i < 0 {
		at.Err(diag.WithHint(errors.New("no format: this is no lock"), "`amiagent lock` writes one"))
		return false
	}
	if values[i].Value != fmt.Sprint(Format) {
		at.Field("format").Err(diag.WithHint(fmt.Errorf("format %q is not known, this agent reads %d", values[i].Value, Format),
			"give the image a newer agent, or write the lock anew with this one"))
		return false
	}
	return true
}

func (l *Lock) validate(at diag.At) {
	for _, role := range slices.Sorted(maps.Keys(l.Manifests)) {
		m, at := l.Manifests[role], at.Field("manifests").Field(role)
		if _, ok := l.Targets[m.Target]; !ok {
			at.Field("target").Errorf("%q is not among the targets", m.Target)
		}
		for i, layer := range m.Layers {
			validDigest(layer.Digest, at.Field("layers").Index(i).Field("digest"))
		}
		if m.Digest != Digest(m.Layers) {
			at.Field("digest").Err(diag.WithHint(errors.New("is not that of the layers"), "the lock was edited by hand, or merged; write it anew with `amiagent lock`"))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(l.Targets)) {
		at := at.Field("targets").Field(name)
		if _, _, _, err := SplitTarget(name); err != nil {
			at.Err(err)
		}
		l.Targets[name].validate(at)
	}
}

func (t Target) validate(at diag.At) {
	if t.Pin != nil && t.Pin.Release == "" {
		at.Field("pin").Errorf("names no release")
	}
	for field, packages := range map[string]map[string]Package{"packages": t.Packages, "transaction": t.Transaction} {
		for name, p := range packages {
			if p.Version == "" {
				at.Field(field).Field(name).Errorf("has no version")
			}
		}
	}
	for step, sources := range t.Artifacts {
		for source, a := range sources {
			at := at.Field("artifacts").Field(step).Field(source)
			switch {
			case a.Digest == "" && a.Commit == "":
				at.Errorf("has neither digest nor commit")
			case a.Digest != "" && a.Commit != "":
				at.Errorf("has both a digest and a commit")
			case a.Commit != "":
				if n := len(a.Commit); n != 40 && n != 64 || !isHex(a.Commit) {
					at.Field("commit").Errorf("%q is no commit in full", a.Commit)
				}
			default:
				validDigest(a.Digest, at.Field("digest"))
			}
			if a.Size < 0 {
				at.Field("size").Errorf("must not be negative, is %d", a.Size)
			}
		}
	}
}

func validDigest(digest string, at diag.At) {
	algorithm, digits, _ := strings.Cut(digest, ":")
	if n := map[string]int{"sha256": 64, "sha512": 128}[algorithm]; n == 0 || len(digits) != n || !isHex(digits) {
		at.Errorf("%q is no digest", digest)
	}
}

func isHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }

// Bytes writes the file: the same content is always the same bytes.
func (l *Lock) Bytes() ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(header)
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(l); err != nil {
		return nil, fmt.Errorf("cannot write the lock: %w", err)
	}
	return b.Bytes(), enc.Close()
}
