package lock_test

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
	"github.com/amiagent/amiagent/internal/lock"
)

// digest is a digest that begins with these digits.
func digest(digits string) string { return "sha256:" + digits + strings.Repeat("0", 64-len(digits)) }

func commit(digits string) string { return digits + strings.Repeat("0", 40-len(digits)) }

// sample is a lock for two roles on two architectures.
func sample() *lock.Lock {
	base := lock.Layer{Source: "base.yaml", Digest: digest("ba5e")}
	web := lock.Layer{Source: "s3://acme/web.yaml", Digest: digest("eb"), Origin: "s3://acme/web.yaml?versionId=7", Varies: true}
	db := lock.Layer{Source: "s3://acme/db.yaml", Digest: digest("db"), Varies: true}
	return &lock.Lock{
		Format: lock.Format,
		From:   lock.From{Manifest: []string{"base.yaml", `s3://acme/{{ tag "Role" }}.yaml`}, Facts: []string{"roles/web.yaml", "roles/db.yaml"}, Given: map[string]string{"region": "eu-west-1"}},
		Manifests: map[string]lock.Manifest{
			"web": {Target: "amzn-2023/arm64", Digest: lock.Digest([]lock.Layer{base, web}), Layers: []lock.Layer{base, web}},
			"db":  {Target: "debian-13/amd64", Digest: lock.Digest([]lock.Layer{base, db}), Layers: []lock.Layer{base, db}},
		},
		Targets: map[string]lock.Target{
			"amzn-2023/arm64": {
				Pin: &lock.Pin{Release: "2023.9.20251117", Repositories: map[string]lock.Repository{
					"amazonlinux": {URL: "https://cdn.amazonlinux.com/al2023/core/guids/aa/aarch64/", Metadata: digest("3e")}}},
				Packages: map[string]lock.Package{"nginx": {Version: "1:1.28.0-1.amzn2023", Repository: "amazonlinux"}},
				Artifacts: map[string]map[string]lock.Artifact{
					"artifacts.app":      {"s3://acme/app.tar.zst": {Digest: digest("a1"), Size: 12_300_000, Version: "3sL4kqtJlcpXroDTDmJ"}},
					"artifacts.config":   {"git::https://example.com/conf.git?ref=main": {Commit: commit("c0ffee")}},
					"files./etc/ca.cert": {"https://example.com/ca.pem?sig=redacted": {Digest: digest("ca"), Size: 2000}},
				},
			},
			"debian-13/amd64": {Packages: map[string]lock.Package{"postgresql": {Version: "17.6-0+deb13u1"}}},
		},
	}
}

func write(t *testing.T, l *lock.Lock) string {
	t.Helper()
	b, err := l.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func parse(text string) (*lock.Lock, string) {
	var list diag.List
	l := lock.Parse("amiagent.lock", []byte(text), &list)
	if err := list.Err(); err != nil {
		return l, err.Error()
	}
	return l, ""
}

func TestTheFileIsTheSameBytesForTheSameContent(t *testing.T) {
	text := write(t, sample())
	want, err := os.ReadFile("testdata/amiagent.lock")
	if err != nil || string(want) != text {
		t.Errorf("%v: the file reads\n%s", err, text)
	}
	l, faults := parse(text)
	if diff := cmp.Diff(sample(), l); faults != "" || diff != "" {
		t.Errorf("read back: %s\n%s", faults, diff)
	}
	for range 5 { // maps have no order
		if again := write(t, l); again != text {
			t.Fatalf("written twice:\n%s", cmp.Diff(text, again))
		}
	}
}

func TestALockIsReadStrictly(t *testing.T) {
	good := write(t, sample())
	for _, c := range []struct{ name, old, new, want string }{
		{"no format", "format: 1\n", "", "amiagent.lock:7:1: no format: this is no lock"},
		{"a later format is not read any further", "format: 1\n", "format: 2\nnews: {}\n", `amiagent.lock:7:9: format: format "2" is not known, this agent reads 1`},
		{"a misspelt key", "    packages:", "    pakages:", `targets.amzn-2023/arm64.pakages: unknown key, did you mean "packages"?`},
		{"a broken digest", digest("a1"), "sha256:a1", `artifacts.artifacts.app.s3://acme/app.tar.zst.digest: "sha256:a1" is no digest`},
		{"a weak digest", digest("a1"), "md5:" + strings.Repeat("0", 32), `is no digest`},
		{"a short commit", commit("c0ffee"), "c0ffee", `"c0ffee" is no commit in full`},
		{"neither digest nor commit", "commit: " + commit("c0ffee"), "size: 3", "has neither digest nor commit"},
		{"a layer exchanged by hand", digest("db"), digest("dc"), "manifests.db.digest: is not that of the layers"},
		{"a role without its target", "target: debian-13/amd64", "target: debian-12/amd64", `"debian-12/amd64" is not among the targets`},
		{"no version", "version: 17.6-0+deb13u1", "repository: x", "targets.debian-13/amd64.packages.postgresql: has no version"},
		{"a size below nothing", "size: 2000", "size: -1", "must not be negative, is -1"},
		{"a target that is none", "  debian-13/amd64:", "  debian:", `"debian" is no target`},
		{"conflict marks of a merge", "targets:", "<<<<<<< HEAD\ntargets:", "not YAML"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := strings.Replace(good, c.old, c.new, 1)
			if text == good {
				t.Fatalf("the sample holds no %q", c.old)
			}
			if _, got := parse(text); !strings.Contains(got, c.want) || !strings.HasPrefix(got, "amiagent.lock:") {
				t.Errorf("got %s\nwant %s", got, c.want)
			}
		})
	}
	if _, got := parse(strings.Repeat(" ", lock.MaxBytes+1)); !strings.Contains(got, "more than") {
		t.Error("a lock of any size is read:", got)
	}
}

func TestTargets(t *testing.T) {
	f := facts.New()
	f.Set(facts.OSID, "amzn", facts.Bake, "")
	f.Set(facts.OSVersion, "2023", facts.Bake, "")
	f.Set(facts.Arch, "arm64", facts.Bake, "")
	if got := lock.TargetOf(f); got != "amzn-2023/arm64" {
		t.Error(got)
	}
	for target, want := range map[string]string{
		"amzn-2023/arm64":          "amzn 2023 arm64",
		"opensuse-leap-15.6/amd64": "opensuse-leap 15.6 amd64",
		"arch/amd64":               "arch  amd64",
		"amzn-2023":                "error", "/arm64": "error", "": "error", "a/b/c": "error", "amzn-2023/": "error",
	} {
		os, version, arch, err := lock.SplitTarget(target)
		got := os + " " + version + " " + arch
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%q: got %s, want %s", target, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	b, err := sample().Bytes()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("format: 1\n"))
	f.Add([]byte("format: 1\ntargets: {a/b: {artifacts: {x: {y: {digest: z}}}}}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var list diag.List
		l := lock.Parse("f", b, &list)
		if list.Err() != nil {
			return
		}
		first, err := l.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		again := lock.Parse("f", first, &list)
		if err := list.Err(); err != nil {
			t.Fatalf("what was written cannot be read: %v\n%s", err, first)
		}
		second, err := again.Bytes()
		if err != nil || !bytes.Equal(first, second) {
			t.Fatalf("written twice, it differs: %v\n%s", err, cmp.Diff(string(first), string(second)))
		}
		if d := lock.Diff(l, again); len(d) > 0 {
			t.Fatalf("it differs from itself: %v", d)
		}
	})
}

func TestRefusalsAreFaultsAndRefusals(t *testing.T) {
	var list diag.List
	if err := lock.Refused(&list); err != nil {
		t.Fatal(err)
	}
	list.Add(diag.Problem{Pos: diag.Pos{File: "m.yaml", Line: 3, Col: 2}, Field: "packages.nginx", Message: "no"})
	err := lock.Refused(&list)
	var faults *diag.Error
	if !errors.Is(err, lock.ErrRefused) || !errors.As(err, &faults) || err.Error() != "m.yaml:3:2: packages.nginx: no" {
		t.Errorf("%v", err)
	}
}
