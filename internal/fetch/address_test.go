package fetch

import (
	"strings"
	"testing"

	"github.com/amiagent/amiagent/internal/diag"
)

const hex64 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// What people write, and how it is read: kind, address, and what the address
// says beside.
func TestParse(t *testing.T) {
	commit := strings.Repeat("ab", 20)
	for _, c := range []struct{ address, kind, reads string }{
		// S3, as go-getter and as the AWS tools write it
		{"s3://bucket/a/b.tar.gz", "s3", "s3://bucket/a/b.tar.gz"},
		{"s3://bucket/k?versionId=v+1", "s3", "s3://bucket/k?versionId=v+1"},
		{"s3://bucket/k?region=eu-west-1", "s3", "s3://bucket/k region=eu-west-1"},
		{"s3::https://s3.amazonaws.com/bucket/k", "s3", "s3://bucket/k"},
		{"s3::https://s3.eu-west-1.amazonaws.com/bucket/k?version=v1", "s3", "s3://bucket/k?versionId=v1 region=eu-west-1"},
		{"s3::https://s3-eu-west-1.amazonaws.com/bucket/k", "s3", "s3://bucket/k region=eu-west-1"},
		{"s3::https://bucket.s3.eu-west-1.amazonaws.com/a%20b", "s3", "s3://bucket/a b region=eu-west-1"},
		{"s3::https://my.bucket.s3.amazonaws.com/k", "s3", "s3://my.bucket/k"},
		{"s3::https://s3.dualstack.us-east-1.amazonaws.com/bucket/k", "s3", "s3://bucket/k region=us-east-1 dualstack"},
		{"s3::https://s3-fips.us-gov-west-1.amazonaws.com/bucket/k", "s3", "s3://bucket/k region=us-gov-west-1 fips"},
		{"s3::https://s3-fips.dualstack.us-east-1.amazonaws.com/bucket/k", "s3", "s3://bucket/k region=us-east-1 fips dualstack"},
		{"s3::https://s3.cn-north-1.amazonaws.com.cn/bucket/k", "s3", "s3://bucket/k region=cn-north-1"},
		{"s3::https://s3.us-iso-east-1.c2s.ic.gov/bucket/k", "s3", "s3://bucket/k region=us-iso-east-1"},
		{"s3.amazonaws.com/bucket/k", "s3", "s3://bucket/k"},
		{"bucket.s3-eu-west-1.amazonaws.com/k", "s3", "s3://bucket/k region=eu-west-1"},
		{"s3::http://127.0.0.1:9000/bucket/dir/k?region=us-east-2", "s3", "s3://bucket/dir/k region=us-east-2 at=http://127.0.0.1:9000"},
		{"s3://bucket/a.tgz//conf?archive=tgz&checksum=" + hex64, "s3", "s3://bucket/a.tgz sub=conf archive=tgz digest=sha256:" + hex64},
		// HTTPS
		{"https://example.com/a.tar.gz", "https", "https://example.com/a.tar.gz"},
		{"https://example.com/a?X-Amz-Signature=abc&b=%20x&checksum=sha256:" + strings.ToUpper(hex64), "https",
			"https://example.com/a?X-Amz-Signature=redacted&b=redacted digest=sha256:" + hex64},
		{"http::http://example.com/a", "https", "http://example.com/a"},
		{"https://example.com/a.zip//sub/dir?archive=zip", "https", "https://example.com/a.zip//sub/dir sub=sub/dir archive=zip"},
		// git
		{"git::https://example.com/r.git?ref=v1.2.3", "git", "git::https://example.com/r.git?ref=v1.2.3"},
		{"git::https://example.com/r.git//sub/dir?ref=feature/x&depth=1", "git", "git::https://example.com/r.git//sub/dir?ref=feature/x sub=sub/dir"},
		{"git::ssh://git@example.com:2222/r.git", "git", "git::ssh://git@example.com:2222/r.git"},
		{"git@github.com:org/repo.git", "git", "git::ssh://git@github.com/org/repo.git"},
		{"git::git@example.com:org/repo.git?ref=main", "git", "git::ssh://git@example.com/org/repo.git?ref=main"},
		{"github.com/org/repo", "git", "git::https://github.com/org/repo.git"},
		{"github.com/org/repo/sub//deep?ref=main", "git", "git::https://github.com/org/repo.git//sub/deep?ref=main sub=sub/deep"},
		{"github.com/org/repo//sub?ref=" + commit, "git", "git::https://github.com/org/repo.git//sub?ref=" + commit + " sub=sub digest=git:" + commit},
		{"gitlab.com/org/repo", "git", "git::https://gitlab.com/org/repo.git"},
		{"git::/srv/repo", "git", "git::file:///srv/repo"},
		{"git::https://me:token@example.com/r.git", "git", "git::https://redacted@example.com/r.git"},
		// files
		{"/opt/a.tar.gz", "file", "/opt/a.tar.gz"},
		{"file:///opt/a.tar.gz", "file", "file:///opt/a.tar.gz"},
		{"/opt/a.tar.gz//sub", "file", "/opt/a.tar.gz//sub sub=sub"},
	} {
		a, err := Parse(c.address)
		if err != nil {
			t.Errorf("%s: %v", c.address, err)
			continue
		}
		if got := describe(a); a.Kind != c.kind || got != c.reads {
			t.Errorf("%s\n reads %s %s\n  want %s %s", c.address, a.Kind, got, c.kind, c.reads)
		}
	}
}

func describe(a Address) string {
	s := a.String()
	for _, p := range []struct{ k, v string }{
		{"region=", a.S3.Region}, {"at=", a.S3.Endpoint}, {"sub=", a.Subdir}, {"archive=", a.Format}, {"digest=", a.Digest},
	} {
		if p.v != "" {
			s += " " + p.k + p.v
		}
	}
	if a.S3.FIPS {
		s += " fips"
	}
	if a.S3.DualStack {
		s += " dualstack"
	}
	return s
}

// What cannot be served is refused by name, before anything runs.
func TestParseRefuses(t *testing.T) {
	for address, want := range map[string]string{
		"":                                       `it is empty`,
		"a.tar.gz":                               `a path must be absolute`,
		"./a.tar.gz":                             `a path must be absolute`,
		"hg::https://example.com/":               `no source serves it`,
		"gcs::https://example.com/bucket/x":      `no source serves it`,
		"ftp://example.com/x":                    `no source serves it`,
		"bitbucket.org/org/repo":                 `bitbucket.org without a scheme is not supported`,
		"file://host/x":                          `file: has a host "host", write file:///path`,
		"https:///x":                             `it has no host`,
		"s3://bucket":                            `it names no object of a bucket`,
		"s3://bucket/folder/":                    `it names no object of a bucket`,
		"s3://b/k?aws_access_key_secret=hunter2": `aws_access_key_secret does not belong in an address`,
		"s3://b/k?aws_profile=me":                `aws_profile= is not supported`,
		"s3::gopher://b/k":                       `not an address of S3`,
		"s3::https://b.s3-accelerate.amazonaws.com/":                    `b.s3-accelerate.amazonaws.com is no endpoint that serves objects to this agent`,
		"https://e.com/a?checksum=md5:d41d8cd98f00b204e9800998ecf8427e": `digest "md5:d41d8cd98f00b204e9800998ecf8427e": md5 can be forged`,
		"https://e.com/a?checksum=file:https://e.com/SUMS":              `checksum=file: is not supported: such a file proves nothing that the same server does not`,
		"https://e.com/a?checksum=sha256:ab":                            `digest "sha256:ab": sha256 has 64 digits 0-9 and a-f`,
		"https://e.com/a?archive=rar":                                   `unknown archive format "rar", known are tar, tar.gz, tar.zst, tar.xz, tar.bz2, zip, gz, zst, xz, bz2`,
		"https://e.com/a?filename=b":                                    `filename= has no meaning here: the manifest says where a file goes`,
		"https://e.com/a.tgz//../x":                                     `folder "../x" has a ".."`,
		"https://e.com/a.tgz//a*":                                       `folder "a*" is a pattern, write it out`,
		"git::https://e.com/r?sshkey=c2VjcmV0":                          `a private key does not belong in an address`,
		"git::https://e.com/r?checksum=" + hex64:                        `archive= and checksum= have no meaning for git`,
	} {
		_, err := Parse(address)
		if err == nil {
			t.Errorf("%q passed", address)
			continue
		}
		if full := `cannot use address "` + Redact(address) + `": ` + want; err.Error() != full {
			t.Errorf("%q\n  got %s\n want %s", address, err, full)
		}
		for _, secret := range []string{"hunter2", "c2VjcmV0"} {
			if strings.Contains(err.Error()+diag.Hint(err), secret) {
				t.Errorf("%q: the error tells the secret: %v", address, err)
			}
		}
	}
}

// go-getter's CVE-2024-3817 and CVE-2026-4660: a ref that git takes for an
// option, a range or a refspec.
func TestGoGetterCVERefs(t *testing.T) {
	for _, ref := range []string{"-oProxyCommand=x", "--upload-pack=x", "a..b", "HEAD:x", "a^{}", "a~1", "@{-1}", "a b", "a%0ab", "refs/heads/*"} {
		if a, err := Parse("git::https://example.com/r.git?ref=" + ref); err == nil {
			t.Errorf("ref %q passed as %q", ref, a.Ref)
		}
	}
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"https://example.com/a":                                   "https://example.com/a",
		"https://user:pw@example.com/a":                           "https://redacted@example.com/a",
		"https://token@example.com/a":                             "https://redacted@example.com/a",
		"https://u:p@ss@example.com/a@b":                          "https://redacted@example.com/a@b",
		"ssh://git@example.com/a":                                 "ssh://git@example.com/a",
		"ssh://git:pw@example.com/a":                              "ssh://redacted@example.com/a",
		"git::ssh://git@example.com/a?ref=x&sshkey=k":             "git::ssh://git@example.com/a?ref=x&sshkey=redacted",
		"https://b/k?X-Amz-Security-Token=s&versionId=1&bare#sec": "https://b/k?X-Amz-Security-Token=redacted&versionId=1&redacted",
		"::%zz?secret=x":                                          "::%zz?secret=redacted",
		"":                                                        "",
	} {
		if got := Redact(in); got != want {
			t.Errorf("Redact(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		req  Request
		want string
	}{
		{Request{Source: "https://e.com/a", Digest: "sha256:" + hex64}, ""},
		{Request{Source: "http://e.com/a", Digest: "sha256:" + hex64}, ""},
		{Request{Source: "http://localhost:80/a"}, ""},
		{Request{Source: "git::https://e.com/r", Unpack: true}, ""},
		{Request{Source: "git::https://e.com/r//file"}, ""},
		{Request{Source: "http://e.com/a"}, `cannot use address "http://e.com/a": http without a digest could bring anything`},
		{Request{Source: "https://e.com/a", Digest: "sha256:xx"}, `digest "sha256:xx": sha256 has 64 digits 0-9 and a-f`},
		{Request{Source: "https://e.com/a", Digest: "crc:1"}, `digest "crc:1" has no known algorithm`},
		{Request{Source: "https://e.com/a?checksum=" + hex64, Digest: "sha512:" + hex64 + hex64},
			`cannot use address "https://e.com/a?checksum=` + hex64 + `": it says sha256:` + hex64 + `, the request says sha512:` + hex64 + hex64},
		{Request{Source: "https://e.com/a", Strip: -1}, "strip and size cannot be negative"},
		{Request{Source: "https://e.com/a?archive=false", Unpack: true}, `cannot use address "https://e.com/a?archive=false": archive=false contradicts unpack`},
		{Request{Source: "https://e.com/a//b"}, `cannot use address "https://e.com/a//b": folder "b" can only be had by unpacking`},
		{Request{Source: "git::https://e.com/r"}, `cannot use address "git::https://e.com/r": a repository is a tree`},
		{Request{Source: "git::https://e.com/r", Unpack: true, Digest: "sha256:" + hex64}, `cannot use address "git::https://e.com/r": a repository has a commit, not a digest`},
		{Request{Source: "/a", Digest: "git:" + hex64}, `cannot use address "/a": digest git:` + hex64 + ` needs an address of git`},
		{Request{Source: "/a", Mirrors: []string{"git::https://e.com/r"}}, `cannot use address "git::https://e.com/r": a mirror must serve the same bytes as the source, under the same //folder`},
	} {
		err := Check(c.req)
		if got := errText(err); got != c.want {
			t.Errorf("%+v\n  got %s\n want %s", c.req, got, c.want)
		}
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func FuzzParse(f *testing.F) {
	f.Add("git::https://user:secret@example.com/r.git//sub?ref=v1&sshkey=secret")
	f.Add("s3::https://s3.eu-west-1.amazonaws.com/bucket/k?versionId=x")
	f.Fuzz(func(t *testing.T, s string) {
		a, err := Parse(s)
		if err == nil && (a.URL == nil || a.Kind == "" || strings.HasPrefix(a.Ref, "-") || strings.Contains("/"+a.Subdir+"/", "/../")) {
			t.Errorf("%q gave %+v", s, a)
		}
	})
}
