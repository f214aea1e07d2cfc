package pkgmgr

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
)

// Planned is a package that a transaction would bring.
type Planned struct {
	Name, Version string
	Repository    string // as the manager calls it; "" where it does not say
}

// Simulate says what installing wants would bring to this machine as it is: the
// wants that are missing, and all that comes along, by name. Nothing is
// changed. apt lets every user ask; dnf and yum want root.
func (m *Manager) Simulate(ctx context.Context, wants []Want) ([]Planned, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var cmd host.Cmd
	var read func(string) []Planned
	switch t := m.tool.(type) {
	case apt:
		args := []string{"apt-get", "-s", "-q", "-o", "Debug::NoLocking=1", "--allow-downgrades", "install"}
		for _, w := range wants {
			if w.Version != "" {
				w.Name += "=" + w.Version
			}
			args = append(args, w.Name)
		}
		cmd, read = host.Cmd{Argv: args, Env: quiet}, readInst
	default:
		install, _ := specs(wants)
		cmd, read = host.Cmd{Argv: append([]string{t.name(), "--assumeno", "install"}, install...)}, readTable
	}
	text, err := m.once(ctx, cmd, Talk{})
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	all := read(text)
	if err != nil && len(all) == 0 { // with --assumeno, dnf and yum always fail in the end
		if strings.Contains(text, "superuser") || strings.Contains(text, "need to be root") {
			return nil, diag.WithHint(errors.New("only root may ask for a transaction"), "run it as root")
		}
		return nil, fmt.Errorf("cannot tell what comes along: %w", explain(text, err))
	}
	slices.SortFunc(all, func(a, b Planned) int { return strings.Compare(a.Name+" "+a.Version, b.Name+" "+b.Version) })
	return slices.Compact(all), nil
}

// A line of apt-get -s: Inst NAME [OLD] (NEW ORIGIN:VERSION/SUITE [ARCH]) []
var inst = regexp.MustCompile(`(?m)^Inst (\S+) (?:\[[^\]]*\] )?\(([^\s)]+) ?([^\s)]*)`)

func readInst(text string) []Planned {
	var all []Planned
	for _, m := range inst.FindAllStringSubmatch(text, -1) {
		name, _, _ := strings.Cut(m[1], ":")
		all = append(all, Planned{Name: name, Version: strings.TrimPrefix(m[2], "0:"), Repository: strings.TrimSuffix(m[3], ",")})
	}
	return all
}

// The table of dnf and yum has a header for each sort of change, and rows of
// name, architecture, version, repository and size. A long name has a line of its own.
var (
	sortOfChange = regexp.MustCompile(`^([A-Z][a-z]+)[a-z ]*:$`)
	row          = regexp.MustCompile(`^ +(\S+) +[a-z0-9_]+ +(\d\S*) +(\S+) +[\d.]+ *(?:[kKMG]?i?B?)$`)
)

func readTable(text string) []Planned {
	var all []Planned
	brings, pending := false, ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \r\n")
		if m := sortOfChange.FindStringSubmatch(line); m != nil {
			brings, pending = slices.Contains([]string{"Installing", "Upgrading", "Updating", "Downgrading"}, m[1]), ""
			continue
		}
		if pending != "" {
			line, pending = pending+line, ""
		}
		m := row.FindStringSubmatch(line)
		switch {
		case brings && m != nil:
			all = append(all, Planned{Name: m[1], Version: strings.TrimPrefix(m[2], "0:"), Repository: m[3]})
		case strings.HasPrefix(line, " ") && len(strings.Fields(line)) == 1:
			pending = line
		case line == "" || !strings.HasPrefix(line, " "):
			brings = brings && line == ""
		}
	}
	return all
}
