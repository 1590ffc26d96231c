package redisstore

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/idempotency"
)

// server answers batches after a round trip of a second.
type server struct {
	mu      sync.Mutex
	batches []int
	sending int
	most    int
}

func (s *server) send(batch []*call) {
	s.mu.Lock()
	s.batches = append(s.batches, len(batch))
	s.sending++
	s.most = max(s.most, s.sending)
	s.mu.Unlock()
	time.Sleep(time.Second)
	for _, c := range batch {
		c.answered <- answer{found: idempotency.Answer{Holder: c.key}}
	}
	s.mu.Lock()
	s.sending--
	s.mu.Unlock()
}

func callOf(key string) *call { return newCall(nil, key, "token", 0, time.Second) }

func (s *server) batcher(config Config) *batcher { return newBatcher(config.withDefaults(), s.send) }

// doAll makes n calls at once and waits for their answers.
func doAll(t *testing.T, b *batcher, n int) {
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			got := b.do(t.Context(), callOf("key"))
			if assert.NoError(t, got.err) {
				assert.Equal(t, "key", got.found.Holder)
			}
		})
	}
	all.Wait()
}

// occupy brings a call in flight, so that others have to wait. The function that it
// returns waits for the call's answer.
func occupy(t *testing.T, b *batcher) (wait func()) {
	var one sync.WaitGroup
	one.Go(func() { doAll(t, b, 1) })
	synctest.Wait()
	return one.Wait
}

func TestACallDoesNotWaitWhileNoneIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		b := s.batcher(Config{MaxWait: time.Second})
		start := time.Now()
		doAll(t, b, 1)
		doAll(t, b, 1)
		assert.Equal(t, 2*time.Second, time.Since(start))
		assert.Equal(t, []int{1, 1}, s.batches)
	})
}

func TestCallsWaitForMaxWaitWhileABatchIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		b := s.batcher(Config{MaxWait: 100 * time.Millisecond})
		start := time.Now()
		occupied := occupy(t, b)
		doAll(t, b, 50)
		assert.Equal(t, 1100*time.Millisecond, time.Since(start))
		occupied()
		assert.Equal(t, []int{1, 50}, s.batches)
	})
}

// Calls that have waited for less than MaxWait are not sent by a timer that was set
// for calls before them.
func TestMaxWaitCountsFromTheFirstOfABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		b := s.batcher(Config{MaxWait: 1500 * time.Millisecond})
		occupied := occupy(t, b)
		var all sync.WaitGroup
		all.Go(func() { doAll(t, b, 5) }) // wait, and go at 1 s; the timer is set for 1.5 s
		time.Sleep(1200 * time.Millisecond)
		doAll(t, b, 5)
		occupied()
		all.Wait()
		assert.Equal(t, []int{1, 5, 5}, s.batches)
		assert.Equal(t, 1, s.most)
	})
}

// Calls that are made at once share a round trip, although the first of them
// finds nothing in flight.
func TestCallsMadeAtOnceShareBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		b := s.batcher(Config{MaxWait: time.Second})
		doAll(t, b, 100)
		assert.Less(t, len(s.batches), 10)
	})
}

func TestFullBatchesAreSentAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		b := s.batcher(Config{MaxWait: 100 * time.Millisecond, MaxBatch: 10})
		occupied := occupy(t, b)
		doAll(t, b, 50)
		occupied()
		assert.Equal(t, []int{1, 10, 10, 10, 10, 10}, s.batches)
		assert.Equal(t, 6, s.most)
	})
}

func TestBatchesInFlightAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		b := s.batcher(Config{MaxBatch: 10, MaxInFlight: 2})
		start := time.Now()
		occupied := occupy(t, b)
		doAll(t, b, 40)
		occupied()
		assert.Equal(t, 2, s.most)
		assert.Equal(t, []int{1, 10, 10, 10, 10}, s.batches)
		assert.Equal(t, 3*time.Second, time.Since(start))
	})
}

func TestTheQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		b := s.batcher(Config{MaxBatch: 1, MaxInFlight: 1, MaxQueue: 2})
		var all sync.WaitGroup
		all.Go(func() { doAll(t, b, 2) })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		got := b.do(ctx, callOf("no room"))
		require.Equal(t, context.DeadlineExceeded, got.err)
		doAll(t, b, 1)
		all.Wait()
		assert.Equal(t, []int{1, 1, 1}, s.batches)
	})
}

func TestACallOutlivesItsContextInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		b := s.batcher(Config{})
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		gone := callOf("gone")
		got := b.do(ctx, gone)
		require.Equal(t, context.DeadlineExceeded, got.err)
		assert.True(t, gone.abandoned.Load())
		doAll(t, b, 1)
		require.NoError(t, b.close(time.Minute))
		assert.Empty(t, b.queued, "there is room for all again")
	})
}

func TestCloseFailsCallsThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		b := s.batcher(Config{MaxBatch: 1, MaxInFlight: 1, MaxQueue: 3})
		var all sync.WaitGroup
		all.Go(func() { doAll(t, b, 1) }) // on its way: answered
		synctest.Wait()
		for range 5 { // two wait for their turn, three for room
			all.Go(func() {
				got := b.do(t.Context(), callOf("late"))
				assert.Equal(t, idempotency.ErrClosed, got.err)
			})
		}
		synctest.Wait()
		require.Equal(t, errInFlight, b.close(time.Millisecond))
		require.NoError(t, b.close(time.Minute))
		all.Wait()
		got := b.do(t.Context(), callOf("after"))
		require.Equal(t, idempotency.ErrClosed, got.err)
		assert.Equal(t, []int{1}, s.batches)
		assert.Empty(t, b.queued)
	})
}
