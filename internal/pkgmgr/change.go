package pkgmgr

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/amiagent/amiagent/internal/diag"
)

// rounds bounds how often one change is tried again with fewer packages or after a repair.
const rounds = 12

// Change makes wants true in one transaction. Wants that are true already cost
// nothing. The error is Failures where some wants can be told from others:
// those not in it are true. A cancelled Change ends its program; dpkg or rpm may then be
// cut off, which the next Change repairs.
func (m *Manager) Change(ctx context.Context, wants []Want, talk Talk) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.Forget()
	m.Forget() // others may have worked since the last look
	db, err := m.Installed(ctx, names(wants))
	if err != nil {
		return err
	}
	failed := Failures{}
	var left []Want
	for _, w := range db.unsatisfied(wants) {
		if db.held[w.Name] {
			failed[w.Name] = diag.WithHint(fmt.Errorf("cannot %s %s: it is on hold", verb(w), w.Name),
				"`apt-mark unhold %s` lets it be changed", w.Name)
			continue
		}
		left = append(left, w)
	}
	if len(left) > 0 {
		release := m.holdOff(ctx, talk)
		defer release()
	}
	if err := m.work(ctx, left, false, talk, failed); err != nil {
		return err
	}
	if len(failed) > 0 {
		return failed
	}
	return nil
}

// Download brings the packages for wants to the manager's cache, so that Change
// needs no network for them. Packages that no repository is known to have are
// passed over: a repository may come before Change, and Change will tell.
func (m *Manager) Download(ctx context.Context, wants []Want, talk Talk) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	db, err := m.Installed(ctx, names(wants))
	if err != nil {
		return err
	}
	left := slices.DeleteFunc(db.unsatisfied(wants), func(w Want) bool { return db.held[w.Name] })
	failed := Failures{}
	if !slices.ContainsFunc(left, func(w Want) bool { return !w.Absent }) {
		return nil
	}
	release := m.holdOff(ctx, talk)
	defer release()
	if err := m.work(ctx, left, true, talk, failed); err != nil {
		return err
	}
	if len(failed) > 0 {
		talk.output("not downloaded ahead: " + failed.Error())
	}
	return nil
}

// work tries, and as long as something can be done about what goes wrong, does
// it and tries again: refresh metadata, finish what was interrupted, leave out
// what cannot be had.
func (m *Manager) work(ctx context.Context, left []Want, download bool, talk Talk, failed Failures) error {
	repaired := map[string]bool{}
	for range rounds {
		if len(left) == 0 {
			return nil
		}
		text, t, err := m.attempt(ctx, left, download, talk)
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		var busy *lockError
		if errors.As(err, &busy) {
			return err
		}
		if download && err == nil && len(t.unknown) == 0 {
			return nil
		}
		if !download {
			m.Forget()
			db, dbErr := m.Installed(ctx, names(left))
			if dbErr != nil {
				return errors.Join(dbErr, err)
			}
			left = db.unsatisfied(left)
		}
		switch {
		case len(left) == 0:
		case t.repair != nil && !repaired[strings.Join(t.repair.Argv, " ")]:
			repaired[strings.Join(t.repair.Argv, " ")] = true
			// How it ends is seen by the next attempt.
			_, _ = m.program(ctx, *t.repair, talk)
		case (t.stale || len(t.unknown) > 0) && !m.refreshed:
			m.renew(ctx, talk)
		case len(t.unknown) > 0 || len(t.blame) > 0:
			left = m.leaveOut(ctx, left, t, failed)
		default:
			why := explain(text, err)
			for _, w := range left {
				failed[w.Name] = fmt.Errorf("cannot %s %s: %w", verb(w), w.Name, why)
			}
			if download {
				return fmt.Errorf("cannot download packages: %w", why)
			}
			return nil
		}
	}
	for _, w := range left {
		failed[w.Name] = fmt.Errorf("cannot %s %s: %s could not be brought to do it in %d rounds", verb(w), w.Name, m.Name(), rounds)
	}
	return nil
}

// attempt runs the programs of one transaction. Wants that cannot even be
// asked for are told without running anything.
func (m *Manager) attempt(ctx context.Context, wants []Want, download bool, talk Talk) (string, trouble, error) {
	cmds, t, err := m.tool.commands(ctx, wants, download)
	if err != nil || len(t.unknown) > 0 {
		return "", t, err
	}
	var text strings.Builder
	for _, c := range cmds {
		var out string
		out, err = m.program(ctx, c, talk)
		text.WriteString(out)
		if err != nil {
			break
		}
	}
	return text.String(), m.tool.read(text.String(), wants), err
}

// renew makes repositories be read anew, once in a run. A repository that
// cannot be read is no failure yet: the packages may come from others.
func (m *Manager) renew(ctx context.Context, talk Talk) {
	m.refreshed = true
	talk.status("reading the package repositories")
	text, err := m.program(ctx, m.tool.refresh(), talk)
	m.complaint = m.tool.faults(text)
	if err != nil && m.complaint == "" {
		m.complaint = err.Error()
	}
}

// leaveOut files the wants that cannot be done, and gives the others.
func (m *Manager) leaveOut(ctx context.Context, left []Want, t trouble, failed Failures) []Want {
	var rest []Want
	for _, w := range left {
		switch {
		case t.blame[w.Name] != nil:
			failed[w.Name] = fmt.Errorf("cannot %s %s: %w", verb(w), w.Name, t.blame[w.Name])
		case slices.Contains(t.unknown, w.Name):
			failed[w.Name] = m.unknown(ctx, w)
		default:
			rest = append(rest, w)
		}
	}
	return rest
}

// unknown tells that no repository has a package, and what there is instead.
func (m *Manager) unknown(ctx context.Context, w Want) error {
	versions, nearest := m.tool.available(ctx, w.Name)
	err := fmt.Errorf("cannot install %s: no repository of this machine has it", w.Name)
	hint := "check its name, and that its repository is among `repositories`"
	switch {
	case len(versions) > 0:
		err = fmt.Errorf("cannot install %s: no repository has version %s, only %s", w.Name, w.Version,
			strings.Join(versions[:min(len(versions), 5)], ", "))
		hint = "repositories drop old versions; name one that is there, or a glob"
	case m.complaint != "":
		hint = "a repository could not be read: " + m.complaint
	case nearest != "":
		hint = fmt.Sprintf("did you mean %q?", nearest)
	}
	return diag.WithHint(err, "%s", hint)
}

func verb(w Want) string {
	if w.Absent {
		return "remove"
	}
	return "install"
}

// Try reads the repositories of one file, which need not be where the manager
// would find it, and says what is wrong with them: not there, or not signed as they should be. What it
// read is kept, so that a Change sees the packages. For apt the file's
// name ends in ".sources"; for dnf and yum in ".repo", and it is alone in its folder.
func (m *Manager) Try(ctx context.Context, file string, talk Talk) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	text, err := m.program(ctx, m.tool.try(file), talk)
	if fault := m.tool.faults(text); fault != "" {
		return hinted(errors.New(fault), text)
	}
	if err != nil {
		return explain(text, err)
	}
	return nil
}
