package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Cmd is one program to run: an argument list, never a shell line.
type Cmd struct {
	Argv    []string
	Dir     string        // working folder inside the root; default "/"
	Env     []string      // added to the small environment that every program gets
	User    string        // run as this user of the root, with its groups; default: as the agent
	Stdin   []byte        // default: nothing to read
	Timeout time.Duration // 0: only the context bounds it
	Line    func(string)  // called with each line of output, as it comes
	// OneStream keeps output and error output in the order of writing, which two
	// pipes lose: the last line of a program that fails is then its last word.
	// Result.Stdout holds both.
	OneStream bool
}

// Result is how a program ended.
type Result struct {
	Code   int    // exit code; -1 when a signal ended it
	Stdout []byte // at most MaxOutput bytes, from the start
	Tail   []byte // the last bytes of stdout and stderr together, at most MaxTail
}

const (
	MaxOutput = 16 << 20
	MaxTail   = 8 << 10
	// killDelay is how long a program has between SIGTERM and SIGKILL.
	killDelay = 5 * time.Second
	// pipeDelay is how long we read on after the program ended while a child of it holds its output open.
	pipeDelay = 500 * time.Millisecond
)

// ErrNoProgram is a program that is not there.
var ErrNoProgram = errors.New("no such program")

// ErrTimeout is a program that ran longer than it may.
var ErrTimeout = errors.New("timed out")

// ExitError is a program that ended with another code than 0.
type ExitError struct {
	Argv0 string
	Code  int
	Tail  string // last lines of its output
}

func (e *ExitError) Error() string {
	s := fmt.Sprintf("%s exited with %d", e.Argv0, e.Code)
	if e.Code < 0 {
		s = e.Argv0 + " was ended by a signal"
	}
	if line := lastLine(e.Tail); line != "" {
		s += ": " + line
	}
	return s
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return strings.TrimSpace(s[strings.LastIndexByte(s, '\n')+1:])
}

// Run runs a program to its end, in a process group of its own without a terminal.
// A code other than 0 is an *ExitError and the Result still counts. When ctx or
// the timeout ends, the group gets SIGTERM, then SIGKILL. A child that stays
// behind holding the output open neither delays nor fails the call.
func (h *Host) Run(ctx context.Context, c Cmd) (Result, error) {
	if len(c.Argv) == 0 || c.Argv[0] == "" {
		return Result{Code: -1}, errors.New("no program given")
	}
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, c.Timeout, fmt.Errorf("%w after %s", ErrTimeout, c.Timeout))
		defer cancel()
	}
	prog, err := h.program(c.Argv[0])
	if err != nil {
		return Result{Code: -1}, err
	}
	// A program that we have just written may still be open for writing in a
	// child that is between its fork and its exec (https://go.dev/issue/22315).
	for try := 0; ; try++ {
		res, err := h.runOnce(ctx, c, prog)
		if !errors.Is(err, syscall.ETXTBSY) || try == busyTries || ctx.Err() != nil {
			return res, err
		}
		time.Sleep(busyPause)
	}
}

// busyTries and busyPause are the patience with a program that is open for writing.
const (
	busyTries = 50
	busyPause = 5 * time.Millisecond
)

func (h *Host) runOnce(ctx context.Context, c Cmd, prog string) (Result, error) {
	cmd := exec.CommandContext(ctx, prog, c.Argv[1:]...)
	cmd.Args[0] = c.Argv[0]
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error {
		pid := cmd.Process.Pid
		time.AfterFunc(killDelay, func() { _ = syscall.Kill(-pid, syscall.SIGKILL) })
		return syscall.Kill(-pid, syscall.SIGTERM)
	}
	cmd.WaitDelay = killDelay + pipeDelay
	if err := h.place(cmd, c); err != nil {
		return Result{Code: -1}, err
	}
	if c.Stdin != nil {
		cmd.Stdin = bytes.NewReader(c.Stdin)
	}
	// Pipes of our own: exec's WaitDelay would wait its whole length for a
	// child that holds the output, and would call that a failure.
	out := &capture{line: c.Line}
	stdout, stderr, done, err := pipes(cmd, c.OneStream, out)
	if err != nil {
		return Result{Code: -1}, err
	}
	err = cmd.Start()
	stdout.Close()
	stderr.Close()
	if err != nil {
		done(0)
		if errors.Is(err, fs.ErrNotExist) {
			return Result{Code: -1}, fmt.Errorf("cannot run %s: %w", c.Argv[0], ErrNoProgram)
		}
		return Result{Code: -1}, fmt.Errorf("cannot run %s: %w", c.Argv[0], err)
	}
	err = cmd.Wait()
	done(pipeDelay)
	res := Result{Code: cmd.ProcessState.ExitCode(), Stdout: out.stdout.Bytes(), Tail: out.tail}
	if ctx.Err() != nil {
		return res, fmt.Errorf("%s: %w", c.Argv[0], context.Cause(ctx))
	}
	var ee *exec.ExitError
	if errors.As(err, &ee) {
		return res, &ExitError{Argv0: c.Argv[0], Code: res.Code, Tail: string(res.Tail)}
	}
	return res, err
}

func pipes(cmd *exec.Cmd, oneStream bool, out *capture) (stdout, stderr *os.File, done func(time.Duration), err error) {
	or, ow, err := os.Pipe()
	if err != nil {
		return nil, nil, nil, err
	}
	er, ew, err := os.Pipe()
	if err != nil {
		or.Close()
		ow.Close()
		return nil, nil, nil, err
	}
	cmd.Stdout, cmd.Stderr = ow, ew
	if oneStream {
		cmd.Stderr = ow
	}
	var wg sync.WaitGroup
	wg.Go(func() { drain(or, out.takeStdout) })
	wg.Go(func() { drain(er, out.takeStderr) })
	return ow, ew, func(patience time.Duration) {
		deadline := time.Now().Add(patience)
		_ = or.SetReadDeadline(deadline)
		_ = er.SetReadDeadline(deadline)
		wg.Wait()
		or.Close()
		er.Close()
		out.flush()
	}, nil
}

// drain hands on what comes out of a pipe until its end or its deadline. Its
// buffer is small, for most programs print little, and a probe runs one every second.
func drain(pipe *os.File, take func([]byte)) {
	b := make([]byte, 4<<10)
	for {
		n, err := pipe.Read(b)
		if n > 0 {
			take(b[:n])
		}
		if err != nil {
			return
		}
	}
}

// capture keeps a program's output within limits and cuts it into lines.
type capture struct {
	mu     sync.Mutex
	stdout bytes.Buffer
	tail   []byte
	parts  [2][]byte // unfinished lines of stdout and stderr
	line   func(string)
}

func (c *capture) takeStdout(p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stdout.Write(p[:min(len(p), MaxOutput-c.stdout.Len())])
	c.take(p, &c.parts[0])
}

func (c *capture) takeStderr(p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.take(p, &c.parts[1])
}

func (c *capture) take(p []byte, part *[]byte) {
	c.tail = append(c.tail, p...)
	if extra := len(c.tail) - MaxTail; extra > 0 {
		c.tail = append(c.tail[:0], c.tail[extra:]...)
	}
	if c.line == nil {
		return
	}
	*part = append(*part, p...)
	for {
		line, rest, ok := bytes.Cut(*part, []byte("\n"))
		if !ok {
			break
		}
		c.line(string(line))
		*part = rest
	}
	if extra := len(*part) - MaxTail; extra > 0 {
		*part = (*part)[extra:]
	}
}

func (c *capture) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, part := range c.parts {
		if c.line != nil && len(part) > 0 {
			c.line(string(part))
		}
		c.parts[i] = nil
	}
}

func (h *Host) chroots() bool { return h.root != "/" && h.opt.Programs == Inside }

// program finds argv[0]: on PATH, inside the root unless programs run outside it.
func (h *Host) program(name string) (string, error) {
	inside := func(p string) (string, bool) {
		full, err := h.Path(p)
		if err != nil {
			return "", false
		}
		st, err := os.Stat(full)
		return full, err == nil && !st.IsDir() && st.Mode()&0o111 != 0
	}
	missing := fmt.Errorf("cannot run %s: %w", name, ErrNoProgram)
	if strings.Contains(name, "/") {
		full, ok := inside(filepath.Join("/", name))
		switch {
		case ok && h.chroots():
			return name, nil
		case ok:
			return full, nil
		case h.opt.Programs == Outside && filepath.IsAbs(name):
			return name, nil
		}
		return "", missing
	}
	for _, dir := range filepath.SplitList(h.opt.Path) {
		p := filepath.Join(dir, name)
		if h.opt.Programs == Outside {
			if st, err := os.Stat(p); err == nil && !st.IsDir() && st.Mode()&0o111 != 0 {
				return p, nil
			}
			continue
		}
		if full, ok := inside(p); ok {
			if h.chroots() {
				return p, nil
			}
			return full, nil
		}
	}
	return "", missing
}

// HasProgram tells whether Run would find a program of this name.
func (h *Host) HasProgram(name string) bool {
	_, err := h.program(name)
	return err == nil
}

// place sets a command's root, folder, user and environment.
func (h *Host) place(cmd *exec.Cmd, c Cmd) error {
	dir := c.Dir
	if dir == "" {
		dir = "/"
	}
	home, name := "/root", "root"
	if c.User != "" {
		u, err := h.LookupUser(c.User)
		if err != nil {
			return err
		}
		home, name = u.Home, u.Name
		if u.UID != os.Geteuid() || u.GID != os.Getegid() {
			groups, err := h.groupsOf(u)
			if err != nil {
				return err
			}
			cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(u.UID), Gid: uint32(u.GID), Groups: groups}
		}
	}
	if h.chroots() {
		cmd.SysProcAttr.Chroot = h.root
		cmd.Dir = dir
	} else {
		p, err := h.Path(dir)
		if err != nil {
			return err
		}
		cmd.Dir = p
	}
	cmd.Env = append([]string{"PATH=" + h.opt.Path, "LANG=C.UTF-8", "LC_ALL=C.UTF-8", "HOME=" + home, "USER=" + name, "LOGNAME=" + name}, h.opt.Env...)
	if h.root != "/" && !h.chroots() {
		cmd.Env = append(cmd.Env, "AMIAGENT_ROOT="+h.root)
	}
	cmd.Env = append(cmd.Env, c.Env...)
	return nil
}
