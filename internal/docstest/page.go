package docstest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Page is one document of the project.
type Page struct {
	Name   string // below the module's root
	Text   string
	Blocks []Block
	Spans  []Block // text between single backquotes, outside of blocks
}

// Block is text in a fence, with what stands on the fence: "yaml agent.yaml".
type Block struct {
	Info, Text string
	Line       int
}

// Pages reads the documents at the top and in docs.
func Pages(root string) ([]Page, error) {
	names, err := fs.Glob(os.DirFS(root), "*.md")
	if err != nil {
		return nil, err
	}
	more, err := fs.Glob(os.DirFS(root), "docs/*.md")
	if err != nil {
		return nil, err
	}
	var pages []Page
	for _, name := range append(names, more...) {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return nil, err
		}
		pages = append(pages, page(name, string(text)))
	}
	return pages, nil
}

var span = regexp.MustCompile("`([^`]+)`")

func page(name, text string) Page {
	p := Page{Name: name, Text: text}
	open := -1
	for i, line := range strings.Split(text, "\n") {
		info, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && open < 0:
			p.Blocks = append(p.Blocks, Block{Info: strings.TrimSpace(info), Line: i + 1})
			open = len(p.Blocks) - 1
		case fence:
			open = -1
		case open >= 0:
			p.Blocks[open].Text += line + "\n"
		default:
			for _, m := range span.FindAllStringSubmatch(line, -1) {
				p.Spans = append(p.Spans, Block{Text: m[1], Line: i + 1})
			}
		}
	}
	return p
}

var heading = regexp.MustCompile(`(?m)^#+ (.*)$`)

// Anchors are the names of a page's headings, as GitHub makes them.
func (p Page) Anchors() []string {
	var out []string
	for _, m := range heading.FindAllStringSubmatch(p.Text, -1) {
		kept := regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		out = append(out, strings.ReplaceAll(kept, " ", "-"))
	}
	return out
}

var link = regexp.MustCompile(`\[[^\]]*\]\(([^)\s]+)\)`)

// Links are the targets of links that stay in the project.
func (p Page) Links() []string {
	var out []string
	for _, m := range link.FindAllStringSubmatch(p.Text, -1) {
		if !strings.Contains(m[1], "://") && !slices.Contains(out, m[1]) {
			out = append(out, m[1])
		}
	}
	return out
}

// Commands are the command lines in text that begin with name, each cut into
// words as a shell does, without what follows a pipe, a redirection or another
// command. A prompt, sudo and variables before the name are passed over.
func Commands(text, name string) [][]string {
	var out [][]string
	for _, line := range strings.Split(strings.ReplaceAll(text, "\\\n", " "), "\n") {
		for _, part := range regexp.MustCompile(`&&|\|\||;|\||>|<`).Split(strings.SplitN(line, " #", 2)[0], -1) {
			words := split(strings.TrimPrefix(strings.TrimSpace(part), "$ "))
			for len(words) > 0 && (words[0] == "sudo" || strings.Contains(words[0], "=")) {
				words = words[1:]
			}
			if len(words) > 0 && filepath.Base(words[0]) == name {
				out = append(out, words[1:])
			}
		}
	}
	return out
}

// split cuts at white space outside quotes.
func split(s string) []string {
	var out []string
	var word strings.Builder
	var quote rune
	inside := false
	for _, r := range s {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, inside = r, true
		case r == ' ' || r == '\t':
			if inside || word.Len() > 0 {
				out = append(out, word.String())
			}
			word.Reset()
			inside = false
		default:
			word.WriteRune(r)
		}
	}
	if inside || word.Len() > 0 {
		out = append(out, word.String())
	}
	return out
}
