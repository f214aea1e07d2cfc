package repodata

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// maxWindow bounds what a compressed stream may make us keep in memory.
const maxWindow = 128 << 20

// Unpack reads what is in r, unpacked by what its first bytes say rather than
// by its name, and at most limit bytes of it: more is ErrTooLarge. The result must be closed; r is not.
func Unpack(r io.Reader, limit int64) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	head, err := b.Peek(6)
	if err != nil && err != io.EOF {
		return nil, err
	}
	var plain io.Reader = b
	done := func() {}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		plain, err = gzip.NewReader(b)
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		var z *zstd.Decoder
		if z, err = zstd.NewReader(b, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1)); err == nil {
			plain, done = z, z.Close
		}
	case bytes.HasPrefix(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		plain, err = xz.NewReader(b)
	case bytes.HasPrefix(head, []byte("BZh")):
		plain = bzip2.NewReader(b)
	default:
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot unpack: %w", err)
	}
	return &unpacked{bounded{plain, limit}, done}, nil
}

type unpacked struct {
	bounded
	done func()
}

func (u *unpacked) Close() error {
	u.done()
	return nil
}
