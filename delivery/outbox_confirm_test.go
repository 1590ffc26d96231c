package delivery_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

func TestConfirmationsOutliveAnOutage(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		f.publish(to("a"))
		records.down.Store(true)
		wait(10 * time.Second)
		records.down.Store(false)
		wait(10 * time.Second)
		assert.Equal(t, delivery.StatusQueued, records.status(t, "a"))
		require.NoError(t, f.publisher.Close(f.t.Context()))
	})
}

// However much is published in a moment, what is sent is recorded.
func TestManyConfirmations(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := newRecords()
		publisher, err := delivery.NewPublisher(&sendOnly{}, delivery.PublisherConfig{Store: records, MaxOutgoing: 20_000})
		require.NoError(t, err)
		for i := range 200 {
			var batch []delivery.Message
			for k := range 100 {
				batch = append(batch, to(fmt.Sprint(i, "-", k)))
			}
			require.NoError(t, publisher.Publish(f.t.Context(), batch...))
			wait(time.Millisecond)
		}
		require.NoError(t, publisher.Close(f.t.Context()))
		stats, err := records.Stats(f.t.Context(), "memory")
		require.NoError(t, err)
		assert.Equal(t, 20_000, stats.Of(delivery.StatusQueued))
	})
}
