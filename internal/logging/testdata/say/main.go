// Say writes a few entries to the journal. The test links it against a socket
// of its own: the journal package has the socket's path in a variable for that.
package main

import (
	"errors"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/amiagent/amiagent/internal/logging"
)

func main() {
	log := logging.New(logging.Options{Journal: true, Redact: func(s string) string { return strings.ReplaceAll(s, "hunter2", "«redacted»") }})
	log.Debug("not told")
	log = log.With(zap.String(logging.Phase, "converge"))
	log.Info("step done", zap.String(logging.Step, "files./etc/motd"), zap.Duration(logging.Took, 12*time.Millisecond), zap.String(logging.Outcome, "changed"))
	log.Error("step failed with hunter2", zap.String(logging.Step, "commands.x"), zap.Error(errors.New("exit 1\npassword hunter2 \"refused\"")), zap.Int("odd-name", 3))
	log.Warn("large", zap.String("text", strings.Repeat("x", 1<<20)))
}
