package pkgmgr

import "testing"

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		want, version string
		match         bool
	}{
		{"", "1:1.24.0-3", true},
		{"1:1.24.0-3", "1:1.24.0-3", true},
		{"1.24.0-3", "1:1.24.0-3", true},
		{"1.24.0", "1:1.24.0-3", true},
		{"1:1.24.0", "1:1.24.0-3", true},
		{"1.24.*", "1:1.24.0-3", true},
		{"1.300*", "1.300041.0b681-1.amzn2023", true},
		{"0:1.24.0-3", "1.24.0-3", true},
		{"0:1.24.0-3", "1:1.24.0-3", false},
		{"2:1.24.0-3", "1:1.24.0-3", false},
		{"1.24", "1.24.0-3", false},
		{"1.24.0-4", "1.24.0-3", false},
		{"1.2-3-*", "1.2-3-4", true}, // a Debian upstream version may hold hyphens
		{"1.2-3", "1.2-3-4", true},
		{"1.2", "1.2-3-4", false},
		{"4.2+dfsg~rc[12]-?", "4.2+dfsg~rc1-1", true},
		{"[", "[", false},
	} {
		if got := Match(c.want, c.version); got != c.match {
			t.Errorf("Match(%q, %q) = %v", c.want, c.version, got)
		}
	}
}

func TestVersionsThatCannotBe(t *testing.T) {
	for _, bad := range []string{"latest", ">=1.2", "1.2 3", "-1", "1.[2", "a/b"} {
		if CheckVersion(bad) == nil {
			t.Errorf("version %q passes", bad)
		}
	}
	for _, good := range []string{"", "1.2", "1:1.2~rc1+b1-3.amzn2023", "1.300*", "1.[23]*"} {
		if err := CheckVersion(good); err != nil {
			t.Errorf("version %q: %v", good, err)
		}
	}
}

func TestNamesThatCannotBe(t *testing.T) {
	for _, bad := range []string{"", "-y", "--installroot=/x", "@development", "nginx*", "/tmp/a.deb", "a.rpm", "https://example.com/a", "a b", "a;b", "+x"} {
		if CheckName(bad) == nil {
			t.Errorf("name %q passes", bad)
		}
	}
	for _, good := range []string{"nginx", "g++", "libstdc++6", "libc6:i386", "glibc.i686", "python3.11", "NetworkManager", "7zip"} {
		if err := CheckName(good); err != nil {
			t.Errorf("name %q: %v", good, err)
		}
	}
}
