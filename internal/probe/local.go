package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"path"
	"slices"
	"strings"

	"github.com/amiagent/amiagent/internal/decode"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
)

// tcpBody asks whether something accepts connections.
type tcpBody struct {
	Timing  `yaml:",inline"`
	Address string `yaml:"address"` // host:port; :port is this machine
}

func (b *tcpBody) Validate(at diag.At) {
	if b.Address == "" {
		at.Errorf("needs address")
		return
	}
	if _, port, err := net.SplitHostPort(b.Address); decode.Static(b.Address) && (err != nil || port == "") {
		at.Field("address").Errorf("must be host:port, is %q", b.Address)
	}
}

func (b *tcpBody) Try(ctx context.Context, _ Env) error {
	address := b.Address
	if strings.HasPrefix(address, ":") {
		address = "localhost" + address
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", address, short(because(ctx, err)))
	}
	return conn.Close()
}

// unitBody asks systemd.
type unitBody struct {
	Timing `yaml:",inline"`
	Unit   string `yaml:"unit"`
	State  string `yaml:"state"` // ActiveState; default active
}

func (b *unitBody) Validate(at diag.At) {
	if b.Unit == "" {
		at.Errorf("needs unit")
	} else if decode.Static(b.Unit) && path.Ext(b.Unit) == "" {
		at.Field("unit").Errorf("must be a unit's whole name, as %s.service", b.Unit)
	}
	// systemd's words: org.freedesktop.systemd1(5), ActiveState.
	states := []string{"active", "reloading", "inactive", "failed", "activating", "deactivating"}
	if decode.Static(b.State) && !slices.Contains(states, b.State) {
		at.Field("state").Errorf("must be one of %s, is %q", strings.Join(states, ", "), b.State)
	}
}

func (b *unitBody) Try(ctx context.Context, env Env) error {
	if env.UnitState == nil {
		return fmt.Errorf("unit %s: %w", b.Unit, host.ErrNotLive)
	}
	state, err := env.UnitState(ctx, b.Unit)
	if err != nil {
		return fmt.Errorf("unit %s: %w", b.Unit, because(ctx, err))
	}
	if state != b.State {
		return diag.WithHint(fmt.Errorf("unit %s: %s (want %s)", b.Unit, state, b.State), "systemctl status %s; journalctl -u %s", b.Unit, b.Unit)
	}
	return nil
}

// execBody asks a program: exit code 0 is good.
type execBody struct {
	Timing `yaml:",inline"`
	Run    []string          `yaml:"run"`
	User   string            `yaml:"user"` // default: the agent's
	Env    map[string]string `yaml:"env"`
	Cwd    string            `yaml:"cwd"` // default /
}

func (b *execBody) Validate(at diag.At) {
	if len(b.Run) == 0 || b.Run[0] == "" {
		at.Errorf("needs run, a list: the program and its arguments")
	}
	if b.Cwd != "" && decode.Static(b.Cwd) && !path.IsAbs(b.Cwd) {
		at.Field("cwd").Errorf("must be an absolute path, is %q", b.Cwd)
	}
}

func (b *execBody) Try(ctx context.Context, env Env) error {
	cmd := host.Cmd{Argv: b.Run, User: b.User, Dir: b.Cwd}
	for k, v := range b.Env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	_, err := env.Host.Run(ctx, cmd)
	return err // names the program
}

// fileBody asks whether a file is there, and what is in it.
type fileBody struct {
	Timing   `yaml:",inline"`
	Path     string `yaml:"path"`
	Contains string `yaml:"contains"` // text in its first MiB
}

func (b *fileBody) Validate(at diag.At) {
	if b.Path == "" {
		at.Errorf("needs path")
	} else if decode.Static(b.Path) && !path.IsAbs(b.Path) {
		at.Field("path").Errorf("must be an absolute path, is %q", b.Path)
	}
}

func (b *fileBody) Try(_ context.Context, env Env) error {
	st, err := env.Host.Stat(b.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("file %s: is not there", b.Path)
	}
	if err != nil {
		return fmt.Errorf("file %s: %w", b.Path, err)
	}
	if b.Contains == "" {
		return nil
	}
	if !st.Mode().IsRegular() { // opening a pipe or a device may wait for ever
		return fmt.Errorf("file %s: is not a regular file", b.Path)
	}
	f, err := env.Host.Open(b.Path)
	if err != nil {
		return fmt.Errorf("file %s: %w", b.Path, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxBody))
	if err != nil {
		return fmt.Errorf("file %s: %w", b.Path, err)
	}
	if !bytes.Contains(data, []byte(b.Contains)) {
		return fmt.Errorf("file %s: does not contain %q", b.Path, b.Contains)
	}
	return nil
}
