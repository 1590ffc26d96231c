package delivery

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/retry"
)

// gate is a reason for which no further message may start.
type gate uint8

const (
	gatePaused      gate = 1 << iota // Consumer.Pause
	gateBreaker                      // the consumer's breaker is open
	gateIdempotency                  // the idempotency store is down
)

// pauseGrace is for how long a gate must have been shut before the transport is
// told to pause: a short hiccup is not worth the round trips.
const pauseGrace = time.Second

// gates hold up a consumer's messages. These flow while every gate is open.
type gates struct {
	queue *queue // holds its messages while a gate is shut

	mu      sync.Mutex
	closed  gate
	awaited gate // those that open by themselves
	// changed is closed and replaced when closed changes.
	changed chan struct{}
}

func newGates(queue *queue) *gates {
	return &gates{queue: queue, changed: make(chan struct{})}
}

// shut closes a gate until it is opened.
func (g *gates) shut(which gate) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.set(g.closed | which)
}

// open opens a gate.
func (g *gates) open(which gate) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.set(g.closed &^ which)
}

// shutUntil shuts a gate until await returns, which runs on a goroutine of the
// group. While a gate is awaited shutting it again changes nothing.
func (g *gates) shutUntil(which gate, group *sync.WaitGroup, await func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.set(g.closed | which)
	if g.awaited&which != 0 {
		return
	}
	g.awaited |= which
	group.Go(func() {
		await()
		g.mu.Lock()
		defer g.mu.Unlock()
		g.awaited &^= which
		g.set(g.closed &^ which)
	})
}

// set is called under the lock.
func (g *gates) set(closed gate) {
	if closed == g.closed {
		return
	}
	g.closed = closed
	g.queue.hold(closed != 0)
	close(g.changed)
	g.changed = make(chan struct{})
}

// state tells whether messages flow, and gives a channel that closes when any
// gate changes.
func (g *gates) state() (flowing bool, changed <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed == 0, g.changed
}

// await blocks while a gate is shut. It returns false when ctx ends.
func (g *gates) await(ctx context.Context) bool {
	for {
		flowing, changed := g.state()
		if flowing {
			return ctx.Err() == nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// pauseTransport has the transport pause while messages are held up for longer
// than a moment, so that other processes get what comes. It returns when ctx ends.
func (g *gates) pauseTransport(ctx context.Context, pauser Pauser) {
	paused := false
	for failures := 0; ctx.Err() == nil; {
		flowing, changed := g.state()
		if paused == !flowing {
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		var err error
		if flowing {
			err = pauser.Resume(ctx)
		} else {
			if !retry.Wait(changed, pauseGrace) {
				continue
			}
			err = pauser.Pause(ctx)
		}
		if err != nil {
			retry.Wait(ctx.Done(), backoff(failures, 5*time.Second))
			failures++
			continue
		}
		paused, failures = !flowing, 0
	}
}

// awaitDependency returns when d may be well again: it answers, or if it can't be
// asked, has been left alone for a while; or done is closed.
func awaitDependency(ctx context.Context, d *dependency, asked any, failure error) {
	pinger, asks := asked.(Pinger)
	for failure != nil {
		d.failed(ctx, failure)
		if !retry.Wait(ctx.Done(), time.Until(d.over())) || !asks {
			return
		}
		limited, cancel := context.WithTimeout(ctx, time.Second)
		failure = guarded(func() error { return pinger.Ping(limited) })
		cancel()
	}
}

// watchBreakers counts the transitions of the consumer's breaker, or of those of its
// keys, and logs them. Breakers without a name have the consumer's.
func watchBreakers(config *ConsumerConfig, counters *consumerMetrics) (stop func()) {
	switch {
	case config.Breaker != nil:
		counters.breakerState(cmp.Or(config.Breaker.Name(), config.Name), config.Breaker.State())
		return config.Breaker.Watch(func(change breaker.Change) {
			change.Name = cmp.Or(change.Name, config.Name)
			counters.breakerState(change.Name, change.To)
			counters.breakerChanged(change)
			logBreaker(config.Logger, change)
		})
	case config.KeyBreakers != nil:
		var counting sync.Mutex // so that the gauge shows the last count
		return config.KeyBreakers.Watch(func(change breaker.Change) {
			change.Name = cmp.Or(change.Name, config.Name)
			counting.Lock() // a gauge for each key could be thousands
			counters.breakersOpen(change.Name, config.KeyBreakers.Open())
			counting.Unlock()
			counters.breakerChanged(change)
			logBreaker(config.Logger, change, slog.String("key", change.Key))
		})
	}
	return func() {}
}

func logBreaker(logger *slog.Logger, change breaker.Change, more ...slog.Attr) {
	severity := slog.LevelInfo
	if change.To == breaker.Open {
		severity = slog.LevelWarn
	}
	logger.LogAttrs(context.Background(), severity, "breaker "+change.To.String(),
		append(more, slog.String("breaker", change.Name), slog.String("from", change.From.String()))...)
}
