package delivery_test

import (
	"context"
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
