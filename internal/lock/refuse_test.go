package lock_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/lock"
	"github.com/amiagent/amiagent/internal/step"
)

func id(text string) (id step.ID) {
	if err := id.UnmarshalText([]byte(text)); err != nil {
		panic(err)
	}
	return id
}

func TestInputsGetWhatTheLockHasOrAreRefused(t *testing.T) {
	resolve, err := sample().For("amzn-2023/arm64")
	if err != nil {
		t.Fatal(err)
	}
	bytesOf := func(name string) step.Input { return step.Input{Kind: step.Bytes, Name: name} }
	for _, c := range []struct {
		step string
		in   step.Input
		want string // digest and version, or the error
	}{
		{"packages.nginx", step.Input{Kind: step.Package, Name: "nginx"}, " 1:1.28.0-1.amzn2023"},
		{"pin.release", step.Input{Kind: step.Release}, " 2023.9.20251117"},
		{"artifacts.app", bytesOf("s3://acme/app.tar.zst"), digest("a1") + " 3sL4kqtJlcpXroDTDmJ"},
		{"artifacts.config", bytesOf("git::https://example.com/conf.git?ref=main"), "git:" + commit("c0ffee") + " "},
		{"artifacts.app", bytesOf("s3://acme/other.tar.zst"),
			"the manifest fetches s3://acme/other.tar.zst, the lock has s3://acme/app.tar.zst for amzn-2023/arm64 | `amiagent lock --update artifacts.app` if that is meant"},
		{"artifacts.new", bytesOf("s3://acme/app.tar.zst"),
			"the manifest fetches s3://acme/app.tar.zst, the lock has nothing for amzn-2023/arm64 | `amiagent lock --update artifacts.new` if that is meant"},
		{"packages.nginx-core", step.Input{Kind: step.Package, Name: "nginx-c"},
			"the manifest wants the package nginx-c, the lock has no version of it for amzn-2023/arm64 | the lock has nginx; `amiagent lock --update packages.nginx-core` if that is meant"},
	} {
		r, err := resolve(id(c.step), c.in)
		got := r.Digest + " " + r.Version
		if err != nil {
			got = err.Error() + " | " + diag.Hint(err)
		}
		if got != c.want {
			t.Errorf("%s %v:\ngot  %s\nwant %s", c.step, c.in.Name, got, c.want)
		}
	}
	if _, err := sample().For("amzn-2023/amd64"); !errors.Is(err, lock.ErrRefused) ||
		!strings.Contains(err.Error(), "this machine is amzn-2023/amd64, the lock is for amzn-2023/arm64, debian-13/amd64") {
		t.Error(err)
	}
	resolve, _ = sample().For("debian-13/amd64")
	if _, err := resolve(id("pin.release"), step.Input{Kind: step.Release}); err == nil {
		t.Error("a release is pinned by a lock that has none")
	}
}

// found reads "name=digest" words; a name that begins with ~ varies.
func found(text string) []lock.Found {
	var all []lock.Found
	for _, word := range strings.Fields(text) {
		name, d, _ := strings.Cut(word, "=")
		name, varies := strings.CutPrefix(name, "~")
		all = append(all, lock.Found{Source: name, Digest: digest(d), Varies: varies})
	}
	return all
}

func TestLayersAreThoseOfTheLockOrRefused(t *testing.T) {
	l := sample()
	web := l.Manifests["web"]
	web.Layers = append(web.Layers[:1:1], lock.Layer{Source: "s3://acme/cache.yaml", Digest: digest("cac4e"), Varies: true})
	l.Manifests["cache"] = web
	for _, c := range []struct {
		name, found string
		floating    bool
		want        string
	}{
		{"as locked", "base.yaml=ba5e ~s3://acme/web.yaml=eb", false, "web"},
		{"under another name", "/etc/amiagent/manifest.d/10-base.yaml=ba5e ~s3://mirror/web.yaml=eb", false, "web"},
		{"another role of the target", "base.yaml=ba5e ~s3://acme/cache.yaml=cac4e", false, "cache"},
		{"an edited layer", "base.yaml=ba5e ~s3://acme/web.yaml=ed", false,
			"the layer s3://acme/web.yaml is " + digest("ed") + ", the lock has s3://acme/web.yaml with " + digest("eb") + " | look at the change; `amiagent lock --update s3://acme/web.yaml` if it is meant"},
		{"an edited layer that has another name here", "/etc/m.yaml=ed ~s3://acme/web.yaml=eb", false,
			"the layer /etc/m.yaml is " + digest("ed") + ", the lock has base.yaml with " + digest("ba5e") + " | look at the change; `amiagent lock --update base.yaml` if it is meant"},
		{"one too many", "base.yaml=ba5e ~s3://acme/web.yaml=eb extra.yaml=e4", false,
			"the layer extra.yaml (" + digest("e4") + ") is not in it, it has base.yaml, s3://acme/web.yaml | name it when the lock is made: `amiagent lock MANIFEST...`"},
		{"one too few", "~s3://acme/web.yaml=eb", false, "the lock has the layer base.yaml, this machine has only s3://acme/web.yaml"},
		{"none", "", false, "this machine has only none"},
		{"another order", "~s3://acme/web.yaml=eb base.yaml=ba5e", false, "the layers come in the order s3://acme/web.yaml, base.yaml, the lock has base.yaml, s3://acme/web.yaml"},
		{"another target's role", "base.yaml=ba5e ~s3://acme/db.yaml=db", false, "the layer s3://acme/db.yaml"},
		{"user data floats", "base.yaml=ba5e ~s3://acme/web.yaml=eb ~user-data=dd", false, "or say floating: allow under lock: in agent.yaml"},
		{"and is let through", "base.yaml=ba5e ~s3://acme/web.yaml=eb ~user-data=dd", true, "web; the layer user-data floats: the lock does not have it"},
		{"a role that was not locked", "base.yaml=ba5e ~s3://acme/queue.yaml=9", false, "it depends on facts of the launch: lock it for such a machine"},
		{"and is let through", "base.yaml=ba5e ~s3://acme/queue.yaml=9", true, "cache; the layer s3://acme/queue.yaml floats: the lock does not have it"},
		{"floating is no way to edit a locked layer", "base.yaml=ba5e ~s3://acme/web.yaml=ed", true, "the layer s3://acme/web.yaml is " + digest("ed")},
		{"nor a fixed one", "base.yaml=ed ~user-data=dd", true, "the layer base.yaml is " + digest("ed")},
		{"nor to add a fixed one", "base.yaml=ba5e ~s3://acme/web.yaml=eb extra.yaml=e4", true, "extra.yaml"},
		{"nor to leave one out", "~user-data=dd", true, "user-data"},
	} {
		t.Run(c.name+" "+c.found, func(t *testing.T) {
			role, notes, err := l.Layers("amzn-2023/arm64", found(c.found), c.floating)
			got := strings.Join(append([]string{role}, notes...), "; ")
			if err != nil {
				if !errors.Is(err, lock.ErrRefused) {
					t.Errorf("not marked as refused: %v", err)
				}
				got = err.Error() + " | " + diag.Hint(err)
			}
			if !strings.Contains(got, c.want) || (err == nil) != (got == c.want) {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
	if _, _, err := l.Layers("amzn-2023/amd64", found("base.yaml=ba5e"), true); !errors.Is(err, lock.ErrRefused) {
		t.Error("a target without a manifest:", err)
	}
}
