package redisstate_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/breaker/redisstate"
	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/delivery/memory"
)

// An operator elsewhere pauses a consumer, and it goes on when released: with
// probes, and then at full speed.
func TestConsumerIsPausedByAnOperator(t *testing.T) {
	const patience = time.Minute
	server := servers.StartRedis(t, servers.RedisConfig{})
	client := redis.NewClient(&redis.Options{
		Addr: server.Addr(), ContextTimeoutEnabled: true, DialTimeout: patience, ReadTimeout: patience, WriteTimeout: patience,
	})
	t.Cleanup(func() { assert.NoError(t, client.Close()) })
	config := redisstate.Config{Every: 20 * time.Millisecond, Timeout: patience}
	provider := breaker.New(breaker.Config{Name: "provider"})
	fleet, console := redisstate.New(client, config), redisstate.New(client, config)
	require.NoError(t, fleet.Share(provider))

	transport := memory.New(memory.Config{})
	handled := make(chan string, 100)
	consumer, err := delivery.NewConsumer(transport, func(_ context.Context, message delivery.Message) error {
		handled <- message.ID
		return nil
	}, delivery.ConsumerConfig{Breaker: provider})
	require.NoError(t, err)
	publisher, err := delivery.NewPublisher(transport, delivery.PublisherConfig{})
	require.NoError(t, err)
	publish := func(ids ...string) {
		for _, id := range ids {
			require.NoError(t, publisher.Publish(t.Context(), delivery.Message{ID: id, Recipient: "r", Body: []byte("{}")}))
		}
	}

	require.NoError(t, console.ForceOpen(t.Context(), "provider", redisstate.Force{Reason: "maintenance"}))
	require.NoError(t, fleet.Sync(t.Context()))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- fleet.Run(ctx) }()
	go func() { ended <- consumer.Run(ctx) }()
	publish("1", "2", "3")
	require.Eventually(t, func() bool { return provider.Status().Wanted }, patience, time.Millisecond)
	require.Empty(t, handled)
	require.NoError(t, console.Release(t.Context(), "provider", ""))
	seen := map[string]bool{}
	for range 3 {
		seen[<-handled] = true
	}
	assert.Len(t, seen, 3)
	require.Eventually(t, func() bool { return provider.State() == breaker.Closed }, patience, time.Millisecond)
	cancel()
	require.NoError(t, <-ended)
	require.NoError(t, <-ended)
	require.NoError(t, transport.Close())
}
