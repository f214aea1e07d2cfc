package host

// systemdDoor holds the one connection to systemd.
type systemdDoor struct{}
