package delivery_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

// transaction is a Saver that tells when it was committed.
type transaction struct {
	delivery.Saver
	committed int
}

func (s *transaction) Committed() { s.committed++ }

func TestPublishInTellsItsSaver(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		saver := &transaction{Saver: records}
		later := to("later")
		later.NotBefore = time.Now().Add(time.Hour)
		committed, err := f.publisher.PublishIn(f.t.Context(), saver, to("now"), later)
		require.NoError(t, err)
		assert.Zero(t, saver.committed)
		committed()
		committed()
		assert.Equal(t, 1, saver.committed)
		wait(time.Second)
		assert.EqualValues(t, 1, f.waiting())
		require.NoError(t, f.publisher.Close(f.t.Context()))
	})
}

// A replay is in the transport, and no dead letter any more, whoever sees to
// retries.
func TestForwardWithoutARetryWorkerIsRecorded(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{NoRetryWorker: true})
		failed := stored("a", delivery.StatusFailed, time.Time{})
		failed.DeadLetterID = "letter"
		done := stored("b", delivery.StatusDelivered, time.Time{})
		require.Empty(t, records.Save(f.t.Context(), failed, done))
		replay := func(record delivery.Record) delivery.Envelope {
			return delivery.Envelope{Message: record.Message, Generation: 1}
		}
		require.NoError(t, f.publisher.Forward(f.t.Context(), replay(failed), replay(done), replay(stored("c", "", time.Time{}))))
		for _, id := range []string{"a", "c"} {
			record := records.record(t, id)
			assert.Equal(t, delivery.StatusQueued, record.Status)
			assert.Equal(t, 1, record.Generation)
			assert.Equal(t, f.transport.Session(), record.ClaimedBy, "others find it when the process dies with it")
			assert.True(t, record.DueAt.After(time.Now()))
		}
		assert.Equal(t, delivery.StatusDelivered, records.status(t, "b"))
	})
}
