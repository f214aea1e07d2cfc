// Command gen writes the man pages and shell completions that are packaged.
package main

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/amiagent/amiagent/internal/command"
	"github.com/amiagent/amiagent/packaging/share"
)

func main() {
	version := flag.String("version", "", "what the pages say")
	flag.Parse()
	// The date of the pages is that of the commit (reproducible-builds.org/specs/source-date-epoch).
	epoch, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err == nil {
		err = share.Write(command.Root(*version), flag.Arg(0), *version, time.Unix(epoch, 0))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}
