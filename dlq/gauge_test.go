package dlq_test

import (
	"context"
	"errors"
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

// gaugeSoon is the gauge after the next count.
func gaugeSoon(t *testing.T, collector *metrics.Collector) float64 {
	t.Helper()
	wait(5 * time.Second)
	return gauge(t, collector)
}

// After a restart there are dead letters that nobody puts or touches.
func TestTheGaugeIsKnownAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &slowCount{Store: filled(t, 7), proceed: make(chan struct{})}
		collector := metrics.NewCollector(metrics.CollectorConfig{})
		dlq.NewManager(store, nil, dlq.Config{Metrics: collector})
		synctest.Wait()
		_, known := collector.Value(metrics.DeadLetters)
		assert.False(t, known, "unknown is not 0")
		close(store.proceed)
		synctest.Wait()
		assert.InDelta(t, 7, gauge(t, collector), 0)
	})
}

func TestStatsLearnsOfChangesMadeElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &broken{Store: dlq.NewMemory(dlq.MemoryConfig{}), count: errors.New("down")}
		collector := metrics.NewCollector(metrics.CollectorConfig{})
		manager := dlq.NewManager(store, nil, dlq.Config{Metrics: collector})
		all, _ := letters(3)
		require.NoError(t, dlq.NewManager(store, nil, dlq.Config{}).DeadLetter(t.Context(), all...))
		stats, err := manager.Stats(t.Context())
		require.NoError(t, err)
		assert.Equal(t, dlq.Stats{
			Total: 3, Oldest: noon, ByReason: map[delivery.Reason]int{"exhausted": 3}, ByType: map[string]int{"sms": 3},
			Fingerprints: []dlq.FingerprintCount{{Fingerprint: dlq.Fingerprint("secret-error 2"), Count: 3, Example: "secret-error 2"}},
		}, stats)
		assert.InDelta(t, 3, gauge(t, collector), 0)
	})
}

func TestRunJobsLearnsOfChangesMadeElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &slowCount{Store: dlq.NewMemory(dlq.MemoryConfig{}), proceed: make(chan struct{})}
		close(store.proceed)
		collector := metrics.NewCollector(metrics.CollectorConfig{})
		jobs := struct {
			dlq.Store
			dlq.JobStore
		}{store, dlq.NewMemory(dlq.MemoryConfig{})}
		defer running(t, dlq.NewManager(jobs, &sender{}, dlq.Config{Metrics: collector}))()
		all, _ := letters(3)
		require.NoError(t, dlq.NewManager(store, nil, dlq.Config{}).DeadLetter(t.Context(), all...))
		wait(time.Minute)
		assert.InDelta(t, 3, gaugeSoon(t, collector), 0)
		wait(time.Hour)
		assert.LessOrEqual(t, store.counts.Load(), int32(62))
	})
}

func TestNobodyCountsWhatNobodyLooksAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &broken{Store: dlq.NewMemory(dlq.MemoryConfig{})}
		for _, recorder := range []metrics.Recorder{nil, metrics.Discard} {
			manager := dlq.NewManager(store, nil, dlq.Config{Metrics: recorder})
			require.NoError(t, manager.DeadLetter(t.Context(), letter("a")))
			_, err := manager.Stats(t.Context())
			require.NoError(t, err)
		}
		wait(time.Minute)
		assert.Zero(t, store.counts.Load())
	})
}

// A count that fails is told of, and made anew after the next change.
func TestACountThatFailsIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events log
		store := &slowCount{Store: dlq.NewMemory(dlq.MemoryConfig{}), proceed: make(chan struct{})}
		close(store.proceed)
		down := errors.New("down")
		store.fail.Store(&down)
		collector := metrics.NewCollector(metrics.CollectorConfig{})
		manager := dlq.NewManager(store, nil, dlq.Config{Metrics: collector, Logger: events.logger()})
		wait(time.Hour)
		assert.Equal(t, []map[string]any{{"level": "WARN", "msg": "dead letters not counted", "error": "down"}}, events.events(t))
		store.fail.Store(nil)
		require.NoError(t, manager.DeadLetter(t.Context(), letter("a")))
		assert.InDelta(t, 1, gaugeSoon(t, collector), 0)
	})
}

func TestACountThatPanicsEndsNoProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events log
		collector := metrics.NewCollector(metrics.CollectorConfig{})
		dlq.NewManager(panicking{}, nil, dlq.Config{Metrics: collector, Logger: events.logger()})
		synctest.Wait()
		assert.Equal(t, "dlq: store panicked: no", events.events(t)[0]["error"])
	})
}

type panicking struct{ dlq.Store }

func (panicking) Count(context.Context, dlq.Filter) (int, error) { panic("no") }

// slowCount lets a count go on only when the test says so.
type slowCount struct {
	dlq.Store
	proceed chan struct{}
	counts  atomic.Int32
	fail    atomic.Pointer[error]
}

func (s *slowCount) Count(ctx context.Context, filter dlq.Filter) (int, error) {
	s.counts.Add(1)
	select {
	case <-s.proceed:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if err := s.fail.Load(); err != nil {
		return 0, *err
	}
	return s.Store.Count(ctx, filter)
}

func TestAFloodOfDeadLettersIsNoFloodOfCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &slowCount{Store: dlq.NewMemory(dlq.MemoryConfig{}), proceed: make(chan struct{})}
		close(store.proceed)
		collector := metrics.NewCollector(metrics.CollectorConfig{})
		manager := dlq.NewManager(store, nil, dlq.Config{Metrics: collector})
		all, _ := letters(600)
		for i := range all {
			require.NoError(t, manager.DeadLetter(t.Context(), all[i]))
			wait(100 * time.Millisecond)
		}
		assert.InDelta(t, 600, gaugeSoon(t, collector), 0)
		assert.InDelta(t, 12, store.counts.Load(), 2, "one in 5 s")
		wait(time.Hour)
		assert.InDelta(t, 12, store.counts.Load(), 2, "nothing has changed")
	})
}

// Nobody waits for a count, and what changes meanwhile is counted afterwards.
func TestACountThatHangsHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &slowCount{Store: dlq.NewMemory(dlq.MemoryConfig{}), proceed: make(chan struct{})}
		collector := metrics.NewCollector(metrics.CollectorConfig{})
		manager := dlq.NewManager(store, nil, dlq.Config{Metrics: collector})
		synctest.Wait()
		require.Equal(t, int32(1), store.counts.Load())
		begin := time.Now()
		require.NoError(t, manager.DeadLetter(t.Context(), letter("a"), letter("b")))
		_, err := manager.Delete(t.Context(), "a")
		require.NoError(t, err)
		assert.Equal(t, begin, time.Now())
		close(store.proceed)
		assert.InDelta(t, 1, gaugeSoon(t, collector), 0)
		assert.Equal(t, int32(2), store.counts.Load())
	})
}

// stuck is a recorder whose gauges hang.
type stuck struct {
	metrics.Recorder
	setting, proceed chan struct{}
}

func (s *stuck) Gauge(string, ...string) metrics.Gauge { return s }

func (s *stuck) Set(float64) {
	s.setting <- struct{}{}
	<-s.proceed
}

// A recorder that hangs while it is told the number of entries holds up no letter.
func TestAGaugeThatHangsHoldsNobodyUp(t *testing.T) {
	recorder := &stuck{Recorder: metrics.Discard, setting: make(chan struct{}, 2), proceed: make(chan struct{})}
	manager := dlq.NewManager(dlq.NewMemory(dlq.MemoryConfig{}), nil, dlq.Config{Metrics: recorder})
	<-recorder.setting
	stored := make(chan error, 1)
	go func() { stored <- manager.DeadLetter(context.Background(), letter("a")) }()
	var err error
	select {
	case err = <-stored:
	case <-time.After(10 * time.Second):
		assert.Fail(t, "the letter waits for the gauge")
	}
	close(recorder.proceed)
	require.NoError(t, err)
}
