package step

import "sync"

// Shared memoises costly looks at the machine for one run: the package
// database, systemd's connection. The zero Shared is ready; it is safe for concurrent use.
type Shared struct {
	mu    sync.Mutex
	slots map[string]*slot
}

type slot struct {
	once sync.Once
	v    any
	err  error
}

// Memo gives the value under key, made by look on first use. Concurrent
// callers wait for one look. A failed look is remembered until Forget.
func Memo[T any](s *Shared, key string, look func() (T, error)) (T, error) {
	s.mu.Lock()
	if s.slots == nil {
		s.slots = map[string]*slot{}
	}
	sl := s.slots[key]
	if sl == nil {
		sl = &slot{}
		s.slots[key] = sl
	}
	s.mu.Unlock()
	sl.once.Do(func() { sl.v, sl.err = look() })
	v, _ := sl.v.(T)
	return v, sl.err
}

// Forget drops a memo, because Apply has changed what it saw.
func (s *Shared) Forget(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.slots, key)
}
