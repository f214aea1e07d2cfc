package facts_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/facts"
)

func load(t *testing.T, text string) (*facts.Facts, error) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "web.yaml")
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return facts.Load(name)
}

func TestFactsByHand(t *testing.T) {
	f, err := load(t, "os: {id: amzn, version: 2023}\narch: arm64\nregion: eu-west-1\ntags: {Role: web, a.b: c}\n")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"os.id": "amzn", "os.version": "2023", "arch": "arm64", "region": "eu-west-1", "tags.Role": "web", "tags.a.b": "c"} {
		if f.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, f.Get(name), want)
		}
	}
	if f.Values["arch"].Stage != facts.Bake || f.Values["region"].Stage != facts.Launch || f.Tags.State != facts.TagsPresent {
		t.Errorf("%+v", f)
	}
	f.Complete()
	if f.Get(facts.PackageFamily) != "dnf" || f.Distro() != "amzn" || f.Get(facts.OSLike) != "fedora" {
		t.Errorf("%+v", f)
	}
	if f, _ := load(t, "arch: amd64\n"); f.Tags.State != facts.TagsEmpty {
		t.Errorf("a machine without tags: %v", f.Tags)
	}
	var faults *diag.Error
	if _, err := load(t, "arch: [a, b]\narch: c\n"); !errors.As(err, &faults) || len(faults.Problems) != 2 || !strings.Contains(err.Error(), "web.yaml:1:7: arch: is no fact") {
		t.Error(err)
	}
	if _, err := facts.Load(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a file that is not there")
	}
}

func TestCapturedFactsAreReadBesideThoseByHand(t *testing.T) {
	f, err := load(t, ` {"format": 1, "facts": {"arch": {"value": "amd64", "stage": "bake"}}}`)
	if err != nil || f.Get("arch") != "amd64" {
		t.Error(f, err)
	}
	if _, err := load(t, `{"format": 2}`); err == nil {
		t.Error("another format is read")
	}
}

func TestWhatFollowsFromTheOS(t *testing.T) {
	for os, want := range map[string]string{"amzn 2": "yum amzn", "amzn 2023": "dnf amzn", "ubuntu 24.04": "apt debian", "debian 13": "apt debian", "rocky 9.4": "dnf rhel", "slackware 15": " slackware"} {
		f := facts.New()
		id, version, _ := strings.Cut(os, " ")
		f.Set(facts.OSID, id, facts.Bake, "")
		f.Set(facts.OSVersion, version, facts.Bake, "")
		f.Complete()
		if got := f.Get(facts.PackageFamily) + " " + f.Distro(); got != want {
			t.Errorf("%s: %s, want %s", os, got, want)
		}
	}
	f := facts.New()
	f.Set(facts.OSID, "fedora", facts.Bake, "")
	f.Set(facts.PackageFamily, "dnf5", facts.Bake, "")
	if f.Complete(); f.Get(facts.PackageFamily) != "dnf5" {
		t.Error("what is known was replaced")
	}
}
