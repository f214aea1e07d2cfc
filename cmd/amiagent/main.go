// Command amiagent provisions the machine it runs on, and says when it is ready.
package main

import (
	"context"
	"os"

	"github.com/amiagent/amiagent/internal/command"
)

// version is set by the build.
var version = "dev"

func main() {
	os.Exit(command.Run(context.Background(), version, os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}
