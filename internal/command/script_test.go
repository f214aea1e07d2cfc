package command_test

import (
	"context"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/amiagent/amiagent/internal/command"
)

var update = flag.Bool("update", false, "write what the commands print into the scripts, to be looked at in the diff")

// TestMain makes the test binary be the program too: scripts run the real
// command line in a process of its own. Programs of manifests run outside the
// scratch root, as for a plain user, also where the tests run as root.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"amiagent": func() {
			args := append([]string{"--no-chroot"}, os.Args[1:]...)
			os.Exit(command.Run(context.Background(), "1.2.3", args, os.Environ(), os.Stdout, os.Stderr))
		},
	})
}

// TestScripts runs the stories in testdata/script. Each has a scratch machine
// in the folder root and, from the line `ec2sim` on, an EC2 of its own around it.
func TestScripts(t *testing.T) { scripts(t, "testdata/script/*.txtar", nil) }

type scriptCommand = func(ts *testscript.TestScript, neg bool, args []string)

func scripts(t *testing.T, pattern string, more map[string]scriptCommand) {
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	commands := map[string]scriptCommand{
		"archive":     cmdArchive,
		"ec2sim":      cmdEC2sim,
		"eventually":  cmdEventually,
		"exits":       cmdExits,
		"fault":       cmdFault,
		"imds-tag":    cmdTag,
		"is-json":     cmdIsJSON,
		"nowhere":     cmdNowhere,
		"parameter":   cmdParameter,
		"requests":    cmdRequests,
		"s3-put":      cmdPut,
		"s3-put-lock": cmdPutLock,
		"serve":       cmdServe,
		"sha256":      cmdDigest,
		"signal":      cmdSignal,
		"took":        cmdTook,
		"user-data":   cmdUserData,
	}
	maps.Copy(commands, more)
	testscript.Run(t, testscript.Params{
		Files:              files,
		UpdateScripts:      *update,
		RequireUniqueNames: true,
		Setup:              scratch,
		Cmds:               commands,
	})
}

// scratch lays out what every machine has. The story's own files stay. Off EC2
// is the default, and no AWS setting of a laptop comes through.
func scratch(env *testscript.Env) error {
	env.Values[worldKey{}] = &world{work: env.WorkDir}
	testdata, err := filepath.Abs("../../testdata")
	if err != nil {
		return err
	}
	env.Setenv("TESTDATA", testdata)
	for name, text := range map[string]string{
		"etc/os-release":                 "ID=amzn\nVERSION_ID=2023\nID_LIKE=fedora\nPRETTY_NAME=\"Amazon Linux 2023\"\n",
		"etc/group":                      "root:x:0:\namiagent-health:x:998:\n",
		"etc/machine-id":                 "6d1e0f2a3b4c5d6e7f8091a2b3c4d5e6\n",
		"proc/sys/kernel/random/boot_id": "0b5e7a52-43d1-4d2c-9a61-7f3f1e9a0001\n",
		"proc/uptime":                    "3600.00 7200.00\n",
	} {
		name = filepath.Join(env.WorkDir, "root", name)
		if _, err := os.Stat(name); err == nil {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	for name, value := range map[string]string{
		"AWS_EC2_METADATA_DISABLED":   "true",
		"AWS_CONFIG_FILE":             "/dev/null",
		"AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
	} {
		env.Setenv(name, value)
	}
	return nil
}
