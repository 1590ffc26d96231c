package rabbitmq

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

func TestPriorityOfADelivery(t *testing.T) {
	sources := Classic("q", Version{}).sources()
	require.Len(t, sources, 3)
	high, normal := &sources[0], &sources[1]
	ours := func(priority int64) amqp.Table {
		headers := amqp.Table{headerRecipient: "you"}
		putInt(headers, headerPriority, priority)
		return headers
	}
	for name, test := range map[string]struct {
		source *source
		d      amqp.Delivery
		want   delivery.Priority
	}{
		"ours":                      {high, amqp.Delivery{Headers: ours(2)}, delivery.Urgent},
		"header before property":    {high, amqp.Delivery{Headers: ours(1), Priority: 10}, delivery.High},
		"ours of another queue":     {high, amqp.Delivery{Headers: ours(0), Priority: 10}, delivery.Urgent},
		"foreign urgent":            {high, amqp.Delivery{Priority: 255}, delivery.Urgent},
		"foreign high":              {high, amqp.Delivery{Priority: 9}, delivery.High},
		"foreign without":           {high, amqp.Delivery{}, delivery.High},
		"hostile header":            {high, amqp.Delivery{Headers: amqp.Table{headerPriority: "2"}, Priority: 5}, delivery.High},
		"out of range":              {high, amqp.Delivery{Headers: amqp.Table{headerPriority: int64(99)}}, delivery.High},
		"a queue of one":            {normal, amqp.Delivery{Headers: ours(2), Priority: 10}, delivery.Normal},
		"a queue that is no work's": {&source{}, amqp.Delivery{Headers: ours(2)}, delivery.Normal},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, test.want, test.source.priorityOf(&test.d)) })
	}
}

func TestPrefetchOfShards(t *testing.T) {
	for _, test := range []struct{ share, prefetch, want int }{
		{0, 100, 100}, {1, 100, 100}, {4, 100, 25}, {3, 100, 33}, {64, 10, 2}, {4, 2, 2}, {4, 1, 1}, {0, 1, 1},
	} {
		assert.Equal(t, test.want, (&source{share: test.share}).prefetch(test.prefetch))
	}
}

// What another number of shards left behind is fetched, too.
func TestShardsLeftBehind(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ from, to int }{
		"split": {1, 3}, "joined": {3, 1}, "fewer": {4, 2}, "more": {2, 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := config(t, shared.AMQP(t))
			old, renewed := c, c
			old.Shards, renewed.Shards = test.from, test.to
			const n = 40
			batch := make([]delivery.Envelope, n)
			for i := range batch {
				batch[i] = forRecipient(fmt.Sprint(i), 0)
				batch[i].Priority = delivery.Priority(i%4 - 1)
			}
			sender := open(t, old)
			require.Nil(t, sendWithin(t, sender, time.Minute, batch...))
			require.Nil(t, sender.SendAfter(context.Background(), time.Second, batch))
			require.NoError(t, sender.Close())

			transport := open(t, renewed)
			require.Eventually(t, func() bool {
				depths, err := transport.Depth(context.Background())
				require.NoError(t, err)
				return depths[delivery.Urgent].Messages == n/2
			}, time.Minute, 10*time.Millisecond, "depth counts what is left behind")
			subscription := subscribe(t, transport, 400)
			for _, in := range receive(t, subscription, 2*n) {
				e, err := in.Envelope()
				require.NoError(t, err)
				assert.Equal(t, e.Priority, in.Priority())
				require.NoError(t, in.Ack())
			}
			if test.to > test.from && test.from > 1 {
				assert.Len(t, transport.sources, 4*test.to)
				return
			}
			// When they are deleted, nobody misses them.
			assert.Greater(t, len(transport.sources), 4*test.to)
			raw(t, c.URL, func(channel *amqp.Channel) {
				for _, source := range transport.sources {
					if source.leftover {
						_, err := channel.QueueDelete(source.queue, false, false, false)
						require.NoError(t, err)
					}
				}
			})
			_, err := transport.Depth(context.Background())
			require.NoError(t, err)
			require.Nil(t, sendWithin(t, transport, time.Minute, batch[0]))
			receive(t, subscription, 1)
			require.NoError(t, subscription.Close())
			receive(t, subscribe(t, transport, 10), 1)
		})
	}
}

// A queue that only has the name of a shard is not touched, but told of.
func TestForeignQueueIsNoShard(t *testing.T) {
	t.Parallel()
	c := config(t, shared.AMQP(t))
	foreign := c.Name + ".normal.0"
	raw(t, c.URL, func(channel *amqp.Channel) {
		_, err := channel.QueueDeclare(foreign, true, false, false, false, nil)
		require.NoError(t, err)
		publish(t, channel, Route{Key: foreign}, amqp.Publishing{Body: []byte("not ours")})
	})
	logged := make(chan struct{}, 1)
	c.Logger = slog.New(slog.NewTextHandler(signalWriter{"level=ERROR msg=\"leftover queue found\" queue=" + foreign + " messages=1", logged}, nil))
	transport := open(t, c)
	<-logged
	assert.Len(t, transport.sources, 4)
	subscription := subscribe(t, transport, 10)
	require.Nil(t, sendWithin(t, transport, time.Minute, message("1")))
	receive(t, subscription, 1)
	raw(t, c.URL, func(channel *amqp.Channel) {
		state, err := channel.QueueDeclarePassive(foreign, true, false, false, false, nil)
		require.NoError(t, err)
		assert.Equal(t, 1, state.Messages)
	})
}
