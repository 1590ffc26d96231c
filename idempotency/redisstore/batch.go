package redisstore

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/esh3artech/barid/idempotency"
)

// batcher gathers calls into batches. It has no goroutine while nothing is to be
// sent: a call that finds none on its way starts one, which goes on as long as
// it finds calls waiting.
type batcher struct {
	// send sends a batch and answers each call of it.
	send func(batch []*call)

	maxBatch   int
	maxFlights int
	maxWait    time.Duration
	// room bounds the calls that are waiting or on their way: each takes a place.
	room chan struct{}

	mu      sync.Mutex
	waiting []*call
	flights int
	// timer starts a flight for calls that waited for maxWait. It is armed when
	// ticking is set.
	timer   *time.Timer
	ticking bool
	closed  bool
	// closing is closed by close, landed when no flight is left after that.
	closing chan struct{}
	landed  chan struct{}
}

func newBatcher(config Config, send func(batch []*call)) *batcher {
	return &batcher{
		send:       send,
		maxBatch:   config.MaxBatch,
		maxFlights: config.MaxInFlight,
		maxWait:    config.MaxWait,
		room:       make(chan struct{}, config.MaxQueue),
		closing:    make(chan struct{}),
		landed:     make(chan struct{}),
	}
}

// do has a call sent and waits for its answer, or for ctx's end.
func (b *batcher) do(ctx context.Context, c *call) answer {
	select {
	case b.room <- struct{}{}:
	case <-ctx.Done():
		return answer{err: ctx.Err()}
	case <-b.closing:
		return answer{err: idempotency.ErrClosed}
	}
	if !b.enqueue(c) {
		<-b.room
		return answer{err: idempotency.ErrClosed}
	}
	select {
	case got := <-c.answered:
		return got
	case <-ctx.Done():
	}
	select {
	case got := <-c.answered: // both at once: what is known is better
		return got
	default:
		c.abandoned.Store(true)
		return answer{err: ctx.Err()}
	}
}

func (b *batcher) enqueue(c *call) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.waiting = append(b.waiting, c)
	switch {
	case b.flights == 0, len(b.waiting) >= b.maxBatch && b.flights < b.maxFlights:
		b.fly()
	case !b.ticking && b.flights < b.maxFlights:
		b.ticking = true
		if b.timer == nil {
			b.timer = time.AfterFunc(b.maxWait, b.tick)
		} else {
			b.timer.Reset(b.maxWait)
		}
	}
	return true
}

// tick sends what has waited for long enough. When all flights are out, the
// first that lands takes it.
func (b *batcher) tick() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ticking = false
	if len(b.waiting) > 0 && b.flights < b.maxFlights {
		b.fly()
	}
}

// fly starts a flight with what is waiting. The lock is held.
func (b *batcher) fly() {
	b.flights++
	batch := b.take()
	go b.run(batch)
}

// take returns the next batch. The lock is held.
func (b *batcher) take() []*call {
	n := min(len(b.waiting), b.maxBatch)
	batch := b.waiting[:n:n]
	b.waiting = b.waiting[n:]
	if len(b.waiting) == 0 {
		b.waiting = nil
	}
	return batch
}

// run is a flight: it sends one batch after another until nothing waits.
func (b *batcher) run(batch []*call) {
	for len(batch) > 0 {
		b.send(batch)
		b.leave(len(batch))
		b.mu.Lock()
		batch = b.take()
		if len(batch) == 0 {
			b.flights--
			if b.closed && b.flights == 0 {
				close(b.landed)
			}
		}
		b.mu.Unlock()
	}
}

// leave gives back the places of n calls.
func (b *batcher) leave(n int) {
	for range n {
		<-b.room
	}
}

// errStillFlying: the client hangs, whatever its timeouts say.
var errStillFlying = errors.New("redisstore: closed, but a pipeline is still on its way")

// close refuses new calls, fails those that wait, and gives those on their way
// the time of patience to land.
func (b *batcher) close(patience time.Duration) error {
	b.mu.Lock()
	if !b.closed {
		b.closed = true
		close(b.closing)
		if b.timer != nil {
			b.timer.Stop()
		}
		for _, c := range b.waiting {
			c.answered <- answer{err: idempotency.ErrClosed}
		}
		b.leave(len(b.waiting))
		b.waiting = nil
		if b.flights == 0 {
			close(b.landed)
		}
	}
	b.mu.Unlock()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case <-b.landed:
		return nil
	case <-timeout.C:
		return errStillFlying
	}
}
