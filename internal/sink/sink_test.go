package sink_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/amiagent/amiagent/internal/sink"
)

// place is a sink that a test reads: it takes its time and may fail.
type place struct {
	name string
	slow time.Duration
	err  error
	got  []sink.Kind
}

func (p *place) Name() string { return p.name }

func (p *place) Send(ctx context.Context, e sink.Event) error {
	select {
	case <-time.After(p.slow):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	p.got = append(p.got, e.Kind)
	return p.err
}

func TestEveryPlaceHearsTheSameInOrder(t *testing.T) {
	a, b := &place{name: "a"}, &place{name: "b", err: io.ErrClosedPipe}
	tee := sink.NewTee(a, b)
	kinds := []sink.Kind{sink.Began, sink.Progress, sink.Ready, sink.Stopping}
	for _, k := range kinds {
		err := tee.Send(t.Context(), sink.Event{Kind: k})
		if !errors.Is(err, io.ErrClosedPipe) || err.Error() != "cannot tell b: io: read/write on closed pipe" {
			t.Errorf("%s: %v", k, err)
		}
	}
	if !slices.Equal(a.got, kinds) || !slices.Equal(b.got, kinds) {
		t.Errorf("a heard %v, b heard %v", a.got, b.got)
	}
}

func TestAPlaceThatHangsHoldsTheLaunchTenSecondsAndNoOtherPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		quick, hung := &place{name: "quick"}, &place{name: "hung", slow: time.Hour}
		start := time.Now()
		err := sink.NewTee(hung, quick).Send(t.Context(), sink.Event{Kind: sink.Ready})
		if took := time.Since(start); took != 10*time.Second || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %v: %v", took, err)
		}
		if len(quick.got) != 1 {
			t.Error("the quick place heard nothing")
		}
	})
}

func TestNoPlacesAreFine(t *testing.T) {
	if err := sink.NewTee().Send(t.Context(), sink.Event{}); err != nil {
		t.Error(err)
	}
}
