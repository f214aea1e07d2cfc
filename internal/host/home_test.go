package host

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// scratchHome is a machine with one user, who is whoever runs the test.
func scratchHome(t *testing.T) (*Host, User) {
	t.Helper()
	h, err := New(t.TempDir(), Options{Programs: Outside})
	if err != nil {
		t.Fatal(err)
	}
	u := User{Name: "ann", UID: os.Geteuid(), GID: os.Getegid(), Home: "/home/ann"}
	for _, dir := range []string{"/home/ann/.ssh", "/etc/skel/.config"} {
		if err := os.MkdirAll(h.Root()+dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return h, u
}

var keys = UserFile{Dir: ".ssh", Name: "authorized_keys"}

func TestAHomeIsMadeWholeFromWhatACrashLeft(t *testing.T) {
	h, u := scratchHome(t)
	u.Home = "/srv/people/bob"
	homeFile(t, h, "/etc/skel/.profile", "hello")
	if err := os.Symlink(".profile", h.Root()+"/etc/skel/.rc"); err != nil {
		t.Fatal(err)
	}
	half := h.Root() + "/srv/people/" + Tmp + "home-bob"
	if err := os.MkdirAll(half+"/half", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := h.MakeHome(t.Context(), u, 0o750); err != nil {
		t.Fatal(err)
	}
	var got []string
	_ = filepath.WalkDir(h.Root()+"/srv", func(p string, d fs.DirEntry, err error) error {
		st, _ := d.Info()
		got = append(got, strings.TrimPrefix(p, h.Root())+" "+st.Mode().String())
		return err
	})
	want := `/srv drwx------
/srv/people drwx------
/srv/people/bob drwxr-x---
/srv/people/bob/.config drwx------
/srv/people/bob/.profile -rw-------
/srv/people/bob/.rc Lrwxrwxrwx`
	if s := strings.Join(got, "\n"); s != want {
		t.Errorf("got\n%s\nwant\n%s", s, want)
	}
}

func TestASkelThatIsNoSkelIsRefusedAndLeavesNothing(t *testing.T) {
	h, u := scratchHome(t)
	u.Home = "/home/bob"
	if err := os.WriteFile(h.Root()+"/etc/skel/huge", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(h.Root()+"/etc/skel/huge", maxSkel+1); err != nil {
		t.Fatal(err)
	}
	err := h.MakeHome(t.Context(), u, 0o700)
	if !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v, want %v", err, ErrTooLarge)
	}
	if entries, _ := os.ReadDir(h.Root() + "/home"); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestAPipeInAHomeDoesNotHoldTheAgent(t *testing.T) {
	h, u := scratchHome(t)
	if err := syscall.Mkfifo(h.Root()+"/home/ann/.ssh/authorized_keys", 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, _, err := h.ReadUserFile(u, keys, 100)
		done <- err
	}()
	select {
	case err := <-done:
		if !errors.Is(err, ErrUnsafe) {
			t.Errorf("got %v, want %v", err, ErrUnsafe)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("ReadUserFile waits for somebody to write into the pipe")
	}
	if err := h.WriteUserFile(t.Context(), u, keys, []byte("key\n")); err != nil {
		t.Fatal(err)
	}
	if data, meta, err := h.ReadUserFile(u, keys, 100); string(data) != "key\n" || meta != "" || err != nil {
		t.Errorf("got %q, %q, %v", data, meta, err)
	}
}

func TestNoLinkInAHomeIsFollowed(t *testing.T) {
	for _, c := range []struct{ name, link, to string }{
		{"the folder, absolute", "/home/ann/.ssh", "/root"},
		{"the folder, relative", "/home/ann/.ssh", "../../root"},
		{"the folder, elsewhere in the home", "/home/ann/.ssh", "other"},
		{"the file, absolute", "/home/ann/.ssh/authorized_keys", "/root/authorized_keys"},
		{"the file, relative", "/home/ann/.ssh/authorized_keys", "../../../root/authorized_keys"},
		{"the file, to its neighbour", "/home/ann/.ssh/authorized_keys", "neighbour"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, u := scratchHome(t)
			for _, dir := range []string{"/root", "/home/ann/other"} {
				if err := os.MkdirAll(h.Root()+dir, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			homeFile(t, h, "/home/ann/.ssh/neighbour", "a private key")
			homeFile(t, h, "/root/authorized_keys", "root's own")
			link := h.Root() + c.link
			if err := os.RemoveAll(link); err != nil {
				t.Fatal(err)
			}
			to := c.to
			if filepath.IsAbs(to) {
				to = h.Root() + to // as it would be with "/" for a root
			}
			if err := os.Symlink(to, link); err != nil {
				t.Fatal(err)
			}
			if data, _, err := h.ReadUserFile(u, keys, 100); err == nil {
				t.Errorf("read %q through the link", data)
			}
			_ = h.WriteUserFile(t.Context(), u, keys, []byte("stolen"))
			if b, err := h.ReadFile("/root/authorized_keys"); err != nil || string(b) != "root's own" {
				t.Errorf("root's file is now %q, %v", b, err)
			}
			if _, err := os.Stat(h.Root() + "/home/ann/other/authorized_keys"); err == nil {
				t.Error("a link within the home was followed")
			}
		})
	}
}

func TestAUserFileOfTheWrongModeOrTooLargeIsTold(t *testing.T) {
	h, u := scratchHome(t)
	homeFile(t, h, "/home/ann/.ssh/authorized_keys", "0123456789")
	if err := os.Chmod(h.Root()+"/home/ann/.ssh/authorized_keys", 0o666); err != nil {
		t.Fatal(err)
	}
	if _, meta, err := h.ReadUserFile(u, keys, 10); meta != "mode is 0666, want 0600" || err != nil {
		t.Errorf("got %q, %v", meta, err)
	}
	if _, _, err := h.ReadUserFile(u, keys, 9); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v, want %v", err, ErrTooLarge)
	}
	u.UID++
	if os.Geteuid() == 0 {
		if _, meta, _ := h.ReadUserFile(u, keys, 10); meta != "owner is 0, want 1" {
			t.Errorf("got %q", meta)
		}
	}
}

func TestAFileBelowAHomeThatIsNotThereIsAbsent(t *testing.T) {
	h, u := scratchHome(t)
	u.Home = "/home/nobody"
	if _, _, err := h.ReadUserFile(u, keys, 10); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want absent", err)
	}
	if err := h.WriteUserFile(t.Context(), u, keys, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want absent", err)
	} else if strings.Contains(err.Error(), h.Root()) {
		t.Errorf("%v shows the root", err)
	}
}

func TestLoginDefs(t *testing.T) {
	h, _ := scratchHome(t)
	if v, err := h.LoginDefs("UMASK"); v != "" || err != nil {
		t.Errorf("without the file: %q, %v", v, err)
	}
	homeFile(t, h, "/etc/login.defs", "#UMASK 077\n  UMASK\t\t022\nUMASKED 1\nEMPTY\n")
	for name, want := range map[string]string{"UMASK": "022", "EMPTY": "", "NONE": ""} {
		if v, err := h.LoginDefs(name); v != want || err != nil {
			t.Errorf("%s: %q, %v", name, v, err)
		}
	}
}

func homeFile(t *testing.T, h *Host, name, content string) {
	t.Helper()
	if err := os.WriteFile(h.Root()+name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
