package delivery_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

func TestForwardBeginsAGeneration(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		config := f.config()
		config.Store = records
		config.Retry = nil
		works := false
		_, stop := f.consume(func(context.Context, delivery.Message) error {
			if works {
				return nil
			}
			return errDown
		}, config)
		f.publish(to("a"))
		wait(5 * time.Second)
		failed := records.record(t, "a")
		assert.Equal(t, delivery.StatusFailed, failed.Status)
		letter := f.sink.only(t)
		assert.Equal(t, letter.ID, failed.DeadLetterID)
		assert.Equal(t, "down", failed.FailureReason())

		works = true
		again := letter.Envelope
		again.Generation, again.Attempt = 1, 0
		stranger := delivery.Envelope{Message: to("stranger"), Generation: 3}
		require.NoError(t, f.publisher.Forward(f.t.Context(), again, stranger))
		wait(5 * time.Second)
		for id, generation := range map[string]int{"a": 1, "stranger": 3} {
			record := records.record(t, id)
			assert.Equal(t, delivery.StatusDelivered, record.Status)
			assert.Equal(t, generation, record.Generation)
		}
		require.NoError(t, f.publisher.Forward(f.t.Context(), again), "it is done: not sent")
		wait(5 * time.Second)
		assert.Len(t, f.attempts("a"), 2)
		require.NoError(t, stop())
		require.NoError(t, f.publisher.Close(f.t.Context()))
	})
}

// A replay is in the transport, and no dead letter any more, whoever sees to
// retries.
func TestForwardWithoutARetryWorkerIsRecorded(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.recordsOnly()
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

// A replay that is repeated is sent once, whether or not it was known that the
// first one had begun.
func TestForwardAgain(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		for _, id := range []string{"known", "lost", "other's"} {
			require.Empty(t, records.Save(f.t.Context(), stored(id, delivery.StatusFailed, time.Time{})))
		}
		replay := func(id string) delivery.Envelope { return delivery.Envelope{Message: to(id), Generation: 1} }
		require.NoError(t, f.publisher.Forward(f.t.Context(), replay("known")))
		require.NoError(t, f.publisher.Forward(f.t.Context(), replay("known")))

		loseAnswers(records, "update pending", 1)
		require.ErrorIs(t, f.publisher.Forward(f.t.Context(), replay("lost")), delivery.ErrOutcomeUnknown)
		wait(100 * time.Millisecond)
		assert.EqualValues(t, 1, f.waiting())
		require.NoError(t, f.publisher.Forward(f.t.Context(), replay("lost")))
		require.NoError(t, f.publisher.Forward(f.t.Context(), replay("lost")))

		other, err := delivery.NewPublisher(f.transport, delivery.PublisherConfig{Store: records})
		require.NoError(t, err)
		require.NoError(t, other.Forward(f.t.Context(), replay("other's")))
		require.NoError(t, f.publisher.Forward(f.t.Context(), replay("other's")))
		wait(5 * time.Second)
		assert.EqualValues(t, 3, f.waiting(), "each once")
		for _, id := range []string{"known", "lost", "other's"} {
			assert.Equal(t, delivery.StatusQueued, records.status(t, id))
		}
		require.NoError(t, other.Close(f.t.Context()))
		require.NoError(t, f.publisher.Close(f.t.Context()))
	})
}

func TestForwardBeyondItsRoom(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{MaxOutgoing: 2})
		var batch []delivery.Envelope
		for _, id := range []string{"a", "b", "c"} {
			require.Empty(t, records.Save(f.t.Context(), stored(id, delivery.StatusFailed, time.Time{})))
			batch = append(batch, delivery.Envelope{Message: to(id), Generation: 1})
		}
		now := time.Now()
		records.fail = once("claim", delivery.ErrStoreDown)
		require.NoError(t, f.publisher.Forward(f.t.Context(), batch...))
		synctest.Wait()
		f.empty()
		record := records.record(t, "a")
		assert.Equal(t, delivery.StatusPending, record.Status)
		assert.Empty(t, record.ClaimedBy)
		assert.Equal(t, now.UTC(), record.DueAt, "any worker may send it")
		wait(5 * time.Second)
		assert.EqualValues(t, 3, f.waiting(), "none runs")
		require.NoError(t, f.publisher.Close(f.t.Context()))
	})
}

func TestForwardOwnsWhatItSends(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		hold := make(chan struct{})
		var once sync.Once
		f.transport.onSend = func(time.Duration, delivery.Envelope) error {
			once.Do(func() { <-hold })
			return nil
		}
		f.publish(to("holds up"))
		synctest.Wait()
		history := []delivery.Failure{{At: time.Now(), Error: "before"}}
		require.NoError(t, f.publisher.Forward(f.t.Context(), delivery.Envelope{Message: to("a"), Attempt: 1, History: history}))
		history[0].Error = "after"
		got := make(chan delivery.Envelope, 2)
		f.transport.seen = got
		close(hold)
		require.NoError(t, f.publisher.Close(f.t.Context()))
		assert.Equal(t, "holds up", (<-got).ID)
		assert.Equal(t, "before", (<-got).History[0].Error)
		record := records.record(t, "a")
		assert.Equal(t, "before", record.FailureReason())
	})
}

func TestForwardOfAnInvalidEnvelope(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.outboxed(delivery.PublisherConfig{})
		err := f.publisher.Forward(f.t.Context(), delivery.Envelope{Message: to("a"), Attempt: -1})
		require.ErrorIs(t, err, delivery.ErrInvalid)
		require.NotErrorIs(t, err, delivery.ErrOutcomeUnknown)
		require.NoError(t, f.publisher.Close(f.t.Context()))
	})
}
