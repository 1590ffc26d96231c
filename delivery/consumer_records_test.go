package delivery_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/metrics"
	"github.com/esh3artech/barid/retry"
)

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

func TestAcknowledgedBeforeSentIsRecorded(t *testing.T) {
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

// A message that the end user had acknowledged before its handler gave it up is
// no dead letter.
func TestADeadLetterOfAnAcknowledgedMessageIsTakenBack(t *testing.T) {
	for name, test := range map[string]struct {
		failures int64 // of resolving
		deaf     bool  // the dead letters can't be resolved
		letters  int
	}{
		"at once":            {},
		"in the end":         {failures: 3},
		"not by this keeper": {deaf: true, letters: 1},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				records := f.outboxed(delivery.PublisherConfig{})
				config := f.config()
				letters := newDeadLetters()
				var tries atomic.Int64
				letters.onResolve = func() error {
					if tries.Add(1) <= test.failures {
						return errDown
					}
					return nil
				}
				config.Store, config.DeadLetters = records, letters
				if test.deaf {
					config.DeadLetters = struct{ delivery.DeadLetterer }{letters}
				}
				_, stop := f.consume(func(ctx context.Context, m delivery.Message) error {
					_, errs := records.Store.Update(ctx, delivery.Update{ID: m.ID, Status: delivery.StatusRead, At: time.Now(), Acknowledged: true})
					require.Empty(t, errs)
					return retry.Permanent(errDown)
				}, config)
				message := to("a")
				message.RequireAck = true
				f.publish(message)
				wait(time.Minute)
				assert.Equal(t, delivery.StatusRead, records.status(t, "a"))
				assert.EqualValues(t, 1, letters.puts.Load())
				assert.Len(t, letters.all(), test.letters)
				assert.Equal(t, []int{1}, f.attempts("a"))
				require.NoError(t, stop())
				f.empty()
				require.NoError(t, f.publisher.Close(f.t.Context()))
			})
		})
	}
}

// A message that the end user had acknowledged before its handler failed is done:
// it is not tried again, and neither is a copy of it.
func TestAnAcknowledgedMessageIsNotTriedAgain(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		config := f.config()
		config.Store = records
		_, stop := f.consume(func(ctx context.Context, m delivery.Message) error {
			_, errs := records.Store.Update(ctx, delivery.Update{ID: m.ID, Status: delivery.StatusDelivered, At: time.Now(), Acknowledged: true})
			require.Empty(t, errs)
			return errDown
		}, config)
		message := to("a")
		message.RequireAck = true
		f.publish(message)
		wait(time.Minute)
		require.Empty(t, f.transport.Send(f.t.Context(), []delivery.Envelope{{Message: message}}))
		wait(time.Minute)
		assert.Equal(t, delivery.StatusDelivered, records.status(t, "a"))
		assert.Equal(t, []int{1}, f.attempts("a"))
		require.NoError(t, stop())
		f.empty()
		require.NoError(t, f.publisher.Close(f.t.Context()))
	})
}

// A copy that comes after the message has expired is no dead letter if the
// message was delivered.
func TestAnExpiredCopyOfADeliveredMessageIsNoDeadLetter(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		config := f.config()
		letters := newDeadLetters()
		config.Store, config.DeadLetters = records, letters
		_, stop := f.consume(fine, config)
		message := to("a")
		message.ExpiresAt = time.Now().Add(time.Minute)
		f.publish(message)
		wait(2 * time.Minute)
		require.Empty(t, f.transport.Send(f.t.Context(), []delivery.Envelope{{Message: message}}))
		wait(time.Second)
		assert.Equal(t, delivery.StatusDelivered, records.status(t, "a"))
		assert.Empty(t, letters.all())
		require.NoError(t, stop())
		f.empty()
		require.NoError(t, f.publisher.Close(f.t.Context()))
	})
}

// A message whose record says that it failed keeps its letter, however often it
// is given up.
func TestADeadLetterOfAFailedMessageStays(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		config := f.config()
		letters := newDeadLetters()
		config.Store, config.DeadLetters, config.Idempotency = records, letters, nil
		_, stop := f.consume(func(context.Context, delivery.Message) error { return retry.Permanent(errDown) }, config)
		f.publish(to("a"))
		wait(time.Minute)
		require.Empty(t, f.transport.Send(f.t.Context(), []delivery.Envelope{{Message: to("a")}}))
		wait(time.Minute)
		assert.Equal(t, delivery.StatusFailed, records.status(t, "a"))
		assert.Equal(t, []int{1, 1}, f.attempts("a"))
		require.Len(t, letters.all(), 1)
		assert.Equal(t, records.record(t, "a").DeadLetterID, letters.all()[0].ID)
		require.NoError(t, stop())
		require.NoError(t, f.publisher.Close(f.t.Context()))
	})
}

// A message that shares its key with one that failed, or waits for its next
// attempt, was delivered to nobody, and its record does not say so.
func TestADuplicateOfAnotherMessageIsNotDelivered(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		want delivery.Status // of the first
	}{
		"of a delivered one":     {nil, delivery.StatusDelivered},
		"of a dead letter":       {retry.Permanent(errDown), delivery.StatusFailed},
		"of one that is retried": {errDown, delivery.StatusRetrying},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				records := f.outboxed(delivery.PublisherConfig{})
				config := f.config()
				config.Store = records
				config.Retry = retry.Exponential{Base: time.Hour, Max: time.Hour, MaxRetries: 3}
				_, stop := f.consume(func(context.Context, delivery.Message) error { return test.err }, config)
				f.publish(delivery.Message{ID: "a", IdempotencyKey: "order-7", Recipient: "r"})
				wait(time.Minute)
				f.publish(delivery.Message{ID: "b", IdempotencyKey: "order-7", Recipient: "r"})
				wait(time.Minute)
				assert.Equal(t, test.want, records.status(t, "a"))
				second := records.record(t, "b")
				assert.Equal(t, delivery.StatusDuplicate, second.Status)
				assert.Equal(t, "delivery: duplicate of message a", second.FailureReason())
				assert.Empty(t, f.attempts("b"))
				require.NoError(t, stop())
				require.NoError(t, f.publisher.Close(f.t.Context()))
			})
		})
	}
}

// A copy of the message itself is delivered when the message is.
func TestACopyOfADeliveredMessageIsDelivered(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		var lose sync.Once
		f.transport.loseAck = func(string) (lost bool) {
			lose.Do(func() { lost = true })
			return lost
		}
		config := f.config()
		config.Store = records
		_, stop := f.consume(func(context.Context, delivery.Message) error { return nil }, config)
		f.publish(delivery.Message{ID: "a", IdempotencyKey: "order-7", Recipient: "r"})
		wait(time.Minute)
		assert.Equal(t, 1, f.processed("duplicate"))
		assert.Equal(t, delivery.StatusDelivered, records.status(t, "a"))
		require.NoError(t, stop())
		require.NoError(t, f.publisher.Close(f.t.Context()))
	})
}

// A retry that was in the transport already when the end user acknowledged does not
// run any more.
func TestAnAcknowledgedMessagesRetryOnItsWayDoesNotRun(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		config := f.config()
		config.Store = delivery.RecordsOnly(records) // the retry waits in the transport
		config.Retry = retry.Exponential{Base: time.Hour, Max: time.Hour, MaxRetries: 3}
		_, stop := f.consume(func(context.Context, delivery.Message) error { return errDown }, config)
		message := to("a")
		message.RequireAck = true
		f.publish(message)
		wait(time.Minute)
		_, errs := records.Store.Update(f.t.Context(), delivery.Update{ID: "a", Status: delivery.StatusDelivered, At: time.Now(), Acknowledged: true})
		require.Empty(t, errs)
		wait(2 * time.Hour)
		assert.Equal(t, []int{1}, f.attempts("a"))
		assert.Equal(t, delivery.StatusDelivered, records.status(t, "a"))
		assert.Equal(t, 1, f.processed("duplicate"))
		require.NoError(t, stop())
		f.empty()
		require.NoError(t, f.publisher.Close(f.t.Context()))
	})
}

// A message that was cancelled between two attempts leaves its key to the next
// message that has it, and to one only.
func TestACancelledRetryLeavesItsKey(t *testing.T) {
	bubble(t, func(f *fixture) {
		records := f.outboxed(delivery.PublisherConfig{})
		config := f.config()
		config.Store = records
		config.Retry = retry.Exponential{Base: time.Hour, Max: time.Hour, MaxRetries: 3}
		_, stop := f.consume(func(_ context.Context, m delivery.Message) error {
			if m.ID == "a" {
				return errDown
			}
			return nil
		}, config)
		f.publish(delivery.Message{ID: "a", IdempotencyKey: "order-7", Recipient: "r"})
		wait(time.Minute)
		require.NoError(t, f.publisher.Cancel(f.t.Context(), "a"))
		f.publish(delivery.Message{ID: "b", IdempotencyKey: "order-7", Recipient: "r"})
		wait(time.Minute)
		f.publish(delivery.Message{ID: "c", IdempotencyKey: "order-7", Recipient: "r"})
		wait(time.Minute)
		assert.Equal(t, delivery.StatusCancelled, records.status(t, "a"))
		assert.Equal(t, delivery.StatusDelivered, records.status(t, "b"))
		assert.Equal(t, delivery.StatusDuplicate, records.status(t, "c"))
		assert.Equal(t, "delivery: duplicate of message b", records.record(t, "c").FailureReason())
		require.NoError(t, stop())
		require.NoError(t, f.publisher.Close(f.t.Context()))
	})
}
