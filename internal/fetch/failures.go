package fetch

import (
	"slices"
	"strings"
)

// Failures is the error of a Fetch: what became of each request that failed.
type Failures struct {
	names []string
	errs  []error
}

// Of is why the request of this name failed; nil if it did not.
func (f *Failures) Of(name string) error {
	if i := slices.Index(f.names, name); i >= 0 {
		return f.errs[i]
	}
	return nil
}

// Error tells each failure once, though several requests may share it.
func (f *Failures) Error() string {
	var lines []string
	for _, err := range f.errs {
		if line := err.Error(); !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives all failures, for errors.Is and errors.As.
func (f *Failures) Unwrap() []error { return f.errs }

func failures(reqs []Request, errs []error) error {
	var f Failures
	for i, err := range errs {
		if err != nil {
			f.names = append(f.names, reqs[i].Name)
			f.errs = append(f.errs, err)
		}
	}
	if len(f.errs) == 0 {
		return nil
	}
	return &f
}
