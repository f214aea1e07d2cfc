//go:build system

package command_test

import (
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestSystemScripts runs the stories in testdata/system, which need real mounts
// and so root.
func TestSystemScripts(t *testing.T) {
	scripts(t, "testdata/system/*.txtar", map[string]scriptCommand{"tmpfs": cmdTmpfs, "read-only": cmdReadOnly})
}

// cmdTmpfs mounts a small file system on a folder of the machine.
func cmdTmpfs(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 2, "tmpfs FOLDER SIZE")
	dir := ts.MkAbs(args[0])
	ts.Check(syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=755,size="+args[1]))
	ts.Defer(func() { _ = syscall.Unmount(dir, 0) })
}

// cmdReadOnly makes what tmpfs has mounted read-only.
func cmdReadOnly(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 1, "read-only FOLDER")
	ts.Check(syscall.Mount("", ts.MkAbs(args[0]), "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
}
