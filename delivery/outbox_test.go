package delivery_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

func TestPublishedIsSaved(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		f.publish(to("a"))
		assert.Equal(t, delivery.StatusPending, records.status(t, "a"))
		wait(2 * time.Second)
		assert.Equal(t, delivery.StatusQueued, records.status(t, "a"))
		f.publish(to("a"))
		wait(2 * time.Second)
		depths, err := f.transport.Depth(f.t.Context())
		require.NoError(t, err)
		assert.EqualValues(t, 1, depths[delivery.Normal].Messages, "what is saved is not sent again")
		require.NoError(t, f.publisher.Close(f.t.Context()))
		require.ErrorIs(t, f.publisher.Publish(f.t.Context(), to("b")), delivery.ErrClosed)
	})
}

func TestPublishDoesNotWaitForTheTransport(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		f.transport.down.Store(true)
		f.publish(to("a"))
		wait(10 * time.Second)
		record := records.record(t, "a")
		assert.Equal(t, delivery.StatusPending, record.Status)
		assert.False(t, record.DueAt.IsZero(), "a retry worker sends it")
		require.NoError(t, f.publisher.Close(f.t.Context()))
	})
}

func TestDeliveredIsNotFirstQueued(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		written := map[delivery.Status]int{}
		var mu sync.Mutex
		records.carriedOut = func(updates []delivery.Update, errs []error) {
			mu.Lock()
			defer mu.Unlock()
			for i := range updates {
				if errs == nil || errs[i] == nil {
					written[updates[i].Status]++
				}
			}
		}
		config := f.config()
		config.Store = records
		_, stop := f.consume(fine, config)
		for i := range 20 {
			f.publish(to(fmt.Sprint(i)))
		}
		wait(time.Minute)
		require.NoError(t, stop())
		require.NoError(t, f.publisher.Close(f.t.Context()))
		assert.Equal(t, map[delivery.Status]int{delivery.StatusDelivered: 20}, written)
	})
}

func TestPublishKeepsTheOrder(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.outboxed(delivery.PublisherConfig{})
		var sent []string
		f.transport.onSend = func(_ time.Duration, e delivery.Envelope) error {
			sent = append(sent, e.ID)
			return nil
		}
		var want []string
		for i := range 500 {
			want = append(want, fmt.Sprint(i))
			f.publish(to(fmt.Sprint(i)))
		}
		require.NoError(t, f.publisher.Close(f.t.Context()))
		assert.Equal(t, want, sent)
	})
}

func TestPublishOwnsWhatItSends(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.outboxed(delivery.PublisherConfig{})
		message := to("a")
		message.Body, message.Headers = []byte("before"), map[string]string{"k": "before"}
		f.publish(message)
		copy(message.Body, "after!")
		message.Headers["k"] = "after"
		got := make(chan delivery.Message, 1)
		_, stop := f.consume(func(_ context.Context, m delivery.Message) error { got <- m; return nil }, f.config())
		received := <-got
		assert.Equal(t, "before", string(received.Body))
		assert.Equal(t, "before", received.Headers["k"])
		require.NoError(t, stop())
		require.NoError(t, f.publisher.Close(f.t.Context()))
	})
}

func TestPublishWithTheStoreDown(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		records.down.Store(true)
		err := f.publisher.Publish(f.t.Context(), to("a"))
		require.ErrorIs(t, err, delivery.ErrOutcomeUnknown)
		require.ErrorIs(t, err, delivery.ErrStoreDown)
		wait(time.Minute)
		f.empty()
		records.down.Store(false)
		f.publish(to("a"))
		require.NoError(t, f.publisher.Close(f.t.Context()))
		assert.Equal(t, delivery.StatusQueued, records.status(t, "a"))
	})
}

func TestPublishBeyondItsRoom(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{MaxOutgoing: 10})
		var batch []delivery.Message
		for i := range 11 {
			batch = append(batch, to(fmt.Sprint(i)))
		}
		now := time.Now()
		records.fail = once("claim", delivery.ErrStoreDown)
		f.publish(batch...)
		synctest.Wait()
		f.empty()
		record := records.record(t, "0")
		assert.Equal(t, delivery.StatusPending, record.Status)
		assert.Empty(t, record.ClaimedBy)
		assert.Equal(t, now.UTC(), record.DueAt.UTC(), "any worker may send it")
		f.publish(batch[:5]...)
		f.publish(to("small"))
		wait(5 * time.Second)
		assert.Equal(t, delivery.StatusQueued, records.status(t, "small"))
		for i := range batch {
			assert.Equal(t, delivery.StatusQueued, records.status(t, fmt.Sprint(i)), "taken back, since no worker runs")
		}
		assert.EqualValues(t, 12, f.waiting())
		require.NoError(t, f.publisher.Close(f.t.Context()))
	})
}

// What several publishers leave behind, and a worker looks for too, is sent once,
// without waiting for the end of anybody's grace.
func TestWhatIsLeftIsSentOnce(t *testing.T) {
	for name, working := range map[string]bool{"no worker": false, "a worker": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				f.outlet.onSend(func(context.Context, []delivery.Envelope) []error {
					<-time.After(10 * time.Millisecond)
					return nil
				})
				if working {
					defer f.work(f.workerConfig())()
				}
				var publishers [2]*delivery.Publisher
				for i := range publishers {
					publisher, err := delivery.NewPublisher(f.outlet, delivery.PublisherConfig{Store: f.records, MaxOutgoing: 5})
					require.NoError(t, err)
					publishers[i] = publisher
				}
				const each = 300
				var all sync.WaitGroup
				for i := range 2 * each {
					all.Go(func() {
						assert.NoError(t, publishers[i%2].Publish(context.Background(), to(fmt.Sprint(i))))
					})
				}
				all.Wait()
				wait(20 * time.Second)
				sent := f.outlet.sent()
				assert.Len(t, sent, 2*each)
				for id, times := range sent {
					assert.Equal(t, 1, times, id)
				}
				for _, publisher := range publishers {
					require.NoError(t, publisher.Close(context.Background()))
				}
			})
		})
	}
}

// A publisher that leaves much behind sends all of it before it closes, and no more
// than that: what others left is theirs.
func TestCloseSendsWhatWasLeft(t *testing.T) {
	bubble(t, func(f *fixture) {
		for i := range 2000 {
			f.save(stored(fmt.Sprint("another's ", i), delivery.StatusPending, time.Now().Add(time.Millisecond)))
		}
		publisher, err := delivery.NewPublisher(f.outlet, delivery.PublisherConfig{Store: f.records, MaxOutgoing: 1})
		require.NoError(t, err)
		batch := make([]delivery.Message, 700)
		for i := range batch {
			batch[i] = to(fmt.Sprint(i))
		}
		require.NoError(t, publisher.Publish(context.Background(), batch...))
		require.NoError(t, publisher.Close(context.Background()))
		assert.Len(t, f.outlet.sent(), 700)
	})
}

// A transport that is too slow for the grace gets the rest later, and one that is
// down is left alone for a while.
func TestSlowTransportGetsWhatIsLeft(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.outlet.onSend(func(context.Context, []delivery.Envelope) []error {
			<-time.After(10 * time.Second)
			return nil
		})
		publisher, err := delivery.NewPublisher(f.outlet, delivery.PublisherConfig{Store: f.records, MaxOutgoing: 2000})
		require.NoError(t, err)
		batch := make([]delivery.Message, 2000)
		for i := range batch {
			batch[i] = to(fmt.Sprint(i))
		}
		require.NoError(t, publisher.Publish(context.Background(), batch...))
		wait(10 * time.Minute)
		sent := f.outlet.sent()
		assert.Len(t, sent, 2000)
		for id, times := range sent {
			assert.Equal(t, 1, times, id)
		}
		require.NoError(t, publisher.Close(context.Background()))
	})
}

func TestWhatIsLeftWaitsForTheTransport(t *testing.T) {
	bubble(t, func(f *fixture) {
		publisher, err := delivery.NewPublisher(f.outlet, delivery.PublisherConfig{Store: f.records, MaxOutgoing: 1, PendingGrace: time.Second})
		require.NoError(t, err)
		f.outlet.onSend(refusing(errDown))
		batch := make([]delivery.Message, 5000)
		for i := range batch {
			batch[i] = to(fmt.Sprint(i))
		}
		require.NoError(t, publisher.Publish(context.Background(), batch...))
		wait(time.Hour)
		assert.Less(t, f.outlet.calls(), 200, "in an hour")
		require.NoError(t, publisher.Close(context.Background()))
	})
}

// The same holds for what was saved in a transaction of the host.
func TestCommittedBeyondItsRoomIsSent(t *testing.T) {
	bubble(t, func(f *fixture) {
		publisher, err := delivery.NewPublisher(f.outlet, delivery.PublisherConfig{Store: f.records, MaxOutgoing: 1})
		require.NoError(t, err)
		committed, err := publisher.PublishIn(context.Background(), f.records, to("a"), to("b"), to("c"))
		require.NoError(t, err)
		wait(time.Second)
		assert.Empty(t, f.outlet.sent())
		committed()
		wait(time.Second)
		assert.Len(t, f.outlet.sent(), 3)
		require.NoError(t, publisher.Close(context.Background()))
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

			outlet := &sendOnly{}
			outlet.onSend(func(context.Context, []delivery.Envelope) []error { return append([]error(nil), answers...) })
			publisher, err := delivery.NewPublisher(outlet, delivery.PublisherConfig{})
			require.NoError(t, err)
			require.ErrorIs(t, publisher.Publish(f.t.Context(), to("a"), to("b")), delivery.ErrOutcomeUnknown)

			publisher, err = delivery.NewPublisher(outlet, delivery.PublisherConfig{Store: records})
			require.NoError(t, err)
			require.NoError(t, publisher.Publish(f.t.Context(), to("c"), to("d")))
			require.NoError(t, publisher.Close(f.t.Context()))
			assert.Equal(t, delivery.StatusPending, records.status(t, "c"), "nothing says that it was sent")
			require.NoError(t, f.publisher.Close(f.t.Context()))
		})
	}
}

// The same goes for records: a message without one is not taken for one that there is
// no record of.
func TestAWrongNumberOfRecords(t *testing.T) {
	bubble(t, func(f *fixture) {
		ctx := f.t.Context()
		f.save(stored("a", delivery.StatusQueued, time.Time{}), stored("b", delivery.StatusQueued, time.Time{}))
		publisher, err := delivery.NewPublisher(f.outlet, delivery.PublisherConfig{Store: recordless{f.records}, Idempotency: f.store})
		require.NoError(t, err)
		err = publisher.Resend(ctx, "a", "b")
		require.ErrorIs(t, err, delivery.ErrStoreDown)
		require.NotErrorIs(t, err, delivery.ErrNotFound)
		committed, err := publisher.PublishIn(ctx, f.records, to("c"))
		require.NoError(t, err)
		committed()
		keyed := delivery.Message{ID: "d", IdempotencyKey: "key", Recipient: "r", NotBefore: time.Now().Add(time.Hour)}
		require.NoError(t, publisher.Publish(ctx, keyed))
		keyed.ID = "e"
		require.ErrorIs(t, publisher.Publish(ctx, keyed), delivery.ErrStoreDown)
		require.NoError(t, publisher.Close(ctx))
		require.Empty(t, f.outlet.sent())
	})
}

// recordless returns no record, and no error.
type recordless struct{ *faultyRecords }

func (recordless) Get(context.Context, ...string) ([]delivery.Record, []error) { return nil, nil }

type saverFunc func(ctx context.Context, records ...delivery.Record) []error

func (f saverFunc) Save(ctx context.Context, records ...delivery.Record) []error {
	return f(ctx, records...)
}
