package pkgmgr

import (
	"errors"
	"path"
	"strings"
)

// Match tells whether a version is the wanted one. A want may be a glob
// (*, ?, [a-z]), and may leave out the epoch, the release (Debian's revision),
// or both: "1.24.*", "1.24.0" and "1.24.0-3" all match 1:1.24.0-3. "" matches everything.
func Match(want, version string) bool {
	if want == "" {
		return true
	}
	epoch, rest, ok := strings.Cut(version, ":")
	if !ok {
		epoch, rest = "0", version
	}
	for _, v := range []string{rest, release(rest), epoch + ":" + rest, epoch + ":" + release(rest)} {
		if ok, err := path.Match(want, v); err == nil && ok {
			return true
		}
	}
	return false
}

// release cuts the release off: what follows the last hyphen, in both families.
func release(version string) string {
	if i := strings.LastIndexByte(version, '-'); i > 0 {
		return version[:i]
	}
	return version
}

// CheckVersion tells what is wrong with a wanted version.
func CheckVersion(want string) error {
	switch {
	case want == "latest":
		return errors.New(`"latest" is no version: leave it out to take what the repositories have now`)
	case strings.ContainsAny(want, " \t\n/=<>\"'\\") || strings.HasPrefix(want, "-"):
		return errors.New("must be a version or a glob, as 1.24.0-3 or 1.24.*")
	}
	if _, err := path.Match(want, ""); err != nil {
		return errors.New("is a broken glob: a [ is not closed")
	}
	return nil
}

// CheckName tells what is wrong with a package's name. Groups, modules, files
// and addresses are no packages.
func CheckName(name string) error {
	switch {
	case strings.HasPrefix(name, "@"):
		return errors.New("groups and modules are not supported, name their packages")
	case strings.ContainsAny(name, "*?["):
		return errors.New("must be one package, not a glob")
	case strings.Contains(name, "/"), strings.HasSuffix(name, ".rpm"), strings.HasSuffix(name, ".deb"):
		return errors.New("must be a package's name: a package file comes from a repository, see repositories")
	case name == "" || strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789+-._:") != "" || !alphanumeric(name[0]):
		return errors.New("is no package's name")
	}
	return nil
}

func alphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}
