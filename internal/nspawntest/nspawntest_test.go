//go:build system

package nspawntest_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/amiagent/amiagent/internal/nspawntest"
)

func TestTreeBootsAndPowersOff(t *testing.T) {
	tree := nspawntest.Tree(t)
	var console bytes.Buffer
	nspawntest.Inside(t.Context(), t, tree, nspawntest.Options{Console: &console})
	if !bytes.Contains(console.Bytes(), []byte("Welcome to")) {
		t.Errorf("the console says nothing of the boot: %q", console.Bytes())
	}
	if _, err := os.Stat(filepath.Join(tree, "saw-systemd")); err != nil {
		t.Error("the test inside did not run as process of a booted system:", err)
	}
}

// A system that never powers off ends with its context, and leaves no process behind.
func TestBootEndsWithItsContext(t *testing.T) {
	tree := nspawntest.Tree(t)
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	began := time.Now()
	err := nspawntest.Boot(ctx, tree, nspawntest.Options{})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v, want the deadline", err)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("it took %s", took)
	}
}

// What one test does to its tree is not there for the next.
func TestTreesAreApart(t *testing.T) {
	one, two := nspawntest.Tree(t), nspawntest.Tree(t)
	if err := os.WriteFile(filepath.Join(one, "mark"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(two, "mark")); !os.IsNotExist(err) {
		t.Errorf("the mark of one tree is in the other: %v", err)
	}
}
