package nspawntest

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Tag is the build tag of tests that run inside a booted tree.
const Tag = "booted"

// Self is the unit that runs them. Its start job lasts until they are done, so
// that they stand where the agent stands before it is ready.
const Self = "amiagent.service"

// Inside runs the tests in this package's *booted_test.go, which have the build
// tag "booted", in a booted tree, as root, within the unit Self, and gives each as a subtest here. The
// tree is left as the system left it, for a look at what came after.
func Inside(ctx context.Context, t *testing.T, tree string, opt Options) {
	t.Helper()
	binary := filepath.Join(tree, "inside.test")
	build := exec.Command("go", "test", "-c", "-tags", Tag, "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("cannot build the tests: %v\n%s", err, out)
	}
	write(t, tree, "/etc/systemd/system/"+Self, `[Unit]
Description=The tests of this package
[Service]
Type=oneshot
RemainAfterExit=yes
Environment=HOME=/root
ExecStart=/inside.test -test.v -test.timeout=90s -test.run=^(`+strings.Join(bootedTests(t), "|")+`)$$
StandardOutput=file:/inside.out
StandardError=file:/inside.err
[Install]
WantedBy=multi-user.target
`)
	// Ordered after everything, so that what waits for Self has its time.
	write(t, tree, "/etc/systemd/system/amiagent-test-end.service", `[Unit]
Description=End of the test
After=multi-user.target `+Self+`
[Service]
Type=oneshot
ExecStart=/bin/sleep 0.5
ExecStart=/bin/systemctl poweroff --no-block
[Install]
WantedBy=multi-user.target
`)
	for _, unit := range []string{Self, "amiagent-test-end.service"} {
		link := filepath.Join(tree, "etc/systemd/system/multi-user.target.wants", unit)
		if err := os.Symlink("/etc/systemd/system/"+unit, link); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	var console bytes.Buffer
	if opt.Console == nil {
		opt.Console = &console
	} else {
		opt.Console = io.MultiWriter(opt.Console, &console)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := Boot(ctx, tree, opt); err != nil {
		t.Errorf("%v; console:\n%s", err, console.Bytes())
	}
	relay(t, tree, &console)
}

var testFunc = regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`)

// bootedTests are the names of the tests to run inside. The package's other
// tests have had their turn outside.
func bootedTests(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("*booted_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range testFunc.FindAllSubmatch(b, -1) {
			names = append(names, string(m[1]))
		}
	}
	if len(names) == 0 {
		t.Fatal("this package has no *booted_test.go with tests")
	}
	return names
}

func write(t testing.TB, tree, name, text string) {
	t.Helper()
	file := filepath.Join(tree, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

var result = regexp.MustCompile(`^( *)--- (PASS|FAIL|SKIP): (\S+)`)

// relay makes subtests of what the tests inside printed.
func relay(t *testing.T, tree string, console *bytes.Buffer) {
	t.Helper()
	out, _ := os.ReadFile(filepath.Join(tree, "inside.out"))
	stderr, _ := os.ReadFile(filepath.Join(tree, "inside.err"))
	type one struct{ verdict, log string }
	var names []string
	tests := map[string]*one{}
	running := ""
	for line := range strings.Lines(string(out)) {
		if name, ok := strings.CutPrefix(line, "=== RUN   "); ok {
			running = strings.TrimSpace(strings.SplitN(name, "/", 2)[0])
			if tests[running] == nil {
				tests[running] = &one{}
				names = append(names, running)
			}
			continue
		}
		if m := result.FindStringSubmatch(line); m != nil && m[1] == "" && tests[m[3]] != nil {
			tests[m[3]].verdict = m[2]
		}
		if tests[running] != nil {
			tests[running].log += line
		}
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			if tests[name].verdict != "PASS" {
				t.Errorf("inside the tree: %s\n%s", tests[name].verdict, tests[name].log)
			}
		})
	}
	if want := len(bootedTests(t)); len(names) != want {
		t.Errorf("%d tests ran inside, want %d", len(names), want)
	}
	last := strings.TrimSpace(string(out))
	if len(names) == 0 || !strings.HasSuffix(last, "PASS") && !strings.HasSuffix(last, "FAIL") {
		t.Errorf("the tests inside did not come to an end\nstdout:\n%s\nstderr:\n%s\nconsole:\n%s", out, stderr, console.Bytes())
	}
}
