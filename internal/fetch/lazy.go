package fetch

import (
	"context"
	"sync"
)

// Lazy is a source that is made when it is first asked: most launches use one
// or two of them, and the certificates of the others are not worth reading.
func Lazy(make func() (Source, error)) Source {
	return lazy{sync.OnceValues(make)}
}

type lazy struct{ source func() (Source, error) }

func (l lazy) Open(ctx context.Context, a Address, scratch Scratch) (Object, error) {
	s, err := l.source()
	if err != nil {
		return Object{}, err
	}
	return s.Open(ctx, a, scratch)
}
