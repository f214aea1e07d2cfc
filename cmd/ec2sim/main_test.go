package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The test binary stands in for the command, and for a program on the instance.
func TestMain(m *testing.M) {
	switch os.Getenv("EC2SIM_TEST_AS") {
	case "ec2sim":
		main()
	case "program":
		program()
	default:
		os.Exit(m.Run())
	}
}

// program prints what an AWS client would see of its environment, and a tag.
func program() {
	for _, name := range []string{"AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_ENDPOINT_URL_S3", "KEPT"} {
		os.Stdout.WriteString(name + "=" + os.Getenv(name) + "\n")
	}
	endpoint := strings.TrimSuffix(os.Getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT"), "/")
	os.Stdout.WriteString("Role=" + metadata(endpoint, "tags/instance/Role") + "\n")
	if len(os.Args) > 1 {
		os.Exit(7)
	}
	os.Exit(0)
}

func metadata(endpoint, path string) string {
	ask := func(method, url, header, value string) string {
		req, err := http.NewRequest(method, url, nil)
		if err != nil {
			return err.Error()
		}
		req.Header.Set(header, value)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return string(b)
	}
	token := ask("PUT", endpoint+"/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds", "60")
	return ask("GET", endpoint+"/latest/meta-data/"+path, "X-aws-ec2-metadata-token", token)
}

// command runs it to its end: exit code, standard output, standard error.
func command(t *testing.T, args ...string) (int, string, string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	code := run(ctx, args, []string{"EC2SIM_TEST_AS=program", "KEPT=yes", "PATH=" + filepath.Dir(self), "AWS_PROFILE=prod",
		"AWS_ACCESS_KEY_ID=AKIALAPTOP", "AWS_ENDPOINT_URL_S3=http://elsewhere", "AWS_REGION=us-east-1"}, &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

func config(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ec2.yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestPrintEnv(t *testing.T) {
	code, stdout, stderr := command(t, "-f", "../../internal/ec2sim/testdata/example.yaml", "--print-env")
	want := `export AWS_EC2_METADATA_SERVICE_ENDPOINT=http://127.0.0.1:1338/
export AWS_ENDPOINT_URL=http://127.0.0.1:4566
export AWS_REGION=eu-west-1
export AWS_DEFAULT_REGION=eu-west-1
export AWS_CONFIG_FILE=/dev/null
export AWS_SHARED_CREDENTIALS_FILE=/dev/null
unset AWS_PROFILE AWS_DEFAULT_PROFILE AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_EC2_METADATA_DISABLED AWS_CONTAINER_CREDENTIALS_FULL_URI AWS_CONTAINER_CREDENTIALS_RELATIVE_URI AWS_WEB_IDENTITY_TOKEN_FILE AWS_ROLE_ARN
`
	if diff := cmp.Diff(want, stdout); code != 0 || stderr != "" || diff != "" {
		t.Errorf("exit %d, %s\n%s", code, stderr, diff)
	}
}

// A program runs on the instance: its environment is the instance's, not the laptop's.
func TestOnceReadyExec(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	file := config(t, "{tags: {Role: web}, tags-in-imds: true, region: eu-north-1}")
	args := []string{"-f", file, "--imds", "127.0.0.1:0", "--api", "127.0.0.1:0", "-v", "--once-ready-exec", self}
	code, stdout, stderr := command(t, args...)
	want := "AWS_REGION=eu-north-1\nAWS_ACCESS_KEY_ID=\nAWS_PROFILE=\nAWS_ENDPOINT_URL_S3=\nKEPT=yes\nRole=web\n"
	if diff := cmp.Diff(want, stdout); code != 0 || diff != "" {
		t.Errorf("exit %d, %s\n%s", code, stderr, diff)
	}
	if !strings.Contains(stderr, " imds token /latest/api/token 200\n") || !strings.Contains(stderr, " imds meta-data /latest/meta-data/tags/instance/Role 200\n") {
		t.Errorf("-v printed %q", stderr)
	}
	if code, _, _ := command(t, append(args, "fail")...); code != 7 {
		t.Errorf("exit %d, want the program's 7", code)
	}
	code, _, stderr = command(t, append(args[:len(args)-1], "no-such-program")...)
	if code != 1 || !strings.Contains(stderr, `cannot run "no-such-program": `) {
		t.Errorf("exit %d, %q", code, stderr)
	}
}

func TestUsageAndFaults(t *testing.T) {
	busy := config(t, "{}")
	faulty := config(t, "tagz: {}\nfaults:\n  - {do: explode}\n")
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--help"}, 0, "usage: ec2sim"},
		{[]string{"--nonsense"}, 2, "usage: ec2sim"},
		{[]string{"stray"}, 2, "usage: ec2sim"},
		{[]string{"--once-ready-exec"}, 2, "usage: ec2sim"},
		{[]string{"--print-env", "--imds", "127.0.0.1:0"}, 2, "cannot print the environment: --imds and --api need ports, not 0"},
		{[]string{"-f", "missing.yaml"}, 2, "cannot read the configuration: open missing.yaml: no such file or directory"},
		{[]string{"-f", faulty}, 2, faulty + ":1:1: tagz: unknown key, did you mean \"tags\"?\n" + faulty + ":3:10: faults[0].do: \"explode\" is none of "},
		{[]string{"-f", busy, "--imds", "127.0.0.1:99999"}, 1, "cannot listen for the metadata service: "},
	} {
		code, stdout, stderr := command(t, c.args...)
		if code != c.code || stdout != "" || !strings.Contains(stderr, c.want) {
			t.Errorf("%q: exit %d, %q, want %d and %q", c.args, code, stdout+stderr, c.code, c.want)
		}
	}
}

// The command as a process: it says how to use it, reads its configuration
// again at SIGHUP, keeps the old one when the new one is faulty, and ends at SIGTERM.
func TestServesUntilTold(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	file := config(t, "{tags: {Role: web}, tags-in-imds: true}")
	cmd := exec.Command(self, "-f", file, "--imds", "127.0.0.1:0", "--api", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), "EC2SIM_TEST_AS=ec2sim")
	out := &output{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()

	out.wait(t, "kill -HUP ")
	m := regexp.MustCompile(`export AWS_EC2_METADATA_SERVICE_ENDPOINT=(\S+)`).FindStringSubmatch(out.String())
	if m == nil {
		t.Fatalf("no endpoint in %q", out)
	}
	role := func(want string) {
		t.Helper()
		if got := metadata(strings.TrimSuffix(m[1], "/"), "tags/instance/Role"); got != want {
			t.Errorf("Role is %q, want %q", got, want)
		}
	}
	role("web")
	again := func(text, answer string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		cmd.Process.Signal(syscall.SIGHUP)
		out.wait(t, answer)
	}
	again("{tags: {Role: db}, tags-in-imds: true}", "read the configuration again")
	role("db")
	again("{tags: Role}", ":1:8: tags: must be a mapping, is \"Role\"\nthe configuration stays as it was")
	role("db")

	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
}

// output collects what a process prints.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func (o *output) wait(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(o.String(), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%q was never printed, only %q", text, o)
		}
	}
}
