package delivery_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

// workBesidePublisher runs a worker on the transport of the fixture's publisher.
// The returned function ends both.
func (f *fixture) workBesidePublisher(config delivery.RetryWorkerConfig) (end func()) {
	f.t.Helper()
	config.DeadLetters = f.sink
	stop := f.run(f.newWorker(f.records, f.transport, config))
	return func() {
		stop()
		require.NoError(f.t, f.publisher.Close(context.Background()))
	}
}

// The process's worker keeps the claims on what is in its transport, and not on
// what its publisher never got to send.
func TestUnsentIsNotTakenForWaiting(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		end := f.workBesidePublisher(delivery.RetryWorkerConfig{})
		_, err := f.publisher.PublishIn(f.t.Context(), records, to("never told to be committed"))
		require.NoError(t, err)
		f.transport.down.Store(true)
		f.publish(to("not taken by the transport"))
		wait(10 * time.Second)
		f.transport.down.Store(false)
		wait(40 * time.Second)
		assert.Zero(t, f.waiting(), "it is the publisher's for its grace")
		wait(time.Minute)
		assert.EqualValues(t, 2, f.waiting())
		for _, id := range []string{"never told to be committed", "not taken by the transport"} {
			record := records.record(t, id)
			assert.Equal(t, delivery.StatusQueued, record.Status)
			assert.Equal(t, f.transport.Session(), record.ClaimedBy)
		}
		end()
	})
}

// Whatever grace and lease are, what waits in the transport is not taken for what
// a dead process left.
func TestWaitingIsNotSentAgain(t *testing.T) {
	for name, test := range map[string]struct{ grace, lease time.Duration }{
		"defaults":                    {0, 0},
		"short grace":                 {time.Second, 0},
		"short grace and long lease":  {time.Second, time.Hour},
		"long grace and short lease":  {time.Hour, time.Second},
		"short grace and short lease": {time.Second, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				records := f.outboxed(delivery.PublisherConfig{PendingGrace: test.grace})
				end := f.workBesidePublisher(delivery.RetryWorkerConfig{Lease: test.lease})
				wait(10 * time.Second)
				f.publish(to("a"))
				wait(3 * time.Hour)
				assert.EqualValues(t, 1, f.waiting())
				assert.Equal(t, delivery.StatusQueued, records.status(t, "a"))
				end()
			})
		})
	}
}

// What the publisher has put into the transport is found by others a minute after
// the process died, whatever its grace.
func TestQueuedIsHeldForAMinute(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{PendingGrace: time.Hour})
		f.publish(to("a"))
		wait(2 * time.Second)
		record := records.record(t, "a")
		assert.Equal(t, delivery.StatusQueued, record.Status)
		assert.Equal(t, f.transport.Session(), record.ClaimedBy)
		assert.WithinRange(t, record.DueAt, time.Now().Add(50*time.Second), time.Now().Add(time.Minute))
		require.NoError(t, f.publisher.Close(f.t.Context()))
	})
}

// A confirmation that could not be recorded for long does not make a message due
// that waits here.
func TestALateConfirmationHoldsWhatWaits(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{PendingGrace: time.Hour})
		var down atomic.Bool
		down.Store(true)
		refuseConfirmations(records, &down)
		end := f.workBesidePublisher(delivery.RetryWorkerConfig{})
		f.publish(to("a"))
		wait(5 * time.Minute)
		down.Store(false)
		wait(10 * time.Minute)
		assert.EqualValues(t, 1, f.waiting())
		assert.Equal(t, delivery.StatusQueued, records.status(t, "a"))
		end()
	})
}

// A message that waits for its NotBefore in the transport is no orphan meanwhile.
func TestScheduledWithoutARetryWorkerIsHeld(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.recordsOnly()
		later := to("a")
		later.NotBefore = time.Now().Add(time.Hour)
		f.publish(later)
		assert.Equal(t, later.NotBefore.Add(time.Minute).UTC(), records.record(t, "a").DueAt)
	})
}

func TestVolatileTransportsClaimsAreKept(t *testing.T) {
	bubble(t, func(f *fixture) {
		mine := stored("mine", delivery.StatusQueued, time.Now().Add(time.Minute))
		mine.ClaimedBy = "now"
		orphan := stored("orphan", delivery.StatusQueued, time.Now())
		orphan.ClaimedBy = "before"
		f.save(mine, orphan, stored("retry", delivery.StatusRetrying, time.Now()))
		stop := f.run(f.newWorker(f.records, &volatileOutlet{f.outlet, "now"}, f.workerConfig()))
		wait(0)
		other := f.run(f.newWorker(f.records, &volatileOutlet{&sendOnly{}, "another"}, f.workerConfig()))
		for range 10 {
			wait(time.Minute)
			for _, id := range []string{"mine", "orphan", "retry"} {
				record := f.get(id)
				require.Equal(f.t, delivery.StatusQueued, record.Status, id)
				require.Equal(f.t, "now", record.ClaimedBy, id)
				require.True(f.t, record.DueAt.After(time.Now().Add(30*time.Second)), id)
			}
		}
		require.Equal(f.t, map[string]int{"orphan": 1, "retry": 1}, f.outlet.sent())

		// The store is away for so long that the claims end. They are renewed
		// before anybody looks for orphans. Another process would be faster.
		other()
		f.records.down.Store(true)
		wait(time.Hour)
		f.records.down.Store(false)
		wait(2 * time.Minute)
		require.Equal(f.t, map[string]int{"orphan": 1, "retry": 1}, f.outlet.sent())

		// Others go on at once when it ends.
		stop()
		for _, id := range []string{"mine", "orphan", "retry"} {
			require.False(f.t, f.get(id).DueAt.After(time.Now()), id)
		}
		require.NoError(f.t, f.newWorker(f.records, &volatileOutlet{f.outlet, "later"}, f.workerConfig()).RunOnce(context.Background()))
		require.Equal(f.t, map[string]int{"mine": 1, "orphan": 2, "retry": 2}, f.outlet.sent())
		require.Equal(f.t, "later", f.get("mine").ClaimedBy)
	})
}

// Claims of this process that ended, because nobody could renew them, are renewed
// before anybody looks for orphans.
func TestLapsedClaimsAreRenewedFirst(t *testing.T) {
	bubble(t, func(f *fixture) {
		mine, orphan := stored("mine", delivery.StatusQueued, time.Now()), stored("orphan", delivery.StatusQueued, time.Now())
		mine.ClaimedBy, orphan.ClaimedBy = "now", "before"
		f.save(mine, orphan)
		wait(time.Hour)
		worker := f.newWorker(f.records, &volatileOutlet{f.outlet, "now"}, f.workerConfig())
		f.records.fail = once("renew", delivery.ErrStoreDown)
		require.ErrorIs(f.t, worker.RunOnce(context.Background()), delivery.ErrStoreDown)
		require.Empty(f.t, f.outlet.sent(), "who could be an orphan is not known")
		require.NoError(f.t, worker.RunOnce(context.Background()))
		require.Equal(f.t, map[string]int{"orphan": 1}, f.outlet.sent())
		require.Equal(f.t, time.Now().Add(time.Minute).UTC(), f.get("mine").DueAt)
	})
}

func TestAnOrphanThatCanNotBeSentStaysAnOrphan(t *testing.T) {
	bubble(t, func(f *fixture) {
		orphan := stored("m", delivery.StatusQueued, time.Now())
		orphan.ClaimedBy = "before"
		f.save(orphan)
		f.outlet.onSend(refusing(delivery.ErrRefused))
		defer f.run(f.newWorker(f.records, &volatileOutlet{f.outlet, "now"}, f.workerConfig()))()
		wait(5 * time.Minute)
		f.outlet.onSend(nil)
		wait(2 * time.Minute)
		require.Equal(f.t, map[string]int{"m": 1}, f.outlet.sent())
		require.Equal(f.t, "now", f.get("m").ClaimedBy)
	})
}
