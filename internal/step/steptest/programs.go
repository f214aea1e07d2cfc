package steptest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// logging is the head of every fake program: it appends the argument list to
// the log in one write, so that programs in parallel do not mix their lines.
const logging = `#!/bin/sh
log=%q
line=%q
for a in "$@"; do
	case $a in
	''|*[!A-Za-z0-9_./:=,@%%+~*-]*) line="$line '$a'" ;;
	*) line="$line $a" ;;
	esac
done
printf '%%s\n' "$line" >>"$log"
`

// FakePrograms writes real programs into dir, which it makes: each logs its
// argument list, then runs its script with sh. Put dir first on the PATH of a
// host whose programs are host.Outside. An empty script succeeds.
func FakePrograms(t testing.TB, dir string, scripts map[string]string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, script := range scripts {
		head := fmt.Sprintf(logging, logOf(dir), name)
		// A fork at this moment would inherit the open file, and running the
		// program would then fail with "text file busy".
		syscall.ForkLock.RLock()
		err := os.WriteFile(filepath.Join(dir, name), []byte(head+script+"\n"), 0o755)
		syscall.ForkLock.RUnlock()
		if err != nil {
			t.Fatal(err)
		}
	}
}

func logOf(dir string) string { return dir + ".log" }

// Log is the argument lists that the fake programs in dir were run with, one a
// line, in order: "systemctl start app.service". Arguments with other than
// plain characters stand in single quotes.
func Log(t testing.TB, dir string) []string {
	t.Helper()
	b, err := os.ReadFile(logOf(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}
