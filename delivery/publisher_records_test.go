package delivery_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

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
