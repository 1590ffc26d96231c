package rabbitmq

import (
	"context"
	"encoding/binary"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

// Far from the broker, so many queues are to be counted before a health check gives up.
func TestDepthTakesFewRoundTrips(t *testing.T) {
	t.Parallel()
	c := light(t, shared.AMQP(t))
	c.Shards = 16
	open(t, c)
	n := newCountingNetwork(t, c.URL)
	c.URL = n.url
	transport := open(t, c)
	awaitConns(t, transport)
	before := n.mostRounds(0) // of the connection that declares, which had most of them
	_, err := transport.Depth(context.Background())
	require.NoError(t, err)
	rounds := n.mostRounds(0) - before
	t.Log("round trips for 64 queues:", rounds)
	assert.Positive(t, rounds)
	assert.LessOrEqual(t, rounds, 8)
}

// A broker that answers no questions about queues is alive.
func TestPingDoesNotWaitForDepth(t *testing.T) {
	t.Parallel()
	c := light(t, shared.AMQP(t))
	const queueDeclareOK = 50<<16 + 11
	var losing atomic.Bool
	lost := make(chan struct{}, 1<<10)
	n := newLossyNetwork(t, c.URL, func(frame []byte) bool {
		const method = 1
		if !losing.Load() || frame[0] != method || binary.BigEndian.Uint32(frame[7:]) != queueDeclareOK {
			return false
		}
		lost <- struct{}{}
		return true
	})
	c.URL = n.url
	transport := open(t, c)
	awaitConns(t, transport)
	losing.Store(true)
	asking, cancel := context.WithCancel(context.Background())
	failed := make(chan error, 1)
	go func() {
		_, err := transport.Depth(asking)
		failed <- err
	}()
	<-lost
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	for range 3 {
		require.NoError(t, transport.Ping(ctx))
	}
	cancel()
	require.ErrorIs(t, <-failed, context.Canceled)
	require.NoError(t, transport.Ping(ctx), "the end of one question is not the end of others")
	require.NoError(t, transport.Close())
	_, err := transport.Depth(ctx)
	require.ErrorIs(t, err, delivery.ErrClosed)
}
