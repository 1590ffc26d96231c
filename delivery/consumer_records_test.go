package delivery_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/retry"
)

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
				graves := &graveyard{letters: map[string]delivery.DeadLetter{}}
				var tries atomic.Int64
				graves.onTake = func() error {
					if tries.Add(1) <= test.failures {
						return errDown
					}
					return nil
				}
				config.Store, config.DeadLetters = records, graves
				if test.deaf {
					config.DeadLetters = struct{ delivery.DeadLetterer }{graves}
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
				assert.EqualValues(t, 1, graves.puts.Load())
				assert.Len(t, graves.all(), test.letters)
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
		graves := &graveyard{letters: map[string]delivery.DeadLetter{}}
		config.Store, config.DeadLetters = records, graves
		_, stop := f.consume(fine, config)
		message := to("a")
		message.ExpiresAt = time.Now().Add(time.Minute)
		f.publish(message)
		wait(2 * time.Minute)
		require.Empty(t, f.transport.Send(f.t.Context(), []delivery.Envelope{{Message: message}}))
		wait(time.Second)
		assert.Equal(t, delivery.StatusDelivered, records.status(t, "a"))
		assert.Empty(t, graves.all())
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
		graves := &graveyard{letters: map[string]delivery.DeadLetter{}}
		config.Store, config.DeadLetters, config.Idempotency = records, graves, nil
		_, stop := f.consume(func(context.Context, delivery.Message) error { return retry.Permanent(errDown) }, config)
		f.publish(to("a"))
		wait(time.Minute)
		require.Empty(t, f.transport.Send(f.t.Context(), []delivery.Envelope{{Message: to("a")}}))
		wait(time.Minute)
		assert.Equal(t, delivery.StatusFailed, records.status(t, "a"))
		assert.Equal(t, []int{1, 1}, f.attempts("a"))
		require.Len(t, graves.all(), 1)
		assert.Equal(t, records.record(t, "a").DeadLetterID, graves.all()[0].ID)
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
