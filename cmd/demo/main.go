// Command demo shows a launch from end to end on any machine, as a plain user:
// it starts a local EC2, lets the real agent provision a scratch folder as the
// web server that the instance's tags say it is, watches the health endpoint as
// a load balancer would, then changes a tag and shows what converges.
//
// Everything it starts it ends, and everything it writes is in one folder below
// the temporary one, which it removes.
package main

import (
	"archive/tar"
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/amiagent/amiagent/internal/ec2sim"
)

//go:embed web.yaml agent.yaml
var files embed.FS

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: demo PATH-OF-AMIAGENT")
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// demo is what the scenes share.
type demo struct {
	agent  string // the program
	root   string // the scratch machine
	sim    *ec2sim.Sim
	env    []string
	health string // address of the health responder
	out    io.Writer
	mu     sync.Mutex
}

func run(ctx context.Context, program string) (err error) {
	program, err = filepath.Abs(program)
	if err != nil {
		return err
	}
	root, err := os.MkdirTemp("", "amiagent-demo-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(root) }()
	d := &demo{agent: program, root: root, out: os.Stdout}

	d.scene("A local EC2: metadata (IMDSv2), S3 and SSM, on loopback")
	server, err := d.cloud()
	if err != nil {
		return err
	}
	defer func() { _ = server.Close() }()
	d.env = append([]string{"PATH=" + os.Getenv("PATH")}, server.Env()...)
	app, err := d.service()
	if err != nil {
		return err
	}
	defer app.Close()
	if err := d.image(); err != nil {
		return err
	}
	d.say("instance %s with the tags Role=web Color=blue, and a scratch machine in %s", d.sim.Config().InstanceID, root)

	d.scene("Boot: the health responder, then the agent")
	if d.health, err = freeAddress(); err != nil {
		return err
	}
	stopHealth, err := d.start("health", "--address", d.health)
	if err != nil {
		return err
	}
	defer stopHealth()
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	seen := make(chan string, 100)
	go d.loadBalancer(watching, seen)
	if err := until(ctx, seen, "503"); err != nil {
		return err
	}
	stopAgent, err := d.start("run")
	if err != nil {
		return err
	}
	defer stopAgent()
	if err := until(ctx, seen, "200"); err != nil {
		_ = d.amiagent("analyze")
		return err
	}

	d.scene("amiagent analyze: how the launch went")
	if err := d.amiagent("analyze"); err != nil {
		return err
	}
	d.show("/etc/web/site.conf")

	d.scene("The tag Color turns green: what would change?  amiagent plan")
	d.sim.SetTag("Color", "green")
	var exit *exec.ExitError
	if err := d.amiagent("plan"); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		return fmt.Errorf("plan should find drift and exit with 3: %v", err)
	}

	d.scene("amiagent reload: only that converges")
	before := d.latest()
	if err := d.amiagent("reload"); err != nil {
		return err
	}
	if err := d.nextReport(ctx, before); err != nil {
		return err
	}
	if err := d.amiagent("analyze"); err != nil {
		return err
	}
	d.show("/etc/web/site.conf")

	d.scene("READY, and still in service")
	return d.amiagent("status")
}

func (d *demo) scene(title string) { d.print("\n== " + title + "\n") }

func (d *demo) say(format string, args ...any) { d.print("   " + fmt.Sprintf(format, args...) + "\n") }

func (d *demo) print(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, _ = io.WriteString(d.out, text)
}

// cloud starts the local EC2 with all that the manifest asks for.
func (d *demo) cloud() (*ec2sim.Server, error) {
	site, err := archive(map[string]string{
		"site/index.html": "<h1>served from an artifact</h1>\n",
		"site/bin/check":  "#!/bin/sh\n# Called with the new configuration before it takes its name.\ngrep -q '^color = ' \"$AMIAGENT_ROOT$1\"\n",
	})
	if err != nil {
		return nil, err
	}
	manifest, err := files.ReadFile("web.yaml")
	if err != nil {
		return nil, err
	}
	d.sim = ec2sim.New(ec2sim.Config{
		Tags:       map[string]string{"Name": "web-1", "Role": "web", "Color": "blue"},
		TagsInIMDS: true,
		Parameters: map[string]ec2sim.Parameter{"/web/db-password": {Type: "SecureString", Value: ec2sim.Versions{"correct horse battery staple"}}},
	})
	d.sim.PutObject("acme-manifests", "web.yaml", manifest)
	d.sim.PutObject("acme-artifacts", "site.tar.zst", []byte("an older version of the artifact"))
	version := d.sim.PutObject("acme-artifacts", "site.tar.zst", site)
	d.sim.PutObject("acme-artifacts", "site.tar.zst", []byte("a newer version, which the manifest does not name"))
	d.sim.SetTag("SiteVersion", version)
	return d.sim.Start("127.0.0.1:0")
}

// archive is a tar.zst of files.
func archive(files map[string]string) ([]byte, error) {
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	if err != nil {
		return nil, err
	}
	t := tar.NewWriter(z)
	for name, text := range files {
		h := &tar.Header{Name: name, Mode: 0o755, Size: int64(len(text)), ModTime: time.Unix(1700000000, 0)}
		if err := t.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(t, text); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(t.Close(), z.Close()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// service is the web server that the manifest's probe asks. It is well once its
// configuration and the artifact are in place.
func (d *demo) service() (io.Closer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d.sim.SetTag("Port", fmt.Sprint(l.Addr().(*net.TCPAddr).Port))
	server := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for _, name := range []string{"etc/web/site.conf", "srv/site/index.html"} {
			if _, err := os.Stat(filepath.Join(d.root, name)); err != nil {
				http.Error(w, "not installed: "+name, http.StatusServiceUnavailable)
				return
			}
		}
		_, _ = io.WriteString(w, "well\n")
	})}
	go func() { _ = server.Serve(l) }()
	return server, nil
}

// image lays out the scratch machine: all that a lightly baked image has.
func (d *demo) image() error {
	text, err := files.ReadFile("agent.yaml")
	if err != nil {
		return err
	}
	for name, text := range map[string]string{
		"etc/amiagent/agent.yaml": string(text),
		"etc/os-release":          "ID=amzn\nVERSION_ID=2023\nPRETTY_NAME=\"Amazon Linux 2023\"\n",
		"etc/machine-id":          "6d1e0f2a3b4c5d6e7f8091a2b3c4d5e6\n",
	} {
		p := filepath.Join(d.root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// start runs the agent in the background and gives what ends it.
func (d *demo) start(args ...string) (stop func(), err error) {
	c := d.command(context.Background(), args...)
	log, err := os.Create(filepath.Join(d.root, args[0]+".log"))
	if err != nil {
		return nil, err
	}
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		return nil, err
	}
	return func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		_ = c.Wait()
		log.Close()
	}, nil
}

func (d *demo) command(ctx context.Context, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, d.agent, append(args, "--no-chroot", "--root", d.root)...)
	c.Env = d.env
	return c
}

// amiagent runs the agent in the foreground and shows what it prints.
func (d *demo) amiagent(args ...string) error {
	c := d.command(context.Background(), args...)
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	for line := range strings.Lines(out.String()) {
		d.print("   " + line)
	}
	return err
}

// loadBalancer asks the health endpoint as a load balancer does, and tells when the answer turns.
func (d *demo) loadBalancer(ctx context.Context, seen chan<- string) {
	last := ""
	for ctx.Err() == nil {
		answer := ask(ctx, "http://"+d.health+"/readyz")
		if answer != "" && answer != last {
			d.say("load balancer: GET /readyz → %s", answer)
			last = answer
			seen <- answer
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func ask(ctx context.Context, url string) string {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return ""
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
	return fmt.Sprintf("%d %s", resp.StatusCode, strings.TrimSpace(string(b)))
}

// until waits for an answer that begins with want.
func until(ctx context.Context, seen <-chan string, want string) error {
	for {
		select {
		case answer := <-seen:
			if strings.HasPrefix(answer, want) {
				return nil
			}
			if strings.Contains(answer, "failed") {
				return fmt.Errorf("the launch failed: %s", answer)
			}
		case <-ctx.Done():
			return fmt.Errorf("no %s from the health endpoint: %w", want, ctx.Err())
		}
	}
}

func (d *demo) show(name string) {
	b, err := os.ReadFile(filepath.Join(d.root, name))
	if err != nil {
		d.say("%v", err)
		return
	}
	d.say("%s:", name)
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "db_password") {
			line = "db_password = (a secret, from SSM)\n"
		}
		d.print("     " + line)
	}
}

func (d *demo) latest() string {
	found, _ := filepath.Glob(filepath.Join(d.root, "var/lib/amiagent/reports/*.json"))
	if len(found) == 0 {
		return ""
	}
	return found[len(found)-1]
}

func (d *demo) nextReport(ctx context.Context, before string) error {
	for d.latest() == before {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the reload left no report: %w", ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
