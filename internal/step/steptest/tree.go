package steptest

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/amiagent/amiagent/internal/host"
)

// Tree describes every file, folder and link of the machine but the store, one line each by path:
//
//	/etc/motd 0644 "hello\n"
//	/etc/app/ 0750
//	/opt/app -> /var/lib/x
//
// An owner other than whoever runs the test follows the mode, as 990:990.
// Long content is given by its digest.
func (m *Machine) Tree() map[string]string {
	tree := map[string]string{}
	m.walk(func(name, full string, st fs.FileInfo) error {
		if strings.HasPrefix(name, storeDir) {
			return nil
		}
		line := describe(name, full, st)
		tree[name] = line
		return nil
	})
	return tree
}

func describe(name, full string, st fs.FileInfo) string {
	owner := ""
	if uid, gid := host.OwnerOf(st); uid != os.Geteuid() || gid != os.Getegid() {
		owner = fmt.Sprintf(" %d:%d", uid, gid)
	}
	mode := st.Mode().Perm()
	for bit, octal := range map[fs.FileMode]fs.FileMode{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if st.Mode()&bit != 0 {
			mode |= octal
		}
	}
	switch {
	case st.Mode()&fs.ModeSymlink != 0:
		to, _ := os.Readlink(full)
		return fmt.Sprintf("%s -> %s%s", name, to, owner)
	case st.IsDir():
		return fmt.Sprintf("%s/ %04o%s", name, mode, owner)
	case !st.Mode().IsRegular():
		return fmt.Sprintf("%s %s %04o%s", name, st.Mode().Type(), mode, owner)
	}
	b, err := os.ReadFile(full)
	content := fmt.Sprintf("%q", b)
	if err != nil {
		content = "unreadable"
	} else if len(b) > 200 {
		content = fmt.Sprintf("sha256:%x", sha256.Sum256(b))
	}
	return fmt.Sprintf("%s %04o%s %s", name, mode, owner, content)
}

// Changes tells in lines, by path, what differs between two Trees: what is new
// or other as it is now, what is no more as "/path gone".
func Changes(before, after map[string]string) string {
	names := slices.Sorted(maps.Keys(before))
	for n := range after {
		if _, ok := before[n]; !ok {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	var out []string
	for _, n := range names {
		line, ok := after[n]
		switch {
		case !ok:
			out = append(out, n+" gone")
		case line != before[n]:
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n")
}

// prints is a fingerprint of every entry and of the stamps. It shows any write,
// one that restores what it found included: the kernel moves an inode's change
// time, and nobody can set it back.
func (m *Machine) prints() map[string]string {
	all := map[string]string{}
	note := func(name, full string, st fs.FileInfo) error {
		sys := st.Sys().(*syscall.Stat_t)
		all[name] = fmt.Sprintf("%s inode %d changed %d.%09d", describe(name, full, st), sys.Ino, sys.Ctim.Sec, sys.Ctim.Nsec)
		return nil
	}
	m.walk(note)
	if st, err := os.Lstat(m.Stamps.path); err == nil {
		_ = note("(stamps)", m.Stamps.path, st)
	}
	return all
}

// leftovers are unfinished files of the agent.
func (m *Machine) leftovers() []string {
	var found []string
	m.walk(func(name, _ string, _ fs.FileInfo) error {
		if strings.HasPrefix(filepath.Base(name), host.Tmp) {
			found = append(found, name)
		}
		return nil
	})
	return found
}

func (m *Machine) walk(visit func(name, full string, st fs.FileInfo) error) {
	m.t.Helper()
	root := m.Root()
	err := filepath.WalkDir(root, func(full string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(full, root)
		if name == "" {
			return nil
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		return visit(name, full, st)
	})
	if err != nil {
		m.t.Fatal(err)
	}
}
