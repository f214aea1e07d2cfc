package steptest

import (
	"io/fs"
	"slices"
	"testing"

	"github.com/amiagent/amiagent/internal/fetch"
	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/step"
)

func TestTreeAndChanges(t *testing.T) {
	m := NewMachine(t, Options{})
	m.Write("/etc/motd", 0o640, "hello\n")
	m.Write("/etc/old", 0o644, "")
	m.Link("../etc/motd", "/opt/link")
	before := m.Tree()
	m.Remove("/etc/old")
	m.Chmod("/etc/motd", 0o755|fs.ModeSetuid)
	m.Mkdir("/srv", 0o777|fs.ModeSticky)
	m.Write("/etc/long", 0o644, string(make([]byte, 1000)))
	got := Changes(before, m.Tree())
	want := `/etc/long 0644 sha256:541b3e9daa09b20bf85fa273e5cbd3e80185aa4ec298e765db87742b70138a53
/etc/motd 4755 "hello\n"
/etc/old gone
/srv/ 1777`
	if got != want {
		t.Errorf("changes:\n%s\nwant:\n%s", got, want)
	}
	if before["/opt/link"] != "/opt/link -> ../etc/motd" {
		t.Error(before["/opt/link"])
	}
}

func TestFakeProgramsLogTheirArguments(t *testing.T) {
	m := NewMachine(t, Options{Programs: map[string]string{"systemctl": `echo "root is $AMIAGENT_ROOT"; exit 3`}})
	res, err := m.Host.Run(t.Context(), host.Cmd{Argv: []string{"systemctl", "start", "a b", "", "it's", "x=*"}})
	if err == nil || res.Code != 3 || string(res.Stdout) != "root is "+m.Root()+"\n" {
		t.Errorf("%d %q %v", res.Code, res.Stdout, err)
	}
	if want := []string{"systemctl start 'a b' '' 'it's' x=*"}; !slices.Equal(m.Log(), want) {
		t.Errorf("log %q, want %q", m.Log(), want)
	}
}

func TestStampsOutliveTheProcess(t *testing.T) {
	m := NewMachine(t, Options{})
	id := step.ID{Kind: "commands", Name: "warm"}
	env := m.Env(id, "k")
	if env.Stamped("a") {
		t.Error("stamped before any Stamp")
	}
	if err := env.Stamp("a"); err != nil {
		t.Fatal(err)
	}
	again := openMachine(t, m.Base, Options{})
	if !again.Stamps.Has(id, "a") || again.Stamps.Has(id, "b") || again.Stamps.Has(step.ID{Kind: "x", Name: "warm"}, "a") {
		t.Error("the stamp is not the one that was put")
	}
	if err := again.Stamps.Drop(id); err != nil || again.Stamps.Has(id, "a") {
		t.Error("the stamp outlives Drop")
	}
}

func TestStoreGivesWhatWasAskedFor(t *testing.T) {
	m := NewMachine(t, Options{Fetched: map[string]Item{
		"https://a/file": {File: "bytes"},
		"https://a/tree": {Tree: map[string]string{"bin/app": "#!/bin/sh\n", "etc/": "", "etc/app.conf": "x"}},
	}})
	file, ok := m.Store.Lookup(fetch.Request{Source: "https://a/file"})
	if b, err := m.Host.ReadFile(file.Path); !ok || err != nil || string(b) != "bytes" || file.Size != 5 {
		t.Errorf("%v %v %q %v", file, ok, b, err)
	}
	tree, ok := m.Store.Lookup(fetch.Request{Source: "https://a/tree", Unpack: true})
	if st, err := m.Host.Stat(tree.Path + "/bin/app"); !ok || err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("%v %v %v", tree, ok, err)
	}
	for _, req := range []fetch.Request{
		{Source: "https://a/other"},
		{Source: "https://a/file", Unpack: true},
		{Source: "https://a/tree"},
		{Source: "https://a/file", Digest: "sha256:00"},
	} {
		if it, ok := m.Store.Lookup(req); ok {
			t.Errorf("%+v gives %+v", req, it)
		}
	}
	if got := Changes(nil, m.Tree()); got != "/var/ 0755\n/var/lib/ 0755\n/var/lib/amiagent/ 0755" {
		t.Errorf("the store is part of the tree:\n%s", got)
	}
}
