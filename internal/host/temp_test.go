package host_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/amiagent/amiagent/internal/host"
)

func scratchHost(t *testing.T) *host.Host {
	t.Helper()
	h, err := host.New(t.TempDir(), host.Options{Programs: host.Outside})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.MkdirAll("/etc"); err != nil {
		t.Fatal(err)
	}
	return h
}

func put(h *host.Host, name, text string, check func(context.Context, string) error) error {
	return h.WriteFile(context.Background(), host.File{Path: name, Data: strings.NewReader(text), Mode: 0o755, UID: host.Keep, GID: host.Keep, Check: check})
}

func leftovers(t *testing.T, h *host.Host) []string {
	t.Helper()
	found, err := filepath.Glob(h.Root() + "/etc/" + host.Tmp + "*")
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// A write that was cut off by a kill leaves a file that may hold a secret: the
// write that repeats it takes it away.
func TestWhatAKilledWriteLeftIsSwept(t *testing.T) {
	h := scratchHost(t)
	for _, write := range []func() error{
		func() error { return put(h, "/etc/key", "new", nil) },
		func() error { return h.Replace("/etc/status", []byte("new"), 0o644, host.Keep) },
	} {
		if err := os.WriteFile(h.Root()+"/etc/"+host.Tmp+"123", []byte("half a sec"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := write(); err != nil {
			t.Fatal(err)
		}
		if left := leftovers(t, h); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
	// A link is not swept, it is replaced by the next for the same name.
	if err := h.Symlink("old", "/etc/link"); err != nil {
		t.Fatal(err)
	}
	if err := h.Symlink("new", "/etc/link"); err != nil {
		t.Fatal(err)
	}
	if to, _ := os.Readlink(h.Root() + "/etc/link"); to != "new" || len(leftovers(t, h)) > 0 {
		t.Errorf("link to %q, left: %v", to, leftovers(t, h))
	}
}

// What is not a plain file of ours is left alone, and holds nobody up.
func TestSweepingTouchesNothingElse(t *testing.T) {
	h := scratchHost(t)
	folder, link := h.Root()+"/etc/"+host.Tmp+"folder", h.Root()+"/etc/"+host.Tmp+"link"
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", link); err != nil {
		t.Fatal(err)
	}
	if err := put(h, "/etc/a", "a", nil); err != nil {
		t.Fatal(err)
	}
	if left := leftovers(t, h); len(left) != 2 {
		t.Errorf("left: %v", left)
	}
}

// Many writers in one folder do not sweep one another's files, also while a
// program looks at them; and that program can be the file itself.
func TestWritersDoNotSweepOneAnother(t *testing.T) {
	h := scratchHost(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 10 {
				name := fmt.Sprintf("/etc/%d", i)
				err := put(h, name, "#!/bin/sh\nexit 0\n", func(ctx context.Context, p string) error {
					_, err := h.Run(ctx, host.Cmd{Argv: []string{p}})
					return err
				})
				if err != nil {
					t.Errorf("%s, %d: %v", name, j, err)
				}
			}
		})
	}
	wg.Wait()
	if left := leftovers(t, h); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
