package host

import "os"

// WriteKernel writes to a file that the kernel provides, below /proc or /sys,
// in one call. Such a file is no content to be replaced but a door: nothing is
// made where nothing is.
func (h *Host) WriteKernel(name, value string) (err error) {
	defer func() { err = h.rel(err) }()
	p, err := h.Path(name)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(p, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString(value + "\n"); err != nil {
		return err
	}
	return f.Close()
}
