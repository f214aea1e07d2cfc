package unpack

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// maxWindow bounds the memory of a decompressor. 128 MiB is the most that zstd
// --long and xz -9e (64 MiB) ask for.
const maxWindow = 128 << 20

// sniff tells the format from the first bytes, "" for none. The magic numbers
// are those of RFC 1952 (gzip), RFC 8878 (zstd, its skippable frames
// included), the .xz format 1.2.1, bzip2's source, POSIX ustar and PKWARE's
// APPNOTE (zip, also an empty one).
func sniff(r *bufio.Reader) (string, error) {
	head, err := r.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	has := func(magic string) bool { return bytes.HasPrefix(head, []byte(magic)) }
	switch {
	case has("\x1f\x8b"):
		return "gz", nil
	case has("\x28\xb5\x2f\xfd"), len(head) > 3 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte("\x2a\x4d\x18")):
		return "zst", nil
	case has("\xfd7zXZ\x00"):
		return "xz", nil
	case has("BZh") && len(head) > 9 && (string(head[4:10]) == "1AY&SY" || string(head[4:10]) == "\x17\x72\x45\x38\x50\x90"):
		return "bz2", nil
	case has("PK\x03\x04"), has("PK\x05\x06"):
		return "zip", nil
	case isTar(head):
		return "tar", nil
	}
	return "", nil
}

// isTar checks the header's own checksum, which old tars have too.
func isTar(head []byte) bool {
	if len(head) < 512 {
		return false
	}
	want, err := strconv.ParseUint(strings.Trim(string(head[148:156]), " \x00"), 8, 32)
	var sum uint64
	for i, b := range head {
		if i >= 148 && i < 156 {
			b = ' ' // the field counts as spaces
		}
		sum += uint64(b)
	}
	return err == nil && sum == want || bytes.Equal(head, make([]byte, 512)) // an empty tar is two blocks of zeros
}

var formats = []string{"tar", "tar.gz", "tar.zst", "tar.xz", "tar.bz2", "zip", "gz", "zst", "xz", "bz2"}

var shortFormats = map[string]string{"tgz": "tar.gz", "tzst": "tar.zst", "txz": "tar.xz", "tbz2": "tar.bz2"}

func canonical(format string) string {
	if long, ok := shortFormats[format]; ok {
		return long
	}
	return format
}

// Known tells whether a format can be asked for by this name, as "tar.gz" or "tgz".
func Known(format string) error {
	for _, f := range formats {
		if canonical(format) == f {
			return nil
		}
	}
	return fmt.Errorf("unknown archive format %q, known are %s", format, strings.Join(formats, ", "))
}

// decompress opens one layer of compression. closer frees what it holds.
func decompress(format string, r *bufio.Reader) (plain io.Reader, closer func(), err error) {
	switch format {
	case "gz":
		z, err := gzip.NewReader(r)
		return z, func() {}, err
	case "zst":
		z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	case "xz":
		if err := xzWindow(r); err != nil {
			return nil, nil, err
		}
		in := &tail{r: r}
		z, err := xz.NewReader(in)
		return &wholeXZ{z: z, in: in}, func() {}, err
	}
	return bzip2.NewReader(r), func() {}, nil
}

// wholeXZ corrects two faults of the xz library (v0.5.17): a stream cut
// between two blocks ends as if it were whole, and after an error the next
// read may say that all is well.
type wholeXZ struct {
	z   io.Reader
	in  *tail
	err error
}

func (x *wholeXZ) Read(p []byte) (n int, err error) {
	if x.err == nil {
		n, x.err = x.z.Read(p)
		// Every stream ends in these two bytes (section 2.1.2.4), then perhaps padding.
		if errors.Is(x.err, io.EOF) && string(x.in.last[:]) != "YZ" {
			x.err = io.ErrUnexpectedEOF
		}
	}
	return n, x.err
}

// tail remembers the last two bytes that were read and are not zero.
type tail struct {
	r    *bufio.Reader
	last [2]byte
}

func (t *tail) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	for _, b := range p[max(0, n-64):n] { // reads are longer only within a block
		t.take(b)
	}
	return n, err
}

func (t *tail) ReadByte() (byte, error) {
	b, err := t.r.ReadByte()
	t.take(b)
	return b, err
}

func (t *tail) take(b byte) {
	if b != 0 {
		t.last = [2]byte{t.last[1], b}
	}
}

// xzWindow refuses an xz file whose first block asks for a huge dictionary,
// which the library would allocate at once. The layout is that of the .xz file
// format 1.2.1, sections 2.1.1, 3.1 and 5.3.1.
func xzWindow(r *bufio.Reader) error {
	head, _ := r.Peek(64)
	if len(head) < 16 || head[12] == 0 { // no block at all
		return nil
	}
	p := head[14:]
	for skip := head[13] >> 6; skip > 0; skip >>= 1 { // up to two sizes, each a varint
		if skip&1 == 0 {
			continue
		}
		for len(p) > 0 && p[0]&0x80 != 0 {
			p = p[1:]
		}
		p = p[min(1, len(p)):]
	}
	// Filter 0x21 is LZMA2, with one byte of properties: 2^(n/2+12), and half as much again when n is odd.
	if len(p) < 3 || p[0] != 0x21 || p[1] != 1 {
		return nil
	}
	n := p[2] & 0x3f
	if size := uint64(2|n&1) << (n/2 + 11); size > maxWindow {
		return fmt.Errorf("%w: xz dictionary of %d bytes, at most %d are allowed", ErrLimit, size, maxWindow)
	}
	return nil
}
