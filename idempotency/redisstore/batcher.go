package redisstore

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"time"

	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/retry"
)

// batcher gathers calls into batches and has them sent by senders: goroutines that
// send one batch after another and end when no call waits. A call that finds no
// batch in flight starts a sender at once. Otherwise calls wait, for maxWait at
// most, to become one batch with those that come meanwhile.
type batcher struct {
	// send sends a batch and answers each call of it.
	send func(batch []*call)

	maxBatch    int
	maxInFlight int
	maxWait     time.Duration
	// queued bounds the calls that wait or are in flight: it has an element for
	// each.
	queued chan struct{}

	mu      sync.Mutex
	waiting []*call
	since   time.Time // when the first of them came
	senders int
	// gathering says that a sender is about to take what is waiting.
	gathering bool
	// timer starts a sender for calls that waited for maxWait. timing says that it
	// runs.
	timer  *time.Timer
	timing bool
	closed bool
	// closing is closed by close, and idle when the last sender after that has
	// ended.
	closing chan struct{}
	idle    chan struct{}
}

func newBatcher(config Config, send func(batch []*call)) *batcher {
	return &batcher{
		send:        send,
		maxBatch:    config.MaxBatch,
		maxInFlight: config.MaxInFlight,
		maxWait:     config.MaxWait,
		queued:      make(chan struct{}, config.MaxQueue),
		closing:     make(chan struct{}),
		idle:        make(chan struct{}),
	}
}

// do has a call sent and waits for its answer, or for ctx's end.
func (b *batcher) do(ctx context.Context, c *call) answer {
	select {
	case b.queued <- struct{}{}:
	case <-ctx.Done():
		return answer{err: ctx.Err()}
	case <-b.closing:
		return answer{err: idempotency.ErrClosed}
	}
	if !b.enqueue(c) {
		<-b.queued
		return answer{err: idempotency.ErrClosed}
	}
	select {
	case got := <-c.answered:
		return got
	case <-ctx.Done():
	}
	select {
	case got := <-c.answered: // both at once: the answer is worth more
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

// dispatch starts a sender for what is waiting, or the timer that will. The lock is
// held.
func (b *batcher) dispatch() {
	switch {
	case b.gathering || len(b.waiting) == 0:
	case b.senders == 0, len(b.waiting) >= b.maxBatch && b.senders < b.maxInFlight:
		b.startSender()
	case !b.timing && b.senders < b.maxInFlight:
		b.timing = true
		wait := b.maxWait - time.Since(b.since)
		if b.timer == nil {
			b.timer = time.AfterFunc(wait, b.waited)
		} else {
			b.timer.Reset(wait)
		}
	}
}

// waited is the timer's: it sends what has waited for maxWait. When all senders
// are busy, the first that is done takes it.
func (b *batcher) waited() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.timing = false
	if b.gathering || len(b.waiting) == 0 || b.senders == b.maxInFlight {
		return
	}
	if time.Since(b.since) < b.maxWait {
		b.dispatch() // the calls that the timer was for have been sent
		return
	}
	b.startSender()
}

// startSender is for calls that wait. The lock is held.
func (b *batcher) startSender() {
	b.senders++
	b.gathering = true
	go b.sendAll()
}

// sendAll is a sender: it sends one batch after another until nothing waits, or
// another sender is about to take it.
func (b *batcher) sendAll() {
	for gathering := true; gathering; {
		b.gather()
		batch := b.take()
		if len(batch) == 0 {
			return
		}
		b.send(batch)
		b.dequeue(len(batch))
		gathering = b.next()
	}
}

// maxYields and maxYield bound how long a sender gathers.
const (
	maxYields = 8
	maxYield  = 100 * time.Microsecond
)

// gather lets other goroutines run for as long as that brings more calls. Calls
// come many at a time: the answers of one pipeline wake all of its callers, which
// are about to make their next calls, and a round trip for the first of them alone
// would cost as much as one for all. When no other goroutine is about to run, it
// takes next to no time.
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

// take returns the next batch for a sender that has gathered. When there is none
// the sender has to end.
func (b *batcher) take() []*call {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gathering = false
	n := min(len(b.waiting), b.maxBatch)
	if n == 0 {
		b.endSender()
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

// next says whether a sender that has sent its batch is to gather another one. If
// not it has to end.
func (b *batcher) next() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gathering {
		b.endSender()
		return false
	}
	b.gathering = true
	return true
}

// endSender counts a sender out. The lock is held.
func (b *batcher) endSender() {
	b.senders--
	if b.closed && b.senders == 0 {
		close(b.idle)
	}
}

// dequeue makes room for n other calls.
func (b *batcher) dequeue(n int) {
	for range n {
		<-b.queued
	}
}

// errInFlight: the client hangs, whatever its timeouts say.
var errInFlight = errors.New("redisstore: closed, but a pipeline is still in flight")

// close refuses new calls, fails those that wait, and waits for those in flight,
// for no longer than timeout.
func (b *batcher) close(timeout time.Duration) error {
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
		b.dequeue(len(b.waiting))
		b.waiting = nil
		if b.senders == 0 {
			close(b.idle)
		}
	}
	b.mu.Unlock()
	if retry.Wait(b.idle, timeout) {
		return errInFlight
	}
	return nil
}
