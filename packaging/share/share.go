// Package share writes what a package has below /usr/share: man pages and
// shell completions, both out of the command's own definition, so that they
// cannot tell something else than `amiagent help`.
//
// It is for the build only. The generators are not linked into the agent.
package share

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// Write fills dir, which it makes, with man/NAME.1.gz for root and each command
// below it that is not hidden, and with completion.bash, .zsh and .fish.
// The same root, version and date give the same bytes.
func Write(root *cobra.Command, dir, version string, date time.Time) error {
	pages := filepath.Join(dir, "man")
	if err := os.RemoveAll(pages); err != nil { // a page of a command that is no more
		return err
	}
	if err := os.MkdirAll(pages, 0o755); err != nil {
		return err
	}
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd("bash", "zsh", "fish")
	if err := man(root, pages, version, date.UTC()); err != nil {
		return err
	}
	for name, gen := range map[string]func(string) error{
		"completion.bash": func(f string) error { return root.GenBashCompletionFileV2(f, true) },
		"completion.zsh":  root.GenZshCompletionFile,
		"completion.fish": func(f string) error { return root.GenFishCompletionFile(f, true) },
	} {
		if err := gen(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("cannot write %s: %w", name, err)
		}
	}
	return nil
}

func man(c *cobra.Command, dir, version string, date time.Time) error {
	for _, sub := range c.Commands() {
		if c.Name() == "completion" {
			break // one page for all shells
		}
		if sub.IsAvailableCommand() || sub.IsAdditionalHelpTopicCommand() {
			if err := man(sub, dir, version, date); err != nil {
				return err
			}
		}
	}
	c.DisableAutoGenTag = true // it holds the time of the build
	var page bytes.Buffer
	header := &doc.GenManHeader{Section: "1", Date: &date, Source: "amiagent " + version, Manual: "amiagent"}
	if err := doc.GenMan(c, header, &page); err != nil {
		return fmt.Errorf("cannot make the man page of %s: %w", c.CommandPath(), err)
	}
	name := strings.ReplaceAll(c.CommandPath(), " ", "-") + ".1.gz"
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression) // without name and time: lintian, reproducible builds
	if err != nil {
		return err
	}
	if _, err := w.Write(page.Bytes()); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name), packed.Bytes(), 0o644)
}
