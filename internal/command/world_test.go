package command_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/amiagent/amiagent/internal/ec2sim"
	"github.com/amiagent/amiagent/internal/report"
)

// world is what surrounds one story's machine.
type world struct {
	work string
	sim  *ec2sim.Sim
	// ports replaces addresses, which differ from run to run, by words.
	ports []string
	took  time.Duration
}

type worldKey struct{}

func worldOf(ts *testscript.TestScript) *world { return ts.Value(worldKey{}).(*world) }

func (w *world) ec2(ts *testscript.TestScript) *ec2sim.Sim {
	if w.sim == nil {
		ts.Fatalf("this machine is not on EC2: begin with ec2sim")
	}
	return w.sim
}

func want(ts *testscript.TestScript, neg bool, args []string, n int, usage string) {
	if neg || len(args) < n {
		ts.Fatalf("usage: %s", usage)
	}
}

// cmdEC2sim starts an EC2 as a file says and puts the machine on it. Called
// again, it changes the EC2 that is there.
func cmdEC2sim(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 1, "ec2sim CONFIG")
	w := worldOf(ts)
	cfg, err := ec2sim.ReadConfig(ts.MkAbs(args[0]), []byte(ts.ReadFile(args[0])))
	ts.Check(err)
	if w.sim != nil {
		w.sim.Apply(cfg)
		return
	}
	w.sim = ec2sim.New(cfg)
	srv, err := w.sim.Start("127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { srv.Close() })
	for _, kv := range srv.Env() {
		k, v, _ := strings.Cut(kv, "=")
		ts.Setenv(k, v)
	}
	ts.Setenv("AWS_EC2_METADATA_DISABLED", "false")
	w.ports = append(w.ports, strings.TrimPrefix(srv.IMDSURL(), "http://"), "IMDS", strings.TrimPrefix(srv.APIURL(), "http://"), "AWS")
}

// cmdTag tags the instance; without a value it takes the tag off.
func cmdTag(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 1, "imds-tag KEY [VALUE]")
	sim := worldOf(ts).ec2(ts)
	if len(args) == 1 {
		sim.DeleteTag(args[0])
		return
	}
	sim.SetTag(args[0], args[1])
}

// cmdPut puts a file into S3; the new version's id goes into a variable.
func cmdPut(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 3, "s3-put BUCKET KEY FILE [VARIABLE]")
	version := worldOf(ts).ec2(ts).PutObject(args[0], args[1], []byte(ts.ReadFile(args[2])))
	if len(args) > 3 {
		ts.Setenv(args[3], version)
	}
}

func cmdParameter(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 2, "parameter NAME VALUE")
	worldOf(ts).ec2(ts).PutParameter(args[0], "SecureString", args[1])
}

// cmdUserData replaces the user data by a file.
func cmdUserData(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 1, "user-data FILE")
	worldOf(ts).ec2(ts).SetUserData([]byte(ts.ReadFile(args[0])))
}

// cmdFault lets requests fail: `fault service=s3 do=truncate at=10`; `fault none` ends all.
func cmdFault(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 1, "fault KEY=VALUE... | none")
	sim := worldOf(ts).ec2(ts)
	if args[0] == "none" {
		sim.ClearFaults()
		return
	}
	doc := "faults:\n- {" + strings.ReplaceAll(strings.Join(args, ", "), "=", ": ") + "}\n"
	cfg, err := ec2sim.ReadConfig("fault", []byte(doc))
	ts.Check(err)
	sim.SetFault(cfg.Faults[0])
}

// cmdRequests holds the number of requests since the last `requests forget`
// against a number: `requests s3 GetObject 1`. The operation * is any.
func cmdRequests(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 1, "requests SERVICE OPERATION COUNT | forget")
	sim := worldOf(ts).ec2(ts)
	if args[0] == "forget" {
		sim.ForgetRequests()
		return
	}
	want(ts, neg, args, 3, "requests SERVICE OPERATION COUNT")
	if got := sim.Count(args[0], strings.TrimPrefix(args[1], "*")); fmt.Sprint(got) != args[2] {
		ts.Fatalf("%d requests %s %s, want %s; all:\n%s", got, args[0], args[1], args[2], list(sim.Requests()))
	}
}

func list(requests []ec2sim.Request) string {
	var b strings.Builder
	for _, r := range requests {
		fmt.Fprintln(&b, r)
	}
	return b.String()
}

// progress is what a command says on its way, apart from the complaint at its end.
var progress = regexp.MustCompile(`(?m)^(identify|resolve|fetch|converge|prove|  [^ ].*)\n`)

// cmdExits runs a command, which must end with a certain code. What it
// complains about is afterwards in the file complaint, for cmp.
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 2, "exits CODE COMMAND...")
	w := worldOf(ts)
	begin := time.Now()
	err := ts.Exec(args[1], args[2:]...)
	w.took = time.Since(begin)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	stderr := ts.ReadFile("stderr")
	ts.Check(os.WriteFile(filepath.Join(w.work, "complaint"), []byte(w.scrub(progress.ReplaceAllString(stderr, ""))), 0o644))
	ts.Check(os.WriteFile(filepath.Join(w.work, "said"), []byte(w.scrub(ts.ReadFile("stdout"))), 0o644))
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

var fleeting = regexp.MustCompile(`\b(pid|in|after|since) \d[\d.]*(ms|s|-\S+Z)?\b`)

// scrub takes out of a text what differs from run to run.
func (w *world) scrub(text string) string {
	text = strings.ReplaceAll(text, w.work, "$WORK")
	text = strings.NewReplacer(w.ports...).Replace(text)
	return fleeting.ReplaceAllString(text, "$1 N")
}

// cmdTook bounds the time of the last `exits`.
func cmdTook(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 1, "took AT-MOST")
	most, err := time.ParseDuration(args[0])
	ts.Check(err)
	if took := worldOf(ts).took; took > most {
		ts.Fatalf("took %s, at most %s was wanted", took, most)
	}
}

// cmdEventually runs a command again and again until it succeeds, for at most 10 s.
func cmdEventually(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 1, "eventually COMMAND...")
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		err := ts.Exec(args[0], args[1:]...)
		if err == nil {
			return
		}
		if time.Since(begin) > 10*time.Second {
			ts.Fatalf("still not: %s: %v", strings.Join(args, " "), err)
		}
	}
}

// cmdIsJSON holds that a file, or stdout, is one JSON document with a format number.
func cmdIsJSON(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 2, "is-json FORMAT FILE")
	number, err := strconv.Atoi(args[0])
	ts.Check(err)
	var doc struct{ Format *int }
	if err := json.Unmarshal([]byte(ts.ReadFile(args[1])), &doc); err != nil {
		ts.Fatalf("%s is not JSON: %v", args[1], err)
	}
	if doc.Format == nil || *doc.Format != number {
		ts.Fatalf("%s has no format %d", args[1], number)
	}
}

// cmdNowhere looks for a text in the contents and names of all files of a
// folder, and in what the last command printed: it must not be there.
func cmdNowhere(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 2, "nowhere TEXT FOLDER [EXCEPT...]")
	text, dir := args[0], ts.MkAbs(args[1])
	except := map[string]bool{}
	for _, name := range args[2:] {
		except[ts.MkAbs(name)] = true
	}
	found := 0
	ts.Check(filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		switch there := bytes.Contains(b, []byte(text)) || strings.Contains(name, text); {
		case there && except[name]:
			found++
		case there:
			ts.Fatalf("%s holds %q", name, text)
		}
		return nil
	}))
	if found != len(except) {
		ts.Fatalf("%q should be in %d files, is in %d of them", text, len(except), found)
	}
	for _, name := range []string{"stdout", "stderr"} {
		if strings.Contains(ts.ReadFile(name), text) {
			ts.Fatalf("%s holds %q", name, text)
		}
	}
}

// cmdArchive writes a tar with one file for each NAME=TEXT, whatever the name is.
func cmdArchive(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 2, "archive FILE NAME=TEXT...")
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	for _, entry := range args[1:] {
		name, text, _ := strings.Cut(entry, "=")
		ts.Check(t.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(text)), ModTime: time.Unix(1700000000, 0)}))
		_, err := t.Write([]byte(text))
		ts.Check(err)
	}
	ts.Check(t.Close())
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b.Bytes(), 0o644))
}

// cmdSignal sends a signal to the daemon, whose process the status names. One
// that has just been started may not have said so yet.
func cmdSignal(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 1, "signal HUP | TERM | KILL")
	signals := map[string]syscall.Signal{"HUP": syscall.SIGHUP, "TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL}
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		s, err := report.ParseStatus([]byte(ts.ReadFile("root/run/amiagent/status.json")))
		ts.Check(err)
		err = syscall.Kill(s.PID, signals[args[0]])
		if err == nil {
			return
		}
		if time.Since(begin) > 5*time.Second {
			ts.Fatalf("cannot signal pid %d: %v", s.PID, err)
		}
	}
}

func cmdDigest(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 2, "sha256 FILE VARIABLE")
	ts.Setenv(args[1], fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(ts.ReadFile(args[0])))))
}

// cmdServe starts a service of the machine: it is well while the file
// root/run/well is there. Its address goes into the variable SERVICE.
func cmdServe(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	srv := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		if _, err := os.Stat(filepath.Join(w.work, "root/run/well")); err != nil {
			http.Error(rw, "warming up", http.StatusServiceUnavailable)
		}
	})}
	go func() { _ = srv.Serve(l) }()
	ts.Defer(func() { srv.Close() })
	ts.Setenv("SERVICE", "http://"+l.Addr().String())
	w.ports = append(w.ports, l.Addr().String(), "SERVICE")
}
