package agent

import (
	"fmt"
	"os"
	"runtime"
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

// settings makes sure that there are two processors, and puts all back after the test.
func settings(t *testing.T) (processors int) {
	t.Helper()
	percent, had := percent(), runtime.GOMAXPROCS(2)
	t.Cleanup(func() {
		debug.SetGCPercent(percent)
		runtime.GOMAXPROCS(had)
	})
	return 2
}

func TestALaunchIsFastAndRestIsSmall(t *testing.T) {
	processors := settings(t)
	a, err := New(Options{OwnProcess: true, Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		a.hurry()
		if got := percent(); got != launchGarbage || runtime.GOMAXPROCS(0) != processors {
			t.Errorf("during a launch it is %d, on %d processors of %d", got, runtime.GOMAXPROCS(0), processors)
		}
		a.rest()
		if got := percent(); got != restGarbage || runtime.GOMAXPROCS(0) != 1 {
			t.Errorf("at rest it is %d, on %d processors", got, runtime.GOMAXPROCS(0))
		}
	}
}

// In a program that embeds the agent, such things are the program's own.
func TestAProgramAroundTheAgentIsLeftAlone(t *testing.T) {
	processors := settings(t)
	a, err := New(Options{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	before := percent()
	for _, f := range []func(){a.hurry, a.rest, a.hurry} {
		f()
		if got := percent(); got != before || runtime.GOMAXPROCS(0) != processors {
			t.Errorf("it is %d, on %d processors", got, runtime.GOMAXPROCS(0))
		}
	}
}

func TestTheOperatorsGOGCStands(t *testing.T) {
	settings(t)
	a, err := New(Options{OwnProcess: true, Root: t.TempDir(), Env: func(name string) (string, bool) {
		if name == "GOGC" {
			return "33", true
		}
		return "", false
	}})
	if err != nil {
		t.Fatal(err)
	}
	debug.SetGCPercent(33)
	a.hurry()
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
	settings(t)
	a, err := New(Options{OwnProcess: true, Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	was := inMemory()
	a.rest()
	if is := inMemory(); is > was-1024 {
		t.Errorf("%d KiB before, %d after", was, is)
	}
}
