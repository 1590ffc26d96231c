package delivery_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/metrics"
)

// What waits in the store is told by status and priority, with 0 for what waits no
// longer, and not at all before it is known.
func TestRecordsThatWaitAreCounted(t *testing.T) {
	bubble(t, func(f *fixture) {
		count := func(status delivery.Status, priority delivery.Priority) (float64, bool) {
			return f.collector.Value(metrics.Records, metrics.LabelQueue, "memory",
				metrics.LabelStatus, string(status), metrics.LabelPriority, priority.String())
		}
		for i, priority := range []delivery.Priority{delivery.Low, delivery.Urgent, delivery.Urgent} {
			record := stored(delivery.NewID(), delivery.StatusRetrying, time.Now().Add(time.Duration(i+1)*time.Hour))
			record.Priority = priority
			other := record
			other.ID, other.Queue = delivery.NewID(), "other"
			f.save(record, other)
		}
		f.save(stored("done", delivery.StatusDelivered, time.Time{}))
		f.records.fail = once("stats", delivery.ErrStoreDown)
		stop := f.work(f.workerConfig())
		defer stop()
		wait(time.Second)
		_, known := count(delivery.StatusRetrying, delivery.Low)
		assert.False(t, known)
		assert.Equal(t, 1, f.log.count("records not counted"))
		wait(20 * time.Second)
		for priority, want := range map[delivery.Priority]float64{delivery.Low: 1, delivery.Normal: 0, delivery.High: 0, delivery.Urgent: 2} {
			got, known := count(delivery.StatusRetrying, priority)
			assert.True(t, known)
			assert.InDelta(t, want, got, 0, priority.String())
		}
		_, known = count(delivery.StatusDelivered, delivery.Normal)
		assert.False(t, known, "what does not wait")
		wait(3 * time.Hour)
		got, _ := count(delivery.StatusRetrying, delivery.Urgent)
		assert.Zero(t, got)
	})
}

// A store that takes long to count is asked less often.
func TestCountingTakesASmallPartOfTheTime(t *testing.T) {
	bubble(t, func(f *fixture) {
		counts := 0
		f.records.lost = func(operation string) error {
			if operation == "stats" {
				counts++
				<-time.After(5 * time.Second)
			}
			return nil
		}
		stop := f.work(f.workerConfig())
		wait(time.Hour)
		stop()
		assert.LessOrEqual(t, counts, 36)
		assert.Greater(t, counts, 30)
	})
}

// The gauge of a store tells that it is down, and back, though nobody asks it, and
// before a worker would.
func TestAStoreThatNobodyAsksIsWatched(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.workerConfig()
		config.ScanInterval = time.Hour
		config.Metrics = f.collector
		stop := f.work(config)
		defer stop()
		wait(time.Minute)
		require.True(t, f.up("store"))
		f.records.down.Store(true)
		wait(20 * time.Second)
		assert.False(t, f.up("store"))
		wait(10 * time.Minute)
		f.records.down.Store(false)
		wait(40 * time.Second)
		assert.True(t, f.up("store"))
		assert.Equal(t, 1, f.log.count("dependency is down"))
		assert.Equal(t, 1, f.log.count("dependency is back"))
	})
}

// pingableLetters is a store of dead letters that can be asked whether it is there.
type pingableLetters struct {
	*deadLetters
	down atomic.Bool
}

func (p *pingableLetters) Ping(context.Context) error {
	if p.down.Load() {
		return errDown
	}
	return nil
}

func TestDeadLettersThatNobodyAsksForAreWatched(t *testing.T) {
	bubble(t, func(f *fixture) {
		letters := &pingableLetters{deadLetters: f.sink}
		config := f.workerConfig()
		config.DeadLetters = letters
		stop := f.work(config)
		defer stop()
		wait(time.Minute)
		require.True(t, f.up("dead_letters"))
		letters.down.Store(true)
		wait(20 * time.Second)
		assert.False(t, f.up("dead_letters"))
		letters.down.Store(false)
		wait(time.Minute)
		assert.True(t, f.up("dead_letters"))
	})
}

// pingable is an idempotency store that can be asked whether it is there.
type pingable struct {
	idempotency.Store
	down atomic.Bool
}

func (p *pingable) Ping(context.Context) error {
	if p.down.Load() {
		return errDown
	}
	return nil
}

func TestAConsumersKeysAreWatched(t *testing.T) {
	bubble(t, func(f *fixture) {
		keys := &pingable{Store: f.store}
		config := f.config()
		config.Idempotency = &tracedKeys{Store: keys}
		_, stop := f.consume(fine, config)
		wait(20 * time.Second)
		assert.True(t, f.up("idempotency"), "known before the first message")
		keys.down.Store(true)
		wait(20 * time.Second)
		assert.False(t, f.up("idempotency"))
		keys.down.Store(false)
		wait(20 * time.Second)
		assert.True(t, f.up("idempotency"))
		require.NoError(t, stop())
	})
}

// What fails though it answers pings is not said to be back by those.
func TestAPingDoesNotHideFailures(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.records.fail = func(operation string) error {
			if operation == "claim" {
				return delivery.ErrStoreDown
			}
			return nil
		}
		stop := f.work(f.workerConfig())
		wait(10 * time.Minute)
		stop()
		assert.False(t, f.up("store"))
		assert.Equal(t, 1, f.log.count("dependency is down"))
		assert.Zero(t, f.log.count("dependency is back"))
	})
}
