package host

import "context"

// Relabel gives what WriteFile has not made, as a folder or a link, the SELinux
// label that the policy wants, where SELinux is on.
func (h *Host) Relabel(ctx context.Context, name string) error { return h.restoreLabel(ctx, name) }
