package delivery_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/retry"
)

// backlog saves n retries that are due.
func (f *fixture) backlog(n int) {
	f.t.Helper()
	for i := range n {
		f.save(stored(fmt.Sprint("m-", i), delivery.StatusRetrying, time.Now()))
	}
}

// sentBetween asserts that each of n was sent from least to most times, and is
// queued.
func (f *fixture) sentBetween(n, least, most int) (copies int) {
	f.t.Helper()
	sent := f.outlet.sent()
	require.Len(f.t, sent, n)
	for id, times := range sent {
		require.GreaterOrEqual(f.t, times, least, id)
		require.LessOrEqual(f.t, times, most, id)
		require.Equal(f.t, delivery.StatusQueued, f.get(id).Status, id)
		copies += times - 1
	}
	return copies
}

func TestWorkerOutlivesTheStore(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.workerConfig()
		config.BatchSize = 10
		f.records.down.Store(true)
		defer f.work(config)()
		f.backlog(95)
		wait(time.Hour)
		require.Empty(f.t, f.outlet.sent())
		require.Less(f.t, f.records.calls.Load(), int64(400), "in an hour")
		require.Equal(f.t, 1, f.log.count("dependency is down"))
		require.False(f.t, f.up("store"))
		f.records.down.Store(false)
		wait(31 * time.Second)
		f.sentBetween(95, 1, 1)
		require.Equal(f.t, 1, f.log.count("dependency is back"))
		require.True(f.t, f.up("store"))
	})
}

// One queue of the transport is full: its messages come again when their claims
// end, and those of others need not wait for that.
func TestAFullQueueHoldsUpNoOther(t *testing.T) {
	for _, refusal := range []error{delivery.ErrRefused, delivery.ErrUnroutable} {
		bubble(t, func(f *fixture) {
			config := f.workerConfig()
			config.BatchSize = 10
			f.backlog(95)
			f.outlet.onSend(func(_ context.Context, batch []delivery.Envelope) []error {
				errs := make([]error, len(batch))
				for i := range batch {
					if batch[i].Priority == delivery.Normal {
						errs[i] = refusal
					}
				}
				return errs
			})
			defer f.work(config)()
			for i := range 5 {
				wait(time.Minute)
				urgent := stored(fmt.Sprint("urgent-", i), delivery.StatusRetrying, time.Now())
				urgent.Priority = delivery.Urgent
				f.save(urgent)
				wait(time.Second)
				require.Equal(t, delivery.StatusQueued, f.get(urgent.ID).Status, "after a second")
			}
			require.True(t, f.up("transport"))
			require.Less(t, f.outlet.calls(), 6*(10+1)+5, "each once in a lease")
			f.outlet.onSend(nil)
			wait(time.Minute)
			f.sentBetween(95+5, 1, 1)
		})
	}
}

func TestWorkerOutlivesTheTransport(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.workerConfig()
		config.BatchSize = 10
		f.backlog(95)
		f.save(stored("overdue", delivery.StatusSent, time.Now().Add(30*time.Minute)))
		f.outlet.onSend(refusing(errDown))
		defer f.work(config)()
		wait(time.Hour)
		require.Empty(f.t, f.outlet.sent())
		require.Less(f.t, f.outlet.calls(), 400, "in an hour")
		require.Less(f.t, f.records.calls.Load(), int64(4000), "in an hour")
		require.Equal(f.t, 1, f.log.count("dependency is down"))
		require.False(f.t, f.up("transport"))
		require.Equal(f.t, 1, f.ackTimeouts(), "other tasks go on")
		f.outlet.onSend(nil)
		wait(91 * time.Second) // a backoff and a lease
		f.sentBetween(96, 1, 1)
		require.Equal(f.t, 1, f.log.count("dependency is back"))
		require.True(f.t, f.up("transport"))
	})
}

func TestWorkerOutlivesTheDeadLetters(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.workerConfig()
		config.Retry, config.BatchSize = nil, 10
		for i := range 95 {
			f.save(stored(fmt.Sprint("overdue-", i), delivery.StatusSent, time.Now()))
		}
		f.sink.down.Store(true)
		defer f.work(config)()
		wait(time.Minute)
		f.save(stored("retry", delivery.StatusRetrying, time.Now()))
		wait(time.Hour)
		require.Less(f.t, f.sink.puts.Load(), int64(400), "in an hour")
		require.Equal(f.t, 1, f.log.count("dependency is down"))
		require.False(f.t, f.up("dead_letters"))
		require.Zero(f.t, f.ackTimeouts())
		require.Equal(f.t, delivery.StatusQueued, f.get("retry").Status, "other tasks go on")
		f.sink.down.Store(false)
		wait(91 * time.Second)
		require.Len(f.t, f.sink.all(), 95)
		require.Equal(f.t, 95, f.ackTimeouts())
		require.Equal(f.t, 1, f.log.count("dependency is back"))
	})
}

// A store that is gone for a moment between the two costs no copy, and nothing is
// counted twice.
func TestAnUpdateIsTriedAgainWhileTheLeaseLasts(t *testing.T) {
	for fault, breaks := range map[string]func(*faultyRecords){
		"not done":               func(s *faultyRecords) { s.fail = once("update", delivery.ErrStoreDown) },
		"done, not told":         func(s *faultyRecords) { s.lost = once("update", delivery.ErrStoreDown) },
		"done, not told in time": func(s *faultyRecords) { s.lost = once("update", context.DeadlineExceeded) },
		"away": func(s *faultyRecords) {
			fail := once("update", delivery.ErrStoreDown)
			s.fail = func(operation string) error {
				err := fail(operation)
				if err != nil {
					s.down.Store(true)
					time.AfterFunc(20*time.Second, func() { s.down.Store(false) })
				}
				return err
			}
		},
	} {
		for name, test := range map[string]struct {
			record delivery.Status
			policy retry.Policy
			want   delivery.Status
		}{
			"sent":     {delivery.StatusRetrying, nil, delivery.StatusQueued},
			"overdue":  {delivery.StatusSent, retry.Exponential{Base: time.Hour, Max: time.Hour}, delivery.StatusRetrying},
			"given up": {delivery.StatusSent, nil, delivery.StatusFailed},
		} {
			t.Run(fault+", "+name, func(t *testing.T) {
				bubble(t, func(f *fixture) {
					f.save(stored("a", test.record, time.Now()), stored("b", test.record, time.Now()))
					config := f.workerConfig()
					config.Retry = test.policy
					breaks(f.records)
					stop := f.work(config)
					wait(59 * time.Second)
					stop()
					require.Equal(f.t, test.want, f.get("a").Status)
					require.Equal(f.t, test.want, f.get("b").Status)
					switch test.record {
					case delivery.StatusRetrying:
						f.sentBetween(2, 1, 1)
					default:
						require.Equal(f.t, 2, f.ackTimeouts())
						require.LessOrEqual(f.t, f.sink.puts.Load(), int64(1))
					}
				})
			})
		}
	}
}
