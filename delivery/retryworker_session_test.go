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

// patrolled runs a worker beside the fixture's publisher, on the same transport.
func (f *fixture) patrolled(records delivery.Store, config delivery.RetryWorkerConfig) (end func()) {
	f.t.Helper()
	config.DeadLetters = f.sink
	worker, err := delivery.NewRetryWorker(records, f.transport, config)
	require.NoError(f.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- worker.Run(ctx) }()
	return func() {
		cancel()
		require.NoError(f.t, <-done)
		require.NoError(f.t, f.publisher.Close(context.Background()))
	}
}

func (f *fixture) waiting() int64 {
	f.t.Helper()
	depths, err := f.transport.Depth(context.Background())
	require.NoError(f.t, err)
	return depths[delivery.Normal].Messages
}

// The process's worker keeps the claims on what is in its transport, and not on
// what its publisher never got to send.
func TestUnsentIsNotTakenForWaiting(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		end := f.patrolled(records, delivery.RetryWorkerConfig{})
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
				end := f.patrolled(records, delivery.RetryWorkerConfig{Lease: test.lease})
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

// A mark that could not be written for long does not make a message due that
// waits here.
func TestALateMarkHoldsWhatWaits(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{PendingGrace: time.Hour})
		end := f.patrolled(records, delivery.RetryWorkerConfig{})
		var down atomic.Bool
		down.Store(true)
		refuseMarks(records, &down)
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
