package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/memory"
	"github.com/esh3artech/barid/metrics"
	"github.com/esh3artech/barid/retry"
)

// faultyRecords is the memory store with switches.
type faultyRecords struct {
	*memory.Store
	down atomic.Bool
	// fail is asked before an operation, and lost after it: an error that it
	// returns hides that the operation was carried out.
	fail func(operation string) error
	lost func(operation string) error
	// carriedOut is told of updates.
	carriedOut func(updates []delivery.Update, errs []error)
	// answers, when set, are those of every call, whatever it is of.
	answers []error
	getDown atomic.Bool
}

func newRecords() *faultyRecords {
	return &faultyRecords{Store: memory.NewStore(memory.StoreConfig{})}
}

func (s *faultyRecords) check(operation string, ask func(string) error) error {
	switch {
	case s.down.Load():
		return fmt.Errorf("%w: %w", delivery.ErrStoreDown, errDown)
	case ask != nil:
		return ask(operation)
	}
	return nil
}

func (s *faultyRecords) Save(ctx context.Context, records ...delivery.Record) []error {
	if err := s.check("save", s.fail); err != nil {
		return allOf(err, len(records))
	}
	if s.answers != nil {
		return append([]error(nil), s.answers...)
	}
	errs := s.Store.Save(ctx, records...)
	if err := s.check("save", s.lost); err != nil {
		return allOf(err, len(records))
	}
	return errs
}

func (s *faultyRecords) Update(ctx context.Context, updates ...delivery.Update) ([]delivery.Progress, []error) {
	operation := "update " + string(updates[0].Status)
	if err := s.check(operation, s.fail); err != nil {
		return make([]delivery.Progress, len(updates)), allOf(err, len(updates))
	}
	if s.answers != nil {
		return nil, append([]error(nil), s.answers...)
	}
	progress, errs := s.Store.Update(ctx, updates...)
	if s.carriedOut != nil {
		s.carriedOut(updates, errs)
	}
	if err := s.check(operation, s.lost); err != nil {
		return make([]delivery.Progress, len(updates)), allOf(err, len(updates))
	}
	return progress, errs
}

func (s *faultyRecords) Get(ctx context.Context, ids ...string) ([]delivery.Record, []error) {
	if s.getDown.Load() {
		return make([]delivery.Record, len(ids)), allOf(delivery.ErrStoreDown, len(ids))
	}
	return s.Store.Get(ctx, ids...)
}

func allOf(err error, n int) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// outboxed gives the fixture a publisher with a store.
func (f *fixture) outboxed(config delivery.PublisherConfig) *faultyRecords {
	f.t.Helper()
	records := newRecords()
	config.Store = records
	publisher, err := delivery.NewPublisher(f.transport, config)
	require.NoError(f.t, err)
	f.publisher = publisher
	return records
}

// recordsOnly gives the fixture a publisher with a store that no retry worker
// works on.
func (f *fixture) recordsOnly() *faultyRecords {
	f.t.Helper()
	records := newRecords()
	publisher, err := delivery.NewPublisher(f.transport, delivery.PublisherConfig{Store: delivery.RecordsOnly(records)})
	require.NoError(f.t, err)
	f.publisher = publisher
	return records
}

func (s *faultyRecords) record(t *testing.T, id string) delivery.Record {
	t.Helper()
	records, errs := s.Get(context.Background(), id)
	require.Empty(t, errs)
	return records[0]
}

func (s *faultyRecords) status(t *testing.T, id string) delivery.Status {
	t.Helper()
	return s.record(t, id).Status
}

func fine(context.Context, delivery.Message) error { return nil }

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

func TestMarksOutliveAnOutage(t *testing.T) {
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

func TestPublishBeyondItsRoom(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{MaxOutgoing: 10})
		var batch []delivery.Message
		for i := range 11 {
			batch = append(batch, to(fmt.Sprint(i)))
		}
		now := time.Now()
		f.publish(batch...)
		wait(5 * time.Second)
		f.empty()
		record := records.record(t, "0")
		assert.Equal(t, delivery.StatusPending, record.Status)
		assert.Empty(t, record.ClaimedBy)
		assert.Equal(t, now.UTC(), record.DueAt.UTC(), "any worker may send it")
		f.publish(batch[:5]...)
		f.publish(to("small"))
		wait(5 * time.Second)
		assert.Equal(t, delivery.StatusQueued, records.status(t, "small"))
		require.NoError(t, f.publisher.Close(f.t.Context()))
	})
}

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

func TestPublishIn(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		committed, err := f.publisher.PublishIn(f.t.Context(), records, to("a"))
		require.NoError(t, err)
		wait(5 * time.Second)
		f.empty()
		committed()
		committed()
		wait(5 * time.Second)
		assert.Equal(t, delivery.StatusQueued, records.status(t, "a"))
		depths, err := f.transport.Depth(f.t.Context())
		require.NoError(t, err)
		assert.EqualValues(t, 1, depths[delivery.Normal].Messages)

		_, err = f.publisher.PublishIn(f.t.Context(), records, to("b"), delivery.Message{ID: "c"})
		require.ErrorIs(t, err, delivery.ErrInvalid)
		_, errs := records.Get(f.t.Context(), "b")
		require.ErrorIs(t, errs[0], delivery.ErrNotFound, "nothing half-done")

		bare, err := delivery.NewPublisher(f.transport, delivery.PublisherConfig{})
		require.NoError(t, err)
		_, err = bare.PublishIn(f.t.Context(), records, to("d"))
		require.ErrorIs(t, err, delivery.ErrUnsupported)
		require.ErrorIs(t, bare.Cancel(f.t.Context(), "d"), delivery.ErrUnsupported)
		require.NoError(t, bare.Close(f.t.Context()))
		require.NoError(t, f.publisher.Close(f.t.Context()))
	})
}

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

func TestRetriesWaitInTheStore(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		config := f.config()
		config.Store = records
		_, stop := f.consume(func(context.Context, delivery.Message) error { return retry.After(time.Minute, errDown) }, config)
		f.publish(to("a"))
		wait(time.Hour)
		f.empty()
		record := records.record(t, "a")
		assert.Equal(t, delivery.StatusRetrying, record.Status)
		assert.Equal(t, 1, record.RetryCount)
		assert.Equal(t, record.LastRetryAt.Add(time.Minute), record.NextRetryAt)
		assert.Equal(t, "down", record.FailureReason())
		assert.Equal(t, []int{1}, f.attempts("a"))
		// What a retry worker does.
		require.Empty(t, f.transport.Send(f.t.Context(), []delivery.Envelope{record.Envelope()}))
		wait(time.Second)
		assert.Equal(t, []int{1, 2}, f.attempts("a"))
		require.NoError(t, stop())
		require.NoError(t, f.publisher.Close(f.t.Context()))
	})
}

func TestSentAwaitsItsAcknowledgment(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		config := f.config()
		config.Store, config.AckTimeout = records, time.Minute
		_, stop := f.consume(fine, config)
		message := to("a")
		message.RequireAck = true
		f.publish(message, to("b"))
		wait(5 * time.Second)
		record := records.record(t, "a")
		assert.Equal(t, delivery.StatusSent, record.Status)
		assert.Equal(t, record.SentAt.Add(time.Minute), record.AckDeadline)
		assert.Equal(t, delivery.StatusDelivered, records.status(t, "b"))
		// A copy of the same attempt is a duplicate, the next attempt is not.
		require.Empty(t, f.transport.Send(f.t.Context(), []delivery.Envelope{{Message: message}}))
		wait(5 * time.Second)
		assert.Equal(t, []int{1}, f.attempts("a"))
		assert.Equal(t, 1, f.processed(metrics.OutcomeDuplicate))
		require.Empty(t, f.transport.Send(f.t.Context(), []delivery.Envelope{{Message: message, Attempt: 1}}))
		wait(5 * time.Second)
		assert.Equal(t, []int{1, 2}, f.attempts("a"))
		require.NoError(t, stop())

		config.AckTimeout = -1
		_, stop = f.consume(fine, config)
		message.ID = "c"
		f.publish(message)
		wait(5 * time.Second)
		assert.Equal(t, delivery.StatusDelivered, records.status(t, "c"), "acknowledgments are switched off")
		require.NoError(t, stop())
		require.NoError(t, f.publisher.Close(f.t.Context()))
	})
}

func TestAcknowledgedBeforeSentIsWritten(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		config := f.config()
		config.Store = records
		_, stop := f.consume(func(ctx context.Context, m delivery.Message) error {
			_, errs := records.Store.Update(ctx, delivery.Update{ID: m.ID, Status: delivery.StatusDelivered, At: time.Now(), Acknowledged: true})
			return first(errs)
		}, config)
		message := to("a")
		message.RequireAck = true
		f.publish(message)
		wait(5 * time.Second)
		assert.Equal(t, delivery.StatusDelivered, records.status(t, "a"))
		require.NoError(t, stop())
		f.empty()
		require.NoError(t, f.publisher.Close(f.t.Context()))
	})
}

func first(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	return errs[0]
}

// The store is down for a while, or its answer is lost, at each step.
func TestNothingIsAckedThatIsNotRecorded(t *testing.T) {
	for _, test := range []struct {
		operation string
		handle    error
		want      delivery.Status
	}{
		{"update delivered", nil, delivery.StatusDelivered},
		{"update sent", nil, delivery.StatusSent},
		{"update retrying", errDown, delivery.StatusRetrying},
		{"update failed", retry.Permanent(errDown), delivery.StatusFailed},
	} {
		for _, lost := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, lost %t", test.operation, lost), func(t *testing.T) {
				bubble(t, func(f *fixture) {
					records := f.outboxed(delivery.PublisherConfig{})
					config := f.config()
					config.Store = records
					var outage atomic.Bool
					outage.Store(true)
					refuse := func(operation string) error {
						if outage.Load() && operation == test.operation {
							return delivery.ErrStoreDown
						}
						return nil
					}
					if lost {
						records.lost = refuse
					} else {
						records.fail = refuse
					}
					_, stop := f.consume(func(context.Context, delivery.Message) error { return test.handle }, config)
					message := to("a")
					message.RequireAck = strings.HasSuffix(test.operation, "sent")
					f.publish(message)
					wait(time.Minute)
					settled := 0
					for _, outcome := range []string{metrics.OutcomeDelivered, metrics.OutcomeRetried, metrics.OutcomeDeadLettered} {
						settled += f.processed(outcome)
					}
					assert.Zero(t, settled)
					outage.Store(false)
					wait(10 * time.Second)
					record := records.record(t, "a")
					assert.Equal(t, test.want, record.Status)
					assert.Equal(t, []int{1}, f.attempts("a"))
					if test.handle != nil {
						assert.Equal(t, 1, record.RetryCount)
						assert.Len(t, record.History, 1)
					}
					require.NoError(t, stop())
					f.empty()
					require.NoError(t, f.publisher.Close(f.t.Context()))
				})
			})
		}
	}
}

func TestStoreDownAtShutdown(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		config := f.config()
		config.Store = records
		records.fail = func(operation string) error {
			if operation == "update delivered" {
				return delivery.ErrStoreDown
			}
			return nil
		}
		_, stop := f.consume(fine, config)
		f.publish(to("a"))
		wait(time.Minute)
		require.NoError(t, stop())
		assert.Equal(t, delivery.StatusQueued, records.status(t, "a"))
		records.fail = nil

		_, stop = f.consume(fine, config)
		wait(time.Minute)
		assert.Equal(t, []int{1}, f.attempts("a"), "the key is done")
		assert.Equal(t, delivery.StatusDelivered, records.status(t, "a"), "the copy mends the record")
		require.NoError(t, stop())
		f.empty()
		require.NoError(t, f.publisher.Close(f.t.Context()))
	})
}

func TestConsumerRecordsStrangers(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := newRecords()
		config := f.config()
		config.Store, config.Retry = records, nil
		_, stop := f.consume(func(_ context.Context, m delivery.Message) error {
			if m.ID == "bad" {
				return errDown
			}
			return nil
		}, config)
		f.publish(to("good"), to("bad"))
		wait(time.Minute)
		assert.Equal(t, delivery.StatusDelivered, records.status(t, "good"))
		bad := records.record(t, "bad")
		assert.Equal(t, delivery.StatusFailed, bad.Status)
		assert.Equal(t, f.sink.only(t).ID, bad.DeadLetterID)
		require.NoError(t, stop())
		f.empty()
	})
}

// Everything that a publisher, a consumer and the end user do at once ends with
// every message delivered, none of them twice.
func TestRecordsUnderLoad(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		config := f.config()
		config.Store = records
		_, stop := f.consume(fine, config)
		var group sync.WaitGroup
		for c := range 8 {
			group.Go(func() {
				for i := range 50 {
					if err := f.publisher.Publish(context.Background(), to(fmt.Sprintf("%d-%d", c, i))); err != nil && !errors.Is(err, context.Canceled) {
						f.t.Error(err)
					}
				}
			})
		}
		group.Wait()
		wait(time.Minute)
		stats, err := records.Stats(f.t.Context())
		require.NoError(t, err)
		assert.Equal(t, 400, stats.Of(delivery.StatusDelivered))
		assert.Equal(t, 400, f.processed(metrics.OutcomeDelivered))
		require.NoError(t, stop())
		require.NoError(t, f.publisher.Close(f.t.Context()))
		f.empty()
	})
}
