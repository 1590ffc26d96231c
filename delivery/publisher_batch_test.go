package delivery_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

func TestSendBatch(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{BatchSizeLimit: 3})
		for _, size := range []int{0, 4} {
			_, err := f.publisher.SendBatch(f.t.Context(), make([]delivery.Message, size))
			var fault *delivery.BatchError
			require.ErrorAs(t, err, &fault)
			require.ErrorIs(t, err, delivery.ErrInvalid)
			assert.Equal(t, size, fault.Size)
			assert.Equal(t, 3, fault.Limit)
		}
		_, err := f.publisher.SendBatch(f.t.Context(), []delivery.Message{to("a"), {ID: "b"}, to("a")})
		var fault *delivery.BatchError
		require.ErrorAs(t, err, &fault)
		require.Len(t, fault.Invalid, 2)
		assert.Equal(t, 1, fault.Invalid[0].Index)
		require.ErrorContains(t, fault.Invalid[0].Err, "Recipient is empty")
		assert.Equal(t, 2, fault.Invalid[1].Index)
		require.ErrorContains(t, err, "[2] a: delivery: message ID is that of message 0")
		stats, err := records.Stats(f.t.Context(), "")
		require.NoError(t, err)
		assert.Zero(t, stats.Total, "nothing is half-done")

		unnamed := delivery.Message{Recipient: "r", ExpiresAt: time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)}
		result, err := f.publisher.SendBatch(f.t.Context(), []delivery.Message{to("a"), unnamed, to("c")})
		require.NoError(t, err)
		assert.Equal(t, 3, result.Total)
		assert.Equal(t, 3, result.Succeeded)
		assert.Equal(t, "a", result.Results[0].ID)
		assert.Equal(t, delivery.StatusPending, records.status(t, result.Results[1].ID))
		assert.Zero(t, records.record(t, result.Results[1].ID).ExpiresAt, "never")
		assert.Empty(t, unnamed.ID, "the caller's own is left alone")

		records.down.Store(true)
		result, err = f.publisher.SendBatch(f.t.Context(), []delivery.Message{to("d")})
		require.ErrorIs(t, err, delivery.ErrOutcomeUnknown)
		assert.Equal(t, 1, result.Failed)
		require.ErrorIs(t, result.Results[0].Err, delivery.ErrStoreDown)
		records.down.Store(false)
		require.NoError(t, f.publisher.Close(f.t.Context()))
	})
}
