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
	flights int
	most    int
}

func (s *server) send(batch []*call) {
	s.mu.Lock()
	s.batches = append(s.batches, len(batch))
	s.flights++
	s.most = max(s.most, s.flights)
	s.mu.Unlock()
	time.Sleep(time.Second)
	for _, c := range batch {
		c.answer(c.key, nil)
	}
	s.mu.Lock()
	s.flights--
	s.mu.Unlock()
}

func newCall(key string) *call { return &call{key: key, answered: make(chan answer, 1)} }

func (s *server) batcher(config Config) *batcher { return newBatcher(config.withDefaults(), s.send) }

// doAll makes n calls at once and waits for their answers.
func doAll(t *testing.T, b *batcher, n int) {
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			got, err := b.do(t.Context(), newCall("key"))
			if assert.NoError(t, err) {
				assert.Equal(t, "key", got)
			}
		})
	}
	all.Wait()
}

func TestALoneCallDoesNotWait(t *testing.T) {
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

func TestCallsGatherForMaxWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		b := s.batcher(Config{MaxWait: 100 * time.Millisecond})
		start := time.Now()
		doAll(t, b, 50)
		assert.Equal(t, 1100*time.Millisecond, time.Since(start))
		assert.ElementsMatch(t, []int{1, 49}, s.batches)
	})
}

func TestFullBatchesDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		b := s.batcher(Config{MaxWait: 100 * time.Millisecond, MaxBatch: 10})
		doAll(t, b, 51)
		assert.ElementsMatch(t, []int{1, 10, 10, 10, 10, 10}, s.batches)
		assert.Equal(t, 6, s.most)
	})
}

func TestFlightsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		b := s.batcher(Config{MaxBatch: 10, MaxInFlight: 2})
		start := time.Now()
		doAll(t, b, 41)
		assert.Equal(t, 2, s.most)
		assert.ElementsMatch(t, []int{1, 10, 10, 10, 10}, s.batches)
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
		_, err := b.do(ctx, newCall("no room"))
		require.Equal(t, context.DeadlineExceeded, err)
		doAll(t, b, 1)
		all.Wait()
		assert.Equal(t, []int{1, 1, 1}, s.batches)
	})
}

func TestAbandonedCallsAreLeftToTheirEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		b := s.batcher(Config{})
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		gone := newCall("gone")
		_, err := b.do(ctx, gone)
		require.Equal(t, context.DeadlineExceeded, err)
		assert.True(t, gone.abandoned.Load())
		doAll(t, b, 1)
		require.NoError(t, b.close(time.Minute))
		assert.Empty(t, b.room, "every place is given back")
	})
}

func TestCloseFailsWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		b := s.batcher(Config{MaxBatch: 1, MaxInFlight: 1, MaxQueue: 3})
		var all sync.WaitGroup
		all.Go(func() { doAll(t, b, 1) }) // on its way: answered
		synctest.Wait()
		for range 5 { // two wait for their turn, three for room
			all.Go(func() {
				_, err := b.do(t.Context(), newCall("late"))
				assert.Equal(t, idempotency.ErrClosed, err)
			})
		}
		synctest.Wait()
		require.Equal(t, errStillFlying, b.close(time.Millisecond))
		require.NoError(t, b.close(time.Minute))
		all.Wait()
		_, err := b.do(t.Context(), newCall("after"))
		require.Equal(t, idempotency.ErrClosed, err)
		assert.Equal(t, []int{1}, s.batches)
		assert.Empty(t, b.room)
	})
}

func TestUnexpectedReplies(t *testing.T) {
	for _, value := range []string{"", "x", "Xtoken", "R", "R7"} {
		_, ok := parse(value, "token")
		assert.False(t, ok, value)
	}
	require.ErrorIs(t, settled("renew", "text", nil), idempotency.ErrUnavailable)
	require.ErrorIs(t, settled("renew", int64(7), nil), idempotency.ErrUnavailable)
	require.ErrorIs(t, settled("renew", nil, nil), idempotency.ErrUnavailable)
}

func FuzzParse(f *testing.F) {
	for _, value := range []string{"", "Ltoken", "Lother", "D", "R1:token", "R-1:a:b", "Rx"} {
		f.Add(value, "token")
	}
	f.Fuzz(func(t *testing.T, value, token string) {
		found, ok := parse(value, token)
		if ok && found.State == idempotency.Claimed && found.Holder != token {
			t.Fatalf("%q claims for %q", value, token)
		}
	})
}

func TestMilliseconds(t *testing.T) {
	for d, want := range map[time.Duration]string{
		1: "1", time.Millisecond: "1", time.Millisecond + 1: "2", time.Second: "1000", 1<<63 - 1: "9223372036855",
	} {
		assert.Equal(t, want, milliseconds(d))
	}
}
