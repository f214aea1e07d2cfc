// Command ec2sim runs a local EC2, so that anyone who writes a manifest can
// try a launch on a laptop: the instance metadata service and the APIs that a
// launch talks to, from one YAML file. It is a tool for development and is not
// part of the packages.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/amiagent/amiagent/internal/ec2sim"
)

const usage = `usage: ec2sim [-f CONFIG] [--imds ADDR] [--api ADDR] [-v]
       ec2sim [-f CONFIG] [--imds ADDR] [--api ADDR] --print-env
       ec2sim [-f CONFIG] [--imds ADDR] [--api ADDR] [-v] --once-ready-exec CMD [ARG…]

Runs a local EC2 until it is interrupted. On SIGHUP it reads CONFIG again.

`

// Exit codes:
const (
	exitDone   = 0 // interrupted, or --print-env has printed
	exitFailed = 1 // cannot listen, cannot run CMD
	exitUsage  = 2 // wrong flags, or a faulty CONFIG
	// With --once-ready-exec the exit code is CMD's, 128 + the signal that killed it.
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// run is the whole command. It ends when ctx ends, or at SIGINT or SIGTERM.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("ec2sim", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage); flags.PrintDefaults() }
	file := flags.String("f", "", "read the instance and its account from `CONFIG`")
	imds := flags.String("imds", "127.0.0.1:1338", "serve the metadata service on `ADDR`")
	api := flags.String("api", "127.0.0.1:4566", "serve the APIs on `ADDR`")
	printEnv := flags.Bool("print-env", false, "print the environment of a process on this instance for eval, and end")
	once := flags.Bool("once-ready-exec", false, "run the command that follows in that environment, and end with it")
	verbose := flags.Bool("v", false, "print every request on standard error")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return exitDone
	case err != nil:
		return exitUsage
	case *once != (flags.NArg() > 0) || *once && *printEnv:
		flags.Usage()
		return exitUsage
	}
	fail := func(code int, err error) int {
		fmt.Fprintln(stderr, err)
		return code
	}
	cfg, err := read(*file)
	if err != nil {
		return fail(exitUsage, err)
	}
	sim := ec2sim.New(cfg)
	if *printEnv {
		if hasPort0(*imds) || hasPort0(*api) {
			return fail(exitUsage, errors.New("cannot print the environment: --imds and --api need ports, not 0"))
		}
		fmt.Fprint(stdout, exports(ec2sim.Env("http://"+*imds, "http://"+*api, sim.Config().Region)))
		return exitDone
	}

	hup := make(chan os.Signal, 1) // from before anyone can be told to send one
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	stderr = &lines{w: stderr}
	if *verbose {
		sim.Watch(func(r ec2sim.Request) { fmt.Fprintf(stderr, "%s %s\n", r.Time.Format("15:04:05.000"), r) })
		defer sim.Watch(nil)
	}
	srv, err := sim.Listen(*imds, *api)
	if err != nil {
		return fail(exitFailed, err)
	}
	defer func() { _ = srv.Close() }()
	if *once {
		return execute(ctx, flags.Args(), instanceEnv(environ, srv.Env()), stdout, stderr)
	}
	fmt.Fprint(stdout, welcome(srv, sim.Config()))
	for {
		select {
		case <-ctx.Done():
			return exitDone
		case <-hup:
			if cfg, err := read(*file); err != nil {
				fmt.Fprintf(stderr, "%v\nthe configuration stays as it was\n", err)
			} else {
				sim.Apply(cfg)
				fmt.Fprintln(stderr, "read the configuration again")
			}
		}
	}
}

func read(file string) (ec2sim.Config, error) {
	if file == "" {
		return ec2sim.Config{}, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return ec2sim.Config{}, fmt.Errorf("cannot read the configuration: %w", err)
	}
	return ec2sim.ReadConfig(file, data)
}

func hasPort0(addr string) bool { return strings.HasSuffix(addr, ":0") || !strings.Contains(addr, ":") }

// clutter are settings of a laptop that an instance does not have, and that
// would win over the instance's credentials.
var clutter = []string{"AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
	"AWS_EC2_METADATA_DISABLED", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
	"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"}

// exports is shell text that gives a shell the environment of the instance.
func exports(env []string) string {
	var b strings.Builder
	for _, kv := range env {
		fmt.Fprintf(&b, "export %s\n", kv)
	}
	fmt.Fprintf(&b, "unset %s\n", strings.Join(clutter, " "))
	return b.String()
}

// instanceEnv is environ with the instance's settings in place of the laptop's.
func instanceEnv(environ, env []string) []string {
	own := slices.DeleteFunc(slices.Clone(environ), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains(clutter, name) || strings.HasPrefix(name, "AWS_ENDPOINT_URL_")
	})
	return append(own, env...)
}

func welcome(srv *ec2sim.Server, cfg ec2sim.Config) string {
	return fmt.Sprintf(`# %s in %s is up: metadata on %s, APIs on %s
# In another terminal:
%s
# Then try a launch, in a scratch root:
#   amiagent facts
#   amiagent plan  --root /tmp/root manifest.yaml
#   amiagent apply --root /tmp/root manifest.yaml
# Interrupt with ^C; after an edit of the configuration: kill -HUP %d
`, cfg.InstanceID, cfg.Zone, srv.IMDSURL(), srv.APIURL(), exports(srv.Env()), os.Getpid())
}

// execute runs a command to its end and gives its exit code.
func execute(ctx context.Context, argv, env []string, stdout, stderr io.Writer) int {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, os.Stdin, stdout, stderr
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &exit):
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return 128 + int(ws.Signal())
		}
		return exit.ExitCode()
	}
	fmt.Fprintf(stderr, "cannot run %q: %v\n", argv[0], err)
	return exitFailed
}

// lines lets requests, the command and ec2sim itself write to one place.
type lines struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
