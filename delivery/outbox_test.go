package delivery_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
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

// Who repeats a Publish whose answer was lost need not wait for a retry worker.
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
				Status: delivery.StatusPending, Token: "worker", Now: time.Now(), Lease: time.Hour, Limit: 1,
			})
			require.NoError(t, err)
			require.Len(t, claimed, 1)
		}},
		"about to be claimed": {message: to("a"), grace: 10 * time.Second, want: delivery.StatusPending, meanwhile: func(*testing.T, *faultyRecords) {
			wait(6 * time.Second)
		}},
		"acknowledged": {message: to("a"), want: delivery.StatusDelivered, meanwhile: func(t *testing.T, records *faultyRecords) {
			_, errs := records.Store.Update(t.Context(), delivery.Update{ID: "a", Status: delivery.StatusDelivered, At: time.Now(), Acknowledged: true})
			require.Empty(t, errs)
		}},
		"scheduled": {
			message: delivery.Message{ID: "a", Recipient: "r", NotBefore: time.Now().AddDate(1000, 0, 0)}, want: delivery.StatusPending,
			meanwhile: func(*testing.T, *faultyRecords) {},
		},
		"purged, and saved again": {message: to("a"), want: delivery.StatusQueued, meanwhile: func(t *testing.T, records *faultyRecords) {
			_, errs := records.Store.Update(t.Context(), delivery.Update{ID: "a", Status: delivery.StatusDelivered, At: time.Now(), Acknowledged: true})
			require.Empty(t, errs)
			purged, err := records.Purge(t.Context(), time.Now().Add(time.Second), 1)
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

// However much is published in a moment, what is sent is marked.
func TestManyMarks(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := newRecords()
		publisher, err := delivery.NewPublisher(&road{}, delivery.PublisherConfig{Store: records, MaxOutgoing: 20_000})
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
		stats, err := records.Stats(f.t.Context())
		require.NoError(t, err)
		assert.Equal(t, 20_000, stats.Of(delivery.StatusQueued))
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
		require.NoError(t, f.publisher.Forward(f.t.Context(), batch...))
		wait(5 * time.Second)
		f.empty()
		record := records.record(t, "a")
		assert.Equal(t, delivery.StatusPending, record.Status)
		assert.Empty(t, record.ClaimedBy)
		assert.Equal(t, now.UTC(), record.DueAt, "any worker may send it")
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

// Whatever number of answers a host's own store, saver or transport gives, there
// is no panic, and no answer is taken for another's.
func TestAWrongNumberOfAnswers(t *testing.T) {
	for _, answers := range [][]error{{nil}, {nil, nil, nil}, {errDown}} {
		bubble(t, func(f *fixture) {
			records := f.outboxed(delivery.PublisherConfig{})
			saver := saverFunc(func(context.Context, ...delivery.Record) []error { return append([]error(nil), answers...) })
			_, err := f.publisher.PublishIn(f.t.Context(), saver, to("a"), to("b"))
			require.ErrorIs(t, err, delivery.ErrOutcomeUnknown)

			records.answers = answers
			err = f.publisher.Publish(f.t.Context(), to("a"), to("b"))
			require.ErrorIs(t, err, delivery.ErrOutcomeUnknown)
			err = f.publisher.Forward(f.t.Context(), delivery.Envelope{Message: to("a")}, delivery.Envelope{Message: to("b")})
			require.ErrorIs(t, err, delivery.ErrOutcomeUnknown)
			require.ErrorIs(t, f.publisher.Cancel(f.t.Context(), "a", "b"), delivery.ErrOutcomeUnknown)
			records.answers = nil

			road := &road{}
			road.onSend(func(context.Context, []delivery.Envelope) []error { return append([]error(nil), answers...) })
			publisher, err := delivery.NewPublisher(road, delivery.PublisherConfig{})
			require.NoError(t, err)
			require.ErrorIs(t, publisher.Publish(f.t.Context(), to("a"), to("b")), delivery.ErrOutcomeUnknown)

			publisher, err = delivery.NewPublisher(road, delivery.PublisherConfig{Store: records})
			require.NoError(t, err)
			require.NoError(t, publisher.Publish(f.t.Context(), to("c"), to("d")))
			require.NoError(t, publisher.Close(f.t.Context()))
			assert.Equal(t, delivery.StatusPending, records.status(t, "c"), "nothing says that it was sent")
			require.NoError(t, f.publisher.Close(f.t.Context()))
		})
	}
}

type saverFunc func(ctx context.Context, records ...delivery.Record) []error

func (f saverFunc) Save(ctx context.Context, records ...delivery.Record) []error {
	return f(ctx, records...)
}
