package docstest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/command"
	"github.com/amiagent/amiagent/internal/config"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/ec2sim"
)

func pages(t *testing.T) []Page {
	t.Helper()
	all, err := Pages(root)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range all {
		names = append(names, p.Name)
	}
	for _, want := range []string{"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/manifest.md", "docs/howto.md", "docs/status.md"} {
		if !slices.Contains(names, want) {
			t.Errorf("there is no %s", want)
		}
	}
	return all
}

// YAML in a document is a manifest, or what its fence says besides.
func TestEveryYAMLBlockIsValid(t *testing.T) {
	count := 0
	for _, p := range pages(t) {
		for _, b := range p.Blocks {
			if first, _, _ := strings.Cut(b.Info, " "); first != "yaml" {
				continue
			}
			count++
			if err := readYAML(t.TempDir(), b); err != nil {
				t.Errorf("%s:%d: %v", p.Name, b.Line, err)
			}
		}
	}
	if count < 15 {
		t.Errorf("only %d blocks found", count)
	}
}

func readYAML(dir string, b Block) error {
	_, what, _ := strings.Cut(b.Info, " ")
	switch what {
	case "":
		file := filepath.Join(dir, "manifest.yaml")
		if err := os.WriteFile(file, []byte(b.Text), 0o600); err != nil {
			return err
		}
		var said bytes.Buffer
		if command.Run(context.Background(), "test", []string{"validate", file}, nil, &said, &said) != command.ExitOK {
			return fmt.Errorf("%s", &said)
		}
		return nil
	case "agent.yaml":
		var list diag.List
		config.Parse(what, []byte(b.Text), &list)
		return list.Err()
	case "ec2sim":
		if err := os.MkdirAll(filepath.Join(dir, "artifacts"), 0o700); err != nil { // a bucket's folder
			return err
		}
		_, err := ec2sim.ReadConfig(filepath.Join(dir, what), []byte(b.Text))
		return err
	}
	return fmt.Errorf("nobody reads %q", b.Info)
}

func TestABadBlockIsSeen(t *testing.T) {
	for _, b := range []Block{
		{Info: "yaml", Text: "amiagent: 1\nfiles: {/x: {contents: a}}\n"},
		{Info: "yaml agent.yaml", Text: "amiagent: 1\nlayer: []\n"},
		{Info: "yaml ec2sim", Text: "tag: {}\n"},
		{Info: "yaml compose", Text: "a: b\n"},
	} {
		if readYAML(t.TempDir(), b) == nil {
			t.Errorf("taken for good: %s", b.Text)
		}
	}
}

func TestLinksLeadSomewhere(t *testing.T) {
	all := pages(t)
	for _, p := range all {
		for _, to := range p.Links() {
			if err := follow(all, p, to); err != nil {
				t.Errorf("%s: %s: %v", p.Name, to, err)
			}
		}
	}
	if follow(all, all[0], "nowhere.md") == nil || follow(all, all[0], "#nowhere") == nil {
		t.Error("a link that leads nowhere is not seen")
	}
}

func follow(all []Page, from Page, to string) error {
	name, anchor, _ := strings.Cut(to, "#")
	if name == "" {
		name = from.Name
	} else {
		name = filepath.Join(filepath.Dir(from.Name), name)
	}
	if _, err := os.Stat(filepath.Join(root, name)); err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(p Page) bool { return p.Name == name })
	if anchor != "" && (i < 0 || !slices.Contains(all[i].Anchors(), anchor)) {
		return fmt.Errorf("there is no heading #%s", anchor)
	}
	return nil
}

// Command lines in blocks must run as written; those in the text may be cut short.
func TestCommandsShownExist(t *testing.T) {
	count := 0
	for _, p := range pages(t) {
		for _, b := range p.Blocks {
			if b.Info != "sh" {
				continue
			}
			for _, args := range Commands(b.Text, "amiagent") {
				count++
				if err := known(args, true); err != nil {
					t.Errorf("%s:%d: amiagent %q: %v", p.Name, b.Line, args, err)
				}
			}
		}
		for _, s := range p.Spans {
			for _, args := range Commands(s.Text, "amiagent") {
				count++
				if err := known(args, false); err != nil {
					t.Errorf("%s:%d: amiagent %q: %v", p.Name, s.Line, args, err)
				}
			}
		}
	}
	if count < 20 {
		t.Errorf("only %d commands found", count)
	}
	for _, bad := range []string{"amiagent bake", "amiagent plan --fancy", "amiagent status now", "amiagent validate"} {
		if known(Commands(bad, "amiagent")[0], true) == nil {
			t.Errorf("taken for good: %s", bad)
		}
	}
	if known([]string{"analyse"}, false) == nil {
		t.Error("a misspelt command in the text is taken for good")
	}
}

func known(args []string, whole bool) error {
	c, rest, err := command.Root("test").Find(args)
	if err != nil {
		return err
	}
	if err := c.ParseFlags(rest); err != nil {
		return err
	}
	switch {
	case c.HasSubCommands() && c.Flags().NArg() > 0 && (!c.Runnable() || !c.HasParent()): // `lock` takes arguments beside its subcommands
		return fmt.Errorf("there is no such command")
	case !whole:
		return nil
	}
	return c.ValidateArgs(c.Flags().Args())
}

func TestMakeTargetsShownExist(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	check := func(p Page, b Block) {
		for _, args := range Commands(b.Text, "make") {
			count++
			for _, target := range args {
				if !strings.Contains(target, "=") && !regexp.MustCompile(`(?m)^`+regexp.QuoteMeta(target)+`:`).Match(makefile) {
					t.Errorf("%s:%d: there is no make %s", p.Name, b.Line, target)
				}
			}
		}
	}
	for _, p := range pages(t) {
		for _, b := range append(slices.Clone(p.Blocks), p.Spans...) {
			if b.Info == "sh" || b.Info == "" {
				check(p, b)
			}
		}
	}
	if count < 3 {
		t.Errorf("only %d found", count)
	}
}

func TestHowALineIsCut(t *testing.T) {
	const text = "$ sudo AWS_REGION=x amiagent apply --fact 'a=b c' m.yaml | tee log\nmake demo && ./dist/amiagent status # comment\n"
	got := fmt.Sprintf("%q", Commands(text, "amiagent"))
	if want := `[["apply" "--fact" "a=b c" "m.yaml"] ["status"]]`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
