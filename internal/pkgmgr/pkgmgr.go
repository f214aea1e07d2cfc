// Package pkgmgr is a machine's package manager, apt, dnf or yum, as the agent
// needs it: what is installed, download ahead, one transaction for all that is
// wanted, and proof that a repository answers.
//
// It drives the distribution's own programs through host, never their
// databases, except that dpkg's status file is read directly because it is plain text
// and a look must cost milliseconds. It hides what differs between them, and
// what goes wrong at boot: somebody else's lock is waited for by name, stale
// metadata is refreshed once, an interrupted dpkg is finished, a package that
// cannot be had does not keep the others from being installed. After a
// transaction the package database decides what succeeded, not the exit
// code: yum and dnf shell end with 0 for packages they do not know.
//
// Maintainer scripts run as the distribution wrote them. One that starts a
// unit ordered after the agent, and waits for it, waits for ever; nothing here can help that.
package pkgmgr

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
)

// MemoKey is the name under which kinds share one Manager for a run.
const MemoKey = "package manager"

// Want is what should be true of one package.
type Want struct {
	Name    string // a package's name, or a name that installed packages provide
	Version string // exact or glob, see Match; "" accepts any
	Absent  bool
}

// Talk is where a Manager tells how it goes. Both may be nil.
type Talk struct {
	Output func(line string) // each line of the programs' output
	Status func(line string) // one line for people who wait
}

func (t Talk) output(line string) {
	if t.Output != nil {
		t.Output(line)
	}
}

func (t Talk) status(format string, args ...any) {
	if t.Status != nil {
		t.Status(fmt.Sprintf(format, args...))
	}
}

// Failures are the packages that are not as wanted, by name, and why. The
// others are as wanted.
type Failures map[string]error

func (f Failures) Error() string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(f)) {
		all = append(all, f[name].Error())
	}
	return strings.Join(all, "; ")
}

// tool is what differs between the package managers.
type tool interface {
	name() string
	// locks are files on which others of its family hold a POSIX lock while they work.
	locks() []string
	// installed looks at the package database for these names. It may tell of more.
	installed(ctx context.Context, names []string) (Installed, error)
	// commands are the programs of one transaction, or of the downloads for it.
	// Wants that cannot be asked for at all are trouble.
	commands(ctx context.Context, wants []Want, download bool) ([]host.Cmd, trouble, error)
	// read finds in a transaction's output what stands in the way of wants.
	read(output string, wants []Want) trouble
	// busy tells that a program gave up because of another's lock, on file if it said so.
	busy(output string) (file string, busy bool)
	// waiting finds the process that a line of output says is waited for.
	waiting(line string) (pid string, ok bool)
	// refresh makes the next transaction see the repositories as they are now.
	refresh() host.Cmd
	// available are the versions of a package that repositories offer, best
	// first, and, when there are none, the nearest name that they know.
	available(ctx context.Context, name string) (versions []string, nearest string)
	// try reads the repositories of one file alone, and says what is wrong with them.
	try(file string) host.Cmd
	// faults are the complaints in a try's output, which may come with exit code 0.
	faults(output string) string
	// all are all installed packages.
	all(ctx context.Context) ([]Package, error)
	// move are the programs that bring every installed package to what the repositories have.
	move(Move) []host.Cmd
}

// trouble is why a transaction did not do all that was asked.
type trouble struct {
	unknown []string         // names of wants that no repository is known to have
	stale   bool             // metadata is older than its repository
	blame   map[string]error // by name of the want: why this one cannot be done
	repair  *host.Cmd        // must run before anything can be done
}

// Manager is the package manager of one machine, for one run of the agent. It
// is safe for concurrent use; one program runs at a time.
type Manager struct {
	// LockWait bounds how long one program waits for locks of others; 0 means 10 minutes.
	LockWait time.Duration

	h         *host.Host
	tool      tool
	mu        sync.Mutex // held while a program changes or reads repositories
	refreshed bool
	complaint string   // what the refresh could not read
	offUnits  []string // held off during changes

	look  sync.Mutex
	db    Installed
	asked map[string]bool
}

// New is the manager of a machine whose facts say this family: apt, dnf, dnf5 or yum.
func New(h *host.Host, family string) (*Manager, error) {
	m := &Manager{h: h}
	switch family {
	case "apt":
		m.tool = apt{h}
	case "dnf":
		m.tool = dnf{rpm: rpm{h}}
	case "dnf5":
		m.tool = dnf{rpm: rpm{h}, five: true}
	case "yum":
		m.tool = yum{rpm: rpm{h}}
	case "":
		return nil, diag.WithHint(fmt.Errorf("this machine has no package manager that is known"),
			"known are apt, dnf and yum; `when: {os: …}` leaves the entry out on this machine")
	default:
		return nil, fmt.Errorf("package manager %q is not known, known are apt, dnf, dnf5 and yum", family)
	}
	return m, nil
}

// Name is the program's: apt, dnf or yum.
func (m *Manager) Name() string { return m.tool.name() }

// Installed looks at the package database. A first look takes some
// milliseconds (dpkg's status file) or one run of rpm; later ones are answered from memory until
// Forget or a change by this Manager. It takes no lock and waits for none.
func (m *Manager) Installed(ctx context.Context, names []string) (Installed, error) {
	m.look.Lock()
	defer m.look.Unlock()
	var missing []string
	for _, n := range names {
		if !m.asked[n] {
			missing = append(missing, n)
		}
	}
	if len(missing) == 0 && m.asked != nil {
		return m.db, nil
	}
	found, err := m.tool.installed(ctx, missing)
	if err != nil {
		return Installed{}, err
	}
	// Handed-out values are read without a lock, so they are never changed.
	m.db = m.db.with(found)
	if m.asked == nil {
		m.asked = map[string]bool{}
	}
	for _, n := range missing {
		m.asked[n] = true
	}
	return m.db, nil
}

// Forget drops what was seen of the package database, because something has changed it.
func (m *Manager) Forget() {
	m.look.Lock()
	defer m.look.Unlock()
	m.db, m.asked = Installed{}, nil
}

func names(wants []Want) []string {
	all := make([]string, len(wants))
	for i, w := range wants {
		all[i] = w.Name
	}
	return all
}
