// Package facts holds what a machine is: a flat set of named values, each with
// the stage at which it becomes known and the source that told it.
//
// A fact is known at bake (it holds for every instance of an image) or only at
// launch. Reading one is recorded by those who ask through a template, which is
// how a plan knows what a step depends on.
package facts

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Stage is when a fact becomes known.
type Stage int

const (
	Bake   Stage = iota // holds for every instance of an image: OS, architecture, variables
	Launch              // holds for one instance: id, tags, region of launch
)

func (s Stage) String() string {
	if s == Bake {
		return "bake"
	}
	return "launch"
}

// MarshalText writes "bake" or "launch".
func (s Stage) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads "bake" or "launch".
func (s *Stage) UnmarshalText(b []byte) error {
	switch string(b) {
	case "bake":
		*s = Bake
	case "launch":
		*s = Launch
	default:
		return fmt.Errorf("unknown stage %q, known are bake and launch", b)
	}
	return nil
}

// Fact is one thing known of the machine.
type Fact struct {
	Value  string `json:"value"`
	Stage  Stage  `json:"stage"`
	Source string `json:"source"` // "imds", "os-release", "flag", ...
	Secret bool   `json:"-"`      // never printed, never captured (user data)
}

// Names of facts that code asks for. Others, such as "tags.Role", are composed.
const (
	OSID          = "os.id"         // os-release ID: amzn, debian, ubuntu, rhel
	OSVersion     = "os.version"    // os-release VERSION_ID
	OSLike        = "os.like"       // os-release ID_LIKE, space separated
	Arch          = "arch"          // Go's name: amd64, arm64, 386
	Kernel        = "kernel"        // uname -r
	Virt          = "virt"          // systemd-detect-virt's word
	PackageFamily = "packages"      // apt, dnf, dnf5, yum, or ""
	ImageName     = "image.name"    // identity that bake left in the image
	InstanceID    = "instance-id"   // i-...
	InstanceType  = "instance-type" // m7i.large
	Region        = "region"
	Zone          = "zone"
	Account       = "account"
	ImageID       = "image-id" // ami-...
	Hostname      = "hostname"
	LifeCycle     = "life-cycle" // on-demand, spot, scheduled
	TargetState   = "target-lifecycle-state"
	BootID        = "boot-id"
	UserData      = "user-data"
	TagPrefix     = "tags."
)

// TagState explains instance tags: why they are there, or why not.
type TagState string

const (
	TagsPresent   TagState = "present"
	TagsEmpty     TagState = "empty"            // readable, and there are none
	TagsDisabled  TagState = "disabled in IMDS" // InstanceMetadataTags is off, and the API was not asked
	TagsDenied    TagState = "denied by IAM"    // ec2:DescribeTags refused
	TagsThrottled TagState = "throttled"        // the API asked us to slow down until the deadline
	TagsNotYet    TagState = "not there yet"    // the API knows no tag of this instance yet
	TagsNoIMDS    TagState = "no metadata"      // not on EC2, or IMDS out of reach
)

// Tags explains the instance tags of a Facts.
type Tags struct {
	State  TagState `json:"state"`
	Source string   `json:"source,omitempty"` // "imds" or "ec2:DescribeTags"
	Hint   string   `json:"hint,omitempty"`   // the exact remedy, where there is one
}

// Facts is what is known of one machine. The zero value knows nothing.
// It is not changed once it is handed out, so it may be read concurrently.
type Facts struct {
	Values map[string]Fact `json:"facts"`
	Tags   Tags            `json:"tags"`
	Notes  []string        `json:"notes,omitempty"` // what a person should know: "no IMDS: ..."
}

// New is an empty set to fill.
func New() *Facts { return &Facts{Values: map[string]Fact{}} }

// Set records a fact. An empty value records that the fact is known to be empty.
func (f *Facts) Set(name, value string, stage Stage, source string) {
	f.Values[name] = Fact{Value: value, Stage: stage, Source: source}
}

// Get is a fact's value, "" when unknown.
func (f *Facts) Get(name string) string { return f.Values[name].Value }

// Lookup is a fact and whether it is known.
func (f *Facts) Lookup(name string) (Fact, bool) {
	v, ok := f.Values[name]
	return v, ok
}

// Tag is an instance tag's value and whether the tag is there.
func (f *Facts) Tag(key string) (string, bool) {
	v, ok := f.Values[TagPrefix+key]
	return v.Value, ok
}

// Names are all known facts' names, sorted.
func (f *Facts) Names() []string { return slices.Sorted(maps.Keys(f.Values)) }

// TagKeys are the keys of the instance tags, sorted.
func (f *Facts) TagKeys() []string {
	var keys []string
	for _, name := range f.Names() {
		if k, ok := strings.CutPrefix(name, TagPrefix); ok {
			keys = append(keys, k)
		}
	}
	return keys
}

// Distro is the word for the family of an OS: "debian" for Debian, Ubuntu and
// what is like them, "amzn" for Amazon Linux, "rhel" for RHEL and what is like it, else os.id.
func (f *Facts) Distro() string {
	id := f.Get(OSID)
	like := strings.Fields(f.Get(OSLike))
	switch {
	case id == "amzn":
		return "amzn"
	case id == "debian", slices.Contains(like, "debian"):
		return "debian"
	case id == "rhel", slices.Contains(like, "rhel"), slices.Contains(like, "fedora"), id == "fedora":
		return "rhel"
	}
	return id
}
