// Package git fetches trees and files from git repositories, by commit.
//
// A branch or a tag is asked for its commit first; then exactly that commit is
// fetched, checked out and handed on as a tar. Its commit is its digest, and
// git itself verifies it.
//
// go-getter reads the address, but its GitGetter is not used: version 2.2.5
// runs "git checkout REF" without end-of-options guard, clones the whole
// history, may ask for a password at a terminal, passes the agent's
// environment on, and runs git beside the host, without process group and
// deadline. Here git runs through the host like every program, and the
// address, which may hold a password, stands in a private file, not in argv.
package git

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/amiagent/amiagent/internal/diag"
	"github.com/amiagent/amiagent/internal/fetch"
	"github.com/amiagent/amiagent/internal/host"
)

type source struct{ h *host.Host }

// New makes the source. It runs the program git of h.
func New(h *host.Host) fetch.Source { return source{h} }

// timeout bounds one run of git; a stall ends earlier by http.lowSpeedTime.
const timeout = 30 * time.Minute

var commit = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

func (s source) Open(ctx context.Context, a fetch.Address, scratch fetch.Scratch) (fetch.Object, error) {
	dir, err := scratch()
	if err != nil {
		return fetch.Object{}, err
	}
	r := repo{h: s.h, dir: dir, url: a.URL}
	id, err := r.checkout(ctx, a.Ref)
	if err != nil {
		return fetch.Object{}, err
	}
	outside, err := s.h.Path(dir)
	if err != nil {
		return fetch.Object{}, err
	}
	obj := fetch.Object{Size: -1, Origin: "git::" + fetch.Redact(a.URL.String()) + "?ref=" + id, Version: id, Digest: "git:" + id}
	if a.Subdir != "" {
		obj.Origin = "git::" + fetch.Redact(a.URL.String()) + "//" + a.Subdir + "?ref=" + id
	}
	// A root, because a link in the repository may lead anywhere.
	root, err := os.OpenRoot(outside)
	if err != nil {
		return fetch.Object{}, err
	}
	sub := path.Clean("./" + a.Subdir)
	st, err := root.Stat(sub)
	switch {
	case err == nil && st.IsDir():
		obj.Tree = true
		obj.Body = pack(ctx, root, sub)
	case err == nil && st.Mode().IsRegular() && sub != ".git" && !strings.HasPrefix(sub, ".git/"):
		defer root.Close()
		obj.Size = st.Size()
		obj.Body, err = root.Open(sub)
	case err == nil || errors.Is(err, os.ErrNotExist):
		root.Close()
		err = fmt.Errorf("%w: commit %s has no %q", fetch.ErrAbsent, id, a.Subdir)
	default:
		root.Close()
	}
	return obj, err
}

// repo is a repository in a folder that nobody else knows.
type repo struct {
	h   *host.Host
	dir string // inside the root
	url *url.URL
}

// checkout makes the working tree that of ref's commit, submodules included.
func (r repo) checkout(ctx context.Context, ref string) (id string, err error) {
	if strings.HasPrefix(ref, "-") { // Parse has refused it; git must never see one
		return "", fmt.Errorf("ref %q looks like an option", ref)
	}
	if _, err := r.git(ctx, "init", "--quiet", "."); err != nil {
		return "", err
	}
	if err := r.remote(); err != nil {
		return "", err
	}
	name := ""
	if id = ref; !commit.MatchString(ref) {
		if name, id, err = r.resolve(ctx, ref); err != nil {
			return "", err
		}
	}
	if err := r.fetch(ctx, name, id); err != nil {
		return "", err
	}
	if _, err := r.git(ctx, "checkout", "--quiet", "--detach", id, "--"); err != nil {
		return "", err
	}
	head, err := r.git(ctx, "rev-parse", "--verify", "HEAD")
	if err != nil {
		return "", err
	}
	if head != id {
		return "", fmt.Errorf("%w: checked out %s, want %s", fetch.ErrDigest, head, id)
	}
	if r.h.Exists(path.Join(r.dir, ".gitmodules")) {
		// The commit names its submodules' commits, so it covers them too.
		if _, err := r.git(ctx, "submodule", "--quiet", "update", "--init", "--recursive", "--depth", "1"); err != nil {
			return "", fmt.Errorf("submodules: %w", err)
		}
	}
	return id, nil
}

// remote writes the address where ps does not show it. Quoting as in git-config(1), Syntax.
func (r repo) remote() error {
	p, err := r.h.Path(path.Join(r.dir, ".git/config"))
	if err != nil {
		return err
	}
	quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(r.url.String())
	f, err := os.OpenFile(p, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintf(f, "\n[remote \"origin\"]\n\turl = \"%s\"\n", quoted)
	return err
}

// resolve asks the server which commit a name stands for. A tag goes before a
// branch of the same name, as in gitrevisions(7).
func (r repo) resolve(ctx context.Context, ref string) (name, id string, err error) {
	names := []string{"refs/tags/" + ref + "^{}", "refs/tags/" + ref, "refs/heads/" + ref}
	switch {
	case ref == "":
		names = []string{"HEAD"}
	case strings.HasPrefix(ref, "refs/"):
		names = []string{ref + "^{}", ref}
	}
	out, err := r.git(ctx, append([]string{"ls-remote", "--quiet", "origin"}, names...)...)
	if err != nil {
		return "", "", err
	}
	for _, want := range names {
		for line := range strings.Lines(out) {
			id, name, _ := strings.Cut(strings.TrimSpace(line), "\t")
			if name == want && commit.MatchString(id) {
				return strings.TrimSuffix(name, "^{}"), id, nil
			}
		}
	}
	hint := "give a branch, a tag, or all digits of a commit"
	if ref == "" {
		return "", "", diag.WithHint(fmt.Errorf("%w: the repository has no HEAD", fetch.ErrAbsent), "it may be empty; give ?ref=")
	}
	return "", "", diag.WithHint(fmt.Errorf("%w: no branch or tag %q", fetch.ErrAbsent, ref), "%s", hint)
}

// fetch brings one commit without its history. Servers may refuse to serve a
// commit that no name points at, and dumb ones know no depth: then everything is fetched.
func (r repo) fetch(ctx context.Context, name, id string) error {
	_, err := r.git(ctx, "fetch", "--quiet", "--no-tags", "--depth", "1", "origin", id)
	if err == nil {
		return nil
	}
	if fetch.IsTransient(err) || errors.Is(err, fetch.ErrDenied) || ctx.Err() != nil {
		return err
	}
	specs := []string{"+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"}
	if name != "" && name != "HEAD" {
		specs = []string{"+" + name + ":refs/amiagent"}
	}
	if _, err := r.git(ctx, append([]string{"fetch", "--quiet", "--no-tags", "origin"}, specs...)...); err != nil {
		return err
	}
	if _, err := r.git(ctx, "cat-file", "-e", id+"^{commit}"); err != nil {
		return fmt.Errorf("%w: the repository does not serve commit %s", fetch.ErrAbsent, id)
	}
	return nil
}

// git runs git in the repository: nobody is asked, no hook and no other
// transport runs, and the bytes are left as they are.
func (r repo) git(ctx context.Context, args ...string) (string, error) {
	transports := "https:ssh"
	switch r.url.Scheme {
	case "http", "git", "file":
		transports += ":" + r.url.Scheme
	}
	res, err := r.h.Run(ctx, host.Cmd{
		Argv: append([]string{"git",
			"-c", "core.hooksPath=/dev/null",
			"-c", "core.autocrlf=false",
			"-c", "advice.detachedHead=false",
			"-c", "init.defaultBranch=main",
			"-c", "http.lowSpeedLimit=1000",
			"-c", "http.lowSpeedTime=60",
		}, args...),
		Dir: r.dir,
		Env: []string{
			"GIT_TERMINAL_PROMPT=0",
			"GIT_ASKPASS=true",
			"GIT_SSH_COMMAND=ssh -o BatchMode=yes -o ConnectTimeout=20",
			"GIT_ALLOW_PROTOCOL=" + transports,
			"GIT_CEILING_DIRECTORIES=/",
		},
		Timeout: timeout,
	})
	if err == nil {
		return strings.TrimSpace(string(res.Stdout)), nil
	}
	if errors.Is(err, host.ErrNoProgram) {
		return "", diag.WithHint(err, "install git in the image, or fetch an archive instead")
	}
	var exit *host.ExitError
	if ctx.Err() != nil || !errors.As(err, &exit) {
		return "", err
	}
	return "", r.classed(args[0], exit)
}

// What git's errors say of their class. Git runs with LC_ALL=C.UTF-8, so they are in English.
var (
	absent = regexp.MustCompile(`(?i)repository .*not found|does not appear to be a git repository|does not exist|couldn't find remote ref|error: 404`)
	denied = regexp.MustCompile(`(?i)authentication failed|permission denied|could not read (username|password)|access denied|error: 40[13]|host key verification failed`)
	later  = regexp.MustCompile(`(?i)could not resolve host|timed out|connection (refused|reset)|early eof|failed to connect|rpc failed|hung up unexpectedly|error: (408|429|5\d\d)|network is unreachable|unexpected disconnect|gnutls|ssl_read|empty reply`)
)

func (r repo) classed(command string, exit *host.ExitError) error {
	text := r.scrub(exit.Tail)
	line := ""
	for l := range strings.Lines(text) { // git's own account, before ssh's and the advice after it
		if l = strings.TrimSpace(l); strings.HasPrefix(l, "fatal:") || strings.HasPrefix(l, "error:") || line == "" {
			line = l
		}
	}
	err := fmt.Errorf("git %s exited with %d: %s", command, exit.Code, line)
	switch {
	case denied.MatchString(text):
		return diag.WithHint(fmt.Errorf("%w: %w", fetch.ErrDenied, err), "root's ~/.ssh or git's credential helpers must let it in without asking; ssh needs the host in known_hosts")
	case absent.MatchString(text):
		return fmt.Errorf("%w: %w", fetch.ErrAbsent, err)
	case later.MatchString(text):
		return fetch.Transient(err, 0)
	}
	return err
}

// scrub takes user and password out of what git says.
func (r repo) scrub(text string) string {
	text = strings.ReplaceAll(text, r.url.String(), fetch.Redact(r.url.String()))
	if u := r.url.User; u != nil && r.url.Scheme != "ssh" {
		text = strings.ReplaceAll(text, u.String()+"@", "redacted@")
		for _, secret := range []string{u.Username(), password(u)} {
			if len(secret) > 3 {
				text = strings.ReplaceAll(text, secret, "redacted")
			}
		}
	}
	return text
}

func password(u *url.Userinfo) string {
	p, _ := u.Password()
	return p
}
