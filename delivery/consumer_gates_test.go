package delivery

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/metrics"
)

func TestGatesHoldTheQueueWhileAnyIsShut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(100)
		g := newGates(q)
		g.shut(gatePaused)
		g.shut(gateIdempotency)
		var popped *inflight
		var group sync.WaitGroup
		group.Go(func() { popped = q.pop() })
		want := stubInflight(Normal, 1)
		q.push(want)
		_, changed := g.state()
		g.open(gatePaused)
		<-changed
		synctest.Wait()
		assert.Nil(t, popped, "another gate is still shut")
		g.open(gateIdempotency)
		group.Wait()
		assert.Same(t, want, popped)
		flowing, _ := g.state()
		assert.True(t, flowing)
		assert.True(t, g.await(t.Context()))
	})
}

func TestGatesAwaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGates(newQueue(100))
		g.shut(gatePaused)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		assert.False(t, g.await(ctx))
	})
}

// A gate that is shut again while it is awaited is not awaited twice, and one
// that is shut after that is awaited anew.
func TestGatesAreAwaitedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGates(newQueue(100))
		var group sync.WaitGroup
		awaits := 0
		await := func() {
			awaits++
			<-time.After(time.Second)
		}
		for range 3 {
			g.shutUntil(gateBreaker, &group, await)
		}
		flowing, _ := g.state()
		assert.False(t, flowing)
		group.Wait()
		flowing, _ = g.state()
		assert.True(t, flowing)
		assert.Equal(t, 1, awaits)
		g.shutUntil(gateBreaker, &group, await)
		group.Wait()
		assert.Equal(t, 2, awaits)
	})
}

var errPanic = errors.New("panic")

// pinged answers as it is told.
type pinged []error

func (p *pinged) Ping(context.Context) error {
	err := (*p)[0]
	*p = (*p)[1:]
	if errors.Is(err, errPanic) {
		panic(err)
	}
	return err
}

func TestAwaitDependency(t *testing.T) {
	down := errors.New("down")
	for name, test := range map[string]struct {
		asked any
		left  int // pings that were not needed
	}{
		"asks until it answers":   {asked: &pinged{down, down, nil}},
		"asks once if it is well": {asked: &pinged{nil, down}, left: 1},
		"survives a panic":        {asked: &pinged{errPanic, nil}},
		"can't ask":               {asked: "no Pinger"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDependency("d", metrics.Guarded(nil), slog.New(slog.DiscardHandler))
				begin := time.Now()
				awaitDependency(t.Context(), d, test.asked, down)
				assert.Positive(t, time.Since(begin), "it is left alone for a while")
				require.Error(t, d.err(), "only an answer to real work says that it is well")
				if pings, ok := test.asked.(*pinged); ok {
					require.Len(t, *pings, test.left)
				}
			})
		})
	}
}
