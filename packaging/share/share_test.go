package share

import (
	"compress/gzip"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

func toy() *cobra.Command {
	root := &cobra.Command{Use: "toy", Short: "play"}
	run := &cobra.Command{Use: "run [THING]", Short: "run a thing", Run: func(*cobra.Command, []string) {}}
	run.Flags().Bool("fast", false, "skip the introduction")
	pin := &cobra.Command{Use: "pin", Short: "pins"}
	pin.AddCommand(&cobra.Command{Use: "set", Short: "set a pin", Run: run.Run})
	secret := &cobra.Command{Use: "worker", Hidden: true, Run: run.Run}
	root.AddCommand(run, pin, secret)
	return root
}

func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		name, _ := filepath.Rel(dir, p)
		all[name] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func write(t *testing.T, version string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	if err := Write(toy(), dir, version, time.Unix(1_700_000_000, 0)); err != nil {
		t.Fatal(err)
	}
	return tree(t, dir)
}

func TestEveryCommandThatIsNotHiddenHasAPage(t *testing.T) {
	got := slices.Sorted(maps.Keys(write(t, "1")))
	want := []string{"completion.bash", "completion.fish", "completion.zsh",
		"man/toy-completion.1.gz", "man/toy-pin-set.1.gz", "man/toy-pin.1.gz", "man/toy-run.1.gz", "man/toy.1.gz"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAPageTellsFlagsVersionAndTheCommitsDate(t *testing.T) {
	zr, err := gzip.NewReader(strings.NewReader(write(t, "1.2.3")["man/toy-run.1.gz"]))
	if err != nil {
		t.Fatal(err)
	}
	page, err := io.ReadAll(zr)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"skip the introduction", "amiagent 1.2.3", "Nov 2023", "toy run [THING] [flags]"} {
		if !strings.Contains(strings.ReplaceAll(string(page), `\-`, "-"), want) {
			t.Errorf("%q is not in the page:\n%s", want, page)
		}
	}
	if zr.Name != "" || !zr.ModTime.IsZero() {
		t.Errorf("the compressed page carries a name %q or a time %s", zr.Name, zr.ModTime)
	}
}

func TestTheSameInputGivesTheSameBytes(t *testing.T) {
	if diff := cmp.Diff(write(t, "1"), write(t, "1")); diff != "" {
		t.Error(diff)
	}
}

func TestAPageOfACommandThatIsGoneGoes(t *testing.T) {
	dir := t.TempDir()
	old := filepath.Join(dir, "man", "toy-old.1.gz")
	if err := os.MkdirAll(filepath.Dir(old), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(old, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Write(toy(), dir, "1", time.Unix(0, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); err == nil {
		t.Error("it is still there")
	}
}

func TestBashReadsItsCompletion(t *testing.T) {
	sh, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal("bash is needed to build the packages: ", err)
	}
	dir := t.TempDir()
	if err := Write(toy(), dir, "1", time.Unix(0, 0)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(sh, "-n", filepath.Join(dir, "completion.bash")).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
