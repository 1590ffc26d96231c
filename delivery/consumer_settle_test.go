package delivery_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/metrics"
)

// Every test here breaks one step between the handler and the ack, and asks: was
// anything lost, and how often did the handler run?

func TestDeadLetterStoreDown(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.sink.down.Store(true)
		config := f.config()
		config.Retry = nil
		config.Concurrency = 2
		_, stop := f.consume(func(_ context.Context, m delivery.Message) error {
			if m.Subject == "bad" {
				return errDown
			}
			return nil
		}, config)
		for i := range 10 {
			f.publish(delivery.Message{ID: fmt.Sprint("bad", i), Recipient: "r", Subject: "bad"})
		}
		f.publish(to("good"))
		wait(time.Hour)
		assert.Equal(t, []int{1}, f.attempts("good"), "the others go on")
		assert.Zero(t, f.processed(metrics.OutcomeDeadLettered))
		f.sink.down.Store(false)
		wait(10 * time.Second)
		assert.Equal(t, 10, f.sink.count())
		for i := range 10 {
			assert.Equal(t, []int{1}, f.attempts(fmt.Sprint("bad", i)), "the handler is not run again for it")
		}
		require.NoError(t, stop())
		f.empty()
	})
}

func TestDeadLetterStoreDownAtShutdown(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.sink.down.Store(true)
		config := f.config()
		config.Retry = nil
		_, stop := f.consume(func(context.Context, delivery.Message) error { return errDown }, config)
		f.publish(to("a"))
		wait(time.Second)
		require.NoError(t, stop())
		f.sink.down.Store(false)
		assert.Equal(t, 1, f.processed(metrics.OutcomeAbandoned))

		_, stop = f.consume(func(context.Context, delivery.Message) error { return errDown }, config)
		wait(time.Second)
		require.NoError(t, stop())
		assert.Equal(t, []int{1, 1}, f.attempts("a"), "redelivered with its attempt count unchanged")
		assert.Equal(t, 1, f.sink.count())
		f.empty()
	})
}

func TestTransportDownWhileRetrying(t *testing.T) {
	bubble(t, func(f *fixture) {
		_, stop := f.consume(func(_ context.Context, m delivery.Message) error {
			f.transport.down.Store(len(f.attempts(m.ID)) == 1)
			return failUntil(len(f.attempts(m.ID)), 2, errDown)
		}, f.config())
		f.publish(to("a"))
		wait(time.Minute)
		assert.Equal(t, []int{1}, f.attempts("a"))
		assert.Zero(t, f.processed(metrics.OutcomeRetried), "not acked before its next home is durable")
		f.transport.down.Store(false)
		wait(time.Minute)
		assert.Equal(t, []int{1, 2}, f.attempts("a"))
		require.NoError(t, stop())
		f.empty()
	})
}

func TestRetryTheTransportWillNeverTake(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.transport.onSend = func(_ time.Duration, e delivery.Envelope) error {
			if e.Attempt > 0 {
				return &delivery.TooLargeError{Field: "Headers", Size: 2, Limit: 1}
			}
			return nil
		}
		_, stop := f.consume(func(context.Context, delivery.Message) error { return errDown }, f.config())
		f.publish(to("a"))
		wait(time.Second)
		letter := f.sink.only(t)
		assert.Equal(t, delivery.ReasonPermanent, letter.Reason)
		assert.Contains(t, letter.Error, "Headers has 2 bytes")
		require.NoError(t, stop())
		f.empty()
	})
}

func TestStoreDownBetweenEffectAndMark(t *testing.T) {
	for _, test := range []struct {
		step   string
		handle error
	}{{"complete", nil}, {"schedule", errDown}} {
		t.Run(test.step, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				var outage atomic.Bool
				outage.Store(true)
				f.store.fail = func(step string) error {
					if outage.Load() && step == test.step {
						return errDown
					}
					return nil
				}
				_, stop := f.consume(func(_ context.Context, m delivery.Message) error {
					if len(f.attempts(m.ID)) == 1 {
						return test.handle
					}
					return nil
				}, f.config())
				f.publish(to("a"))
				wait(500 * time.Millisecond)
				assert.Zero(t, f.processed(metrics.OutcomeDelivered)+f.processed(metrics.OutcomeRetried), "nothing is acked meanwhile")
				outage.Store(false)
				wait(time.Minute)
				f.publish(to("a"))
				wait(time.Minute)
				require.NoError(t, stop())
				want := []int{1}
				if test.handle != nil {
					want = []int{1, 2}
				}
				assert.Equal(t, want, f.attempts("a"))
				f.empty()
			})
		})
	}
}

func TestStoreDownForGoodAfterTheEffect(t *testing.T) {
	bubble(t, func(f *fixture) {
		_, stop := f.consume(func(context.Context, delivery.Message) error {
			f.store.down.Store(true)
			return nil
		}, f.config())
		f.publish(to("a"))
		wait(time.Hour)
		require.NoError(t, stop())
		f.empty() // the effect is done, so the end of the drain acks it
		assert.Equal(t, []int{1}, f.attempts("a"))
	})
}

// A process that dies is a consumer whose acks are lost and that is gone after.
func TestAckLostAfterEveryOutcome(t *testing.T) {
	for name, test := range map[string]struct {
		handle func(run int) error
		runs   []int
	}{
		"delivered":     {func(int) error { return nil }, []int{1}},
		"retried":       {func(run int) error { return failUntil(run, 2, errDown) }, []int{1, 2}},
		"dead-lettered": {func(int) error { return errDown }, []int{1, 2, 3, 4}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				losses := 0
				f.transport.loseAck = func(string) bool {
					losses++
					return losses%2 == 1
				}
				_, stop := f.consume(func(_ context.Context, m delivery.Message) error {
					return test.handle(len(f.attempts(m.ID)))
				}, f.config())
				f.publish(to("a"))
				wait(time.Hour)
				require.NoError(t, stop())
				assert.Equal(t, test.runs, f.attempts("a"))
				assert.Positive(t, f.processed(metrics.OutcomeDuplicate))
				f.empty()
				if name == "dead-lettered" {
					assert.Equal(t, 1, f.sink.count())
				}
			})
		})
	}
}

func TestReceiveFailuresPass(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.transport.failFirst.Store(5)
		_, stop := f.consume(func(context.Context, delivery.Message) error { return nil }, f.config())
		f.publish(to("a"))
		wait(time.Minute)
		assert.Equal(t, []int{1}, f.attempts("a"))
		require.NoError(t, stop())
	})
}

func TestTransportClosedUnderTheConsumer(t *testing.T) {
	bubble(t, func(f *fixture) {
		consumer, err := delivery.NewConsumer(f.transport, func(context.Context, delivery.Message) error { return nil }, f.config())
		require.NoError(t, err)
		done := make(chan error, 1)
		go func() { done <- consumer.Run(context.Background()) }()
		wait(time.Second)
		require.NoError(t, f.transport.Close())
		require.ErrorIs(t, <-done, delivery.ErrClosed)
		require.ErrorIs(t, consumer.Run(context.Background()), delivery.ErrClosed, "and it can't be started again")
	})
}
