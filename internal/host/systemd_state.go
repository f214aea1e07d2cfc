package host

import (
	"context"
	"fmt"
	"slices"

	sd "github.com/coreos/go-systemd/v22/dbus"
)

// Unit is where a unit stands, in systemd's words.
type Unit struct {
	Name   string
	Load   string // "loaded", "not-found", "masked", "bad-setting", "error"
	Active string // "active", "reloading", "inactive", "failed", "activating", "deactivating"
	Sub    string // finer, by type: "running", "exited", "auto-restart"
	Job    string // type of the job that is queued for it: "start", "stop"; "" for none
}

// Units gives the state of the named units, in one call where systemd has it.
// Every name has an entry; a unit that does not exist is "not-found" and "inactive".
func (s *Systemd) Units(ctx context.Context, names []string) (map[string]Unit, error) {
	all := map[string]Unit{}
	if len(names) == 0 {
		return all, nil
	}
	list, err := s.conn.ListUnitsByNamesContext(ctx, names)
	if unknownMethod(err) {
		// systemd before 230 lists only what it has loaded.
		list, err = s.conn.ListUnitsContext(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot list systemd's units: %w", err)
	}
	loaded := map[string]Unit{}
	for _, u := range list {
		loaded[u.Name] = unitOf(u)
	}
	for _, name := range names {
		u, ok := loaded[name]
		if !ok {
			// Not loaded, or an alias, which is listed under its unit's own name.
			if u, err = s.unit(ctx, name); err != nil {
				return nil, err
			}
		}
		u.Name = name
		all[name] = u
	}
	return all, nil
}

func unitOf(u sd.UnitStatus) Unit {
	return Unit{Name: u.Name, Load: u.LoadState, Active: u.ActiveState, Sub: u.SubState, Job: u.JobType}
}

// unit reads one unit by its properties, which loads it where it is not.
func (s *Systemd) unit(ctx context.Context, name string) (Unit, error) {
	p, err := s.Properties(ctx, name)
	if err != nil {
		return Unit{}, err
	}
	u := Unit{Name: name, Load: p.String("LoadState"), Active: p.String("ActiveState"), Sub: p.String("SubState")}
	if job, ok := p["Job"].([]any); ok && len(job) == 2 {
		if id, _ := job[0].(uint32); id != 0 {
			u.Job = "queued"
		}
	}
	return u, nil
}

// Properties are what systemd tells of one unit, by the names of `systemctl show`.
type Properties map[string]any

// String is a property's text, "" when it is absent or none.
func (p Properties) String(name string) string { s, _ := p[name].(string); return s }

// Bool is a property's truth.
func (p Properties) Bool(name string) bool { b, _ := p[name].(bool); return b }

// Int is a property's number, 0 when it is absent or none.
func (p Properties) Int(name string) int64 {
	switch n := p[name].(type) {
	case int32:
		return int64(n)
	case uint32:
		return int64(n)
	case int64:
		return n
	case uint64:
		return int64(n)
	}
	return 0
}

// Properties reads all properties of one unit, which loads it where it is not.
// A unit that does not exist has LoadState "not-found".
func (s *Systemd) Properties(ctx context.Context, unit string) (Properties, error) {
	p, err := s.conn.GetAllPropertiesContext(ctx, unit)
	if err != nil {
		return nil, fmt.Errorf("cannot ask systemd about %s: %w", unit, err)
	}
	return p, nil
}

// NeedsReload tells whether systemd runs by an older text of the unit's files
// than is on disk. dropIns are the paths of those that it must have read: a
// first drop-in of a unit, in a folder that is new, systemd does not notice by
// itself (seen with 252).
func (s *Systemd) NeedsReload(ctx context.Context, unit string, dropIns []string) (bool, error) {
	p, err := s.conn.GetUnitPropertyContext(ctx, unit, "NeedDaemonReload")
	if err != nil {
		return false, fmt.Errorf("cannot ask systemd about %s: %w", unit, err)
	}
	if need, _ := p.Value.Value().(bool); need || len(dropIns) == 0 {
		return need, nil
	}
	p, err = s.conn.GetUnitPropertyContext(ctx, unit, "DropInPaths")
	if err != nil {
		return false, fmt.Errorf("cannot ask systemd about %s: %w", unit, err)
	}
	read, _ := p.Value.Value().([]string)
	for _, d := range dropIns {
		if !slices.Contains(read, d) {
			return true, nil
		}
	}
	return false, nil
}
