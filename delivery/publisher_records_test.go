package delivery_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

// What was cancelled keeps no other message with its key from being sent, and still
// only one is.
func TestACancelledMessageLeavesItsKey(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{Idempotency: f.store})
		ctx := f.t.Context()
		reminder := func(id string) delivery.Message {
			return delivery.Message{ID: id, IdempotencyKey: "reminder-9", Recipient: "r", NotBefore: time.Now().Add(time.Hour)}
		}
		duplicateOf := func(id string, err error) {
			f.t.Helper()
			var duplicate *delivery.DuplicateError
			require.ErrorAs(t, err, &duplicate)
			require.Equal(t, id, duplicate.Of)
		}
		for i := range 3 {
			id, other := fmt.Sprint("v", i), fmt.Sprint("other", i)
			require.NoError(t, f.publisher.Publish(ctx, reminder(id)))
			duplicateOf(id, f.publisher.Publish(ctx, reminder(other)))
			require.NoError(t, f.publisher.Cancel(ctx, id))
			duplicateOf(id, f.publisher.Publish(ctx, reminder(id)))
		}
		f.publish(to("own"))
		records.getDown.Store(true)
		duplicateOf("own", f.publisher.Publish(ctx, to("own"))) // which needs no look-up
		require.ErrorIs(t, f.publisher.Publish(ctx, reminder("w")), delivery.ErrStoreDown)
		records.getDown.Store(false)

		errs := make([]error, 8)
		var publishers sync.WaitGroup
		for i := range errs {
			publishers.Go(func() { errs[i] = f.publisher.Publish(ctx, reminder(fmt.Sprint("w", i))) })
		}
		publishers.Wait()
		published := 0
		for _, err := range errs {
			if err == nil {
				published++
			}
		}
		require.Equal(t, 1, published, "%v", errs)
		require.NoError(t, f.publisher.Close(ctx))
	})
}

// The keys after cancelled messages never lead back to one of them, in whatever order
// the same messages are published again, and end with the first one's.
func TestKeysAfterCancelledMessages(t *testing.T) {
	bubble(t, func(f *fixture) {
		ctx := f.t.Context()
		f.outboxed(delivery.PublisherConfig{Idempotency: f.store, IdempotencyTTL: time.Hour})
		reminder := func(id string) delivery.Message {
			return delivery.Message{ID: id, IdempotencyKey: "reminder-9", Recipient: "r", NotBefore: time.Now().AddDate(1, 0, 0)}
		}
		publishAndCancel := func(ids ...string) {
			f.t.Helper()
			for _, id := range ids {
				require.NoError(t, f.publisher.Publish(ctx, reminder(id)))
				require.NoError(t, f.publisher.Cancel(ctx, id))
			}
		}
		publishAndCancel("first")
		wait(30 * time.Minute)
		publishAndCancel("b", "a")
		wait(31 * time.Minute) // the first one's key is forgotten
		publishAndCancel("a", "b")
		steps := 0
		f.store.fail = func(string) error {
			if steps++; steps > 100 {
				return errDown
			}
			return nil
		}
		require.NoError(t, f.publisher.Publish(ctx, reminder("c")))
		require.Equal(t, 4, steps, "three keys claimed, one completed")
		require.ErrorIs(t, f.publisher.Publish(ctx, reminder("d")), delivery.ErrDuplicate)
		wait(time.Hour)
		require.NoError(t, f.publisher.Publish(ctx, reminder("d")))
		require.NoError(t, f.publisher.Close(ctx))
	})
}

func TestScheduledAndCancelled(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		later := to("later")
		later.NotBefore = time.Now().Add(time.Hour)
		f.publish(later, to("now"))
		wait(5 * time.Second)
		record := records.record(t, "later")
		assert.Equal(t, delivery.StatusPending, record.Status)
		assert.Equal(t, later.NotBefore.UTC(), record.DueAt.UTC())
		assert.Empty(t, record.ClaimedBy)
		assert.Equal(t, delivery.StatusQueued, records.status(t, "now"))

		err := f.publisher.Cancel(f.t.Context(), "later", "now", "nobody", "later")
		var each *delivery.ResultsError
		require.ErrorAs(t, err, &each)
		require.NoError(t, each.Results[0].Err)
		require.ErrorIs(t, each.Results[1].Err, delivery.ErrLate)
		require.ErrorIs(t, each.Results[2].Err, delivery.ErrNotFound)
		require.NoError(t, each.Results[3].Err, "twice")
		assert.Equal(t, delivery.StatusCancelled, records.status(t, "later"))
		require.NoError(t, f.publisher.Close(f.t.Context()))
	})
}

func TestWithoutARetryWorker(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.recordsOnly()
		config := f.config()
		config.Store = delivery.RecordsOnly(records)
		f.transport.down.Store(true)
		require.ErrorIs(t, f.publisher.Publish(f.t.Context(), to("a")), errDown, "durable only in the transport")
		f.transport.down.Store(false)
		later := to("a")
		later.NotBefore = time.Now().Add(time.Minute)
		f.publish(later)
		assert.Equal(t, delivery.StatusQueued, records.status(t, "a"))
		_, stop := f.consume(func(_ context.Context, m delivery.Message) error {
			return failUntil(len(f.attempts(m.ID)), 2, errDown)
		}, config)
		wait(time.Minute + 500*time.Millisecond)
		record := records.record(t, "a")
		assert.Equal(t, delivery.StatusQueued, record.Status)
		assert.Equal(t, 1, record.RetryCount)
		assert.Equal(t, f.transport.Session(), record.ClaimedBy, "a worker that is switched on again finds what the process took with it")
		assert.True(t, record.DueAt.After(time.Now()), "and not while it is here")
		wait(5 * time.Second)
		record = records.record(t, "a")
		assert.Equal(t, delivery.StatusDelivered, record.Status)
		assert.Equal(t, 1, record.RetryCount)
		require.NoError(t, stop())
		f.empty()
	})
}
