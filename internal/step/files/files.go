// Package files makes files, folders and links of a machine what they should be.
//
// An entry is named by its path, and says what is there: a file with a content
// from the manifest, from a fetched address or from elsewhere on the machine; a
// link; a folder; or nothing. A file appears whole, by rename, with its owner
// and mode, after a program of the manifest's choice has accepted it. What
// stands in the way and may hold somebody's data, a folder above all, is never
// removed but refused.
package files

import (
	_ "embed"
	"encoding/base64"
	"path"
	"strings"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/fetch"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/step"
)

//go:embed example.yaml
var example string

// Kind is the manifest's section "files".
func Kind() step.Kind {
	return step.Kind{
		Name:    "files",
		Doc:     "Files, folders and links, named by their path.",
		Level:   step.LevelFiles,
		New:     func() step.Step { return new(File) },
		Example: example,
	}
}

// File is one path of the machine. Exactly one of Content, Template, Base64,
// Source, From, Link, Directory and Absent is given. Parents that are missing
// are made with mode 0755 and belong to the agent; name a parent as an entry of
// its own to have it otherwise.
type File struct {
	path string

	// Content is the text, as it stands: braces in it are no template.
	Content *string `yaml:"content,literal"`
	// Template is the text after rendering, which the plan has done.
	Template *string `yaml:"template"`
	// Base64 is the bytes in standard base64; white space is passed over.
	Base64 *string `yaml:"base64"`
	// Source is an address to fetch the bytes from, with further addresses of
	// the same bytes, their digest and their size in bytes.
	Source  string   `yaml:"source"`
	Mirrors []string `yaml:"mirrors"`
	Digest  string   `yaml:"digest"`
	Size    int64    `yaml:"size"`
	// From is a file on the machine, as one that an artifact brings
	// (/opt/app/share/app.logrotate). It is copied when its content differs.
	From string `yaml:"from"`
	// Link is what a symbolic link says. It may lead nowhere.
	Link string `yaml:"link"`
	// Directory is a folder. What is in it is no matter.
	Directory bool `yaml:"directory"`
	// Absent removes a file, a link or an empty folder.
	Absent bool `yaml:"absent"`

	// Owner and Group are names or numbers. An owner without a group has its
	// own group. Without an owner, what is there keeps its owner, and what is
	// new belongs to the agent.
	Owner string `yaml:"owner"`
	Group string `yaml:"group"`
	// Mode is octal; the default is 0644 for a file and 0755 for a folder.
	Mode string `yaml:"mode"`
	// CheckBy is a program to run on the new file before it takes the name: "%s"
	// in its arguments is the file's path. When it fails, the old file stays.
	CheckBy []string `yaml:"check"`
}

// SetName gives the entry its path.
func (f *File) SetName(name string) { f.path = name }

// sort is what kind of directory entry the body asks for.
type sort string

const (
	plain  sort = "a file"
	folder sort = "a folder"
	link   sort = "a link"
	absent sort = "nothing"
)

func (f *File) sort() sort {
	switch {
	case f.Absent:
		return absent
	case f.Directory:
		return folder
	case f.Link != "":
		return link
	}
	return plain
}

// given are the fields of the body that say what is there.
func (f *File) given() []string {
	var names []string
	for _, x := range []struct {
		name string
		is   bool
	}{
		{"content", f.Content != nil}, {"template", f.Template != nil}, {"base64", f.Base64 != nil},
		{"source", f.Source != ""}, {"from", f.From != ""}, {"link", f.Link != ""},
		{"directory", f.Directory}, {"absent", f.Absent},
	} {
		if x.is {
			names = append(names, x.name)
		}
	}
	return names
}

// Validate records faults of the body by field name.
func (f *File) Validate(at diag.At) {
	switch {
	case !step.StaticText(f.path):
	case !path.IsAbs(f.path):
		at.Errorf("the name must be an absolute path, is %q", f.path)
	case path.Clean(f.path) != f.path:
		at.Errorf("the name must be a plain path, write %s", path.Clean(f.path))
	case f.path == "/":
		at.Errorf("the root folder cannot be an entry")
	}
	switch given := f.given(); len(given) {
	case 1:
	case 0:
		at.Errorf("must have one of content, template, base64, source, from, link, directory and absent")
	default:
		at.Field(given[1]).Errorf("cannot be combined with %s: a path is one thing", given[0])
	}
	if f.Base64 != nil && step.StaticText(*f.Base64) {
		if _, err := decode64(*f.Base64); err != nil {
			at.Field("base64").Errorf("is not base64: %v", err)
		}
	}
	if f.From != "" && step.StaticText(f.From) && !path.IsAbs(f.From) {
		at.Field("from").Errorf("must be an absolute path on the machine, is %q", f.From)
	}
	f.request().Validate(at)
	for _, x := range []struct {
		name string
		is   bool
	}{{"digest", f.Digest != ""}, {"size", f.Size != 0}} {
		if x.is && f.Source == "" {
			at.Field(x.name).Errorf("is of what source fetches, and there is no source")
		}
	}
	f.validateMeta(at)
	f.validateCheck(at)
}

func (f *File) validateMeta(at diag.At) {
	if f.Mode != "" && step.StaticText(f.Mode) {
		if _, err := host.ParseMode(f.Mode); err != nil {
			at.Field("mode").Err(err)
		}
	}
	if f.Mode != "" && f.sort() == link {
		at.Field("mode").Errorf("a link has no mode of its own")
	}
	for name, v := range map[string]string{"owner": f.Owner, "group": f.Group, "mode": f.Mode} {
		if v != "" && f.Absent {
			at.Field(name).Errorf("what is absent has no %s", name)
		}
	}
}

func (f *File) validateCheck(at diag.At) {
	if f.CheckBy == nil {
		return
	}
	at = at.Field("check")
	switch {
	case f.sort() != plain:
		at.Errorf("is run on a file's content, and this is %s", f.sort())
	case len(f.CheckBy) == 0 || f.CheckBy[0] == "":
		at.Errorf("must name a program")
	case !strings.Contains(strings.Join(f.CheckBy[1:], " "), "%s"):
		at.Errorf("must have %%s in its arguments, for the path of the new file")
	}
}

func decode64(s string) ([]byte, error) {
	return base64.StdEncoding.DecodeString(strings.Join(strings.Fields(s), ""))
}

// meta is the wanted owner and mode. Validate has seen that the mode is one.
func (f *File) meta() host.Meta {
	m := host.Meta{Owner: f.Owner, Group: f.Group, Mode: 0o644}
	switch {
	case f.Mode != "":
		m.Mode, _ = host.ParseMode(f.Mode)
	case f.Directory:
		m.Mode = 0o755
	}
	return m
}

func (f *File) request() fetch.Request {
	return fetch.Request{Name: "files." + f.path, Source: f.Source, Mirrors: f.Mirrors, Digest: f.Digest, Size: f.Size}
}

// Fetches implements step.Fetcher.
func (f *File) Fetches() []fetch.Request {
	if f.Source == "" {
		return nil
	}
	return []fetch.Request{f.request()}
}

// Needs implements step.Needer: the owner, the group, and every parent that is an entry.
func (f *File) Needs() []step.ID {
	var ids []step.ID
	if f.Owner != "" {
		ids = append(ids, step.ID{Kind: "users", Name: f.Owner})
	}
	if f.Group != "" {
		ids = append(ids, step.ID{Kind: "groups", Name: f.Group})
	}
	for p := path.Dir(f.path); len(p) > 1; p = path.Dir(p) {
		ids = append(ids, step.ID{Kind: "files", Name: p})
	}
	if f.From != "" {
		ids = append(ids, step.ID{Kind: "files", Name: f.From})
	}
	return ids
}
