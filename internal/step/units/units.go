// Package units makes systemd units what they should be: their files and
// drop-ins, whether they are enabled or masked, whether they run.
//
// Units of one manifest are applied together: all files first, then one reload
// of systemd at most, then all starts at once, in the order that systemd
// itself gives them. A unit that systemd would only start once the agent is
// ready is not waited for, because neither would ever come about.
//
// In a tree that is no running machine, files, links of [Install] and masks
// are made, and nothing is said of what runs.
package units

import (
	"context"
	_ "embed"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/amiagent/amiagent/internal/decode"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/step"
)

//go:embed example.yaml
var example string

// Kind is the manifest's section "units".
func Kind() step.Kind {
	return step.Kind{
		Name:    "units",
		Doc:     "systemd units: their files and drop-ins, enabled or masked, started or stopped.",
		Level:   step.LevelUnits,
		New:     func() step.Step { return new(Unit) },
		Group:   group{},
		Lock:    "systemd",
		Example: example,
	}
}

// The words of the field state.
const (
	started = "started"
	stopped = "stopped"
)

// Unit is one systemd unit. What it does not say is left as it is.
type Unit struct {
	name string

	// Content is the text of the unit's file in /etc/systemd/system. Empty
	// leaves the file to whoever brings it: a package, an artifact.
	Content string `yaml:"content"`
	// DropIns are further texts by name; "limits" lies in NAME.d/limits.conf.
	DropIns map[string]string `yaml:"drop-ins"`
	// Enabled says whether the unit is started with the machine, as its [Install] section says.
	Enabled *bool `yaml:"enabled"`
	// Masked says whether the unit is made impossible to start.
	Masked *bool `yaml:"masked"`
	// State is "started" or "stopped". A oneshot that does not remain is
	// started when it has run, successfully, in this boot.
	State string `yaml:"state"`
	// RestartOn names the steps whose change the unit sees only by a restart.
	// Its own content and drop-ins always count among them.
	RestartOn []step.ID `yaml:"restart-on"`
	// Reload says that a reload is as good as a restart, where the unit has one.
	Reload bool `yaml:"reload"`
	// Timeout bounds the wait for a start or stop; 0 leaves it to the unit's own.
	Timeout time.Duration `yaml:"timeout"`
}

// SetName gives the unit its name.
func (u *Unit) SetName(name string) { u.name = name }

// Watches are the steps after whose change the unit is restarted.
func (u *Unit) Watches() []step.ID { return u.RestartOn }

// Runs tells that a started unit runs software of the manifest's own.
func (u *Unit) Runs() bool { return u.State == started }

// rereads tells whether there is anything that a running unit may have read in an older form.
func (u *Unit) rereads() bool {
	return u.Content != "" || len(u.DropIns) > 0 || len(u.RestartOn) > 0
}

// watchesUnitFiles tells whether a step that the unit watches writes below a folder of unit files.
func (u *Unit) watchesUnitFiles() bool {
	return slices.ContainsFunc(u.RestartOn, func(id step.ID) bool {
		return strings.Contains(id.Name, "/systemd/system/")
	})
}

// template tells whether the name is a template's, as "app@.service", of which there is nothing that could run.
func (u *Unit) template() bool {
	return strings.HasSuffix(strings.TrimSuffix(u.name, path.Ext(u.name)), "@")
}

// types are the unit types that a manifest may name. Devices, scopes and swap
// areas are made by the kernel, by programs and by mkswap.
var types = []string{"service", "socket", "timer", "path", "target", "mount", "automount", "slice"}

// nameRule is systemd.unit(5), "unit names": at most 255 characters of these.
var nameRule = regexp.MustCompile(`^[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]*)?$`)

var dropInRule = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

// Validate records faults of the body by field name.
func (u *Unit) Validate(at diag.At) {
	if step.StaticText(u.name) {
		u.validateName(at)
	}
	if u.Content != "" && step.StaticText(u.Content) {
		u.validateText(at.Field("content"), u.Content, true)
	}
	for name, text := range u.DropIns {
		at := at.Field("drop-ins").Field(name)
		if step.StaticText(name) && !dropInRule.MatchString(name) {
			at.Errorf("%q cannot name a drop-in: use letters, digits, '_', '.' or '-'", name)
		}
		if step.StaticText(text) {
			u.validateText(at, text, false)
		}
	}
	if u.State != "" && u.State != started && u.State != stopped && step.StaticText(u.State) {
		at.Field("state").Errorf("must be started or stopped, is %q", u.State)
	}
	if len(u.RestartOn) > 0 && (u.State == "" || u.State == stopped) {
		at.Field("restart-on").Errorf("needs `state: started`: nothing restarts a unit that nothing keeps started")
	}
	if u.Reload && len(u.RestartOn) == 0 {
		at.Field("reload").Errorf("needs restart-on")
	}
	if u.Timeout < 0 {
		at.Field("timeout").Errorf("must not be negative, is %s", u.Timeout)
	}
	if u.Masked != nil && *u.Masked {
		switch {
		case u.Content != "":
			at.Field("masked").Errorf("a masked unit has no content: the mask lies where the file would")
		case u.Enabled != nil && *u.Enabled:
			at.Field("masked").Errorf("a masked unit cannot be enabled")
		case u.State == started:
			at.Field("masked").Errorf("a masked unit cannot be started")
		}
	}
	if u.Enabled != nil && *u.Enabled && u.Content != "" && step.StaticText(u.Content) && !u.hasInstall() {
		at.Field("enabled").Err(diag.WithHint(fmt.Errorf("the content has no [Install] section, so nothing can enable the unit"),
			"add [Install] with WantedBy=multi-user.target"))
	}
}

func (u *Unit) validateName(at diag.At) {
	suffix := strings.TrimPrefix(path.Ext(u.name), ".")
	bare := strings.TrimSuffix(u.name, "."+suffix)
	switch {
	case !slices.Contains(types, suffix):
		guess := u.name + ".service"
		if near := decode.Nearest(suffix, types); near != "" && suffix != "" {
			guess = bare + "." + near
		}
		at.Err(diag.WithHint(fmt.Errorf("%q names no unit: its type is missing, as .service or .timer", u.name),
			"did you mean %s?", guess))
	case !nameRule.MatchString(bare) || len(u.name) > 255:
		at.Errorf("%q cannot name a unit: use letters, digits, ':', '_', '.', '-', '\\' and one '@', at most 255", u.name)
	case u.template() && u.State != "":
		at.Field("state").Err(diag.WithHint(fmt.Errorf("%s is a template, which cannot run", u.name),
			"name an instance, as %s1.%s", bare, suffix))
	}
}

func (u *Unit) hasInstall() bool {
	for _, text := range append(slices.Collect(values(u.DropIns)), u.Content) {
		if !step.StaticText(text) || strings.Contains("\n"+text, "\n[Install]") {
			return true
		}
	}
	return false
}

func values(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for _, v := range m {
			if !yield(v) {
				return
			}
		}
	}
}

// Check looks at this unit alone.
func (u *Unit) Check(ctx context.Context, env step.Env) (step.Drift, error) {
	drifts, err := group{}.Check(ctx, env, []step.Member{{ID: env.ID, Env: env, Step: u}})
	if err != nil {
		return "", err
	}
	return drifts[0], nil
}

// Apply applies this unit alone.
func (u *Unit) Apply(ctx context.Context, env step.Env) error {
	err := group{}.Apply(ctx, env, []step.Member{{ID: env.ID, Env: env, Step: u}})
	if some, ok := err.(step.MemberErrors); ok {
		return some[env.ID]
	}
	return err
}
