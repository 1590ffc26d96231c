package rabbitmq

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

// Far from the broker everything takes longer, and nothing fails.
func TestFarAway(t *testing.T) {
	t.Parallel()
	c := config(t, shared.AMQP(t))
	n := newNetwork(t, servers.Far(t, c.URL, 50*time.Millisecond))
	c.URL = n.url
	ctx := context.Background()
	transport := open(t, c)
	subscription := subscribe(t, transport, 100)
	handle := func(count int) {
		for _, in := range receive(t, subscription, count) {
			require.NoError(t, in.Ack())
		}
	}
	batch := make([]delivery.Envelope, 200)
	for i := range batch {
		batch[i] = message(strconv.Itoa(i))
	}
	require.Nil(t, sendWithin(t, transport, time.Minute, batch...))
	require.Nil(t, transport.SendAfter(ctx, 1500*time.Millisecond, batch[:10]))
	handle(100) // as many as may be in hand
	handle(100)
	require.NoError(t, transport.Ping(ctx))
	_, err := transport.Depth(ctx)
	require.NoError(t, err)
	handle(10)
	n.cut()
	require.Nil(t, sendWithin(t, transport, time.Minute, message("after")))
	bounded, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for seen := false; !seen; { // messages whose acks the cut has lost come again
		incomings, err := subscription.Receive(bounded)
		require.NoError(t, err)
		seen = slices.ContainsFunc(incomings, func(in delivery.Incoming) bool {
			e, err := in.Envelope()
			require.NoError(t, err)
			return e.ID == "after"
		})
	}
}

// A subscription to many shards opens several channels at a time.
func TestSubscribeTakesFewRoundTrips(t *testing.T) {
	t.Parallel()
	c := light(t, shared.AMQP(t))
	c.Shards = 16
	n := newCountingNetwork(t, c.URL)
	c.URL = n.url
	transport := open(t, c)
	awaitConns(t, transport)
	before := n.connected()
	subscription := subscribe(t, transport, 100)
	t.Log("round trips for 64 queues:", n.mostRounds(before))
	assert.LessOrEqual(t, n.mostRounds(before), 25)
	require.Nil(t, sendWithin(t, transport, time.Minute, message("1")))
	receive(t, subscription, 1)
}
