package delivery_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

// Another message with an ID that has a record is not dropped in silence.
func TestAnotherMessageWithTheSameID(t *testing.T) {
	bubble(t, func(f *fixture) {
		ctx := f.t.Context()
		records := f.outboxed(delivery.PublisherConfig{})
		original := delivery.Message{
			ID: "a", Recipient: "r", Type: "order", Subject: "s", ContentType: "text/plain", Body: []byte("one"), Headers: map[string]string{"h": "1"},
		}
		f.publish(original)
		for field, change := range map[string]func(*delivery.Message){
			"Recipient":      func(m *delivery.Message) { m.Recipient = "other" },
			"Type":           func(m *delivery.Message) { m.Type = "other" },
			"Subject":        func(m *delivery.Message) { m.Subject = "other" },
			"ContentType":    func(m *delivery.Message) { m.ContentType = "text/html" },
			"IdempotencyKey": func(m *delivery.Message) { m.IdempotencyKey = "other" },
			"Headers":        func(m *delivery.Message) { m.Headers = nil },
			"Body":           func(m *delivery.Message) { m.Body = []byte("two") },
		} {
			other := original
			change(&other)
			err := f.publisher.Publish(ctx, to("fine "+field), other)
			require.ErrorIs(t, err, delivery.ErrConflict, field)
			var conflict *delivery.ConflictError
			require.ErrorAs(t, err, &conflict)
			assert.Equal(t, delivery.ConflictError{ID: "a", Field: field}, *conflict)
			var each *delivery.ResultsError
			require.ErrorAs(t, err, &each)
			require.NoError(t, each.Results[0].Err)
		}

		again := original
		again.CreatedAt, again.ExpiresAt, again.Priority = time.Now().Add(time.Second), time.Now().Add(time.Hour), delivery.High
		require.NoError(t, f.publisher.Publish(ctx, again), "the same message")
		other := original
		other.Body = nil
		err := f.publisher.Publish(ctx, to("b"), other, delivery.Message{ID: "b", Recipient: "other"})
		var each *delivery.ResultsError
		require.ErrorAs(t, err, &each)
		require.NoError(t, each.Results[0].Err)
		require.ErrorIs(t, each.Results[1].Err, delivery.ErrConflict)
		require.ErrorIs(t, each.Results[2].Err, delivery.ErrConflict, "in one call")

		records.getDown.Store(true)
		require.NoError(t, f.publisher.Publish(ctx, other), "nobody can tell")
		records.getDown.Store(false)
		require.NoError(t, f.publisher.Close(ctx))
		assert.Equal(t, "one", string(f.get("a").Body))
	})
}
