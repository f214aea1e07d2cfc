//go:build bench && system

package bench

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/amiagent/amiagent/internal/nspawntest"
	"github.com/amiagent/amiagent/internal/pkgmgr/pkgmgrtest"
)

// TestBench is `make bench`. dist holds the programs and packages already.
func TestBench(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("the bench needs root on Debian: it boots a system")
	}
	dist, err := filepath.Abs(os.Getenv("DIST"))
	if err != nil {
		t.Fatal(err)
	}
	tr := &tree{T: t, root: nspawntest.Tree(t, "cloud-init", "procps", "curl", "fdisk", "e2fsprogs", "erofs-utils", "sudo", "passwd", "gpgv", "strace")}
	tr.furnish(dist)
	// The tree sets parameters of its own network namespace; systemd-nspawn shows
	// them read-only in a namespace that it did not make.
	t.Setenv("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "network")
	net := namespace(t)
	simulate(t, net)

	proved := tr.boot("prove", net)
	if bad := proved.Uncaught(); len(bad) > 0 {
		t.Errorf("missed:\n%s", strings.Join(bad, "\n"))
	}
	if proved.Steps != len(mutations) || len(proved.Caught) != len(mutations) {
		t.Errorf("%d steps, %d changed by hand, want %d", proved.Steps, len(proved.Caught), len(mutations))
	}
	if err := os.Remove(tr.path(disabled)); err != nil {
		t.Fatal(err)
	}
	measured := tr.boot("measure", net)
	missed, err := Print(os.Stdout, proved, measured, sizes(t, dist))
	if err != nil {
		t.Error(err)
	}
	fmt.Printf("\n%d aims missed\n", missed)
}

func sizes(t *testing.T, dist string) []Size {
	t.Helper()
	var all []Size
	for _, pattern := range []string{"amiagent-linux-*", "*.deb", "*.rpm"} {
		files, err := filepath.Glob(filepath.Join(dist, pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("no %s in %s: %v", pattern, dist, err)
		}
		for _, f := range files {
			st, err := os.Stat(f)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, Size{filepath.Base(f), st.Size(), strings.HasPrefix(pattern, "amiagent")})
		}
	}
	return all
}

// tree is the machine that is measured, as files.
type tree struct {
	*testing.T
	root   string
	device string // the loop device of its disk
}

func (x *tree) path(name string) string { return filepath.Join(x.root, name) }

func (x *tree) write(name string, mode os.FileMode, content []byte) {
	x.Helper()
	err := os.MkdirAll(filepath.Dir(x.path(name)), 0o755)
	if err == nil {
		err = os.WriteFile(x.path(name), content, mode)
	}
	if err != nil {
		x.Fatal(err)
	}
}

func run(t testing.TB, argv ...string) string {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// furnish installs the agent as users do, and all that the fifty steps are made of.
func (x *tree) furnish(dist string) {
	x.Helper()
	debs, err := filepath.Glob(filepath.Join(dist, "*_"+run(x, "dpkg", "--print-architecture")+".deb"))
	if err != nil || len(debs) != 1 {
		x.Fatalf("the packages in %s: %v, %v", dist, debs, err)
	}
	run(x, "cp", debs[0], x.path("/agent.deb"))
	run(x, "chroot", x.root, "dpkg", "--install", "/agent.deb")
	run(x, "go", "build", "-o", x.path("/usr/bin/bench"), "../../cmd/bench")
	x.write("/etc/systemd/system/bench.service", 0o644, []byte("[Service]\nType=exec\nEnvironment=HOME=/root\nExecStart=/bin/sh -c 'exec /usr/bin/bench $$(cat /srv/bench/part)'\n[Install]\nWantedBy=multi-user.target\n"))
	run(x, "chroot", x.root, "systemctl", "--quiet", "enable", "bench.service")
	x.write("/etc/apt/sources.list", 0o644, nil)
	x.write(disabled, 0o644, nil)
	x.write("/etc/machine-id", 0o444, []byte("0123456789abcdef0123456789abcdef\n"))
	x.write("/etc/cloud/cloud.cfg.d/90-bench.cfg", 0o644, []byte("datasource_list: [Ec2]\ndatasource: {Ec2: {strict_id: false}}\nnetwork: {config: disabled}\n"))
	// cloud-init knows EC2 by the hypervisor's uuid, and looks at no DMI in a
	// container. So it is led to a file that has one; else it would ask by IMDSv1.
	x.write("/etc/hypervisor-uuid", 0o644, []byte("ec2e1916-9099-7caf-fd21-012345abcdef\n"))
	const source = "/usr/lib/python3/dist-packages/cloudinit/sources/DataSourceEc2.py"
	run(x, "sed", "--in-place", "s,/sys/hypervisor/uuid,/etc/hypervisor-uuid,", x.path(source))
	run(x, "chroot", x.root, "python3", "-m", "py_compile", source)
	for name, sh := range map[string]string{checkSh: checkText, keepSh: keepText} {
		x.write(name, 0o755, []byte(sh))
	}

	digests := map[string]string{}
	put := func(name string, content []byte) {
		x.write(filepath.Join(served, name), 0o644, content)
		digests[name] = fmt.Sprintf("sha256:%x", sha256.Sum256(content))
	}
	app := map[string]string{"bin/app": "#!/bin/sh\nexit 0\n", "share/app.logrotate": "/var/log/app/*.log {\n\tweekly\n}\n"}
	tools := map[string]string{}
	for i := range 200 {
		app[fmt.Sprintf("lib/module-%03d", i)] = noise(4 << 10)
		tools[fmt.Sprintf("share/doc-%03d", i)] = noise(1 << 10)
	}
	put("app.tar.gz", archive(x, app))
	put("tools.tar.gz", archive(x, tools))
	put("tool", []byte(noise(5<<20)))
	put("words", []byte(noise(256<<10)))
	put("zones.db", []byte(noise(1<<20)))
	x.write("/srv/bench/model/weights", 0o644, []byte(noise(1<<20)))
	run(x, "chroot", x.root, "mkfs.erofs", "--quiet", "/srv/bench/model.erofs", "/srv/bench/model")

	deb := func(name, version string) pkgmgrtest.Deb { return pkgmgrtest.Deb{Name: name, Version: version} }
	repo := x.path("/srv/bench/repo")
	if err := os.Mkdir(repo, 0o755); err != nil {
		x.Fatal(err)
	}
	pkgmgrtest.DebRepo(x, repo, deb("bench-one", "1.0"), deb("bench-two", "1.9.9"), deb("bench-two", "2.1"), deb("bench-three", "1.0"),
		deb("bench-three", "1.1.9"), deb("bench-four", "1.0"), deb("bench-five", "1.0"), deb("bench-gone", "1.0"))
	home, public := pkgmgrtest.GPG(x)
	pkgmgrtest.SignDebRepo(x, repo, home)
	x.write("/usr/share/keyrings/bench.asc", 0o644, []byte(public))

	disk := filepath.Join(x.TempDir(), "disk")
	run(x, "truncate", "--size=64M", disk)
	x.device = run(x, "losetup", "--find", "--show", disk)
	x.Cleanup(func() { run(x, "losetup", "--detach", x.device) })
	x.write("/etc/amiagent/manifest.d/fifty.yaml", 0o644, []byte(manifest(x.device, digests)))
}

func noise(n int) string {
	r := rand.NewChaCha8([32]byte{1})
	b := make([]byte, n)
	_, _ = r.Read(b)
	return string(b)
}

func archive(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for name, content := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// boot boots the tree for one part of the bench, and gives what it found.
func (x *tree) boot(part, net string) Results {
	x.Helper()
	x.write("/srv/bench/part", 0o644, []byte(part+"\n"))
	args := []string{"--bind=/dev/loop-control", "--bind=/proc/sys/vm/drop_caches:/run/drop_caches"}
	for i := range 8 {
		args = append(args, fmt.Sprintf("--bind=/dev/loop%d", i))
	}
	ctx, cancel := context.WithTimeout(x.Context(), 13*time.Minute)
	defer cancel()
	var console bytes.Buffer
	err := nspawntest.Boot(ctx, x.root, nspawntest.Options{NetNS: net, Console: &console, Args: args})
	run(x, "cp", x.path("/var/log/cloud-init.log"), filepath.Join(os.Getenv("DIST"), "bench-"+part+"-cloud-init.log"))
	var r Results
	b, rerr := os.ReadFile(x.path(results))
	if rerr == nil {
		rerr = json.Unmarshal(b, &r)
	}
	if err != nil || rerr != nil || r.Problem != "" {
		x.Fatalf("%s: %v, %v\n%s\nconsole:\n%s\njournal:\n%s", part, err, rerr, r.Problem, tail(console.String()), x.journal())
	}
	_ = os.Remove(x.path(results))
	return r
}

func (x *tree) journal() string {
	out, _ := exec.Command("journalctl", "--directory="+x.path("/var/log/journal"), "--no-pager", "--unit=bench.service", "--unit=amiagent.service", "--lines=100").CombinedOutput()
	return string(out)
}

func tail(s string) string { return s[max(0, len(s)-4000):] }

// namespace is a network of the machine's own, with the address of the metadata service.
func namespace(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("amiagent-bench-%d", os.Getpid())
	run(t, "ip", "netns", "add", name)
	t.Cleanup(func() { run(t, "ip", "netns", "delete", name) })
	run(t, "ip", "-n", name, "link", "set", "lo", "up")
	run(t, "ip", "-n", name, "address", "add", "169.254.169.254/32", "dev", "lo")
	return "/run/netns/" + name
}

// simulate serves EC2 in that network.
func simulate(t *testing.T, net string) {
	t.Helper()
	dir := t.TempDir()
	run(t, "go", "build", "-o", dir+"/ec2sim", "../../cmd/ec2sim")
	config := "instance-id: i-0123456789abcdef0\ntags-in-imds: true\ntags: {Role: web}\nuser-data: \"#cloud-config\\n{}\\n\"\n"
	if err := os.WriteFile(dir+"/ec2.yaml", []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("ip", "netns", "exec", filepath.Base(net), dir+"/ec2sim", "-f", dir+"/ec2.yaml", "--imds", "169.254.169.254:80", "--api", "127.0.0.1:4566")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
}
