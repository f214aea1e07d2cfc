// Package config reads /etc/amiagent/agent.yaml: what the image's builder
// decides about the agent itself, apart from what the machine should be.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/amiagent/amiagent/internal/channel"
	"github.com/amiagent/amiagent/internal/decode"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
)

// Path is where the configuration lies, inside the root.
const Path = "/etc/amiagent/agent.yaml"

// ManifestDir is the folder of manifests in the image, the first layer unless agent.yaml says otherwise.
const ManifestDir = "/etc/amiagent/manifest.d"

// UserData is the address of the layer that is the instance's user data.
const UserData = "user-data"

// Version is the version of the file format.
const Version = 1

// Layer is one source of manifest.
type Layer struct {
	Source   string `yaml:"source"`   // a template over facts
	Digest   string `yaml:"digest"`   // sha256:HEX or sha512:HEX of its bytes; "" accepts any
	Optional bool   `yaml:"optional"` // whether it may be absent
}

// DecodeNode accepts an address alone, or a mapping.
func (l *Layer) DecodeNode(n *yaml.Node, at diag.At) {
	if n.Kind == yaml.ScalarNode {
		decode.Into(n, &l.Source, at)
	} else {
		type plain Layer
		decode.Into(n, (*plain)(l), at)
	}
	if l.Source == "" {
		at.Errorf("a layer needs a source")
	}
}

// Health is where the health responder listens.
type Health struct {
	Address string `yaml:"address"` // default: all addresses
	Port    int    `yaml:"port"`    // default 8099
}

// Config is the whole file.
type Config struct {
	Version  int           `yaml:"amiagent"`
	Layers   []Layer       `yaml:"layers"`
	Lock     *Lock         `yaml:"lock"`     // where the lock is; without one nothing is locked
	Deadline time.Duration `yaml:"deadline"` // of a launch, default 15m
	Patience time.Duration `yaml:"patience"` // how long metadata, a layer or secrets may take at a boot that can do with what was kept, default 10s
	Reboots  int           `yaml:"reboots"`  // how many reboots a launch may ask for, default 3
	Health   Health        `yaml:"health"`
	Console  bool          `yaml:"console"`        // a short account on the serial console, default true
	TagsAPI  bool          `yaml:"tags-api"`       // ask ec2:DescribeTags when tags are not in IMDS, default true
	Loopback bool          `yaml:"allow-loopback"` // artifacts and layers may come from this machine's own addresses
	Parallel int           `yaml:"parallel"`       // steps and fetches at once, default 8
	// Channel is the address of the channel that says which lock to use, a template over facts; "" uses none.
	Channel string `yaml:"channel"`
	// OnCandidateFailure is stable or fail; "" leaves it to the channel.
	OnCandidateFailure channel.OnFailure `yaml:"on-candidate-failure"`
}

// Default is the configuration of an agent without agent.yaml.
func Default() Config {
	return Config{
		Version:  Version,
		Layers:   []Layer{{Source: ManifestDir, Optional: true}, {Source: UserData, Optional: true}},
		Deadline: 15 * time.Minute,
		Patience: 10 * time.Second,
		Reboots:  3,
		Health:   Health{Port: 8099},
		Console:  true,
		TagsAPI:  true,
		Parallel: 8,
	}
}

// Read reads the host's agent.yaml; one that is absent gives the defaults. All
// faults are in the error, a *diag.Error.
func Read(h *host.Host) (Config, error) {
	b, err := h.ReadLimited(Path, 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return Default(), nil
	}
	if err != nil {
		return Config{}, fmt.Errorf("cannot read the configuration: %w", err)
	}
	var list diag.List
	c := Parse(Path, b, &list)
	return c, list.Err()
}

// Parse reads an agent.yaml.
func Parse(file string, data []byte, list *diag.List) Config {
	c := Default()
	c.Version = 0
	root := decode.Parse(file, data, list)
	if root == nil {
		return c
	}
	at := decode.At(list, file, root, "")
	decode.Into(root, &c, at)
	switch {
	case c.Version == 0:
		at.Err(diag.WithHint(errors.New("no configuration version"), "begin the file with the line: amiagent: %d", Version))
	case c.Version != Version:
		at.Field("amiagent").Errorf("configuration version %d is not known, this agent reads version %d", c.Version, Version)
	}
	if c.Deadline < time.Second {
		at.Field("deadline").Errorf("must be at least 1s, is %s", c.Deadline)
	}
	if c.Patience < 100*time.Millisecond {
		at.Field("patience").Errorf("must be at least 100ms, is %s", c.Patience)
	}
	if c.Health.Port < 1 || c.Health.Port > 65535 {
		at.Field("health").Field("port").Errorf("must be a port from 1 to 65535, is %d", c.Health.Port)
	}
	if c.Parallel < 1 || c.Parallel > 64 {
		at.Field("parallel").Errorf("must be from 1 to 64, is %d", c.Parallel)
	}
	if c.Reboots < 0 {
		at.Field("reboots").Errorf("must not be negative, is %d", c.Reboots)
	}
	if c.OnCandidateFailure != "" && c.Channel == "" {
		at.Field("on-candidate-failure").Errorf("has no meaning without channel:")
	}
	if len(c.Layers) == 0 {
		at.Field("layers").Errorf("names no layer, so there would be no manifest")
	}
	return c
}
