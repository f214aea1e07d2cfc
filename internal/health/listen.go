package health

import (
	"container/list"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
)

// shedding is a listener with at most max open connections: one more, and the
// oldest is closed.
type shedding struct {
	net.Listener
	max int

	mu   sync.Mutex
	open list.List // of *conn, oldest first
}

// conn leaves its listener's list when it is closed.
type conn struct {
	net.Conn
	from *shedding
	at   *list.Element // nil once it has left
}

func (s *shedding) Accept() (net.Conn, error) {
	nc, err := s.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: nc, from: s}
	s.mu.Lock()
	var oldest *conn
	if s.open.Len() >= s.max {
		oldest = s.open.Front().Value.(*conn)
	}
	c.at = s.open.PushBack(c)
	s.mu.Unlock()
	if oldest != nil {
		if tcp, ok := oldest.Conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // a reset, so that the kernel keeps nothing of it
		}
		_ = oldest.Close()
	}
	return c, nil
}

func (c *conn) Close() error {
	c.from.mu.Lock()
	if c.at != nil {
		c.from.open.Remove(c.at)
		c.at = nil
	}
	c.from.mu.Unlock()
	return c.Conn.Close()
}

// Inherited is the listener that systemd has opened for the process pid, or nil
// (sd_listen_fds(3)). getenv gives its environment.
func Inherited(getenv func(string) string, pid int) (net.Listener, error) {
	if getenv("LISTEN_PID") != strconv.Itoa(pid) {
		return nil, nil
	}
	n, err := strconv.Atoi(getenv("LISTEN_FDS"))
	if err != nil || n != 1 {
		return nil, fmt.Errorf("cannot use systemd's sockets: LISTEN_FDS is %q, want 1", getenv("LISTEN_FDS"))
	}
	const firstFD = 3
	f := os.NewFile(firstFD, "LISTEN_FD_3")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("cannot use systemd's socket: %w", err)
	}
	return l, nil
}
