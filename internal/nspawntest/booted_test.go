//go:build booted

package nspawntest_test

import (
	"os"
	"testing"
)

func TestInsideABootedSystem(t *testing.T) {
	b, err := os.ReadFile("/proc/1/comm")
	if err != nil || string(b) != "systemd\n" {
		t.Fatalf("process 1 is %q, %v", b, err)
	}
	if err := os.WriteFile("/saw-systemd", nil, 0o644); err != nil {
		t.Fatal(err)
	}
}
