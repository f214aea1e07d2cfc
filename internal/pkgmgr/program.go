package pkgmgr

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
)

const (
	lockWait = 10 * time.Minute
	// lockPoll is how often a lock is looked at: a look is one system call, and people wait for the launch.
	lockPoll = 100 * time.Millisecond
	// maxText bounds the output that is kept for reading.
	maxText = 1 << 20
)

// lockError is a lock that others held for longer than we wait.
type lockError struct{ tool, holder string }

func (e *lockError) Error() string {
	return fmt.Sprintf("cannot get the lock of %s: held by %s", e.tool, e.holder)
}

// program runs one program to its end, and waits before it and after it while
// others hold the locks. Every look at a lock is stale at once, so a program
// that found the lock taken nevertheless is run again.
func (m *Manager) program(ctx context.Context, c host.Cmd, talk Talk) (string, error) {
	wait := m.LockWait
	if wait == 0 {
		wait = lockWait
	}
	deadline := time.Now().Add(wait)
	locks := m.tool.locks()
	for {
		if err := m.unlocked(ctx, locks, deadline, talk); err != nil {
			return "", err
		}
		text, err := m.once(ctx, c, talk)
		file, busy := m.tool.busy(text)
		// A shell ends with 0 all the same. Elsewhere 0 counts: a package's
		// script may have met a lock without the transaction failing.
		if !busy || err == nil && c.Stdin == nil || ctx.Err() != nil {
			return text, err
		}
		if time.Now().After(deadline) {
			return text, m.gaveUp("another program")
		}
		if file != "" {
			locks = append(locks[:len(locks):len(locks)], file)
		} else {
			talk.status("waiting for the lock of %s", m.Name())
		}
		if err := pause(ctx); err != nil {
			return text, err
		}
	}
}

func (m *Manager) gaveUp(holder string) error {
	return diag.WithHint(&lockError{m.Name(), holder},
		"see what that program is doing; order it after amiagent.service if it runs at every boot")
}

// unlocked returns when nobody holds any of the locks.
func (m *Manager) unlocked(ctx context.Context, files []string, deadline time.Time, talk Talk) error {
	said := ""
	for {
		holder := ""
		for _, f := range files {
			// A lock that cannot be looked at is left to the program.
			if p, held, err := m.h.LockHolder(f); err == nil && held {
				holder = p.String()
				break
			}
		}
		if holder == "" {
			return context.Cause(ctx)
		}
		if time.Now().After(deadline) {
			return m.gaveUp(holder)
		}
		if holder != said {
			talk.status("waiting for the lock of %s, held by %s", m.Name(), holder)
			said = holder
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(lockPoll):
		return nil
	}
}

// once runs a program, and keeps what it prints, up to maxText bytes from the start.
func (m *Manager) once(ctx context.Context, c host.Cmd, talk Talk) (string, error) {
	var text strings.Builder
	c.Line = func(line string) {
		if text.Len() < maxText {
			text.WriteString(line + "\n")
		}
		if pid, ok := m.tool.waiting(line); ok {
			n, _ := strconv.Atoi(pid)
			talk.status("waiting for the lock of %s, held by %s", m.Name(), m.h.Process(n))
		}
		talk.output(line)
	}
	_, err := m.h.Run(ctx, c)
	return text.String(), err
}

var complaints = regexp.MustCompile(`(?m)^(?:E: .*|Error: \S.*|RPM: error: .*|At least .* more space needed .*|Malformed lock file found: .*)$`)

// noise are complaints that only say that there was another.
var noise = regexp.MustCompile(`returned an error code \(1\)|Could not run transaction|Unable to correct problems`)

// explain makes one sentence of a failed program's output.
func explain(text string, err error) error {
	var said []string
	for _, line := range complaints.FindAllString(text, -1) {
		line = strings.TrimSpace(line)
		for _, p := range []string{"E: ", "Error: ", "RPM: error: "} {
			line = strings.TrimPrefix(line, p)
		}
		if !noise.MatchString(line) {
			said = append(said, line)
		}
	}
	switch {
	case len(said) > 0:
		err = fmt.Errorf("%s", strings.Join(said[:min(len(said), 3)], "; "))
	case err == nil:
		err = fmt.Errorf("the transaction ended well and changed nothing")
	}
	return hinted(err, text)
}

// remedies are what to try, by what a program said.
var remedies = []struct {
	said *regexp.Regexp
	hint string
}{
	{regexp.MustCompile(`(?i)no space left on device|don't have enough free space|more space needed`),
		"the disk is full: make room, or launch with a larger volume"},
	{regexp.MustCompile(`(?i)NO_PUBKEY|is not signed|GPG check FAILED|signatures? (?:were|was|is) (?:invalid|not)|public key .* is not installed`),
		"check the repository's key: gpgkey for rpm, signed-by for deb"},
	{regexp.MustCompile(`(?i)could not resolve|temporary failure resolving|couldn't resolve host`),
		"the name cannot be resolved: check the instance's DNS, its route, or its VPC endpoint"},
	{regexp.MustCompile(`(?i)could not connect|connection (?:refused|timed out)|failed to connect|unable to connect|timeout was reached|operation too slow`),
		"the repository cannot be reached: check security group, route, NAT or VPC endpoint, and HTTPS_PROXY"},
	{regexp.MustCompile(`Status code: 403|403 +Forbidden|HTTP Error 403`),
		"403 from a repository: the release does not exist, or an S3 endpoint policy denies its bucket"},
	{regexp.MustCompile(`Malformed lock file`),
		"the lock file is left from a crash: remove it when no dnf is running"},
	{regexp.MustCompile(`are you root|superuser privileges|must be run as root|has to be run with`),
		"packages are changed as root"},
}

func hinted(err error, text string) error {
	for _, r := range remedies {
		if r.said.MatchString(text) {
			return diag.WithHint(err, "%s", r.hint)
		}
	}
	return err
}
