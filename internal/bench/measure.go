package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/amiagent/amiagent/internal/report"
)

const (
	runs     = 20 // of the agent and the script, warm
	coldRuns = 5  // of each, from an empty page cache
	clouds   = 10 // boots' worth of cloud-init
	rest     = 12 * time.Second
)

// Measure measures a machine on which everything is as it should be. It runs
// inside the tree as root, in its second boot, whose agent is ready by then.
func Measure(ctx context.Context) (Results, error) {
	var r Results
	if err := booted(ctx); err != nil {
		return r, err
	}
	if err := r.daemons(ctx); err != nil {
		return r, err
	}
	if _, err := output(ctx, "systemctl", "stop", "amiagent.service"); err != nil {
		return r, err
	}
	for i := range runs {
		one, err := start(ctx)
		if err != nil {
			return r, err
		}
		r.Agent = append(r.Agent, one)
		if one, err = script(ctx); err != nil {
			return r, err
		}
		r.Script = append(r.Script, one)
		if i < clouds {
			c, err := cloudInit(ctx)
			if err != nil {
				return r, err
			}
			r.Cloud = append(r.Cloud, c)
		}
	}
	for range coldRuns {
		for of, run := range map[*[]Run]func(context.Context) (Run, error){&r.Cold: start, &r.ColdSh: script} {
			if err := dropCaches(); err != nil {
				return r, err
			}
			one, err := run(ctx)
			if err != nil {
				return r, err
			}
			*of = append(*of, one)
		}
	}
	return r, nil
}

// daemons looks at the boot that was, and at the memory of what it left running.
func (r *Results) daemons(ctx context.Context) error {
	out, err := output(ctx, "systemctl", "show", "amiagent.service", "--property=MainPID,ExecMainStartTimestampMonotonic,ActiveEnterTimestampMonotonic,ActiveState")
	if err != nil {
		return err
	}
	show := map[string]string{}
	for line := range strings.Lines(out) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		show[k] = v
	}
	if show["ActiveState"] != "active" {
		log, _ := output(ctx, "journalctl", "--boot", "--unit=amiagent.service", "--no-pager")
		return fmt.Errorf("cannot measure: the agent is %s after the boot\n%s", show["ActiveState"], log)
	}
	micro := func(name string) time.Duration {
		n, _ := strconv.ParseInt(show[name], 10, 64)
		return time.Duration(n) * time.Microsecond
	}
	r.Boot.Agent = micro("ActiveEnterTimestampMonotonic") - micro("ExecMainStartTimestampMonotonic")
	if r.Boot.Cloud, err = cloudBoot(); err != nil {
		return err
	}
	health, err := output(ctx, "systemctl", "show", "amiagent-health.service", "--property=MainPID", "--value")
	if err != nil {
		return err
	}
	if err := sleep(ctx, rest); err != nil {
		return err
	}
	if r.Idle, err = memoryOf(show["MainPID"]); err != nil {
		return err
	}
	if r.Health, err = memoryOf(strings.TrimSpace(health)); err != nil {
		return err
	}
	if err := sleep(ctx, 2*rest); err != nil {
		return err
	}
	r.Later, err = memoryOf(show["MainPID"])
	return err
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// readyMark makes a restart within a boot resume; a launch begins without it.
const readyMark = "/run/amiagent/ready.json"

// start starts the agent as systemd does, takes the time until READY=1 comes
// (sd_notify(3)), and stops it.
func start(ctx context.Context) (Run, error) {
	if err := os.Remove(readyMark); err != nil && !os.IsNotExist(err) {
		return Run{}, err
	}
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return Run{}, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	addr := filepath.Join(dir, "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: addr, Net: "unixgram"})
	if err != nil {
		return Run{}, err
	}
	defer func() { _ = socket.Close() }()
	if err := socket.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		return Run{}, err
	}
	cmd := exec.CommandContext(ctx, program, "run")
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+addr, "GOTRACEBACK=crash")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr // the journal's, as under systemd
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return Run{}, err
	}
	ready, err := waitReady(socket)
	if err != nil {
		_ = cmd.Process.Kill()
		return Run{}, errors.Join(fmt.Errorf("cannot see READY: %w", err), cmd.Wait())
	}
	run := Run{Wall: ready.Sub(began)}
	if m, err := memoryOf(strconv.Itoa(cmd.Process.Pid)); err == nil {
		run.Peak = m.Peak
	}
	go func() { // what it says later must not fill the socket
		for b := make([]byte, 4096); ; {
			if _, err := socket.Read(b); err != nil {
				return
			}
		}
	}()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return run, err
	}
	if err := cmd.Wait(); err != nil {
		return run, fmt.Errorf("cannot stop the agent: %w", err)
	}
	run.CPU = cpu(cmd.ProcessState)
	run.Phases, err = phases(began, ready)
	return run, err
}

func waitReady(socket *net.UnixConn) (time.Time, error) {
	for b := make([]byte, 4096); ; {
		n, err := socket.Read(b)
		now := time.Now()
		if err != nil {
			return now, err
		}
		if slices.Contains(strings.Split(string(b[:n]), "\n"), "READY=1") {
			return now, nil
		}
	}
}

func cpu(s *os.ProcessState) time.Duration { return s.UserTime() + s.SystemTime() }

// phases reads where the time went from the report of the last launch: what
// came before and after its phases is "start" and "tell".
func phases(began, ready time.Time) (map[string]time.Duration, error) {
	all, err := filepath.Glob("/var/lib/amiagent/reports/*.json")
	if err != nil || len(all) == 0 {
		return nil, errors.Join(errors.New("cannot find the report of the launch"), err)
	}
	slices.Sort(all)
	b, err := os.ReadFile(all[len(all)-1])
	if err != nil {
		return nil, err
	}
	var rep report.Report
	if err := json.Unmarshal(b, &rep); err != nil {
		return nil, err
	}
	took := map[string]time.Duration{}
	for i, p := range rep.Phases {
		if i == 0 {
			took["start"] = p.Started.Sub(began)
		}
		if i == len(rep.Phases)-1 {
			took["tell"] = ready.Sub(p.Started.Add(p.Took))
		}
		took[string(p.Phase)] = p.Took
	}
	if rep.Outcome != report.OK {
		return took, fmt.Errorf("cannot compare: the launch was no work without news, but %s", rep.Outcome)
	}
	return took, nil
}

func script(ctx context.Context) (Run, error) {
	cmd := exec.CommandContext(ctx, "sh", checkSh)
	began := time.Now()
	out, err := cmd.CombinedOutput()
	wall := time.Since(began)
	if err != nil {
		return Run{}, fmt.Errorf("the script finds something wrong: %w\n%s", err, out)
	}
	return Run{Wall: wall, CPU: cpu(cmd.ProcessState)}, nil
}

// dropCaches empties the machine's page cache (proc_sys_vm(5)). Inside, the file is bound to this name.
func dropCaches() error {
	syscall.Sync()
	f, err := os.OpenFile("/run/drop_caches", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("3\n")
	return errors.Join(err, f.Close())
}

// Memory is what a process has in memory, in bytes (proc_pid_status(5)).
type Memory struct {
	Resident int64 `json:"resident"`
	Anon     int64 `json:"anon"`
	File     int64 `json:"file"` // pages of the program's file, shared with whoever runs it too
	Peak     int64 `json:"peak"` // of Resident
}

func memoryOf(pid string) (Memory, error) {
	b, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return Memory{}, fmt.Errorf("cannot see the memory of process %s: %w", pid, err)
	}
	return parseMemory(string(b)), nil
}

func parseMemory(status string) Memory {
	var m Memory
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(line, ":")
		n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		n <<= 10
		switch name {
		case "VmRSS":
			m.Resident = n
		case "VmHWM":
			m.Peak = n
		case "RssAnon":
			m.Anon = n
		case "RssFile":
			m.File = n
		}
	}
	return m
}
