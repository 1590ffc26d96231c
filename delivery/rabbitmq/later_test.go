package rabbitmq

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/idempotency/redisstore"
	"github.com/esh3artech/barid/retry"
)

// shortLadder is a transport that delays for a second at most.
type shortLadder struct{ *Transport }

func (s shortLadder) SendAfter(ctx context.Context, delay time.Duration, batch []delivery.Envelope) []error {
	return s.Transport.SendAfter(ctx, min(delay, time.Second), batch)
}

// What a handler puts off waits in the ladder, for longer than that can hold it, and
// counts nothing. Its key in Redis stays with its attempt.
func TestLaterWaitsInTheLadder(t *testing.T) {
	t.Parallel()
	transport := open(t, config(t, shared.AMQP(t)))
	client, err := redisstore.NewClient(shared.RedisURL(t))
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var attempts []int
	var ran []time.Time
	consumer, err := delivery.NewConsumer(shortLadder{transport}, func(ctx context.Context, _ delivery.Message) error {
		attempt, _ := delivery.AttemptFrom(ctx)
		attempts, ran = append(attempts, attempt.Number), append(ran, time.Now())
		switch len(attempts) {
		case 1:
			return errors.New("busy")
		case 2, 3:
			return retry.Later(2500*time.Millisecond, errors.New("phone is off"))
		}
		cancel()
		return nil
	}, delivery.ConsumerConfig{
		Retry:       retry.Exponential{Base: 10 * time.Millisecond, MaxRetries: 1},
		Idempotency: redisstore.New(client, redisstore.Config{Prefix: servers.Unique(t)}),
	})
	require.NoError(t, err)
	publisher, err := delivery.NewPublisher(transport, delivery.PublisherConfig{})
	require.NoError(t, err)
	require.NoError(t, publisher.Publish(t.Context(), delivery.Message{ID: "a", Recipient: "r"}))
	require.NoError(t, consumer.Run(ctx))
	require.Equal(t, []int{1, 2, 2, 2}, attempts)
	for i := 2; i < 4; i++ {
		assert.GreaterOrEqual(t, ran[i].Sub(ran[i-1]), 2400*time.Millisecond)
	}
}
