// Package sysctl sets parameters of the running kernel, and sees that they are
// set again at the next boot.
//
// An entry is named by its key. It has a file of its own in /etc/sysctl.d,
// which systemd-sysctl reads early in every boot, and on a running machine its
// value in /proc/sys. Both are written and compared here; no program is run.
package sysctl

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"
	"syscall"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/step"
)

//go:embed example.yaml
var example string

// Kind is the manifest's section "sysctl".
func Kind() step.Kind {
	return step.Kind{
		Name:    "sysctl",
		Doc:     "Kernel parameters, in /etc/sysctl.d and in the running kernel.",
		Level:   step.LevelStorage,
		New:     func() step.Step { return new(Setting) },
		Example: example,
	}
}

// Setting is one kernel parameter. Its name is a key as in sysctl.d(5):
// vm.swappiness or vm/swappiness. What separates first separates throughout,
// and the other of the two is part of a word: net.ipv4.conf.eth0/200.forwarding
// is of the interface eth0.200.
type Setting struct {
	key string

	// Value is what to set. White space counts as one space, for the kernel
	// prints tabs. Write it as the kernel prints it: 16, not 0x10.
	Value *string `yaml:"value"`
}

// SetName gives the setting its key.
func (s *Setting) SetName(name string) { s.key = name }

// keyRule leaves out white space, "=", comments and the patterns of sysctl.d,
// and demands two words at least.
var keyRule = regexp.MustCompile(`^[A-Za-z0-9_@:-]+([./][A-Za-z0-9_@:-]+)+$`)

// Validate records faults of the body by field name.
func (s *Setting) Validate(at diag.At) {
	if step.StaticText(s.key) && !keyRule.MatchString(s.key) {
		at.Err(diag.WithHint(fmt.Errorf("%q is no kernel parameter", s.key), "write one key, as vm.swappiness; patterns are not accepted"))
	}
	switch {
	case s.Value == nil:
		at.Field("value").Errorf("must be given")
	case strings.ContainsAny(strings.TrimSpace(*s.Value), "\n\x00"):
		at.Field("value").Errorf("must be one line")
	}
}

// words are the parts of the key.
func (s *Setting) words() []string {
	separator, other := ".", "/"
	if i := strings.IndexAny(s.key, "./"); i >= 0 && s.key[i] == '/' {
		separator, other = other, separator
	}
	words := strings.Split(s.key, separator)
	if separator == "." {
		for i, w := range words {
			words[i] = strings.ReplaceAll(w, other, separator)
		}
	}
	return words
}

// live is where the running kernel has the value.
func (s *Setting) live() string { return path.Join(append([]string{"/proc/sys"}, s.words()...)...) }

// file is where the value is kept for the next boot. Of all the files, the last
// by name wins: distributions have a 99-sysctl.conf.
func (s *Setting) file() string {
	return "/etc/sysctl.d/99-zz-amiagent-" + strings.Join(s.words(), "-") + ".conf"
}

func (s *Setting) value() string { return normal(*s.Value) }

func normal(v string) string { return strings.Join(strings.Fields(v), " ") }

func (s *Setting) content() string {
	return "# Made by amiagent from the manifest, and restored when it is changed.\n" +
		strings.Join(s.words(), "/") + " = " + s.value() + "\n"
}

var meta = host.Meta{Mode: 0o644}

// Check implements step.Step. It looks at the file, and on a live machine at the kernel.
func (s *Setting) Check(ctx context.Context, env step.Env) (step.Drift, error) {
	var differs []string
	st, err := env.Host.Lstat(s.file())
	switch {
	case host.Missing(err):
		differs = append(differs, s.file()+" is missing")
	case err != nil:
		return "", fmt.Errorf("cannot look at %s: %w", s.file(), host.Cause(err))
	case !st.Mode().IsRegular():
		differs = append(differs, s.file()+" is no file")
	default:
		have, err := env.Host.ReadLimited(s.file(), 64<<10)
		if err != nil && !errors.Is(err, host.ErrTooLarge) {
			return "", fmt.Errorf("cannot read %s: %w", s.file(), host.Cause(err))
		}
		if err != nil || string(have) != s.content() {
			differs = append(differs, s.file()+" differs")
		}
		of, err := env.Host.MetaDrift(st, meta)
		if err != nil {
			return "", err
		}
		differs = append(differs, of...)
	}
	if env.Host.Live() {
		have, err := env.Host.ReadLimited(s.live(), 64<<10)
		switch {
		case host.Missing(err):
			differs = append(differs, "the kernel has no such parameter")
		case err != nil:
			return "", diag.WithHint(fmt.Errorf("cannot read %s: %w", s.live(), host.Cause(err)),
				"a parameter that cannot be read is an action; write to it with a command")
		case normal(string(have)) != s.value():
			differs = append(differs, fmt.Sprintf("the kernel has %q, want %q", normal(string(have)), s.value()))
		}
	}
	return step.Drift(strings.Join(differs, "; ")), nil
}

// Apply implements step.Step. The kernel comes first: a value that it refuses
// must not wait in a file for the next boot.
func (s *Setting) Apply(ctx context.Context, env step.Env) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if env.Host.Live() {
		if err := s.set(env); err != nil {
			return err
		}
	}
	if err := env.Host.MkdirAll(path.Dir(s.file())); err != nil {
		return host.Explain(fmt.Errorf("cannot make folder %s: %w", path.Dir(s.file()), host.Cause(err)))
	}
	err := env.Host.WriteFile(ctx, host.File{
		Path: s.file(), Data: strings.NewReader(s.content()), Mode: meta.Mode, UID: host.Keep, GID: host.Keep,
	})
	if err != nil {
		return host.Explain(fmt.Errorf("cannot write %s: %w", s.file(), host.Cause(err)))
	}
	return nil
}

func (s *Setting) set(env step.Env) error {
	have, err := env.Host.ReadLimited(s.live(), 64<<10)
	if err == nil && normal(string(have)) == s.value() {
		return nil // some parameters accept a value once, or only from the host of a container
	}
	err = env.Host.WriteKernel(s.live(), s.value())
	if err == nil {
		return nil
	}
	hint := ""
	switch {
	case host.Missing(err):
		return diag.WithHint(fmt.Errorf("cannot set %s: the kernel has no such parameter", s.key),
			"see `sysctl -a` for the spelling; some come with a kernel module that must be loaded before")
	case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ERANGE):
		hint = "the kernel refuses the value"
	case errors.Is(err, syscall.EROFS):
		hint = "in a container, the parameters belong to the host"
	case errors.Is(err, fs.ErrPermission):
		hint = "the kernel offers it for reading only, or the agent does not run as root"
	}
	err = fmt.Errorf("cannot set %s to %q: %w", s.key, s.value(), host.Cause(err))
	if hint != "" {
		err = diag.WithHint(err, "%s", hint)
	}
	return err
}
