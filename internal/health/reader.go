package health

import (
	"errors"
	"io/fs"
	"os"
	"sync"

	"github.com/amiagent/amiagent/internal/host"
	"github.com/amiagent/amiagent/internal/report"
)

// reader reads the status file again only when it is another one than before.
// The agent replaces it by rename, so a new status is a new file.
type reader struct {
	host *host.Host
	path string

	mu     sync.Mutex
	seen   fs.FileInfo // nil: nothing read yet
	status report.Status
	err    error
}

func (r *reader) read() (report.Status, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	st, err := r.host.Stat(r.path)
	if err != nil {
		r.seen = nil
		if errors.Is(err, fs.ErrNotExist) {
			err = report.ErrNoStatus
		}
		return report.Status{}, err
	}
	if r.seen == nil || !os.SameFile(st, r.seen) || !st.ModTime().Equal(r.seen.ModTime()) || st.Size() != r.seen.Size() {
		// Replaced between the two calls it is newer than seen, and read again next time.
		r.status, r.err = report.LoadStatus(r.host, r.path)
		r.seen = st
	}
	return r.status, r.err
}
