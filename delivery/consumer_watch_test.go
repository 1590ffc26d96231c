package delivery_test

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/metrics"
)

func TestHandlersThatOverstay(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.config()
		config.HandlerTimeout = 10 * time.Second
		config.Logger = slog.New(slog.NewTextHandler(f.log, nil))
		release := make(chan struct{})
		_, stop := f.consume(func(_ context.Context, m delivery.Message) error {
			if m.ID == "slow" {
				<-release
			}
			return nil
		}, config)
		f.publish(to("quick"), to("slow"))
		gauges := func() []float64 {
			running, _ := f.collector.Value(metrics.HandlersRunning)
			overdue, _ := f.collector.Value(metrics.HandlersOverdue)
			return []float64{running, overdue}
		}
		wait(5 * time.Second)
		assert.Equal(t, []float64{1, 0}, gauges())
		assert.Zero(t, f.log.count("overstays"))
		wait(time.Minute)
		assert.Equal(t, []float64{1, 1}, gauges())
		assert.Equal(t, 1, f.log.count(`msg="handler overstays its timeout" message_id=slow attempt=1 timeout=10s`), "once")
		close(release)
		wait(2 * time.Second)
		assert.Equal(t, []float64{0, 0}, gauges())
		require.NoError(t, stop())
	})
}

// hangingRelease is an idempotency store that does not answer to Release.
type hangingRelease struct{ idempotency.Store }

func (h hangingRelease) Release(ctx context.Context, _, _ string) error {
	<-ctx.Done()
	return ctx.Err()
}

// A store that hangs at the end is no handler that did not return.
func TestDrainWithAStoreThatHangs(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.config()
		config.Idempotency = hangingRelease{f.store}
		config.DrainTimeout = time.Second
		_, stop := f.consume(func(ctx context.Context, _ delivery.Message) error {
			<-ctx.Done()
			return ctx.Err()
		}, config)
		f.publish(to("a"), to("b"))
		wait(time.Millisecond)
		var abandoned *delivery.AbandonedError
		require.ErrorAs(t, stop(), &abandoned)
		assert.Zero(t, abandoned.Handlers)
		assert.Equal(t, 2, abandoned.Unsettled)
		require.EqualError(t, abandoned, "delivery: 2 messages could not be settled, a store or the transport did not answer; their messages will be redelivered")
		wait(time.Minute)
	})
}

// Nor does it make the end wait for one message after the other.
func TestDrainWithManyClaimsAndAStoreThatHangs(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.config()
		config.Idempotency = hangingRelease{f.store}
		config.Ordered, config.Concurrency, config.DrainTimeout = true, 1, 20*time.Second
		_, stop := f.consume(func(_ context.Context, m delivery.Message) error {
			if m.ID == "slow" {
				<-time.After(15 * time.Second)
				return nil
			}
			return errDown
		}, config)
		for i := range 20 {
			f.publish(delivery.Message{ID: fmt.Sprint(i), Recipient: fmt.Sprint(i)})
		}
		f.publish(delivery.Message{ID: "slow", Recipient: "slow"})
		wait(10 * time.Second) // their retries are due, and the only worker is busy
		begin := time.Now()
		require.NoError(t, stop())
		assert.LessOrEqual(t, time.Since(begin), config.DrainTimeout)
	})
}

// handed is a transport that has one batch to give, each message allocated alone.
type handed struct {
	delivery.Transport
	batch chan []delivery.Incoming
}

func (h handed) Subscribe(context.Context, delivery.SubscribeConfig) (delivery.Subscription, error) {
	return h, nil
}

func (h handed) Receive(ctx context.Context) ([]delivery.Incoming, error) {
	select {
	case batch := <-h.batch:
		return batch, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (handed) Close() error { return nil }

type handedMessage struct{ envelope delivery.Envelope }

func (m *handedMessage) Priority() delivery.Priority           { return delivery.Normal }
func (m *handedMessage) Envelope() (*delivery.Envelope, error) { return &m.envelope, nil }
func (m *handedMessage) Ack() error                            { return nil }
func (m *handedMessage) Nack() error                           { return nil }

// A message that is settled keeps nothing in memory, though others that came with it
// are still in hand.
func TestASettledMessageIsForgotten(t *testing.T) {
	const n = 50
	var freed, done atomic.Int32
	transport := handed{batch: make(chan []delivery.Incoming)}
	release := make(chan struct{})
	consumer, err := delivery.NewConsumer(transport, func(_ context.Context, m delivery.Message) error {
		if m.ID == "0" {
			<-release
		}
		done.Add(1)
		return nil
	}, delivery.ConsumerConfig{Name: "c", Concurrency: 2, DeadLetters: newDeadLetters()})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- consumer.Run(ctx) }()
	batch := make([]delivery.Incoming, n)
	for i := range batch {
		body := make([]byte, 1024)
		runtime.AddCleanup(&body[0], func(int) { freed.Add(1) }, 0)
		batch[i] = &handedMessage{delivery.Envelope{Message: delivery.Message{ID: fmt.Sprint(i), Recipient: "r", Body: body}}}
	}
	transport.batch <- batch
	assert.Eventually(t, func() bool {
		runtime.GC()
		return done.Load() == n-1 && freed.Load() >= n-2 // the last one may still be on a stack
	}, time.Minute, 10*time.Millisecond)
	close(release)
	cancel()
	require.NoError(t, <-ended)
}
