package fetch

import (
	"errors"
	"io/fs"
	"testing"
)

func TestErrorsOfSeveralAddressesAreOneLine(t *testing.T) {
	one, two, three := errors.New("one"), fs.ErrNotExist, errors.New("three")
	if join(nil, nil) != nil || join(nil, one) != one {
		t.Error("none is nil, and one is itself")
	}
	all := join(join(one, two), nil, three)
	if all.Error() != "one; file does not exist; three" || !errors.Is(all, fs.ErrNotExist) || !errors.Is(all, three) {
		t.Error(all)
	}
}
