package delivery_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

// Each message that a transport has confirmed is told of, by whoever sent it, and no
// other.
func TestMessagesAreToldOfWhenTheyAreQueued(t *testing.T) {
	bubble(t, func(f *fixture) {
		logger := slog.New(slog.NewTextHandler(f.log, nil))
		queued := func(id string) int {
			return f.log.count(`level=INFO msg="message queued" message_id=` + id + ` priority=normal attempt=`)
		}

		f.publisher = f.newPublisher(delivery.PublisherConfig{Logger: logger})
		f.publish(to("direct"))
		f.transport.down.Store(true)
		require.Error(t, f.publisher.Publish(f.t.Context(), to("lost")))
		f.transport.down.Store(false)

		records := f.outboxed(delivery.PublisherConfig{Logger: logger})
		f.publish(to("outbox"))
		later := to("later")
		later.NotBefore = time.Now().Add(6 * time.Second)
		f.publish(later)
		wait(5 * time.Second)
		require.NoError(t, f.publisher.Close(f.t.Context()))
		assert.Equal(t, delivery.StatusQueued, records.status(t, "outbox"))
		assert.Zero(t, queued("later"))

		wait(2 * time.Second)
		require.NoError(t, f.workOnce(f.workerConfig()))
		for id, want := range map[string]int{"direct": 1, "lost": 0, "outbox": 1, "later": 1} {
			assert.Equal(t, want, queued(id), id)
		}
	})
}
