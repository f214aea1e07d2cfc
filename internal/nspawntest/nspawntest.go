// Package nspawntest boots a real systemd for tests: a Debian tree made once by
// mmdebstrap, laid under an overlay for every test, booted by systemd-nspawn.
//
// It serves tests behind the build tag "system", which need root and may
// install Debian packages. What cannot be had fails the test; nothing is skipped.
package nspawntest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Suite is the Debian release of the trees.
const Suite = "bookworm"

// base are the packages of every tree: a system that boots.
var base = []string{"systemd-sysv", "udev", "dbus", "ca-certificates", "iproute2"}

// Need installs Debian packages on the machine that runs the tests, where one
// of the programs is missing. programs maps a program to its package.
func Need(t testing.TB, programs map[string]string) {
	t.Helper()
	var missing []string
	for program, pkg := range programs {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, pkg)
		}
	}
	if len(missing) == 0 {
		return
	}
	unlock := lock(t, "apt")
	defer unlock()
	slices.Sort(missing)
	for _, argv := range [][]string{{"apt-get", "update", "-q"}, append([]string{"apt-get", "install", "-qy", "--no-install-recommends"}, missing...)} {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
		}
	}
}

// cacheDir is where trees are kept from one test run to the next.
func cacheDir(t testing.TB) string {
	t.Helper()
	dir, err := os.UserCacheDir()
	if err == nil {
		dir = filepath.Join(dir, "amiagent-test")
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// lock keeps the test binaries of other packages out, which run at the same time.
func lock(t testing.TB, name string) (unlock func()) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(cacheDir(t), name+".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() { f.Close() }
}

// Tree gives the folder of a bootable Debian system of the test's own, with
// these packages besides the base. It is gone when the test ends.
func Tree(t testing.TB, packages ...string) string {
	t.Helper()
	Need(t, map[string]string{"mmdebstrap": "mmdebstrap", "systemd-nspawn": "systemd-container"})
	lower := cached(t, packages)
	dir := t.TempDir()
	for _, d := range []string{"upper", "work", "root"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	root := filepath.Join(dir, "root")
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, filepath.Join(dir, "upper"), filepath.Join(dir, "work"))
	if err := unix.Mount("overlay", root, "overlay", 0, options); err != nil {
		// Inside some containers there is no overlay. A copy takes seconds.
		if out, err := exec.Command("cp", "-a", "--reflink=auto", lower+"/.", root).CombinedOutput(); err != nil {
			t.Fatalf("cannot copy the tree: %v\n%s", err, out)
		}
		return root
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, 0); err != nil {
			t.Errorf("cannot unmount the tree: %v", err)
			_ = unix.Unmount(root, unix.MNT_DETACH)
		}
	})
	return root
}

// cached gives the tree with these packages that all tests share. It is never written to again.
func cached(t testing.TB, packages []string) string {
	t.Helper()
	all := slices.Concat(base, packages)
	slices.Sort(all)
	all = slices.Compact(all)
	sum := sha256.Sum256([]byte(strings.Join(append([]string{Suite}, all...), " ")))
	name := fmt.Sprintf("%s-%x", Suite, sum[:6])
	tree := filepath.Join(cacheDir(t), name)
	unlock := lock(t, name)
	defer unlock()
	if _, err := os.Stat(tree); err == nil {
		return tree
	}
	tmp := tree + ".tmp"
	if err := os.RemoveAll(tmp); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("mmdebstrap", "--quiet", "--variant=minbase", "--include="+strings.Join(all, ","), Suite, tmp)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("mmdebstrap: %v\n%s", err, out)
	}
	// Every boot is the machine's first, and logs in by no password.
	if err := os.WriteFile(filepath.Join(tmp, "etc/machine-id"), nil, 0o444); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, tree); err != nil {
		t.Fatal(err)
	}
	return tree
}

// Options are the parts of a boot that differ.
type Options struct {
	NetNS   string    // path of a network namespace, as /run/netns/NAME; "" has one of its own without a network
	Console io.Writer // what the system says on its console; nil drops it
	Args    []string  // further arguments of systemd-nspawn
	Kernel  []string  // words of the kernel's command line, for the agent and systemd
}

var boots atomic.Int64

// Boot boots a tree and returns when it has powered off: nil when it did so by
// itself. When ctx ends, all its processes are killed and the error is ctx's.
func Boot(ctx context.Context, tree string, opt Options) error {
	machine := fmt.Sprintf("amiagent-%d-%d", os.Getpid(), boots.Add(1))
	// systemd-nspawn leaves this behind where /run is no tmpfs.
	defer func() { _ = os.Remove("/run/systemd/nspawn/propagate/" + machine) }()
	args := []string{
		"--directory=" + tree, "--boot", "--register=no", "--keep-unit", "--quiet", "--console=read-only",
		"--machine=" + machine,
		// Landlock, which the agent's worker is confined by, is not in nspawn's list.
		"--system-call-filter=landlock_create_ruleset landlock_add_rule landlock_restrict_self",
	}
	if opt.NetNS != "" {
		args = append(args, "--network-namespace-path="+opt.NetNS)
	} else {
		args = append(args, "--private-network")
	}
	args = append(args, opt.Args...)
	args = append(args, opt.Kernel...)
	cmd := exec.CommandContext(ctx, "systemd-nspawn", args...)
	cmd.Stdout, cmd.Stderr = opt.Console, opt.Console
	// systemd-nspawn ends its system when it is told to end; only when that
	// takes long is it killed, and with it, by the kernel, the system's process 1.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		return fmt.Errorf("cannot boot %s: %w", tree, context.Cause(ctx))
	}
	if ee := (*exec.ExitError)(nil); errors.As(err, &ee) {
		return fmt.Errorf("cannot boot %s: systemd-nspawn exited with %d", tree, ee.ExitCode())
	}
	return err
}
