package command

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/pin"
	"github.com/amiagent/amiagent/internal/repodata"
)

func TestPinStatusIsTold(t *testing.T) {
	one := 1
	s := pin.Status{
		Family: "Amazon Linux 2023", Release: "2023.9.20251117", How: "locked to the installed system-release", Installed: "2023.9.20251117",
		Latest: "2023.10.20260105", Notes: "https://docs.example.com/relnotes", Behind: &one,
		Floating:   []pin.Repository{{ID: "kernel-livepatch", Floating: "its address has no release"}, {ID: "docker-ce", Floating: "its address has no release"}},
		Odd:        []string{"something is odd"},
		Unknown:    []string{"pending security advisories: no network"},
		Advisories: []repodata.Advisory{{ID: "ALAS-1", Severity: "Important"}, {ID: "ALAS-2", Severity: "Medium"}, {ID: "ALAS-3", Severity: "Medium"}, {ID: "ALAS-4"}},
	}
	var b bytes.Buffer
	if err := pinStatusText(&b, s); err != nil {
		t.Fatal(err)
	}
	want := `system    Amazon Linux 2023
release   2023.9.20251117 (locked to the installed system-release)
latest    2023.10.20260105: 1 release behind
          https://docs.example.com/relnotes
security  4 pending: 1 important, 2 medium, 1 unrated (ALAS-1 first)
floating  kernel-livepatch: its address has no release
          docker-ce: its address has no release
odd       something is odd
unknown   pending security advisories: no network
`
	if b.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", b.String(), want)
	}
}

func TestPinDiffIsTold(t *testing.T) {
	var b bytes.Buffer
	err := changesText(&b, []pin.Change{
		{Name: "bash", From: "5.1-1", To: "5.2-1", Advisories: []repodata.Advisory{{ID: "ALAS-1", Type: "security", Severity: "Important"}}},
		{Name: "openssl-libs", From: "3.1-1", To: "3.0-1", Down: true},
	})
	want := `bash          5.1-1  → 5.2-1  ALAS-1 important
openssl-libs  3.1-1  ↓ 3.0-1  
2 packages would change; security advisories: 1 pending: 1 important (ALAS-1 first)
`
	if err != nil || b.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", b.String(), want)
	}
	b.Reset()
	if err := changesText(&b, nil); err != nil || b.String() != "no installed package would change\n" {
		t.Errorf("%q, %v", b.String(), err)
	}
}

func TestPinExitCodes(t *testing.T) {
	for err, want := range map[error]int{
		fmt.Errorf("%w: 2023.1.1", pin.ErrNoRelease): ExitRefused,
		fmt.Errorf("%w to move", pin.ErrRefused):     ExitRefused,
		errors.New("no network"):                     ExitFailed,
	} {
		if got := code(err); got != want {
			t.Errorf("%v: %d, want %d", err, got, want)
		}
	}
}

// pinned runs a command line on a tree without a package manager.
func pinned(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "etc/os-release"), []byte("ID=fedora\nVERSION_ID=41\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	code = Run(t.Context(), "1.2.3", append([]string{"pin", "--root", root}, args...), []string{"AWS_EC2_METADATA_DISABLED=true"}, &out, &errs)
	return code, out.String(), errs.String()
}

func TestPinUsage(t *testing.T) {
	for line, want := range map[string]int{
		"status extra":        ExitUsage,
		"set":                 ExitUsage,
		"set a b":             ExitUsage,
		"diff":                ExitUsage,
		"advance B":           ExitUsage,
		"status --by magic":   ExitUsage,
		"rollback --to B":     ExitUsage,
		"status":              ExitRefused, // an OS that cannot be pinned
		"set 2023.9.20251117": ExitRefused,
		"advance --to x":      ExitRefused,
		"":                    ExitOK,
	} {
		got, out, errs := pinned(t, strings.Fields(line)...)
		if got != want {
			t.Errorf("pin %s: exit %d, want %d\n%s%s", line, got, want, out, errs)
		}
		if want != ExitOK && (errs == "" || out != "") {
			t.Errorf("pin %s says %q and %q", line, out, errs)
		}
	}
}
