package dlq_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/metrics"
)

func TestStatsLearnsOfChangesMadeElsewhere(t *testing.T) {
	ctx := context.Background()
	store := dlq.NewMemory(dlq.MemoryConfig{})
	collector := metrics.NewCollector(metrics.CollectorConfig{})
	manager := dlq.NewManager(store, nil, dlq.Config{Metrics: collector})
	all, _ := letters(3)
	require.NoError(t, dlq.NewManager(store, nil, dlq.Config{}).DeadLetter(ctx, all...))
	assert.Zero(t, gauge(t, collector))
	stats, err := manager.Stats(ctx)
	require.NoError(t, err)
	assert.Equal(t, dlq.Stats{
		Total: 3, Oldest: noon, ByReason: map[delivery.Reason]int{"exhausted": 3}, ByType: map[string]int{"sms": 3},
		Fingerprints: []dlq.FingerprintCount{{Fingerprint: dlq.Fingerprint("secret-error 2"), Count: 3, Example: "secret-error 2"}},
	}, stats)
	assert.InDelta(t, 3, gauge(t, collector), 0)
}

func TestNobodyCountsWhatNobodyLooksAt(t *testing.T) {
	store := &broken{Store: dlq.NewMemory(dlq.MemoryConfig{})}
	for _, recorder := range []metrics.Recorder{nil, metrics.Discard} {
		manager := dlq.NewManager(store, nil, dlq.Config{Metrics: recorder})
		require.NoError(t, manager.DeadLetter(context.Background(), letter("a")))
	}
	assert.Zero(t, store.counts.Load())
}

func TestACountThatFailsIsLogged(t *testing.T) {
	var events log
	store := &broken{Store: dlq.NewMemory(dlq.MemoryConfig{}), count: errors.New("down")}
	manager := dlq.NewManager(store, nil, dlq.Config{Metrics: metrics.NewCollector(metrics.CollectorConfig{}), Logger: events.logger()})
	require.NoError(t, manager.DeadLetter(context.Background(), letter("a")))
	assert.Equal(t, map[string]any{"level": "WARN", "msg": "dead letters not counted", "error": "down"}, events.events(t)[1])
}

// slowCount lets a count begin only when the test says so.
type slowCount struct {
	dlq.Store
	began, proceed chan struct{}
	counts         atomic.Int32
}

func (s *slowCount) Count(ctx context.Context, filter dlq.Filter) (int, error) {
	s.counts.Add(1)
	s.began <- struct{}{}
	<-s.proceed
	return s.Store.Count(ctx, filter)
}

func TestAFloodOfDeadLettersIsNoFloodOfCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		store := &slowCount{Store: dlq.NewMemory(dlq.MemoryConfig{}), began: make(chan struct{}), proceed: make(chan struct{})}
		collector := metrics.NewCollector(metrics.CollectorConfig{})
		manager := dlq.NewManager(store, nil, dlq.Config{Metrics: collector})
		all, _ := letters(50)
		var group sync.WaitGroup
		for i := range all {
			group.Go(func() { assert.NoError(t, manager.DeadLetter(ctx, all[i])) })
		}
		<-store.began
		synctest.Wait() // the others are stored; one waits to count, the rest is done
		close(store.proceed)
		<-store.began
		group.Wait()
		assert.Equal(t, int32(2), store.counts.Load())
		assert.InDelta(t, 50, gauge(t, collector), 0)
	})
}

func TestACounterThatGivesUpWaitingHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &slowCount{Store: dlq.NewMemory(dlq.MemoryConfig{}), began: make(chan struct{}), proceed: make(chan struct{})}
		collector := metrics.NewCollector(metrics.CollectorConfig{})
		manager := dlq.NewManager(store, nil, dlq.Config{Metrics: collector})
		var group sync.WaitGroup
		group.Go(func() { assert.NoError(t, manager.DeadLetter(context.Background(), letter("a"))) })
		<-store.began
		short, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		require.NoError(t, manager.DeadLetter(short, letter("b")), "it is stored, whether counted or not")
		close(store.proceed)
		group.Wait()
		group.Go(func() { <-store.began })
		require.NoError(t, manager.DeadLetter(context.Background(), letter("c")))
		group.Wait()
		assert.InDelta(t, 3, gauge(t, collector), 0)
	})
}
