// Package kinds is the list of all kinds of step. A new kind is a folder
// beside this one and a line here.
package kinds

import (
	"github.com/amiagent/amiagent/internal/step"
	"github.com/amiagent/amiagent/internal/step/artifacts"
	"github.com/amiagent/amiagent/internal/step/commands"
	"github.com/amiagent/amiagent/internal/step/files"
	"github.com/amiagent/amiagent/internal/step/groups"
	"github.com/amiagent/amiagent/internal/step/mounts"
	"github.com/amiagent/amiagent/internal/step/packages"
	"github.com/amiagent/amiagent/internal/step/pin"
	"github.com/amiagent/amiagent/internal/step/repositories"
	"github.com/amiagent/amiagent/internal/step/sysctl"
	"github.com/amiagent/amiagent/internal/step/units"
	"github.com/amiagent/amiagent/internal/step/users"
)

// All lists the kinds in the order in which people think of them.
func All() []step.Kind {
	return []step.Kind{
		pin.Kind(),
		repositories.Kind(),
		packages.Kind(),
		mounts.Kind(),
		groups.Kind(),
		users.Kind(),
		sysctl.Kind(),
		artifacts.Kind(),
		files.Kind(),
		units.Kind(),
		commands.Kind(),
	}
}
