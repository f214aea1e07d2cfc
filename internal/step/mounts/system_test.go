//go:build system

package mounts

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/nspawntest"
)

func TestInABootedSystem(t *testing.T) {
	tree := nspawntest.Tree(t, "fdisk", "e2fsprogs", "xfsprogs", "squashfs-tools", "erofs-utils")
	args := []string{"--bind=/dev/loop-control"}
	for i := range 8 {
		args = append(args, fmt.Sprintf("--bind=/dev/loop%d", i))
	}
	nspawntest.Inside(t.Context(), t, tree, nspawntest.Options{Args: args})
}

func TestUnitNamesAreThoseOfSystemdEscape(t *testing.T) {
	nspawntest.Need(t, map[string]string{"systemd-escape": "systemd"})
	for _, p := range []string{"/data", "/", "/a/b-c", "/.x", "/x/.y", "/a b", "/ü/ß", `/a\b`, "/a@b%c", "/a:b_c.d", "/A/0", "/a\"b'c$d", "/~", "/-/-", "/a/.b/..c", "/日本"} {
		out, err := exec.Command("systemd-escape", "--path", "--suffix=mount", p).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v %s", p, err, out)
		}
		if got, want := unitName(p), strings.TrimSpace(string(out)); got != want {
			t.Errorf("%s becomes %s, systemd-escape gives %s", p, got, want)
		}
	}
}
