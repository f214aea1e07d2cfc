package agent

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"testing"
)

// percent reads how much garbage may lie about, and leaves it so.
func percent() int {
	p := debug.SetGCPercent(100)
	debug.SetGCPercent(p)
	return p
}

func TestGarbageMayLieAboutDuringALaunchOnly(t *testing.T) {
	before := percent()
	t.Cleanup(func() { debug.SetGCPercent(before) })
	a, err := New(Options{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	a.collect(launchGarbage)
	if got := percent(); got != launchGarbage {
		t.Errorf("during a launch it is %d", got)
	}
	a.rest()
	if got := percent(); got != restGarbage {
		t.Errorf("at rest it is %d", got)
	}
}

func TestTheOperatorsGOGCStands(t *testing.T) {
	before := percent()
	t.Cleanup(func() { debug.SetGCPercent(before) })
	a, err := New(Options{Root: t.TempDir(), Env: func(name string) (string, bool) {
		if name == "GOGC" {
			return "33", true
		}
		return "", false
	}})
	if err != nil {
		t.Fatal(err)
	}
	debug.SetGCPercent(33)
	a.collect(launchGarbage)
	a.rest()
	if got := percent(); got != 33 {
		t.Errorf("it is %d, the operator said 33", got)
	}
}

// At rest the pages of the program's own text are given back, and it runs on.
func TestRestGivesTextBack(t *testing.T) {
	inMemory := func() (kib int) {
		b, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		_, after, _ := strings.Cut(string(b), "RssFile:")
		if _, err := fmt.Sscan(after, &kib); err != nil {
			t.Fatal(err)
		}
		return kib
	}
	before := percent()
	t.Cleanup(func() { debug.SetGCPercent(before) })
	a, err := New(Options{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	was := inMemory()
	a.rest()
	if is := inMemory(); is > was-1024 {
		t.Errorf("%d KiB before, %d after", was, is)
	}
}
