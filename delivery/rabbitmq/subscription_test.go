package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

func TestQueueDeletedUnderTheConsumer(t *testing.T) {
	t.Parallel()
	c := config(t, shared.AMQP(t))
	transport := open(t, c)
	subscription := subscribe(t, transport, 10)
	require.Nil(t, sendWithin(t, transport, time.Minute, message("1")))
	first := receive(t, subscription, 1)[0]
	raw(t, c.URL, func(channel *amqp.Channel) {
		_, err := channel.QueueDelete(c.Name+".normal", false, false, false)
		require.NoError(t, err)
	})
	require.Eventually(t, func() bool {
		return errors.Is(first.Nack(), delivery.ErrStale) || errors.Is(first.Ack(), delivery.ErrSettled)
	},
		time.Minute, 10*time.Millisecond)
	require.Eventually(t, func() bool { return sendWithin(t, transport, time.Minute, message("2")) == nil }, 2*time.Minute, 50*time.Millisecond)
	e, err := receive(t, subscription, 1)[0].Envelope()
	require.NoError(t, err)
	assert.Equal(t, "2", e.ID)
	// The other levels did not notice, and a new subscription declares, too.
	raw(t, c.URL, func(channel *amqp.Channel) {
		_, err := channel.QueueDelete(c.Name+".low", false, false, false)
		require.NoError(t, err)
	})
	subscribe(t, transport, 10)
}

func TestPauseOutlivesAReconnect(t *testing.T) {
	t.Parallel()
	network := newNetwork(t, shared.AMQP(t))
	transport := open(t, config(t, network.url))
	subscription := subscribe(t, transport, 10)
	pauser := subscription.(delivery.Pauser)
	ctx := context.Background()
	require.NoError(t, pauser.Pause(ctx))
	require.NoError(t, pauser.Pause(ctx))
	network.cut()
	require.Nil(t, sendWithin(t, transport, time.Minute, message("1")))
	require.Eventually(t, func() bool { return transport.Ping(ctx) == nil }, time.Minute, 10*time.Millisecond)
	short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	_, err := subscription.Receive(short)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, pauser.Resume(ctx))
	receive(t, subscription, 1)
}

func TestSubscribeFaults(t *testing.T) {
	t.Parallel()
	transport := open(t, config(t, shared.AMQP(t)))
	for _, prefetch := range []int{-1, 65536} {
		_, err := transport.Subscribe(context.Background(), delivery.SubscribeConfig{Prefetch: prefetch})
		require.ErrorIs(t, err, ErrConfig)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := transport.Subscribe(ctx, delivery.SubscribeConfig{})
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, transport.Ping(ctx), context.Canceled)
	require.ErrorIs(t, transport.Send(ctx, []delivery.Envelope{message("1")})[0], context.Canceled)
}

// A Subscribe that waits for a broker ends with the transport.
func TestSubscribeEndsWithClose(t *testing.T) {
	t.Parallel()
	network := newNetwork(t, shared.AMQP(t))
	c := config(t, network.url)
	failed := make(chan struct{}, 1)
	c.Logger = slog.New(slog.NewTextHandler(signalWriter{text: "purpose=consume", seen: failed}, nil))
	transport := open(t, c)
	network.close()
	subscribed := make(chan error, 1)
	go func() {
		_, err := transport.Subscribe(context.Background(), delivery.SubscribeConfig{})
		subscribed <- err
	}()
	<-failed
	require.NoError(t, transport.Close())
	select {
	case err := <-subscribed:
		require.ErrorIs(t, err, delivery.ErrClosed)
	case <-time.After(time.Minute):
		require.Fail(t, "Subscribe goes on")
	}
}

// What waits in hand when the connection is lost is handled once, by the copy that
// comes again. Only the message that was running then is handled twice.
func TestLostConnectionRunsNothingTwice(t *testing.T) {
	t.Parallel()
	const n = 40
	network := newNetwork(t, shared.AMQP(t))
	c := light(t, network.url)
	lost := make(chan struct{}, 1)
	c.Logger = slog.New(slog.NewTextHandler(signalWriter{text: "purpose=consume connection", seen: lost}, nil))
	transport := open(t, c)
	batch := make([]delivery.Envelope, n)
	for i := range batch {
		batch[i] = message(fmt.Sprint(i))
	}
	require.Nil(t, sendWithin(t, transport, time.Minute, batch...))
	runs := map[string]int{} // of a consumer with one worker
	last := make(chan struct{})
	consumer, err := delivery.NewConsumer(transport, func(ctx context.Context, m delivery.Message) error {
		if len(runs) == 0 {
			assert.Eventually(t, func() bool {
				depths, err := transport.Depth(ctx)
				return err == nil && depths[delivery.Normal].Messages == 0
			}, time.Minute, 10*time.Millisecond)
			for len(lost) > 0 {
				<-lost // of broker connected
			}
			network.cut()
			<-lost
		}
		runs[m.ID]++
		switch len(runs) {
		case n: // what is lost and comes again comes before this one
			assert.Nil(t, sendWithin(t, transport, time.Minute, message("last")))
		case n + 1:
			close(last)
		}
		return nil
	}, delivery.ConsumerConfig{Concurrency: 1, Prefetch: n})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- consumer.Run(ctx) }()
	select {
	case <-last:
	case <-time.After(time.Minute):
		assert.Fail(t, "messages are missing")
	}
	cancel()
	require.NoError(t, <-ended)
	twice := 0
	for _, count := range runs {
		twice += count - 1
	}
	assert.Len(t, runs, n+1)
	assert.LessOrEqual(t, twice, 1)
}
