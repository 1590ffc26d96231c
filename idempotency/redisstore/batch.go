package redisstore

import (
	"context"
	"errors"
	"runtime"
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
	since   time.Time // when the first of them came
	flights int
	// gathering says that a flight is about to take what is waiting.
	gathering bool
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
	if len(b.waiting) == 0 {
		b.since = time.Now()
	}
	b.waiting = append(b.waiting, c)
	b.dispatch()
	return true
}

// dispatch sees to it that what is waiting gets its flight, now or in time. The
// lock is held.
func (b *batcher) dispatch() {
	switch {
	case b.gathering || len(b.waiting) == 0:
	case b.flights == 0, len(b.waiting) >= b.maxBatch && b.flights < b.maxFlights:
		b.fly()
	case !b.ticking && b.flights < b.maxFlights:
		b.ticking = true
		wait := b.maxWait - time.Since(b.since)
		if b.timer == nil {
			b.timer = time.AfterFunc(wait, b.tick)
		} else {
			b.timer.Reset(wait)
		}
	}
}

// tick sends what has waited for long enough. When all flights are out, the
// first that lands takes it.
func (b *batcher) tick() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ticking = false
	if b.gathering || len(b.waiting) == 0 || b.flights == b.maxFlights {
		return
	}
	if time.Since(b.since) < b.maxWait {
		b.dispatch() // those that the timer was for are on their way
		return
	}
	b.fly()
}

// fly starts a flight. The lock is held.
func (b *batcher) fly() {
	b.flights++
	b.gathering = true
	go b.run()
}

// run is a flight: it sends one batch after another until nothing waits, or
// another flight is about to take it.
func (b *batcher) run() {
	for gathering := true; gathering; {
		b.gather()
		batch := b.take()
		if len(batch) == 0 {
			return
		}
		b.send(batch)
		b.leave(len(batch))
		gathering = b.land()
	}
}

// maxYields and maxYield bound how long a flight gathers.
const (
	maxYields = 8
	maxYield  = 100 * time.Microsecond
)

// gather lets others run for as long as that brings more calls. Callers come in
// crowds: a pipeline that landed has woken all of its own, who are about to make
// their next calls, and a round trip for the first of them alone would cost as
// much as one for all. With nobody else about to run it takes next to no time.
func (b *batcher) gather() {
	start := time.Now()
	for known, yields := -1, 0; yields < maxYields && time.Since(start) < maxYield; yields++ {
		b.mu.Lock()
		n := len(b.waiting)
		b.mu.Unlock()
		if n == known || n >= b.maxBatch {
			return
		}
		known = n
		runtime.Gosched()
	}
}

// take returns the next batch for a flight that has gathered. When there is none
// the flight is over.
func (b *batcher) take() []*call {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gathering = false
	n := min(len(b.waiting), b.maxBatch)
	if n == 0 {
		b.end()
		return nil
	}
	batch := b.waiting[:n:n]
	b.waiting = b.waiting[n:]
	if len(b.waiting) == 0 {
		b.waiting = make([]*call, 0, n) // the next batch is likely as large
	}
	b.dispatch()
	return batch
}

// land says whether a flight that has sent its batch is to gather another one. If
// not it is over.
func (b *batcher) land() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gathering {
		b.end()
		return false
	}
	b.gathering = true
	return true
}

// end ends a flight. The lock is held.
func (b *batcher) end() {
	b.flights--
	if b.closed && b.flights == 0 {
		close(b.landed)
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
