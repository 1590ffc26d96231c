package delivery_test

import (
	"context"
	"log/slog"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/memory"
	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/metrics"
)

func TestDrainLetsHandlersFinish(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.config()
		config.Concurrency = 4
		_, stop := f.consume(func(ctx context.Context, _ delivery.Message) error {
			select {
			case <-time.After(20 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}, config)
		for i := range 10 {
			f.publish(to(strconv.Itoa(i)))
		}
		wait(time.Second)
		begin := time.Now()
		require.NoError(t, stop())
		assert.Equal(t, 19*time.Second, time.Since(begin))
		assert.Equal(t, 4, f.processed(metrics.OutcomeDelivered))
		depths, err := f.transport.Depth(f.t.Context())
		require.NoError(t, err)
		assert.EqualValues(t, 6, depths[delivery.Normal].Messages, "what was not started is left")
	})
}

func TestDrainCancelsAfterItsTimeout(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.config()
		config.DrainTimeout = 5 * time.Second
		config.HandlerTimeout = time.Hour
		var cause error
		_, stop := f.consume(func(ctx context.Context, _ delivery.Message) error {
			<-ctx.Done()
			cause = context.Cause(ctx)
			return ctx.Err()
		}, config)
		f.publish(to("a"))
		wait(time.Second)
		begin := time.Now()
		require.NoError(t, stop())
		assert.Equal(t, 5*time.Second, time.Since(begin))
		require.ErrorIs(t, cause, delivery.ErrShutdown)
		assert.Equal(t, 1, f.processed(metrics.OutcomeAbandoned))

		_, stop = f.consume(func(context.Context, delivery.Message) error { return nil }, config)
		wait(time.Second)
		require.NoError(t, stop())
		assert.Equal(t, []int{1, 1}, f.attempts("a"), "redelivered at once, the attempt not counted")
		f.empty()
	})
}

func TestHandlerThatWillNotStopIsAbandoned(t *testing.T) {
	bubble(t, func(f *fixture) {
		config := f.config()
		config.DrainTimeout = time.Second
		release := make(chan struct{})
		_, stop := f.consume(func(context.Context, delivery.Message) error {
			<-release
			return nil
		}, config)
		f.publish(to("a"))
		wait(time.Second)
		begin := time.Now()
		err := stop()
		var abandoned *delivery.AbandonedError
		require.ErrorAs(t, err, &abandoned)
		assert.Equal(t, 1, abandoned.Handlers)
		assert.Equal(t, 6*time.Second, time.Since(begin))
		close(release)
		synctest.Wait()
		depths, err := f.transport.Depth(f.t.Context())
		require.NoError(t, err)
		assert.EqualValues(t, 1, depths[delivery.Normal].Messages, "it will be redelivered")
	})
}

func TestDrainGivesBackWhatWaitsInHand(t *testing.T) {
	bubble(t, func(f *fixture) {
		const held = 50 // half of the prefetch
		for i := range held {
			key := idempotency.FromID("memory", strconv.Itoa(i), 0).String()
			_, err := f.store.Claim(f.t.Context(), key, "somebody else", 0, time.Hour)
			require.NoError(t, err)
			f.publish(to(strconv.Itoa(i)))
		}
		_, stop := f.consume(func(context.Context, delivery.Message) error { return nil }, f.config())
		wait(time.Second)
		assert.EqualValues(t, held, f.transport.received.Load())
		require.NoError(t, stop())
		depths, err := f.transport.Depth(f.t.Context())
		require.NoError(t, err)
		assert.EqualValues(t, held, depths[delivery.Normal].Messages)
	})
}

func TestPauseAndResume(t *testing.T) {
	bubble(t, func(f *fixture) {
		consumer, stop := f.consume(func(context.Context, delivery.Message) error { return nil }, f.config())
		consumer.Pause()
		consumer.Pause()
		wait(10 * time.Second) // long enough to pause the subscription too
		f.publish(to("a"))
		wait(time.Minute)
		assert.Empty(t, f.attempts("a"))
		consumer.Resume()
		wait(time.Second)
		assert.Equal(t, []int{1}, f.attempts("a"))
		consumer.Pause()
		require.NoError(t, stop())
		f.publish(to("b"))
		done := make(chan error, 1)
		ctx, cancel := context.WithCancel(f.t.Context())
		go func() { done <- consumer.Run(ctx) }()
		wait(time.Minute)
		assert.Empty(t, f.attempts("b"), "a pause outlives a Run")
		consumer.Resume()
		wait(time.Second)
		assert.Equal(t, []int{1}, f.attempts("b"))
		require.ErrorIs(t, consumer.Run(ctx), delivery.ErrRunning)
		cancel()
		require.NoError(t, <-done)
	})
}

func TestRunFailsToStart(t *testing.T) {
	bubble(t, func(f *fixture) {
		handler := func(context.Context, delivery.Message) error { return nil }
		config := f.config()
		config.Idempotency = unfit{f.store}
		consumer, err := delivery.NewConsumer(f.transport, handler, config)
		require.NoError(t, err)
		require.ErrorIs(t, consumer.Run(f.t.Context()), errDown)
		ended, cancel := context.WithCancel(f.t.Context())
		cancel()
		consumer, err = delivery.NewConsumer(f.transport, handler, f.config())
		require.NoError(t, err)
		require.NoError(t, consumer.Run(ended), "told to end before it began")
		require.NoError(t, consumer.Run(ended), "not ErrRunning")
	})
}

type unfit struct{ *faultyStore }

func (unfit) Check(context.Context) error { return errDown }

func TestQueueDepthIsReported(t *testing.T) {
	bubble(t, func(f *fixture) {
		consumer, stop := f.consume(func(context.Context, delivery.Message) error { return nil }, f.config())
		consumer.Pause()
		wait(10 * time.Second)
		m := to("a")
		m.Priority = delivery.High
		f.publish(m)
		wait(time.Minute)
		depth, ok := f.collector.Value(metrics.QueueDepth, metrics.LabelPriority, "high")
		assert.True(t, ok)
		assert.InDelta(t, 1, depth, 0)
		up, _ := f.collector.Value(metrics.DependencyUp, metrics.LabelDependency, "transport")
		assert.InDelta(t, 1, up, 0)
		require.NoError(t, stop())
	})
}

func TestAcknowledgmentsWithoutAStore(t *testing.T) {
	_, err := delivery.NewConsumer(memory.New(memory.Config{}), fine, delivery.ConsumerConfig{AckTimeout: time.Minute})
	require.ErrorIs(t, err, delivery.ErrConfig)
	require.ErrorContains(t, err, "ConsumerConfig.AckTimeout is 1m0s, but Store is nil")

	bubble(t, func(f *fixture) {
		config := f.config()
		config.Logger = slog.New(slog.NewTextHandler(f.log, nil))
		_, stop := f.consume(fine, config)
		asks, other := to("a"), to("b")
		asks.RequireAck, other.RequireAck = true, true
		f.publish(asks, other)
		wait(time.Second)
		assert.Equal(t, 1, f.log.count(`msg="acknowledgments not awaited"`), "once")
		assert.Equal(t, 2, f.processed(metrics.OutcomeDelivered))
		require.NoError(t, stop())
	})
}
