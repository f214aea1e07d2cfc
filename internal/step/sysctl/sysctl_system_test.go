//go:build system

package sysctl

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/step/steptest"
)

// On the real kernel, as root: a value of several words, which the kernel
// prints with tabs, is set and found again. It is the value that is there, so
// nothing on the machine that runs the test is other than before.
func TestRealKernelConverges(t *testing.T) {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Join(strings.Fields(string(b)), "  ")
	m := steptest.NewMachine(t, steptest.Options{Live: true})
	m.Mkdir("/proc", 0)
	if out, err := exec.Command("mount", "--bind", "/proc", m.Path("/proc")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "--lazy", m.Path("/proc")).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	s := setting(t, "net.ipv4.ip_local_port_range", "value: '"+words+"'")
	env := m.Env(id("net.ipv4.ip_local_port_range"), "k")
	if drift, err := s.Check(t.Context(), env); err != nil || string(drift) != s.file()+" is missing" {
		t.Errorf("%q %v", drift, err)
	}
	if err := m.Host.WriteKernel(s.live(), s.value()); err != nil {
		t.Errorf("the kernel refuses its own value: %v", err)
	}
	if err := s.Apply(t.Context(), env); err != nil {
		t.Fatal(err)
	}
	if drift, err := s.Check(t.Context(), env); err != nil || drift != "" {
		t.Errorf("%q %v", drift, err)
	}
}
