package units

// Exposed implements step.Exposer: systemd's unit files are for everybody to read.
func (u *Unit) Exposed() (field string, exposed bool) {
	for _, text := range u.DropIns {
		if text != "" {
			return "drop-ins", true
		}
	}
	return "content", u.Content != ""
}

// Serves implements step.Server: a unit that is kept running.
func (u *Unit) Serves() []string {
	if u.State != started {
		return nil
	}
	return []string{u.name}
}
