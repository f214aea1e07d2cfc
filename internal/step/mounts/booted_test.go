//go:build booted

package mounts

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/stamps"
	"github.com/amiagent/amiagent/internal/step"
)

// These tests run as root in a booted tree, with the machine's loop devices,
// within amiagent.service. See system_test.go.

func run(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// volume is a blank disk as a loop device.
func volume(t *testing.T, mib int64) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, mib<<20); err != nil {
		t.Fatal(err)
	}
	device := run(t, "losetup", "--find", "--show", image)
	t.Cleanup(func() { exec.Command("losetup", "--detach", device).Run() })
	return device
}

func envOf(t *testing.T, m *Mount, point string) step.Env {
	t.Helper()
	h, err := host.New("/", host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	m.SetName(point)
	t.Cleanup(func() {
		exec.Command("umount", point).Run()
		h.CloseSystemd()
	})
	kept, err := stamps.Open(h, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	id := step.ID{Kind: "mounts", Name: point}
	return step.Env{Host: h, Facts: facts.New(), Stamps: kept, ID: id, Key: "k", Boot: "b",
		Shared: &step.Shared{}, Output: func(l string) { t.Log(l) }, Status: func(l string) { t.Log(l) }}
}

func apply(t *testing.T, m *Mount, env step.Env) {
	t.Helper()
	d, err := m.Check(t.Context(), env)
	if err != nil || d == "" {
		t.Fatalf("before Apply: %q, %v", d, err)
	}
	if err := m.Apply(t.Context(), env); err != nil {
		t.Fatalf("%v (hint: %s)", err, diag.Hint(err))
	}
	if d, err := m.Check(t.Context(), env); err != nil || d != "" {
		t.Fatalf("after Apply: %q, %v\n%s", d, err, run(t, "cat", "/proc/self/mountinfo"))
	}
}

func TestBlankVolumeIsFormattedOnce(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			device, point := volume(t, 320), "/data/"+fs+"-a b" // mkfs.xfs takes no less than 300
			m := &Mount{Device: device, FS: fs, Label: "data", Options: []string{"noatime"}, Owner: "games", Mode: "0750", Wait: time.Second}
			env := envOf(t, m, point)
			apply(t, m, env)
			if got := run(t, "blkid", "-p", "-o", "value", "-s", "LABEL", device); got != "data" {
				t.Errorf("the label is %q", got)
			}
			if st, _ := os.Stat(point); st.Mode().Perm() != 0o750 {
				t.Error(st.Mode())
			}
			if !strings.Contains(run(t, "findmnt", "-n", "-o", "OPTIONS", point), "noatime") {
				t.Error("the option is not in force")
			}
			if err := os.WriteFile(point+"/precious", []byte("data"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := m.Apply(t.Context(), env); err != nil {
				t.Error("a second Apply:", err)
			}

			// Unmounted, as after a reboot: mounted again, not formatted again.
			run(t, "umount", point)
			if d, _ := m.Check(t.Context(), env); d != "is not mounted" {
				t.Errorf("Check finds %q", d)
			}
			apply(t, m, env)
			if b, err := os.ReadFile(point + "/precious"); string(b) != "data" {
				t.Fatal("the data is gone:", err)
			}

			// Somebody changed the mounted root, then the unit.
			os.Chmod(point, 0o777)
			if d, _ := m.Check(t.Context(), env); d != "mode is 0777, want 0750" {
				t.Errorf("Check finds %q", d)
			}
			apply(t, m, env)
			os.WriteFile("/etc/systemd/system/"+unitName(point), []byte("[Mount]\nWhat=/dev/null\nWhere=/x\n"), 0o644)
			apply(t, m, env)
		})
	}
}

func TestVolumesThatAreNotBlank(t *testing.T) {
	for name, c := range map[string]struct {
		before func(device string)
		want   string
	}{
		"another file system": {func(d string) { run(t, "mkfs.ext4", "-q", d) }, "holds ext4, want xfs"},
		"a swap area":         {func(d string) { run(t, "mkswap", d) }, "holds a swap signature"},
		"a partition table": {func(d string) {
			cmd := exec.Command("sfdisk", "-q", d)
			cmd.Stdin = strings.NewReader("label: gpt\n")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatal(string(out))
			}
		}, "holds a partition table (gpt)"},
		"data": {func(d string) {
			f, err := os.OpenFile(d, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			f.WriteAt([]byte("raw data"), 512<<10)
		}, "holds data that is no file system known to blkid"},
		"two file systems": {func(d string) {
			run(t, "mkfs.ext4", "-q", d)
			f, err := os.OpenFile(d, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			f.WriteAt([]byte("XFSB\x00\x00\x10\x00"), 0)
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			device := volume(t, 32)
			c.before(device)
			before := run(t, "sha256sum", device)
			m := &Mount{Device: device, FS: "ext4", Wait: time.Second}
			if name == "two file systems" || name == "another file system" {
				m.FS = "xfs"
			}
			env := envOf(t, m, "/refused")
			err := m.Apply(t.Context(), env)
			if err == nil || !strings.Contains(err.Error(), c.want) || diag.Hint(err) == "" {
				t.Errorf("error is %v (hint %q), want %q in it", err, diag.Hint(err), c.want)
			}
			if after := run(t, "sha256sum", device); after != before {
				t.Error("the device was written to")
			}
		})
	}
}

// The agent was killed within mkfs: the next run finishes.
func TestFormatThatWasCutOff(t *testing.T) {
	device := volume(t, 32)
	m := &Mount{Device: device, FS: "ext4", Wait: time.Second}
	env := envOf(t, m, "/cut")
	f, err := os.OpenFile(device, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteAt([]byte("half a file system"), 8192)
	f.Close()
	if err := m.Apply(t.Context(), env); err == nil {
		t.Fatal("data that is not ours was formatted")
	}
	_ = env.Stamps.Put(step.ID{Kind: "mounts", Name: "/cut formatting"}, device)
	apply(t, m, env)
}

func TestAnotherMountIsNotTouched(t *testing.T) {
	one, two := volume(t, 32), volume(t, 32)
	first := &Mount{Device: one, FS: "ext4", Wait: time.Second}
	apply(t, first, envOf(t, first, "/taken"))
	second := &Mount{Device: two, FS: "ext4", Wait: time.Second}
	env := envOf(t, second, "/taken")
	if d, _ := second.Check(t.Context(), env); !strings.Contains(string(d), "differs") {
		t.Errorf("Check finds %q", d)
	}
	err := second.Apply(t.Context(), env)
	if err == nil || !strings.Contains(err.Error(), "cannot mount /taken: "+one+", with ext4, is mounted there already") {
		t.Error(err)
	}
}

func TestImages(t *testing.T) {
	src := t.TempDir()
	if err := os.WriteFile(src+"/weights", []byte("1 2 3"), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, "mksquashfs", src, "/model.squashfs", "-quiet", "-no-progress")
	run(t, "mkfs.erofs", "/model.erofs", src)
	for _, fs := range []string{"squashfs", "erofs"} {
		t.Run(fs, func(t *testing.T) {
			point := "/opt/" + fs
			m := &Mount{Device: "/model." + fs, FS: fs, Wait: time.Second}
			env := envOf(t, m, point)
			apply(t, m, env)
			if b, err := os.ReadFile(point + "/weights"); string(b) != "1 2 3" {
				t.Error(string(b), err)
			}
		})
	}
}

func TestWhatCannotBeMountedSaysWhy(t *testing.T) {
	if err := os.WriteFile("/broken.squashfs", []byte("this is no image"), 0o644); err != nil {
		t.Fatal(err)
	}
	m := &Mount{Device: "/broken.squashfs", FS: "squashfs", Wait: time.Second}
	env := envOf(t, m, "/broken")
	err := m.Apply(t.Context(), env)
	if err == nil || !strings.Contains(err.Error(), "cannot mount /broken: cannot start broken.mount: it failed; it said \"mount: ") {
		t.Error(err)
	}
	if job := (*host.JobError)(nil); !errors.As(err, &job) || diag.Hint(err) == "" {
		t.Errorf("%T, hint %q", err, diag.Hint(err))
	}
}
