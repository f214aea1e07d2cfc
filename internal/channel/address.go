package channel

import (
	"errors"
	"strings"
)

// hexMark stands in Locks for the hex digits of a lock's digest.
const hexMark = "{hex}"

// DefaultLocks is where locks lie unless the channel says otherwise: in a folder beside it.
const DefaultLocks = "locks/sha256-{hex}.lock"

// LockAddress is where a lock of this digest lies, for a channel that was read
// from an address. Locks of the channel that is no absolute path or address is
// relative to the channel's folder. Of the parameters of the channel's address
// the lock's has ref, the branch of a git repository: a version id is one object's.
func (c *Channel) LockAddress(from, digest string) string {
	locks := c.Locks
	if locks == "" {
		locks = DefaultLocks
	}
	_, hex, _ := strings.Cut(digest, ":")
	locks = strings.ReplaceAll(locks, hexMark, hex)
	if absolute(locks) {
		return locks
	}
	from, query, _ := strings.Cut(from, "?")
	address := from[:strings.LastIndexByte(from, '/')+1] + locks
	for part := range strings.SplitSeq(query, "&") {
		if strings.HasPrefix(part, "ref=") {
			address += "?" + part
		}
	}
	return address
}

func absolute(address string) bool {
	return strings.HasPrefix(address, "/") || strings.Contains(address, "::") || strings.Contains(address, "://")
}

func checkLocks(locks string) error {
	if err := checkText(locks); err != nil {
		return err
	}
	if !strings.Contains(locks, hexMark) {
		return errors.New("must have " + hexMark + " where the digits of the digest go")
	}
	for _, part := range strings.Split(locks, "/") {
		if part == ".." && !absolute(locks) {
			return errors.New("must not leave the channel's folder with \"..\", write the whole address")
		}
	}
	return nil
}
