package command_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/command"
	"github.com/amiagent/amiagent/internal/pin/pintest"
)

// desk is a folder with a manifest, and the tree of an Amazon Linux 2023 whose
// repositories are on a server laid out as Amazon's.
type desk struct {
	t    *testing.T
	dir  string
	repo *pintest.Server
}

func newDesk(t *testing.T) *desk {
	d := &desk{t: t, dir: t.TempDir(), repo: pintest.Serve(t)}
	t.Chdir(d.dir)
	d.write("root/etc/os-release", "ID=amzn\nVERSION_ID=2023\nID_LIKE=fedora\n")
	d.write("root/etc/machine-id", "6d1e0f2a3b4c5d6e7f8091a2b3c4d5e6\n")
	d.write("root/proc/sys/kernel/random/boot_id", "0b5e7a52-43d1-4d2c-9a61-7f3f1e9a0001\n")
	d.write("root/usr/bin/dnf", "")
	d.write("root/etc/dnf/vars/releasever", "2023.8.20250715\n")
	d.write("root/etc/yum.repos.d/amazonlinux.repo", "[amazonlinux]\nmirrorlist="+d.repo.URL+"/core/mirrors/$releasever/$basearch/mirror.list\n")
	for release, nginx := range map[string]string{"2023.8.20250715": "1:1.26.0-1.amzn2023", "2023.9.20251117": "1:1.28.0-1.amzn2023"} {
		d.repo.Put("/core/mirrors/"+release+"/x86_64/mirror.list", d.repo.URL+"/core/guids/"+release+"/\n")
		d.repo.Repo("/core/guids/"+release+"/", "nginx "+nginx+"\ncurl 8.5.0-1.amzn2023\n")
	}
	return d
}

func (d *desk) write(name, text string) {
	d.t.Helper()
	name = filepath.Join(d.dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) read(name string) string {
	d.t.Helper()
	b, err := os.ReadFile(filepath.Join(d.dir, name))
	if err != nil {
		d.t.Fatal(err)
	}
	return string(b)
}

// run runs amiagent, which must end with this code and say all of this.
func (d *desk) run(code int, args string, says ...string) {
	d.t.Helper()
	var out bytes.Buffer
	env := []string{"AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "PATH=" + os.Getenv("PATH")}
	argv := append([]string{"--root", "root", "--no-chroot"}, strings.Fields(args)...)
	got := command.Run(d.t.Context(), "1.2.3", argv, env, &out, &out)
	for _, s := range says {
		if !strings.Contains(out.String(), s) {
			d.t.Errorf("amiagent %s does not say %q", args, s)
		}
	}
	if got != code || d.t.Failed() {
		d.t.Fatalf("amiagent %s ends with %d, want %d\n%s", args, got, code, out.String())
	}
}

func TestPackagesAreLockedAtTheReleaseThatThePinMeans(t *testing.T) {
	d := newDesk(t)
	d.write("web.yaml", "amiagent: 1\npackages:\n  nginx: {}\n  curl: {version: 8.*}\n")
	d.run(0, "lock web.yaml --target amzn-2023/amd64", "holds 2 inputs for amzn-2023/amd64")
	if l := d.read("amiagent.lock"); !strings.Contains(l, "nginx:\n        version: 1:1.26.0-1.amzn2023\n        repository: amazonlinux\n") || strings.Contains(l, "pin:") {
		t.Errorf("without a pin, what the machine's own release has is locked:\n%s", l)
	}
	d.write("web.yaml", "amiagent: 1\npin: {release: 2023.9.20251117}\npackages:\n  nginx: {}\n  curl: {version: 8.*}\n")
	d.run(3, "lock --check", "web.yaml was edited", "the release is pinned to 2023.9.20251117", "the package nginx 1:1.26.0-1.amzn2023 → 1:1.28.0-1.amzn2023")
	d.run(0, "lock")
	if l := d.read("amiagent.lock"); !strings.Contains(l, "release: 2023.9.20251117\n      repositories:\n        amazonlinux:\n          url: "+d.repo.URL+"/core/guids/2023.9.20251117/\n          metadata: sha256:") {
		t.Errorf("the release and its repositories are not in the lock:\n%s", l)
	}

	// A release that is not what it was; a package of it that is newer.
	d.repo.Repo("/core/guids/2023.9.20251117/", "nginx 1:1.28.1-1.amzn2023\ncurl 8.5.0-1.amzn2023\n")
	d.run(3, "lock --check", "the repository amazonlinux has other packages: metadata sha256:", "the package nginx 1:1.28.0-1.amzn2023 → 1:1.28.1-1.amzn2023")
	d.run(0, "lock --update nginx", "the package nginx 1:1.28.0-1.amzn2023 → 1:1.28.1-1.amzn2023")
	d.run(3, "lock --check", "has other packages")
	d.repo.Asked()
	d.run(0, "lock --update pin")
	d.run(0, "lock --check", "nothing has moved")

	// What cannot be locked says why, and what there is.
	d.write("bad.yaml", "amiagent: 1\npackages:\n  ngnix: {}\n  curl: {version: 9.*}\n")
	d.run(1, "lock bad.yaml -f bad.lock --target amzn-2023/amd64", "cannot lock the packages for amzn-2023/amd64: ",
		"curl: no repository offers it in version 9.*, only in 8.5.0-1.amzn2023", "ngnix: no repository offers it: read were amazonlinux")
	d.run(1, "lock web.yaml -f bad.lock --target debian-13/amd64", "cannot lock the packages for debian-13/amd64: the repositories of debian-13/amd64 are not known here: this is amzn-2023/amd64",
		"hint: lock on such a machine, or name the tree of its image by --root; another architecture of the same OS can be locked here")
	if _, err := os.Stat("bad.lock"); err == nil {
		t.Error("a lock was written all the same")
	}
}

func TestAnotherArchitectureIsLockedFromItsOwnRepository(t *testing.T) {
	d := newDesk(t)
	d.repo.Put("/core/mirrors/2023.8.20250715/aarch64/mirror.list", d.repo.URL+"/core/guids/arm/\n")
	d.repo.Repo("/core/guids/arm/", "system-release 2023.8-1\n") // the server's packages are for x86_64 and noarch
	d.write("web.yaml", "amiagent: 1\npackages: {system-release: {}}\n")
	d.run(0, "lock web.yaml --target amzn-2023/arm64", "holds 1 input for amzn-2023/arm64")
	if l := d.read("amiagent.lock"); !strings.Contains(l, "version: 2023.8-1\n") {
		t.Error(l)
	}
	d.run(1, "lock web.yaml --target amzn-2023/arm64 --transaction -f whole.lock",
		"the whole transaction for amzn-2023/arm64 cannot be told on amzn-2023/amd64: only its own package manager solves it")
	d.write("web.yaml", "amiagent: 1\npackages: {nginx: {}}\n")
	d.run(1, "lock --target amzn-2023/arm64", "nginx: no repository offers it: read were amazonlinux")

	// The manifest's own repository is read although no machine has it yet, for any OS.
	d.repo.Repo("/vendor/", "system-release 9-9\n")
	d.write("web.yaml", "amiagent: 1\nrepositories:\n  vendor: {insecure: true, rpm: {baseurl: "+d.repo.URL+"/vendor/, gpgcheck: false}}\npackages: {system-release: {}}\n")
	d.run(0, "lock web.yaml -f rocky.lock --target rocky-9.4/arm64", "note: for rocky-9.4/arm64, packages are taken from the manifest's repositories alone")
	if l := d.read("rocky.lock"); !strings.Contains(l, "version: 9-9\n        repository: vendor\n") {
		t.Error(l)
	}
}
