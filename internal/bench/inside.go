package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/amiagent/amiagent/internal/report"
)

// The places of a tree that is measured.
const (
	program  = "/usr/bin/amiagent"
	served   = "/srv/bench"
	checkSh  = served + "/check.sh"
	keepSh   = served + "/keep.sh"
	results  = served + "/results.json"
	disabled = "/etc/amiagent/disabled"
)

// Results are what was found inside.
type Results struct {
	Steps   int      `json:"steps"`
	Caught  []Caught `json:"caught"`
	Boot    Boot     `json:"boot"`
	Agent   []Run    `json:"agent"`
	Cold    []Run    `json:"cold"`
	Script  []Run    `json:"script"`
	ColdSh  []Run    `json:"cold_script"`
	Cloud   []Cloud  `json:"cloud"`
	Idle    Memory   `json:"idle"`
	Later   Memory   `json:"later"` // the same process, after more of its idle life
	Health  Memory   `json:"health"`
	Problem string   `json:"problem,omitempty"` // why there is no more
}

// Caught is how one mutation ended.
type Caught struct {
	Step   string `json:"step"`
	Drift  string `json:"drift"`  // the agent's word for it; "" when it saw nothing
	Script string `json:"script"` // the script's word
	Left   string `json:"left"`   // what the agent or the script found after the repair; "" is right
}

// Boot is what a real boot of the machine took, in the words of those who boot.
type Boot struct {
	Agent time.Duration            `json:"agent"` // systemd: start of the main process to READY
	Cloud map[string]time.Duration `json:"cloud"` // cloud-init's status.json: each stage
}

// Run is one run of a program.
type Run struct {
	Wall   time.Duration            `json:"wall"`
	CPU    time.Duration            `json:"cpu"` // user and system, all threads and ended children
	Peak   int64                    `json:"peak,omitempty"`
	Phases map[string]time.Duration `json:"phases,omitempty"`
}

// Cloud is one boot's worth of cloud-init: the time of each stage's process.
type Cloud struct {
	Stages map[string]time.Duration `json:"stages"`
	Wall   time.Duration            `json:"wall"` // their sum
	CPU    time.Duration            `json:"cpu"`
}

// Prove converges the machine, then changes the fifty things one by one and
// has the agent and the script find each, and the agent repair it. It runs
// inside the tree as root, in its first boot.
func Prove(ctx context.Context, files http.FileSystem) (Results, error) {
	var r Results
	server := &http.Server{Addr: "127.0.0.1:8090", Handler: http.FileServer(files)}
	go func() { _ = server.ListenAndServe() }()
	defer func() { _ = server.Close() }()
	if err := booted(ctx); err != nil {
		return r, err
	}
	rep, err := apply(ctx)
	if err != nil {
		return r, err
	}
	r.Steps = len(rep.Steps)
	if _, err := output(ctx, "sh", keepSh); err != nil {
		return r, err
	}
	if left := asWanted(ctx); left != "" {
		return r, fmt.Errorf("cannot begin: after the first apply: %s", left)
	}
	for _, m := range mutations {
		c, err := catch(ctx, m)
		if err != nil {
			return r, fmt.Errorf("cannot change %s by hand: %w", m.step, err)
		}
		fmt.Printf("%s: agent %q, script %q, left %q\n", c.Step, c.Drift, c.Script, c.Left)
		r.Caught = append(r.Caught, c)
	}
	return r, nil
}

func catch(ctx context.Context, m mutation) (Caught, error) {
	c := Caught{Step: m.step}
	if _, err := output(ctx, "sh", "-ec", m.do); err != nil {
		return c, err
	}
	if out, err := output(ctx, "sh", checkSh); err != nil {
		c.Script = firstLine(out)
	}
	rep, err := apply(ctx)
	for _, s := range rep.Steps {
		if s.ID == m.step && s.Outcome == report.Changed {
			c.Drift = s.Drift
		}
	}
	c.Left = asWanted(ctx)
	if err != nil {
		c.Left = err.Error()
	}
	return c, nil
}

// asWanted is what the agent or the script finds wrong with the machine.
func asWanted(ctx context.Context) string {
	if out, err := output(ctx, program, "plan"); err != nil {
		i := slices.IndexFunc(strings.Split(out, "\n"), func(l string) bool { return !strings.HasPrefix(l, "ok") })
		return "agent: " + strings.Split(out, "\n")[max(i, 0)]
	}
	if out, err := output(ctx, "sh", checkSh); err != nil {
		return "script: " + firstLine(out)
	}
	return ""
}

func apply(ctx context.Context) (report.Report, error) {
	var rep report.Report
	cmd := exec.CommandContext(ctx, program, "apply", "-o", "json")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if jerr := json.Unmarshal(out, &rep); jerr != nil {
		return rep, fmt.Errorf("cannot apply: %w\n%s", errors.Join(err, jerr), stderr.String())
	}
	if err != nil {
		for _, s := range rep.Steps {
			if s.Outcome == report.Failed {
				fmt.Fprintf(&stderr, "%s: %s\n%s\n", s.ID, s.Error, strings.Join(s.Output, "\n"))
			}
		}
		return rep, fmt.Errorf("cannot apply: %w\n%s", err, stderr.String())
	}
	return rep, nil
}

func output(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("cannot run %s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out), err
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

// booted waits until systemd has nothing more to start.
func booted(ctx context.Context) error {
	out, err := output(ctx, "systemctl", "is-system-running", "--wait")
	if state := strings.TrimSpace(out); err != nil && state != "degraded" {
		return fmt.Errorf("cannot wait for the boot to end: %w", err)
	}
	return nil
}

// Save writes what was found where the machine outside reads it.
func (r Results) Save(err error) error {
	if err != nil {
		r.Problem = err.Error()
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(results, b, 0o644)
}
