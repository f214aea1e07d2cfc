//go:build system

package sign_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/pkgmgr/pkgmgrtest"
	"github.com/amiagent/amiagent/internal/sign"
)

// program runs the real minisign program, which reads passwords from stdin where it is no terminal.
func program(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	pkgmgrtest.Needs(t, map[string]string{"minisign": "minisign"})
	cmd := exec.Command("minisign", args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("minisign %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Keys and signatures go both ways between the agent and minisign itself.
func TestMinisignItselfAgrees(t *testing.T) {
	for name, stdin := range map[string]string{"with a password": "hush\nhush\n", "without": ""} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			at := func(name string) string { return filepath.Join(dir, name) }
			generate := []string{"-G", "-p", at("k.pub"), "-s", at("k.key")}
			if stdin == "" {
				generate = append(generate, "-W")
			}
			program(t, stdin, generate...)
			if err := os.WriteFile(at("web.yaml"), []byte("amiagent: 1\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			read := func(name string) []byte {
				t.Helper()
				b, err := os.ReadFile(at(name))
				if err != nil {
					t.Fatal(err)
				}
				return b
			}
			key, err := sign.ParseKey("k.pub", read("k.pub"))
			if err != nil {
				t.Fatal(err)
			}
			program(t, stdin, "-S", "-s", at("k.key"), "-m", at("web.yaml"))
			if _, err := (sign.Keyring{key}).Verify("web.yaml", read("web.yaml"), read("web.yaml.minisig")); err != nil {
				t.Error(err)
			}
			s, id, err := sign.Sign(read("k.key"), func() (string, error) { return "hush", nil }, "web.yaml", read("web.yaml"))
			if err != nil || id != key.ID() || !strings.Contains(string(read("k.pub")), id) {
				t.Fatalf("%s %v", id, err)
			}
			if err := os.WriteFile(at("web.yaml.minisig"), s, 0o644); err != nil {
				t.Fatal(err)
			}
			if out := program(t, "", "-V", "-p", at("k.pub"), "-m", at("web.yaml")); !strings.Contains(out, "Trusted comment: file:web.yaml") {
				t.Errorf("minisign says %s", out)
			}
		})
	}
}
