package fetch

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"

	getter "github.com/hashicorp/go-getter/v2"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/fetch/unpack"
)

// The kinds of address, each served by one source.
const (
	KindS3    = "s3"
	KindHTTPS = "https" // and http, where a digest is known
	KindGit   = "git"
	KindFile  = "file"
)

// Address is what a go-getter address says, read once.
type Address struct {
	Kind   string
	URL    *url.URL // without Subdir and without the parameters that the fields below hold
	Subdir string   // after "//": a folder of the archive, a folder or file of the repository
	Format string   // archive=: what the content must be; "false" forbids unpacking
	Digest string   // checksum=, or the commit that ref names in full; as Request.Digest
	Ref    string   // git: branch, tag or full commit; "" is the repository's HEAD
	S3     S3Object // s3 only
}

// Name is the last part of the path: the file's name, as far as the address tells.
func (a Address) Name() string {
	if a.Kind == KindS3 {
		return path.Base(a.S3.Key)
	}
	return path.Base(a.URL.Path)
}

// String is the address without secrets.
func (a Address) String() string {
	if a.Kind == KindS3 {
		return a.S3.String()
	}
	prefix := ""
	if a.Kind == KindGit {
		prefix = "git::"
	}
	s := prefix + Redact(a.URL.String())
	if a.Subdir != "" {
		s += "//" + a.Subdir
	}
	if a.Ref != "" {
		s += "?ref=" + a.Ref
	}
	return s
}

var forced = regexp.MustCompile(`^([A-Za-z0-9]+)::(.+)$`) // as go-getter's forcedRegexp

// Parse reads an address as go-getter does: its detectors and forced schemes
// decide. Beside go-getter's forms it takes s3://bucket/key?versionId=. What
// go-getter knows and amiagent does not do is refused by name. It asks nobody.
func Parse(address string) (Address, error) {
	src, subdir := getter.SourceDirSubdir(address)
	a, err := detect(src)
	if err == nil {
		a.Subdir, err = joinSubdir(a.Subdir, subdir)
	}
	if err == nil {
		err = a.parameters()
	}
	if err != nil {
		return Address{}, diag.WithHint(fmt.Errorf("cannot use address %q: %w", Redact(address), err), "%s", diag.Hint(err))
	}
	return a, nil
}

func joinSubdir(detected, written string) (string, error) {
	sub := strings.Trim(path.Join(detected, written), "/")
	if strings.ContainsAny(sub, "*?[") {
		return "", fmt.Errorf("folder %q is a pattern, write it out", sub)
	}
	if slices.Contains(strings.Split(path.Join(detected, "x")+"/"+written, "/"), "..") {
		return "", fmt.Errorf("folder %q has a \"..\"", sub)
	}
	return sub, nil
}

// detect asks go-getter's getters in turn, S3 first because go-getter's core has none.
func detect(src string) (Address, error) {
	scheme := ""
	rest := src
	if m := forced.FindStringSubmatch(src); m != nil {
		scheme, rest = m[1], m[2]
	}
	if scheme == KindS3 || scheme == "" && (strings.HasPrefix(rest, "s3://") || s3Host(rest)) {
		return parseS3(rest)
	}
	if strings.HasPrefix(rest, "bitbucket.org/") {
		// go-getter's detector would ask Bitbucket's API at this point.
		return Address{}, diag.WithHint(errors.New("bitbucket.org without a scheme is not supported"), "write git::https://%s", rest)
	}
	if src == "" {
		return Address{}, errors.New("it is empty")
	}
	// Without the query: go-getter's detector for GitHub takes it for a part of the folder.
	bare, query, _ := strings.Cut(src, "?")
	query, _, _ = strings.Cut(query, "#")
	for _, g := range []struct {
		kind   string
		getter getter.Getter
	}{
		{KindGit, &getter.GitGetter{Detectors: []getter.Detector{new(getter.GitHubDetector), new(getter.GitLabDetector), new(getter.GitDetector)}}},
		{KindHTTPS, new(getter.HttpGetter)},
		{KindFile, new(getter.FileGetter)},
	} {
		req := &getter.Request{Src: bare}
		ok, err := getter.Detect(req, g.getter)
		if err != nil && g.kind == KindFile {
			return Address{}, diag.WithHint(errors.New("a path must be absolute"), "write /path, https://, s3:// or git::")
		}
		if err != nil {
			return Address{}, err
		}
		if !ok {
			continue
		}
		base, sub := getter.SourceDirSubdir(req.Src)
		u, err := url.Parse(base)
		if err != nil {
			return Address{}, unquoted(err)
		}
		u.RawQuery = query
		return Address{Kind: g.kind, URL: u, Subdir: sub}, nil
	}
	return Address{}, diag.WithHint(errors.New("no source serves it"), "known are s3, https, git and file")
}

// unquoted is a url.Error without the address, which may hold a secret.
func unquoted(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err
	}
	return err
}

// parameters takes the query parameters that are for us out of the address.
// The others stay as they were written: a signature may cover them.
func (a *Address) parameters() error {
	switch {
	case a.Kind == KindHTTPS && a.URL.Host == "":
		return errors.New("it has no host")
	case a.Kind == KindGit && a.URL.Scheme == "":
		a.URL.Scheme = "file"
	case a.Kind == KindFile && a.URL.Host != "":
		return fmt.Errorf("file: has a host %q, write file:///path", a.URL.Host)
	}
	var err error
	if a.Format = a.take("archive"); a.Format != "" && a.Format != "false" {
		if a.Format == "true" {
			a.Format = ""
		} else if err := unpack.Known(a.Format); err != nil {
			return err
		}
	}
	if sum := a.take("checksum"); sum != "" {
		if a.Digest, err = checksum(sum); err != nil {
			return err
		}
	}
	if name := a.take("filename"); name != "" {
		return errors.New("filename= has no meaning here: the manifest says where a file goes")
	}
	if a.Kind == KindGit {
		return a.git()
	}
	return nil
}

func (a *Address) git() error {
	if a.Format != "" || a.Digest != "" {
		return diag.WithHint(errors.New("archive= and checksum= have no meaning for git"), "pin a repository with ?ref=COMMIT")
	}
	a.take("depth") // only the wanted commit is fetched in any case
	if a.take("sshkey") != "" {
		return diag.WithHint(errors.New("a private key does not belong in an address"), "put it into root's ~/.ssh")
	}
	a.Ref = a.take("ref")
	if a.Ref != "" && !validRef.MatchString(a.Ref) || strings.Contains(a.Ref, "..") || strings.Contains(a.Ref, "@{") {
		return fmt.Errorf("ref %q is no name of a branch, a tag or a commit", a.Ref)
	}
	if commitHex.MatchString(a.Ref) {
		a.Digest = "git:" + a.Ref
	}
	return nil
}

// validRef is narrower than git check-ref-format, and leaves out what git takes
// for an option, a range or a refspec (go-getter's CVE-2024-3817, CVE-2026-4660).
var validRef = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_./@+=#,-]*$`)

// take removes a parameter from the query and gives its value.
func (a *Address) take(key string) string {
	var kept []string
	value := ""
	for _, part := range strings.Split(a.URL.RawQuery, "&") {
		k, v, _ := strings.Cut(part, "=")
		if k != key {
			kept = append(kept, part)
			continue
		}
		if plain, err := url.QueryUnescape(v); err == nil {
			value = plain
		}
	}
	a.URL.RawQuery = strings.Join(kept, "&")
	return value
}
