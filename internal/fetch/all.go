package fetch

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"
)

// Fetch brings everything that the requests name into the store and gives an
// item for each, in order. What the store has is not asked for again; what
// several requests share is fetched once. Several are fetched at once, the
// largest first. Every failure is reported, as *Failures; what succeeded
// beside it stays in the store. Retries, mirrors and the time for trying are
// each object's own (see Policy). On cancel it returns soon with the context's
// cause, and leaves nothing unfinished.
func (s *Store) Fetch(ctx context.Context, reqs []Request, progress Progress) ([]Item, error) {
	items := make([]Item, len(reqs))
	errs := make([]error, len(reqs))
	var order []*group
	groups := map[string]*group{}
	for i, req := range reqs {
		w, err := read(req)
		if err != nil {
			errs[i] = fmt.Errorf("cannot fetch %s: %w", req.Name, err)
			continue
		}
		g := groups[w.key]
		if g == nil {
			g = &group{want: w}
			groups[w.key] = g
			order = append(order, g)
		}
		g.join(w, i)
	}
	missing := slices.DeleteFunc(slices.Clone(order), func(g *group) bool {
		var done bool
		g.item, done = s.lookup(g.want)
		return done
	})
	if len(missing) == 0 {
		s.tidy()
	}
	s.fetchGroups(ctx, missing, progress)
	for _, g := range order {
		for _, i := range g.members {
			items[i], errs[i] = g.item, g.err
			if size := reqs[i].Size; g.err == nil && size > 0 && g.item.Size > 0 && size != g.item.Size && g.want.addrs[0].Kind != KindGit {
				errs[i] = fmt.Errorf("cannot fetch %s: %w", reqs[i].Name, sizeError(g.item.Size, size))
			}
			if errs[i] != nil {
				items[i] = Item{}
			}
		}
	}
	if ctx.Err() != nil {
		return items, context.Cause(ctx)
	}
	return items, failures(reqs, errs)
}

// group is one item to be had, and the requests that want it.
type group struct {
	want    want
	members []int // places in the caller's list
	item    Item
	err     error
}

// join adds a request; its addresses serve as further mirrors.
func (g *group) join(w want, i int) {
	g.members = append(g.members, i)
	for _, a := range w.addrs {
		if !slices.ContainsFunc(g.want.addrs, func(b Address) bool { return a.URL.String() == b.URL.String() && a.Kind == b.Kind }) {
			g.want.addrs = append(g.want.addrs, a)
		}
	}
	g.want.req.Size = cmp.Or(g.want.req.Size, w.req.Size)
}

func (s *Store) fetchGroups(ctx context.Context, groups []*group, progress Progress) {
	slices.SortStableFunc(groups, func(a, b *group) int { return cmp.Compare(b.want.req.Size, a.want.req.Size) })
	count := newCounter(groups, progress)
	slots := make(chan struct{}, s.opt.Parallel)
	var wg sync.WaitGroup
	for _, g := range groups {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			g.item, g.err = s.fetchOne(ctx, g.want, count)
		})
	}
	wg.Wait()
}

// fetchOne tries the addresses in turn, again and again, until one has served
// the bytes, none is left that may, or the time for trying is over.
func (s *Store) fetchOne(ctx context.Context, w want, count *counter) (Item, error) {
	var item Item
	final := make([]error, len(w.addrs))
	err := s.opt.Policy.retry(ctx, w.req.Name, func(ctx context.Context) error {
		var again error
		for i, a := range w.addrs {
			if final[i] != nil {
				continue
			}
			it, err := s.attempt(ctx, w, a, count)
			if err == nil {
				item = it
				return nil
			}
			err = fmt.Errorf("cannot fetch %s from %s: %w", w.req.Name, a, err)
			if s.opt.Policy.again(err) && ctx.Err() == nil {
				again = join(again, err)
			} else {
				final[i] = err
			}
			if ctx.Err() != nil {
				return err
			}
		}
		return cmp.Or(again, join(final...))
	})
	return item, err
}

func (s *Store) attempt(ctx context.Context, w want, a Address, count *counter) (Item, error) {
	outside, inside, err := s.job()
	if err != nil {
		return Item{}, err
	}
	defer func() { _ = os.RemoveAll(outside) }()
	had := int64(0)
	g, err := obtain(ctx, s.opt.Sources, w, a, outside, scratchIn(outside, inside), s.opt.Limits, func(n int64) {
		had += n
		count.add(n)
	})
	if err == nil {
		var it Item
		if it, err = s.commit(w, g, outside); err == nil {
			return it, nil
		}
		err = roomHint(err, outside)
	}
	count.add(-had) // the next attempt begins anew
	return Item{}, err
}

func scratchIn(outside, inside string) Scratch {
	return func() (string, error) {
		name, err := os.MkdirTemp(outside, "scratch")
		return path.Join(inside, filepath.Base(name)), err
	}
}

// counter adds up the progress of all that is under way.
type counter struct {
	mu          sync.Mutex
	done, total int64
	tell        Progress
}

// newCounter knows the total only if every size is known.
func newCounter(groups []*group, tell Progress) *counter {
	c := &counter{tell: tell}
	for _, g := range groups {
		if g.want.req.Size == 0 {
			c.total = 0
			break
		}
		c.total += g.want.req.Size
	}
	return c
}

func (c *counter) add(n int64) {
	if c.tell == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done += n
	c.tell(c.done, c.total)
}
