package ec2sim

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/amiagent/amiagent/internal/decode"
	"github.com/amiagent/amiagent/internal/diag"
)

// Config is one instance and the account it lives in. The zero Config is an
// on-demand x86_64 instance with a role, no tags, no user data, and empty
// Parameter Store, Secrets Manager and S3.
type Config struct {
	InstanceID   string            `yaml:"instance-id"`
	Region       string            `yaml:"region"`
	Zone         string            `yaml:"availability-zone"`
	Account      string            `yaml:"account"`
	Arch         string            `yaml:"architecture"` // EC2's word: x86_64, arm64, i386
	ImageID      string            `yaml:"image-id"`
	InstanceType string            `yaml:"instance-type"`
	Hostname     string            `yaml:"hostname"`
	PrivateIP    string            `yaml:"private-ip"`
	MAC          string            `yaml:"mac"`
	PublicKey    string            `yaml:"public-key"` // a line of authorized_keys; "" is an instance without key pair
	Tags         map[string]string `yaml:"tags"`
	TagsInIMDS   bool              `yaml:"tags-in-imds"`           // off, as on EC2, unless asked for
	LifeCycle    string            `yaml:"life-cycle"`             // on-demand, spot, scheduled, capacity-block
	TargetState  string            `yaml:"target-lifecycle-state"` // "" answers 404, as before the first transition
	UserData     string            `yaml:"user-data"`              // "" answers 404
	BlockDevices map[string]string `yaml:"block-device-mapping"`   // ami, root, ebsN, ephemeralN → device

	// Role is the role of the instance profile; "none" is an instance without one.
	Role string `yaml:"role"`

	Parameters map[string]Parameter `yaml:"parameters"`
	Secrets    map[string]Versions  `yaml:"secrets"` // the last is AWSCURRENT, the one before AWSPREVIOUS
	Buckets    map[string]Bucket    `yaml:"buckets"`
	Faults     []Fault              `yaml:"faults"`
}

// NoRole is the Config.Role of an instance without an instance profile.
const NoRole = "none"

// Versions are the values that one name has had, oldest first. In YAML a plain
// string is one version.
type Versions []string

// DecodeNode reads a string or a list of strings.
func (v *Versions) DecodeNode(n *yaml.Node, at diag.At) {
	if n.Kind == yaml.ScalarNode {
		*v = Versions{n.Value}
		return
	}
	decode.Into(n, (*[]string)(v), at)
	if len(*v) == 0 {
		at.Errorf("must be a string, or a list of strings, oldest version first")
	}
}

// Parameter is one SSM parameter. Its versions count from 1. In YAML a plain
// string is a parameter of type String.
type Parameter struct {
	Type  string   `yaml:"type"` // String (also when ""), StringList, SecureString
	Value Versions `yaml:"value"`
}

// DecodeNode reads a string, or a mapping of type and value.
func (p *Parameter) DecodeNode(n *yaml.Node, at diag.At) {
	type plain Parameter // without this method
	if n.Kind == yaml.ScalarNode {
		p.Value = Versions{n.Value}
		return
	}
	decode.Into(n, (*plain)(p), at)
	if len(p.Value) == 0 {
		at.Errorf("has no value")
	}
	oneOf(at.Field("type"), p.Type, "String", "StringList", "SecureString")
}

// Bucket is one S3 bucket, with versioning on.
type Bucket struct {
	Region  string              `yaml:"region"`  // "" is the instance's region
	Folder  string              `yaml:"folder"`  // every file below is an object; a changed file is a new version
	Objects map[string]Versions `yaml:"objects"` // by key, beside those of the folder
}

// ReadConfig reads a configuration document. Every fault is reported at its
// place, as a *diag.Error. Folders are relative to the document's.
func ReadConfig(file string, data []byte) (Config, error) {
	var list diag.List
	var doc struct {
		Config       `yaml:",inline"`
		UserDataFile string `yaml:"user-data-file"`
	}
	n := decode.Parse(file, data, &list)
	if n == nil {
		return Config{}, list.Err()
	}
	at := decode.At(&list, file, n, "")
	decode.Into(n, &doc, at)

	dir := filepath.Dir(file)
	if doc.UserDataFile != "" {
		if b, err := readAtMost(relative(dir, doc.UserDataFile), maxUserData+1); err != nil {
			at.Field("user-data-file").Errorf("cannot read %s", cause(err))
		} else {
			doc.UserData = string(b)
		}
	}
	for name, b := range doc.Buckets {
		if b.Folder == "" {
			continue
		}
		b.Folder = relative(dir, b.Folder)
		doc.Buckets[name] = b
		if st, err := os.Stat(b.Folder); err != nil {
			at.Field("buckets").Field(name).Field("folder").Errorf("cannot read %s", cause(err))
		} else if !st.IsDir() {
			at.Field("buckets").Field(name).Field("folder").Errorf("%q is not a folder", b.Folder)
		}
	}
	doc.Validate(at)
	return doc.Config, list.Err()
}

func readAtMost(file string, n int64) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, n))
}

func cause(err error) string {
	return strings.TrimPrefix(strings.TrimPrefix(err.Error(), "open "), "stat ")
}

func relative(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// imdsKey is what a tag key may hold when tags are in instance metadata;
// RunInstances and CreateTags refuse others.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/work-with-tags-in-IMDS.html
var imdsKey = regexp.MustCompile(`^[A-Za-z0-9+\-=._,:@]{1,128}$`)

var deviceName = regexp.MustCompile(`^(ami|root|swap|(ebs|ephemeral)\d+)$`)

// Validate records what EC2 would refuse.
func (c *Config) Validate(at diag.At) {
	oneOf(at.Field("architecture"), c.Arch, "x86_64", "arm64", "i386")
	oneOf(at.Field("life-cycle"), c.LifeCycle, "on-demand", "spot", "scheduled", "capacity-block")
	oneOf(at.Field("target-lifecycle-state"), c.TargetState, "InService", "Terminated", "Detached", "Standby",
		"Warmed:Hibernated", "Warmed:Running", "Warmed:Stopped", "Warmed:Terminated")
	if c.Zone != "" && c.Region != "" && !strings.HasPrefix(c.Zone, c.Region) {
		at.Field("availability-zone").Errorf("%q is not in region %q", c.Zone, c.Region)
	}
	if len(c.UserData) > maxUserData {
		at.Field("user-data").Errorf("has %d bytes, EC2 takes %d", len(c.UserData), maxUserData)
	}
	for key := range c.Tags {
		if c.TagsInIMDS && !validIMDSKey(key) {
			at.Field("tags").Field(key).Errorf("EC2 refuses this key while tags are in metadata: letters, digits and +-=.,_:@ only")
		}
	}
	for name := range c.BlockDevices {
		if !deviceName.MatchString(name) {
			at.Field("block-device-mapping").Field(name).Errorf("must be ami, root, ebsN or ephemeralN")
		}
	}
	for i := range c.Faults {
		c.Faults[i].Validate(at.Field("faults").Index(i))
	}
}

// validIMDSKey also refuses the two keys that would be path elements, and "_index".
func validIMDSKey(key string) bool {
	return imdsKey.MatchString(key) && !slices.Contains([]string{".", "..", "_index"}, key)
}

// maxUserData is EC2's limit, before base64.
const maxUserData = 16 << 10

func oneOf(at diag.At, got string, known ...string) {
	if got != "" && !slices.Contains(known, got) {
		at.Errorf("%q is none of %s", got, strings.Join(known, ", "))
	}
}

// withDefaults fills what was left out, so that every answer has a plausible value.
func (c Config) withDefaults() Config {
	or := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	or(&c.InstanceID, "i-0ec2517a0c0ffee00")
	or(&c.Region, "eu-west-1")
	or(&c.Zone, c.Region+"a")
	or(&c.Account, "123456789012")
	or(&c.Arch, "x86_64")
	or(&c.ImageID, "ami-0ec2517a0c0ffee00")
	or(&c.InstanceType, map[string]string{"arm64": "m7g.large", "i386": "t2.micro"}[c.Arch])
	or(&c.InstanceType, "m7i.large")
	or(&c.PrivateIP, "10.0.0.10")
	or(&c.Hostname, "ip-"+strings.ReplaceAll(c.PrivateIP, ".", "-")+"."+c.Region+".compute.internal")
	or(&c.MAC, "0a:ec:25:17:00:01")
	or(&c.LifeCycle, "on-demand")
	or(&c.Role, "instance-role")
	if c.BlockDevices == nil {
		c.BlockDevices = map[string]string{"ami": "/dev/xvda", "root": "/dev/xvda"}
	}
	return c
}
