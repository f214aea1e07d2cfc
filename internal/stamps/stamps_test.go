package stamps_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/stamps"
	"github.com/amiagent/amiagent/internal/step"
)

func open(t *testing.T, root string) *stamps.Store {
	t.Helper()
	h, err := host.New(root, host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := stamps.Open(h, stamps.Dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s *stamps.Store, id step.ID, value string) {
	t.Helper()
	if err := s.Put(id, value); err != nil {
		t.Fatal(err)
	}
}

func TestAStampOutlivesTheAgent(t *testing.T) {
	root := t.TempDir()
	warm := step.ID{Kind: "commands", Name: "warm-cache"}
	s := open(t, root)
	if s.Has(warm, "k1") {
		t.Fatal("stamped before anything was done")
	}
	put(t, s, warm, "k1")

	s = open(t, root)
	if !s.Has(warm, "k1") {
		t.Error("the stamp is lost")
	}
	if s.Has(warm, "k2") || s.Has(warm, "") {
		t.Error("another value counts as done")
	}
	put(t, s, warm, "k2")
	if s.Has(warm, "k1") || !s.Has(warm, "k2") {
		t.Error("the second value did not take the first one's place")
	}
	for range 2 { // dropping what is not there is no error
		if err := s.Drop(warm); err != nil {
			t.Fatal(err)
		}
	}
	if s.Has(warm, "k2") {
		t.Error("the stamp was dropped and is there")
	}
}

func TestNamesThatAreNoFileNamesDoNotMix(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	ids := []step.ID{
		{Kind: "files", Name: "/etc/motd"},
		{Kind: "files", Name: "/etc_motd"},
		{Kind: "files", Name: "../../../../tmp/x"},
		{Kind: "files", Name: strings.Repeat("long", 2000)},
		{Kind: "../x", Name: "y"},
		{Kind: "units", Name: "app@1.service"},
		{Kind: "units", Name: "app\n\x00.service"},
	}
	for i, id := range ids {
		put(t, s, id, fmt.Sprint(i))
	}
	for i, id := range ids {
		if !s.Has(id, fmt.Sprint(i)) {
			t.Errorf("%.40q has another's stamp or none", id)
		}
	}
	entries, err := os.ReadDir(filepath.Join(root, stamps.Dir))
	if err != nil || len(entries) != len(ids) {
		t.Errorf("%d files for %d stamps, %v", len(entries), len(ids), err)
	}
}

func TestStampsAreForRootOnly(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	put(t, s, step.ID{Kind: "files", Name: "/x"}, "v")
	dir := filepath.Join(root, stamps.Dir)
	st, err := os.Stat(dir)
	if err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("folder is %v, %v", st.Mode(), err)
	}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if info, _ := e.Info(); info.Mode().Perm() != 0o600 {
			t.Errorf("%s is %v", e.Name(), info.Mode())
		}
	}
}

func TestADamagedOrForeignStampMeansDoItAgain(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	id := step.ID{Kind: "commands", Name: "init"}
	put(t, s, id, "k")
	entries, _ := os.ReadDir(filepath.Join(root, stamps.Dir))
	file := filepath.Join(root, stamps.Dir, entries[0].Name())
	for _, content := range []string{
		"",
		"{",
		`{"format":2,"id":"commands.init","value":"k"}`,  // written by a later agent
		`{"format":1,"id":"commands.other","value":"k"}`, // copied from another step
		strings.Repeat(" ", 1<<17) + `{"format":1,"id":"commands.init","value":"k"}`,
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if s.Has(id, "k") {
			t.Errorf("%.60q counts as done", content)
		}
		put(t, s, id, "k")
		if !s.Has(id, "k") {
			t.Errorf("cannot be stamped again after %.60q", content)
		}
	}
}

func TestAValueThatCouldNotBeReadBackIsRefused(t *testing.T) {
	s := open(t, t.TempDir())
	id := step.ID{Kind: "commands", Name: "init"}
	err := s.Put(id, strings.Repeat("v", 1<<17))
	if err == nil || err.Error() != "cannot stamp commands.init: its value has 131072 bytes" {
		t.Errorf("error is %v", err)
	}
}

func TestManyStepsStampAtOnce(t *testing.T) {
	s := open(t, t.TempDir())
	var wg sync.WaitGroup
	for i := range 20 {
		id := step.ID{Kind: "files", Name: fmt.Sprint("/f", i%10)}
		wg.Go(func() {
			if err := s.Put(id, "v"); err != nil {
				t.Error(err)
			}
			if !s.Has(id, "v") {
				t.Errorf("%s is not stamped", id)
			}
		})
	}
	wg.Wait()
}
