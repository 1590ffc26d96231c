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

// loseAnswers has the next n calls of an operation carried out without an answer.
func loseAnswers(records *faultyRecords, of string, n int64) {
	var left atomic.Int64
	left.Store(n)
	records.lost = func(operation string) error {
		if operation == of && left.Add(-1) >= 0 {
			return delivery.ErrStoreDown
		}
		return nil
	}
}

// A caller that repeats a Publish whose answer was lost need not wait for a retry
// worker.
func TestPublishAgainAfterALostAnswer(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		loseAnswers(records, "save", 1)
		message := to("a")
		message.Body = []byte("first")
		require.ErrorIs(t, f.publisher.Publish(f.t.Context(), message), delivery.ErrOutcomeUnknown)
		wait(5 * time.Second)
		f.empty()
		message.Body = []byte("second")
		for range 3 {
			f.publish(message)
		}
		wait(5 * time.Second)
		assert.EqualValues(t, 1, f.waiting(), "once")
		assert.Equal(t, delivery.StatusQueued, records.status(t, "a"))

		got := make(chan delivery.Message, 1)
		_, stop := f.consume(func(_ context.Context, m delivery.Message) error { got <- m; return nil }, f.config())
		assert.Equal(t, "first", string((<-got).Body), "what is saved")
		require.NoError(t, stop())
		require.NoError(t, f.publisher.Close(f.t.Context()))
	})
}

// What a retry worker has taken over, or the publisher never was to send, is not
// sent by a repeated Publish.
func TestPublishAgainWhenOthersSeeToIt(t *testing.T) {
	for name, test := range map[string]struct {
		message   delivery.Message
		grace     time.Duration
		meanwhile func(t *testing.T, records *faultyRecords)
		want      delivery.Status
	}{
		"claimed": {message: to("a"), grace: time.Second, want: delivery.StatusPending, meanwhile: func(t *testing.T, records *faultyRecords) {
			wait(2 * time.Second)
			claimed, err := records.Claim(t.Context(), delivery.Claim{
				Queue: "memory", Status: delivery.StatusPending, Token: "worker", Now: time.Now(), Lease: time.Hour, Limit: 1,
			})
			require.NoError(t, err)
			require.Len(t, claimed, 1)
		}},
		"about to be claimed": {message: to("a"), grace: 10 * time.Second, want: delivery.StatusPending, meanwhile: func(*testing.T, *faultyRecords) {
			wait(6 * time.Second)
		}},
		"acknowledged": {message: to("a"), want: delivery.StatusDelivered, meanwhile: func(t *testing.T, records *faultyRecords) {
			_, errs := records.Store.Update(t.Context(), acknowledged("a"))
			require.Empty(t, errs)
		}},
		"scheduled": {
			message: delivery.Message{ID: "a", Recipient: "r", NotBefore: time.Now().AddDate(1000, 0, 0)}, want: delivery.StatusPending,
			meanwhile: func(*testing.T, *faultyRecords) {},
		},
		"purged, and saved again": {message: to("a"), want: delivery.StatusQueued, meanwhile: func(t *testing.T, records *faultyRecords) {
			_, errs := records.Store.Update(t.Context(), acknowledged("a"))
			require.Empty(t, errs)
			purged, err := records.Purge(t.Context(), "memory", time.Now().Add(time.Second), 1)
			require.NoError(t, err)
			require.Equal(t, 1, purged)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				records := f.outboxed(delivery.PublisherConfig{PendingGrace: test.grace})
				loseAnswers(records, "save", 1)
				if !test.message.NotBefore.IsZero() {
					test.message.NotBefore = time.Now().Add(time.Hour)
				}
				require.ErrorIs(t, f.publisher.Publish(f.t.Context(), test.message), delivery.ErrOutcomeUnknown)
				test.meanwhile(t, records)
				f.publish(test.message, test.message)
				wait(2 * time.Second)
				assert.Equal(t, test.want, records.status(t, "a"))
				if test.want == delivery.StatusQueued {
					assert.EqualValues(t, 1, f.waiting())
				} else {
					f.empty()
				}
				require.NoError(t, f.publisher.Close(f.t.Context()))
			})
		})
	}
}

// A store that can't be asked what became of the message leaves it to a retry
// worker: it is saved.
func TestPublishAgainCanNotAsk(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		loseAnswers(records, "save", 1)
		require.ErrorIs(t, f.publisher.Publish(f.t.Context(), to("a")), delivery.ErrOutcomeUnknown)
		records.getDown.Store(true)
		f.publish(to("a"))
		wait(2 * time.Second)
		f.empty()
		records.getDown.Store(false)
		f.publish(to("a"))
		wait(2 * time.Second)
		assert.EqualValues(t, 1, f.waiting(), "and the next time it can")
		require.NoError(t, f.publisher.Close(f.t.Context()))
	})
}
