package secrets

import "io/fs"

// absent says that there is no such parameter, as opposed to one that cannot be read.
type absent struct{ error }

func (a absent) Unwrap() error { return a.error }

func (absent) Is(target error) bool { return target == fs.ErrNotExist }
