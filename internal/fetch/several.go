package fetch

import "strings"

// several is the errors of all addresses of one object, in one line.
type several []error

// join is nil without any error, and the error itself where there is one.
func join(errs ...error) error {
	var s several
	for _, err := range errs {
		if more, ok := err.(several); ok {
			s = append(s, more...)
		} else if err != nil {
			s = append(s, err)
		}
	}
	switch len(s) {
	case 0:
		return nil
	case 1:
		return s[0]
	}
	return s
}

func (s several) Error() string {
	parts := make([]string, len(s))
	for i, err := range s {
		parts[i] = err.Error()
	}
	return strings.Join(parts, "; ")
}

func (s several) Unwrap() []error { return s }
