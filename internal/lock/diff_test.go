package lock_test

import (
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/lock"
)

func texts(changes []lock.Change) string {
	var all []string
	for _, c := range changes {
		all = append(all, c.Text)
	}
	return strings.Join(all, "\n")
}

// moves are what may happen between two locks: how, and what a reviewer reads.
var moves = []struct {
	name, update string
	do           func(*lock.Lock)
	want         string
}{
	{"nothing", "", func(*lock.Lock) {}, ""},
	{"a newer package", "nginx", func(l *lock.Lock) {
		l.Targets["amzn-2023/arm64"].Packages["nginx"] = lock.Package{Version: "1:1.30.0-1.amzn2023", Repository: "amazonlinux"}
	}, "amzn-2023/arm64: the package nginx 1:1.28.0-1.amzn2023 → 1:1.30.0-1.amzn2023"},
	{"a package from elsewhere", "packages.nginx", func(l *lock.Lock) {
		l.Targets["amzn-2023/arm64"].Packages["nginx"] = lock.Package{Version: "1:1.28.0-1.amzn2023", Repository: "evil"}
	}, "amzn-2023/arm64: the package nginx 1:1.28.0-1.amzn2023 comes from evil, was from amazonlinux"},
	{"a package more", "packages", func(l *lock.Lock) {
		l.Targets["amzn-2023/arm64"].Packages["curl"] = lock.Package{Version: "8.5"}
	}, "amzn-2023/arm64: the package curl is new: 8.5"},
	{"a moved object", "artifacts.app", func(l *lock.Lock) {
		l.Targets["amzn-2023/arm64"].Artifacts["artifacts.app"]["s3://acme/app.tar.zst"] = lock.Artifact{Digest: digest("b2"), Size: 13_000_000, Version: "new"}
	}, "amzn-2023/arm64: artifacts.app: the object was replaced, s3://acme/app.tar.zst: version 3sL4kqtJlcpXroDTDmJ → new, sha256:a10000000000 (12.3 MB) → sha256:b20000000000 (13.0 MB)"},
	{"the same bytes put again", "app", func(l *lock.Lock) {
		l.Targets["amzn-2023/arm64"].Artifacts["artifacts.app"]["s3://acme/app.tar.zst"] = lock.Artifact{Digest: digest("a1"), Size: 12_300_000, Version: "new"}
	}, "amzn-2023/arm64: artifacts.app: the same bytes were put again, s3://acme/app.tar.zst: version 3sL4kqtJlcpXroDTDmJ → new"},
	{"a moved branch", "config", func(l *lock.Lock) {
		l.Targets["amzn-2023/arm64"].Artifacts["artifacts.config"]["git::https://example.com/conf.git?ref=main"] = lock.Artifact{Commit: commit("beef")}
	}, "amzn-2023/arm64: artifacts.config: the git ref moved, git::https://example.com/conf.git?ref=main: commit c0ffee000000 → beef00000000"},
	{"other bytes behind a plain address", "/etc/ca.cert", func(l *lock.Lock) {
		l.Targets["amzn-2023/arm64"].Artifacts["files./etc/ca.cert"]["https://example.com/ca.pem?sig=redacted"] = lock.Artifact{Digest: digest("cb"), Size: 2001}
	}, "amzn-2023/arm64: files./etc/ca.cert: the bytes changed, https://example.com/ca.pem?sig=redacted: sha256:ca0000000000 (2000 bytes) → sha256:cb0000000000 (2001 bytes)"},
	{"another address", "artifacts", func(l *lock.Lock) {
		l.Targets["amzn-2023/arm64"].Artifacts["artifacts.app"] = map[string]lock.Artifact{"s3://acme/app-2.tar.zst": {Digest: digest("a2"), Size: 20_000}}
	}, "amzn-2023/arm64: artifacts.app is new: s3://acme/app-2.tar.zst, sha256:a20000000000 (20 kB)\namzn-2023/arm64: artifacts.app no longer fetches s3://acme/app.tar.zst"},
	{"a new release", "pin", func(l *lock.Lock) {
		l.Targets["amzn-2023/arm64"].Pin.Release = "2023.10.20260202"
	}, "amzn-2023/arm64: the release 2023.9.20251117 → 2023.10.20260202"},
	{"a release that is not what it was", "pin", func(l *lock.Lock) {
		l.Targets["amzn-2023/arm64"].Pin.Repositories["amazonlinux"] = lock.Repository{URL: "https://cdn.amazonlinux.com/al2023/core/guids/aa/aarch64/", Metadata: digest("3f")}
	}, "amzn-2023/arm64: the repository amazonlinux has other packages: metadata sha256:3e0000000000 → sha256:3f0000000000"},
	{"a layer edited for all", "base.yaml", func(l *lock.Lock) {
		for role, m := range l.Manifests {
			m.Layers = append([]lock.Layer{{Source: "base.yaml", Digest: digest("ed")}}, m.Layers[1:]...)
			m.Digest = lock.Digest(m.Layers)
			l.Manifests[role] = m
		}
	}, "db, web: the layer base.yaml was edited: sha256:ba5e00000000 → sha256:ed0000000000"},
	{"a layer more", "manifest", func(l *lock.Lock) {
		m := l.Manifests["web"]
		m.Layers = append(m.Layers, lock.Layer{Source: "extra.yaml", Digest: digest("e4")})
		m.Digest = lock.Digest(m.Layers)
		l.Manifests["web"] = m
	}, "web: the layer extra.yaml is new: sha256:e40000000000"},
	{"another order", "manifest", func(l *lock.Lock) {
		m := l.Manifests["web"]
		m.Layers[0], m.Layers[1] = m.Layers[1], m.Layers[0]
		m.Digest = lock.Digest(m.Layers)
		l.Manifests["web"] = m
	}, "web: the layers are in another order: base.yaml, s3://acme/web.yaml → s3://acme/web.yaml, base.yaml"},
	{"a role and a target less", "manifest", func(l *lock.Lock) {
		delete(l.Manifests, "db")
		delete(l.Targets, "debian-13/amd64")
	}, "db: the manifest is gone\ndebian-13/amd64: the target debian-13/amd64 is gone"},
}

func TestDiffSaysInWordsWhatDiffers(t *testing.T) {
	for _, m := range moves {
		t.Run(m.name, func(t *testing.T) {
			b := sample()
			m.do(b)
			if got := texts(lock.Diff(sample(), b)); got != m.want {
				t.Errorf("got\n%s\nwant\n%s", got, m.want)
			}
		})
	}
}

// For every move: an update of its name takes it over, all of it, and one of
// another name nothing of it.
func TestUpdateMovesWhatIsNamedAndNothingElse(t *testing.T) {
	all := sample()
	for _, m := range moves[:11] {
		m.do(all)
	}
	for _, m := range moves[1:] {
		t.Run(m.name, func(t *testing.T) {
			fresh := sample()
			m.do(fresh)
			got, err := sample().Update(fresh, []string{m.update})
			if err != nil {
				t.Fatal(err)
			}
			if left := texts(lock.Diff(got, fresh)); left != "" {
				t.Errorf("left behind: %s", left)
			}
			other := "pin"
			if m.update == other {
				other = "nginx"
			}
			got, err = sample().Update(fresh, []string{other})
			if err != nil {
				t.Fatal(err)
			}
			if moved := texts(lock.Diff(sample(), got)); moved != "" {
				t.Errorf("moved by an update of %s: %s", other, moved)
			}
		})
	}
	got, err := sample().Update(all, []string{"packages.curl"})
	if err != nil {
		t.Fatal(err)
	}
	if moved := texts(lock.Diff(sample(), got)); moved != "amzn-2023/arm64: the package curl is new: 8.5" {
		t.Errorf("of many moves, one was named, and moved is: %s", moved)
	}
}

func TestALayerThatMovesBringsWhatItNames(t *testing.T) {
	fresh := sample()
	web := fresh.Manifests["web"]
	web.Layers[1].Digest = digest("ed")
	web.Digest = lock.Digest(web.Layers)
	fresh.Manifests["web"] = web
	target := fresh.Targets["amzn-2023/arm64"]
	target.Artifacts["artifacts.new"] = map[string]lock.Artifact{"s3://acme/new": {Digest: digest("9"), Size: 9}}
	delete(target.Artifacts, "artifacts.config")
	target.Packages["nginx"] = lock.Package{Version: "1:1.30.0-1.amzn2023"}
	got, err := sample().Update(fresh, []string{"s3://acme/web.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	want := "web: the layer s3://acme/web.yaml was edited: sha256:eb0000000000 → sha256:ed0000000000\n" +
		"amzn-2023/arm64: artifacts.config no longer fetches git::https://example.com/conf.git?ref=main\n" +
		"amzn-2023/arm64: artifacts.new is new: s3://acme/new, sha256:900000000000 (9 bytes)"
	if moved := texts(lock.Diff(sample(), got)); moved != want {
		t.Errorf("moved is\n%s\nwant\n%s", moved, want)
	}
}

func TestTheTransactionMovesWithItsPackages(t *testing.T) {
	old, fresh := sample(), sample()
	for l, v := range map[*lock.Lock]string{old: "3.0", fresh: "3.1"} {
		t := l.Targets["amzn-2023/arm64"]
		t.Transaction = map[string]lock.Package{"openssl": {Version: v}}
		l.Targets["amzn-2023/arm64"] = t
	}
	fresh.Targets["amzn-2023/arm64"].Packages["nginx"] = lock.Package{Version: "1:1.30.0-1.amzn2023", Repository: "amazonlinux"}
	for name, want := range map[string]string{"packages.nginx": "", "transaction": "the package nginx", "artifacts.app": "for others, the package openssl 3.0 → 3.1"} {
		got, err := old.Update(fresh, []string{name})
		if err != nil {
			t.Fatal(err)
		}
		if left := texts(lock.Diff(got, fresh)); (want == "") != (left == "") || !strings.Contains(left, want) {
			t.Errorf("%s leaves: %s", name, left)
		}
	}
}

func TestAnUnknownNameIsNotPassedOver(t *testing.T) {
	_, err := sample().Update(sample(), []string{"artifacts.ap"})
	if err == nil || err.Error() != `cannot update "artifacts.ap": neither the lock nor the manifest has it` {
		t.Error(err)
	}
}
