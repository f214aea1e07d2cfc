package layers_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/amiagent/amiagent/internal/config"
	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/layers"
)

// sources stand for what is outside the machine: address → text, or an error.
type sources map[string]any

func (s sources) read(ctx context.Context, address string) ([]byte, error) {
	switch v := s[address].(type) {
	case string:
		return []byte(v), nil
	case error:
		return nil, v
	case nil:
		return nil, fmt.Errorf("%s: %w", address, fs.ErrNotExist)
	}
	<-ctx.Done() // anything else hangs
	return nil, context.Cause(ctx)
}

func options(t *testing.T, s sources) (layers.Options, string) {
	t.Helper()
	root := t.TempDir()
	h, err := host.New(root, host.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return layers.Options{
		Host: h,
		Fill: func(a string) (string, error) {
			if strings.Contains(a, `tag "Nope"`) {
				return "", diag.WithHint(errors.New(`the instance has no tag "Nope"`), "tag it")
			}
			return strings.ReplaceAll(a, `{{ tag "Role" }}`, "web"), nil
		},
		Remote: func(ctx context.Context, address string, _ int64) ([]byte, string, error) {
			b, err := s.read(ctx, address)
			return b, address + "#1", err
		},
		Parameter: func(ctx context.Context, name string) (string, error) {
			b, err := s.read(ctx, "ssm:"+name)
			return string(b), err
		},
		UserData: func(ctx context.Context) ([]byte, error) {
			b, err := s.read(ctx, "user-data")
			if errors.Is(err, fs.ErrNotExist) {
				return nil, nil
			}
			return b, err
		},
		Patience: 20 * time.Millisecond,
	}, root
}

func write(t *testing.T, root, name, text string) {
	t.Helper()
	p := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func tell(docs []layers.Document, notes []string, err error) string {
	if err != nil {
		return "error: " + err.Error() + " | " + diag.Hint(err)
	}
	var parts []string
	for _, d := range docs {
		kept := ""
		if d.Kept {
			kept = " (kept)"
		}
		parts = append(parts, d.File+"="+string(d.Data)+kept)
	}
	parts = append(parts, notes...)
	return strings.Join(parts, "; ")
}

func refs(addresses ...string) []config.Layer {
	var ls []config.Layer
	for _, a := range addresses {
		ls = append(ls, config.Layer{Source: a})
	}
	return ls
}

const sha = "sha256:9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0" // of "aaa"

func TestLayersInOrder(t *testing.T) {
	opt, root := options(t, sources{"s3://b/web.yaml": "two", "ssm:/m": "three", "user-data": "#amiagent\nfour"})
	write(t, root, "etc/amiagent/manifest.d/20-b.yaml", "b")
	write(t, root, "etc/amiagent/manifest.d/10-a.yml", "a")
	write(t, root, "etc/amiagent/manifest.d/README.md", "not a layer")
	got := tell(layers.Resolve(t.Context(), refs("/etc/amiagent/manifest.d", `s3://b/{{ tag "Role" }}.yaml`, "ssm:/m", "user-data"), opt))
	want := "/etc/amiagent/manifest.d/10-a.yml=a; /etc/amiagent/manifest.d/20-b.yaml=b; s3://b/web.yaml=two; ssm:/m=three; user-data=#amiagent\nfour"
	if got != want {
		t.Errorf("\ngot  %s\nwant %s", got, want)
	}
}

func TestWhatCannotBeReadIsAnErrorWithWhatAndWhere(t *testing.T) {
	for _, c := range []struct {
		name string
		s    sources
		refs []config.Layer
		want string
	}{
		{"no manifest at all", nil, config.Default().Layers,
			"error: no manifest: none of the layers has one: /etc/amiagent/manifest.d, user-data | put one in /etc/amiagent/manifest.d, or name its source under layers: in /etc/amiagent/agent.yaml"},
		{"a file that is not there", nil, refs("/etc/m.yaml"),
			"error: cannot read the layer /etc/m.yaml: no such file or directory | create it, or say optional: true of it in /etc/amiagent/agent.yaml"},
		{"a missing tag in an address", nil, refs(`s3://b/{{ tag "Nope" }}`),
			`error: cannot resolve the layer s3://b/{{ tag "Nope" }}: the instance has no tag "Nope" | tag it`},
		{"an object that is not there", nil, refs("s3://b/none"),
			"error: cannot read the layer s3://b/none: s3://b/none: file does not exist | "},
		{"an object that may be absent", sources{"ssm:/m": "x"}, append([]config.Layer{{Source: "s3://b/none", Optional: true}}, refs("ssm:/m")...), "ssm:/m=x"},
		{"other bytes than wanted", sources{"s3://b/m": "bbb"}, []config.Layer{{Source: "s3://b/m", Digest: sha}},
			"error: digest does not match: the layer s3://b/m is sha256:3e744b9dc39389baf0c5a0660589b8402f3dbb49b89b3e75f2c9355852a3c677, wanted " + sha +
				" | the layer has changed since its digest was written down; look at the change, then update the digest"},
		{"the bytes that are wanted", sources{"s3://b/m": "aaa"}, []config.Layer{{Source: "s3://b/m", Digest: sha}}, "s3://b/m=aaa"},
		{"a digest that is none", sources{"s3://b/m": "aaa"}, []config.Layer{{Source: "s3://b/m", Digest: "md5:x"}},
			`error: digest does not match: the layer s3://b/m: "md5:x" is no digest | write sha256:HEX or sha512:HEX`},
		{"credentials are not shown", sources{}, refs("https://user:pass@h/m.yaml?X-Amz-Signature=abc&versionId=7"),
			"error: cannot read the layer https://h/m.yaml?versionId=7: https://user:pass@h/m.yaml?X-Amz-Signature=abc&versionId=7: file does not exist | "},
	} {
		t.Run(c.name, func(t *testing.T) {
			opt, _ := options(t, c.s)
			if got := tell(layers.Resolve(t.Context(), c.refs, opt)); got != c.want {
				t.Errorf("\ngot  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestALaterBootNeedsNothingFromOutside(t *testing.T) {
	s := sources{"s3://b/m": "good", "ssm:/p": "also good"}
	opt, _ := options(t, s)
	docs, _, err := layers.Resolve(t.Context(), refs("s3://b/m", "ssm:/p"), opt)
	if err != nil {
		t.Fatal(err)
	}
	if err := opt.Host.MkdirAll("/var/lib/amiagent"); err != nil {
		t.Fatal(err)
	}
	if err := layers.Keep(t.Context(), opt.Host, "i-1", docs); err != nil {
		t.Fatal(err)
	}
	if opt.Kept, err = layers.Kept(opt.Host, "i-1"); err != nil || len(opt.Kept) != 2 {
		t.Fatal(opt.Kept, err)
	}
	for name, broken := range map[string]any{"refused": errors.New("connection refused"), "hanging": 0, "deleted": nil} {
		s["s3://b/m"] = broken
		got := tell(layers.Resolve(t.Context(), refs("s3://b/m", "ssm:/p"), opt))
		if !strings.HasPrefix(got, "s3://b/m=good (kept); ssm:/p=also good; the layer s3://b/m is out of reach, its last good copy serves: ") {
			t.Errorf("%s: %s", name, got)
		}
	}
	s["s3://b/m"] = "newer"
	if got := tell(layers.Resolve(t.Context(), refs("s3://b/m", "ssm:/p"), opt)); !strings.HasPrefix(got, "s3://b/m=newer;") {
		t.Errorf("a source that answers is passed over: %s", got)
	}
	s["s3://b/m"] = errors.New("connection refused")
	pinned := []config.Layer{{Source: "s3://b/m", Digest: sha}}
	if got := tell(layers.Resolve(t.Context(), pinned, opt)); !strings.HasPrefix(got, "error: cannot read the layer s3://b/m: connection refused") {
		t.Errorf("a kept copy of another digest serves: %s", got)
	}
	if kept, err := layers.Kept(opt.Host, "i-2"); err != nil || kept != nil {
		t.Errorf("another instance's layers serve: %v %v", kept, err)
	}
}

func TestKeptLayersAreForRootAloneAndWrittenOnce(t *testing.T) {
	opt, root := options(t, nil)
	write(t, root, "var/lib/amiagent/x", "")
	docs := []layers.Document{{Source: "s3://b/m", Data: []byte("x")}}
	for range 2 {
		if err := layers.Keep(t.Context(), opt.Host, "i", docs); err != nil {
			t.Fatal(err)
		}
	}
	st, err := os.Stat(filepath.Join(root, layers.KeptPath))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Error(st, err)
	}
	before := st.ModTime()
	time.Sleep(5 * time.Millisecond)
	_ = layers.Keep(t.Context(), opt.Host, "i", docs)
	if st, _ := os.Stat(filepath.Join(root, layers.KeptPath)); !st.ModTime().Equal(before) {
		t.Error("the same layers were written again")
	}
	write(t, root, layers.KeptPath, "torn{")
	if _, err := layers.Kept(opt.Host, "i"); err == nil {
		t.Error("a broken file is passed over in silence")
	}
}

func zipped(text string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write([]byte(text))
	_ = w.Close()
	return b.String()
}

const mime = "Content-Type: multipart/mixed; boundary=\"BB\"\nMIME-Version: 1.0\n\n" +
	"--BB\nContent-Type: text/cloud-config\n\n#cloud-config\n{}\n" +
	"--BB\nContent-Type: text/x-amiagent; charset=utf-8\nContent-Transfer-Encoding: base64\n\nYW1pYWdlbnQ6IDEK\n" +
	"--BB\nContent-Type: text/x-amiagent\n\nname: b\n--BB--\n"

func TestUserData(t *testing.T) {
	for _, c := range []struct{ name, raw, want string }{
		{"a manifest", "#amiagent\nx: 1\n", "#amiagent\nx: 1\n"},
		{"with blanks and CRLF after the first line", "#amiagent \r\nx: 1\n", "#amiagent \r\nx: 1\n"},
		{"gzipped", zipped("#amiagent\nx: 1\n"), "#amiagent\nx: 1\n"},
		{"parts beside cloud-init's", mime, "amiagent: 1\n|name: b"},
		{"gzipped MIME", zipped(mime), "amiagent: 1\n|name: b"},
		{"a shell script", "#!/bin/sh\necho\n", ""},
		{"cloud-config", "#cloud-config\n{}\n", ""},
		{"another word that begins alike", "#amiagentic\n", ""},
		{"empty", "", ""},
		{"broken gzip", "\x1f\x8b\x08garbage", "error"},
		{"MIME without its end", mime[:len(mime)-20], "error"},
		{"MIME without a boundary", "Content-Type: multipart/mixed\n\nx", "error"},
		{"a gzip bomb", zipped("#amiagent\n" + strings.Repeat(" ", 8<<20)), "error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			docs, err := layers.FromUserData([]byte(c.raw))
			got := strings.TrimRight(string(bytes.Join(docs, []byte("|"))), "")
			if err != nil {
				got = "error"
				if !strings.HasPrefix(err.Error(), "cannot read the user data: ") || !strings.Contains(diag.Hint(err), "#amiagent") {
					t.Errorf("error: %v (%s)", err, diag.Hint(err))
				}
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestUserDataMayPoint(t *testing.T) {
	s := sources{"s3://b/m": "aaa", "user-data": "#amiagent\namiagent: 1\nlayers:\n  - {source: s3://b/m, digest: " + sha + "}\n"}
	opt, _ := options(t, s)
	if got := tell(layers.Resolve(t.Context(), refs("user-data"), opt)); got != "s3://b/m=aaa" {
		t.Error(got)
	}
	s["user-data"] = "#amiagent\namiagent: 2\nlayers: [s3://b/m, {source: user-data, digest: x}]\nfiles: {}\n"
	got := tell(layers.Resolve(t.Context(), refs("user-data"), opt))
	for _, want := range []string{
		"user-data:2:11: amiagent: must be 1",
		"user-data:3:10: layers[0]: a layer named by user data needs a digest\n    hint: write {source: ..., digest: sha256:HEX}",
		"user-data:3:20: layers[1]: user data cannot point to itself",
		"user-data:4:1: files: unknown key",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

func TestUserDataForOthersIsNoted(t *testing.T) {
	opt, root := options(t, sources{"user-data": "#!/bin/sh\n"})
	write(t, root, "etc/m.yaml", "x")
	got := tell(layers.Resolve(t.Context(), refs("/etc/m.yaml", "user-data"), opt))
	if got != "/etc/m.yaml=x; the user data holds no manifest: its first line is not #amiagent and no part of it is text/x-amiagent" {
		t.Error(got)
	}
}

func FuzzUserData(f *testing.F) {
	f.Add([]byte(mime))
	f.Add([]byte(zipped(mime)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		docs, err := layers.FromUserData(raw)
		if err != nil && docs != nil {
			t.Error("documents beside an error")
		}
	})
}
