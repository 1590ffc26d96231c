package delivery_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/metrics"
)

const retention = 30 * 24 * time.Hour

// ended is a record of a message that ended at the time given.
func ended(id string, status delivery.Status, at time.Time) delivery.Record {
	record := stored(id, status, time.Time{})
	record.UpdatedAt = at
	return record
}

func (f *fixture) kept() int {
	f.t.Helper()
	stats, err := f.records.Stats(context.Background(), "")
	require.NoError(f.t, err)
	return stats.Total
}

func (f *fixture) counted(name string, labels ...string) int {
	value, _ := f.collector.Value(name, labels...)
	return int(value)
}

// Records of messages that ended are deleted after the retention, a day is early
// enough to be seen, and nothing else is.
func TestRecordsArePurged(t *testing.T) {
	for name, test := range map[string]struct {
		retention time.Duration
		lives     time.Duration // of what ended
	}{
		"by default": {0, retention},
		"sooner":     {time.Hour, time.Hour},
		"never":      {-1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				soon := 10 * time.Minute // until they have been kept for long enough
				begin := time.Now().Add(soon - max(test.lives, retention))
				purged := 0
				for _, status := range delivery.Statuses() {
					f.save(ended(string(status), status, begin))
					if status.Final() || status == delivery.StatusFailed {
						purged++
					}
				}
				other := ended("another queue's", delivery.StatusDelivered, begin)
				other.Queue = "another"
				f.save(other)
				config := f.workerConfig()
				config.RecordRetention = test.retention
				stop := f.work(config)
				wait(soon - time.Minute)
				if test.lives == retention {
					assert.Equal(t, 10, f.kept())
				}
				wait(soon)
				stop()
				if test.lives == 0 {
					assert.Equal(t, 10, f.kept())
					return
				}
				assert.Equal(t, 10-purged, f.kept())
				assert.Equal(t, purged, f.counted(metrics.RecordsPurgedTotal, metrics.LabelQueue, "memory"))
				assert.Equal(t, 1, f.log.count("records purged"))
				for _, id := range []string{"pending", "queued", "retrying", "sent", "another queue's"} {
					f.get(id)
				}
			})
		})
	}
}

// A backlog of a million records is deleted a batch at a time, by several workers at
// once, while what is due goes out.
func TestPurgingHoldsUpNothing(t *testing.T) {
	bubble(t, func(f *fixture) {
		const backlog = 20_000
		old := time.Now().Add(-retention - time.Hour)
		for i := range backlog {
			f.save(ended(fmt.Sprint("old-", i), delivery.StatusDelivered, old))
		}
		f.records.onPurge = func() { <-time.After(time.Second) } // a slow store
		stop, other := f.work(f.workerConfig()), f.work(f.workerConfig())
		for i := range 100 {
			id := fmt.Sprint("due-", i)
			f.save(stored(id, delivery.StatusRetrying, time.Now()))
			wait(2 * time.Second)
			require.Equal(t, 1, f.outlet.sent()[id], id)
		}
		wait(10 * time.Minute)
		stop()
		other()
		assert.Equal(t, 100, f.kept())
		assert.Equal(t, backlog, f.counted(metrics.RecordsPurgedTotal, metrics.LabelQueue, "memory"))
		assert.LessOrEqual(t, f.records.mostPurged.Load(), int64(1000), "in one call")
	})
}

// A store that is away for the purge is told of once, and the purge goes on later.
func TestPurgeThatFails(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.save(ended("old", delivery.StatusDelivered, time.Now().Add(-retention-time.Hour)))
		var down atomic.Bool
		down.Store(true)
		f.records.fail = func(operation string) error {
			if operation == "purge" && down.Load() {
				return delivery.ErrStoreDown
			}
			return nil
		}
		stop := f.work(f.workerConfig())
		defer stop()
		wait(time.Hour)
		assert.Equal(t, 1, f.log.count("records not purged"))
		assert.True(t, f.up("store"), "deliveries go on")
		down.Store(false)
		wait(5 * time.Minute)
		assert.Zero(t, f.kept())
	})
}

// RunOnce purges, too, and ends though a purge never does.
func TestRunOncePurges(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.save(ended("old", delivery.StatusDelivered, time.Now().Add(-retention-time.Hour)))
		require.NoError(t, f.workOnce(f.workerConfig()))
		assert.Zero(t, f.kept())
		f.records.fail = func(operation string) error {
			if operation == "purge" {
				return delivery.ErrStoreDown
			}
			return nil
		}
		require.NoError(t, f.workOnce(f.workerConfig()))
	})
}

// A message that was purged is a new one. A purged dead-lettered one can still be
// requeued.
func TestAfterThePurge(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.outboxed(delivery.PublisherConfig{})
		letters := dlq.NewMemory(dlq.MemoryConfig{})
		manager := dlq.NewManager(letters, f.publisher, dlq.Config{})
		failed := ended("failed", delivery.StatusFailed, time.Now().Add(-retention-time.Hour))
		f.save(ended("done", delivery.StatusDelivered, failed.UpdatedAt), failed)
		letter := delivery.DeadLetter{ID: "letter", Envelope: failed.Envelope(), Reason: delivery.ReasonPermanent, At: failed.UpdatedAt}
		require.NoError(t, manager.DeadLetter(context.Background(), letter))
		config := f.workerConfig()
		config.DeadLetters = manager
		require.NoError(t, f.newWorker(f.records, f.transport, config).RunOnce(context.Background()))
		assert.Zero(t, f.kept())
		f.publish(to("done"))
		_, err := manager.Requeue(context.Background(), "letter")
		require.NoError(t, err)
		require.NoError(t, f.publisher.Close(context.Background()))
		assert.EqualValues(t, 2, f.waiting())
		assert.Equal(t, 1, f.get("failed").Generation)
	})
}

// Dead letters are deleted where the host says so, and are kept for ever by default.
func TestDeadLettersArePurged(t *testing.T) {
	for name, test := range map[string]struct {
		retention time.Duration
		kept      int
	}{"by default": {0, 2}, "after a day": {24 * time.Hour, 1}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				manager := dlq.NewManager(dlq.NewMemory(dlq.MemoryConfig{}), nil, dlq.Config{})
				for id, age := range map[string]time.Duration{"old": 365 * 24 * time.Hour, "new": time.Hour} {
					letter := delivery.DeadLetter{ID: id, Envelope: delivery.Envelope{Message: to(id)}, Reason: delivery.ReasonPermanent, At: time.Now().Add(-age)}
					require.NoError(t, manager.DeadLetter(context.Background(), letter))
				}
				config := f.workerConfig()
				config.DeadLetters, config.DeadLetterRetention = manager, test.retention
				stop := f.work(config)
				wait(10 * time.Minute)
				stop()
				stats, err := manager.Stats(context.Background())
				require.NoError(t, err)
				assert.Equal(t, test.kept, stats.Total)
				assert.Equal(t, 2-test.kept, f.counted(metrics.DeadLettersPurgedTotal))
			})
		})
	}
}

func TestRetentionFaults(t *testing.T) {
	bubble(t, func(f *fixture) {
		for fault, change := range map[string]func(*delivery.RetryWorkerConfig){
			"RecordRetention is 1s, want at least 1m0s":         func(c *delivery.RetryWorkerConfig) { c.RecordRetention = time.Second },
			"DeadLetterRetention is -1s, want at least 1m0s":    func(c *delivery.RetryWorkerConfig) { c.DeadLetterRetention = -time.Second },
			"DeadLetterRetention is set, but DeadLetters is no": func(c *delivery.RetryWorkerConfig) { c.DeadLetterRetention = time.Hour },
		} {
			config := f.workerConfig()
			change(&config)
			_, err := delivery.NewRetryWorker(f.records, f.outlet, config)
			require.ErrorIs(t, err, delivery.ErrConfig)
			require.ErrorContains(t, err, fault)
		}
	})
}
