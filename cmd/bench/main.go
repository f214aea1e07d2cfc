// Command bench is the part of `make bench` that runs inside the booted tree:
// it writes what it found to a file and powers the tree off. It is a tool for
// development and is not part of the packages.
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"time"

	"github.com/amiagent/amiagent/internal/bench"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:]))
}

func run(ctx context.Context, args []string) int {
	ctx, cancel := context.WithTimeout(ctx, 12*time.Minute)
	defer cancel()
	var r bench.Results
	var err error
	switch {
	case len(args) == 1 && args[0] == "prove":
		r, err = bench.Prove(ctx, http.Dir("/srv/bench"))
	case len(args) == 1 && args[0] == "measure":
		r, err = bench.Measure(ctx)
	default:
		fmt.Fprintln(os.Stderr, "usage: bench prove | measure, inside the tree that make bench makes")
		return 2
	}
	if err := r.Save(err); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	if err := exec.CommandContext(ctx, "systemctl", "poweroff", "--no-block").Run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench: cannot power off:", err)
		return 1
	}
	return 0
}
