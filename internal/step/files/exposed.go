package files

// Exposed implements step.Exposer: whether everybody on the machine may read the file.
func (f *File) Exposed() (field string, exposed bool) {
	return "mode", f.sort() == plain && f.meta().Mode&0o004 != 0
}
