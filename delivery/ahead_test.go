package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/metrics"
)

// roundTrip is how long the far store's answers take.
const roundTrip = 10 * time.Millisecond

// farStore is an idempotency store a round trip away, which counts its leases.
type farStore struct {
	faultyStore
	mu         sync.Mutex
	held, most int // leases now, and the most there were
}

func newFarStore() *farStore {
	s := &farStore{}
	s.Store = idempotency.NewMemory(idempotency.MemoryConfig{})
	s.fail = func(string) error {
		<-time.After(roundTrip)
		return nil
	}
	return s
}

func (s *farStore) count(change int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held += change
	s.most = max(s.most, s.held)
}

func (s *farStore) leases() (held, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held, s.most
}

func (s *farStore) Claim(ctx context.Context, key, token string, attempt int, lease time.Duration) (idempotency.Answer, error) {
	answer, err := s.faultyStore.Claim(ctx, key, token, attempt, lease)
	if answer.State == idempotency.Claimed {
		s.count(1)
	}
	return answer, err
}

func (s *farStore) Complete(ctx context.Context, key, token string, window time.Duration) (idempotency.Completion, error) {
	completion, err := s.faultyStore.Complete(ctx, key, token, window)
	if err == nil {
		s.count(-1)
	}
	return completion, err
}

func (s *farStore) Schedule(ctx context.Context, key, token string, attempt int, ttl time.Duration) error {
	err := s.faultyStore.Schedule(ctx, key, token, attempt, ttl)
	if err == nil {
		s.count(-1)
	}
	return err
}

func (s *farStore) Release(ctx context.Context, key, token string) error {
	err := s.faultyStore.Release(ctx, key, token)
	if err == nil {
		s.count(-1)
	}
	return err
}

// crowd publishes n messages, m000 and so on.
func (f *fixture) crowd(n int) {
	f.t.Helper()
	messages := make([]delivery.Message, n)
	for i := range messages {
		messages[i] = to(fmt.Sprintf("m%03d", i))
	}
	f.publish(messages...)
}

// ranOnce asserts that of n messages each ran once, and that none is left.
func (f *fixture) ranOnce(n int) {
	f.t.Helper()
	for i := range n {
		assert.Equal(f.t, []int{1}, f.attempts(fmt.Sprintf("m%03d", i)), "m%03d", i)
	}
	f.empty()
}

// TestClaimsAhead: with quick handlers the store's distance hardly counts, with
// slow ones nothing is claimed before its turn.
func TestClaimsAhead(t *testing.T) {
	const n, workers = 800, 4
	for name, test := range map[string]struct {
		handler time.Duration
		within  time.Duration // without, it were n / workers * (handler + roundTrip)
		most    int           // leases: of the workers, of those ahead, of those being settled
	}{
		"as quick as can be":    {handler: 0, within: 500 * time.Millisecond, most: 3 * 8 * workers},
		"quicker than a claim":  {handler: 5 * time.Millisecond, within: 1200 * time.Millisecond, most: 8 * workers},
		"as slow as a claim":    {handler: roundTrip, within: 2200 * time.Millisecond, most: 5 * workers},
		"far slower":            {handler: 100 * time.Millisecond, within: 22500 * time.Millisecond, most: 2 * workers},
		"slower by many orders": {handler: 10 * time.Second, within: 2010 * time.Second, most: 2 * workers},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				store := newFarStore()
				config := f.config()
				config.Concurrency, config.Idempotency = workers, store
				f.crowd(n)
				var left atomic.Int64
				left.Store(n)
				done := make(chan struct{})
				begin := time.Now()
				_, stop := f.consume(func(context.Context, delivery.Message) error {
					if test.handler > 0 {
						<-time.After(test.handler)
					}
					if left.Add(-1) == 0 {
						close(done)
					}
					return nil
				}, config)
				<-done
				took := time.Since(begin)
				require.NoError(t, stop())
				f.ranOnce(n)
				held, most := store.leases()
				t.Logf("took %v, %d leases at most", took, most)
				assert.Less(t, took, test.within)
				assert.LessOrEqual(t, most, test.most)
				assert.Zero(t, held)
				assert.Equal(t, n, f.processed(metrics.OutcomeDelivered))
			})
		})
	}
}

// Whatever holds up the jobs, claims made ahead don't keep others from them.
func TestClaimsAheadAreLetGo(t *testing.T) {
	const n, workers = 400, 4
	run := func(t *testing.T, hold func(f *fixture, consumer *delivery.Consumer, stop func() error)) {
		bubble(t, func(f *fixture) {
			store := newFarStore()
			config := f.config()
			config.Concurrency, config.Idempotency = workers, store
			f.crowd(n)
			consumer, stop := f.consume(func(context.Context, delivery.Message) error {
				<-time.After(2 * time.Millisecond)
				return nil
			}, config)
			wait(100*time.Millisecond + time.Microsecond)
			held, _ := store.leases()
			require.Greater(t, held, 2*workers, "some wait with a claim")
			hold(f, consumer, stop)
			held, _ = store.leases()
			assert.Zero(t, held)
			require.NoError(t, stop())
			if left := n - f.processed(metrics.OutcomeDelivered); left > 0 {
				config.Idempotency = store
				_, stop := f.consume(func(context.Context, delivery.Message) error { return nil }, config)
				wait(time.Second) // far below the lease
				require.NoError(t, stop())
			}
			f.ranOnce(n)
		})
	}
	t.Run("by a pause", func(t *testing.T) {
		run(t, func(_ *fixture, consumer *delivery.Consumer, _ func() error) {
			consumer.Pause()
			wait(time.Second)
		})
	})
	t.Run("by a drain", func(t *testing.T) {
		run(t, func(f *fixture, _ *delivery.Consumer, stop func() error) { require.NoError(f.t, stop()) })
	})
}

// A pause that ends goes on with what was let go.
func TestPauseAmongClaimsAhead(t *testing.T) {
	const n = 400
	bubble(t, func(f *fixture) {
		config := f.config()
		config.Concurrency, config.Idempotency = 4, newFarStore()
		f.crowd(n)
		consumer, stop := f.consume(func(context.Context, delivery.Message) error { return nil }, config)
		for range 20 {
			wait(roundTrip / 2)
			consumer.Pause()
			wait(roundTrip / 2)
			consumer.Resume()
		}
		wait(time.Second)
		require.NoError(t, stop())
		f.ranOnce(n)
	})
}

// What goes wrong with a job before its turn is dealt with on its turn, once.
func TestTroubleAhead(t *testing.T) {
	const n = 200
	bubble(t, func(f *fixture) {
		store := newFarStore()
		config := f.config()
		config.Concurrency, config.Idempotency = 2, store
		config.IdempotencyKey = func(m delivery.Message) string {
			if m.ID == "m100" {
				panic("no key for this one")
			}
			return m.ID
		}
		f.transport.broken = func(id string) bool { return id == "m101" }
		expired := to("expired")
		expired.ExpiresAt = time.Now().Add(time.Millisecond)
		f.crowd(n)
		f.publish(expired)
		f.crowd(n) // copies of all
		_, stop := f.consume(func(_ context.Context, m delivery.Message) error {
			if m.ID == "m102" {
				return errors.New("fails for ever")
			}
			return nil
		}, config)
		wait(time.Minute)
		require.NoError(t, stop())
		f.empty()
		for i := range n {
			want := []int{1}
			switch i {
			case 100, 101:
				want = nil
			case 102:
				want = []int{1, 2, 3, 4}
			}
			assert.Equal(t, want, f.attempts(fmt.Sprintf("m%03d", i)), "m%03d", i)
		}
		held, _ := store.leases()
		assert.Zero(t, held)
		assert.Equal(t, n-3, f.processed(metrics.OutcomeDelivered))
		// A panic of the key function has no key to know its copy by, and neither
		// has what can't be decoded.
		assert.Equal(t, 2+2+1+1, f.processed(metrics.OutcomeDeadLettered))
	})
}

// The store goes down with claims on their way, and comes back.
func TestStoreDownAmongClaimsAhead(t *testing.T) {
	const n = 600
	bubble(t, func(f *fixture) {
		store := newFarStore()
		config := f.config()
		config.Concurrency, config.Idempotency = 4, store
		f.crowd(n)
		_, stop := f.consume(func(context.Context, delivery.Message) error { return nil }, config)
		for range 3 {
			wait(45 * time.Millisecond)
			store.down.Store(true)
			wait(20 * time.Second)
			store.down.Store(false)
		}
		wait(time.Minute)
		require.NoError(t, stop())
		f.ranOnce(n)
		held, _ := store.leases()
		assert.Zero(t, held)
		assert.Equal(t, n, f.processed(metrics.OutcomeDelivered))
	})
}

// Leases that end while their jobs wait for their turn are asked for again.
func TestLeasesLostAhead(t *testing.T) {
	const n = 300
	bubble(t, func(f *fixture) {
		store := newFarStore()
		config := f.config()
		config.Concurrency, config.Idempotency, config.IdempotencyLease = 2, store, 30*time.Second
		f.crowd(n)
		store.fail = func(step string) error {
			<-time.After(roundTrip)
			if step == "renew" {
				return idempotency.ErrLost
			}
			return nil
		}
		var runs atomic.Int64
		_, stop := f.consume(func(context.Context, delivery.Message) error {
			if runs.Add(1)%100 == 0 {
				<-time.After(time.Minute) // slow all of a sudden
			}
			return nil
		}, config)
		wait(time.Hour)
		require.NoError(t, stop())
		f.empty()
		for i := range n {
			assert.NotEmpty(t, f.attempts(fmt.Sprintf("m%03d", i)), "m%03d", i)
		}
	})
}
