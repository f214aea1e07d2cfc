//go:build system

package packaging

import (
	"debug/elf"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestPackageContents looks at the packages as lintian and rpmlint would.
func TestPackageContents(t *testing.T) {
	for goarch, names := range map[string]struct {
		rpm     string
		machine elf.Machine
	}{"amd64": {"x86_64", elf.EM_X86_64}, "arm64": {"aarch64", elf.EM_AARCH64}} {
		t.Run("deb "+goarch, func(t *testing.T) {
			deb := pack(t, "deb", goarch, "1.2.0-rc.1")
			if want := "amiagent_1.2.0~rc.1-1_" + goarch + ".deb"; filepath.Base(deb) != want {
				t.Errorf("the file is named %s, want %s", filepath.Base(deb), want)
			}
			if got := run(t, nil, "dpkg-deb", "--field", deb, "Architecture"); strings.TrimSpace(got) != goarch {
				t.Errorf("it is for %s", got)
			}
			root := t.TempDir()
			run(t, nil, "dpkg-deb", "--raw-extract", deb, root)
			members := run(t, nil, "ar", "t", deb)
			if members != "debian-binary\ncontrol.tar.gz\ndata.tar.xz\n" {
				t.Errorf("dpkg of Ubuntu 20.04 cannot read all of: %s", members)
			}
			if got := strings.TrimSpace(read(t, root, "DEBIAN/conffiles")); got != "/etc/amiagent/agent.yaml" {
				t.Errorf("conffiles are %q", got)
			}
			for _, script := range []string{"postinst", "prerm", "postrm"} {
				run(t, nil, "dash", "-n", filepath.Join(root, "DEBIAN", script))
			}
			static(t, filepath.Join(root, "usr/bin/amiagent"), names.machine)
			tidy(t, root)
		})
		t.Run("rpm "+goarch, func(t *testing.T) {
			rpm := pack(t, "rpm", goarch, "1.2.0-rc.1")
			if want := "amiagent-1.2.0~rc.1-1." + names.rpm + ".rpm"; filepath.Base(rpm) != want {
				t.Errorf("the file is named %s, want %s", filepath.Base(rpm), want)
			}
			query := func(format string) string {
				return run(t, nil, "rpm", "--query", "--package", "--queryformat", format, rpm)
			}
			if got := query("%{PAYLOADCOMPRESSOR} %{BUILDHOST} %{BUILDTIME} %{LICENSE}"); got != "xz localhost 1700000000 Apache-2.0" {
				t.Errorf("the header says %q; rpm 4.11 of Amazon Linux 2 reads no zstd, and host and time would differ", got)
			}
			// rpm 4.11 does not know these, and would refuse the package.
			for _, feature := range strings.Fields(query("[%{REQUIRENAME}\n]")) {
				if regexp.MustCompile(`rpmlib\((PayloadIsZstd|RichDependencies|LargeFiles|FileDigests)\)|^\(`).MatchString(feature) && feature != "rpmlib(FileDigests)" {
					t.Errorf("it requires %s", feature)
				}
			}
			if got := run(t, nil, "rpm", "--query", "--package", "--configfiles", rpm); got != "/etc/amiagent/agent.yaml\n" {
				t.Errorf("configuration files are %q", got)
			}
			if got := query("[%{FILEUSERNAME}:%{FILEGROUPNAME}\n]"); strings.Trim(strings.ReplaceAll(got, "root:root", ""), "\n") != "" {
				t.Errorf("owners are\n%s", got)
			}
			root := t.TempDir()
			run(t, nil, "sh", "-c", `rpm2cpio "$1" | (cd "$2" && cpio --quiet --extract --make-directories --no-absolute-filenames)`, "sh", rpm, root)
			static(t, filepath.Join(root, "usr/bin/amiagent"), names.machine)
			tidy(t, root)
		})
	}
}

func read(t *testing.T, root, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// static proves that a program asks for no interpreter and no library.
func static(t *testing.T, file string, machine elf.Machine) {
	t.Helper()
	f, err := elf.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Machine != machine {
		t.Errorf("it is for %s, want %s", f.Machine, machine)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("it is not static: it has %s", p.Type)
		}
	}
	if f.Section(".symtab") != nil || f.Section(".debug_info") != nil {
		t.Error("it is not stripped")
	}
}

// tidy proves modes, and that no file tells where it was built.
func tidy(t *testing.T, root string) {
	t.Helper()
	here, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(p, root)
		want := os.FileMode(0o644)
		if strings.HasPrefix(name, "/usr/bin/") || regexp.MustCompile(`^/DEBIAN/p`).MatchString(name) {
			want = 0o755
		}
		if st.Mode() != want {
			t.Errorf("%s has mode %v, want %v", name, st.Mode(), want)
		}
		if b, err := os.ReadFile(p); err != nil || strings.Contains(string(b), here) {
			t.Errorf("%s tells the folder of the build (%v)", name, err)
		}
		if strings.HasSuffix(name, ".service") && !strings.Contains(read(t, root, name), "Documentation=") {
			t.Errorf("%s has no Documentation=", name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
