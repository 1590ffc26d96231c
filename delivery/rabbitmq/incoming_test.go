package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/retry"
)

func TestIncomingTellsItsQueue(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		topology func(string, Version) Topology
		shards   int
		queue    string
		prefetch int
	}{
		"quorum":         {Quorum, 1, ".urgent", 40},
		"quorum, shards": {Quorum, 4, ".urgent.1", 10},
		"classic":        {Classic, 1, ".high", 40},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := config(t, shared.AMQP(t))
			c.Topology, c.Shards = withoutLadder(test.topology), test.shards
			transport := open(t, c)
			e := message("1")
			e.Priority, e.Recipient = delivery.Urgent, recipientIn(1, test.shards, "r")
			require.Nil(t, sendWithin(t, transport, time.Minute, e))
			queue, prefetch := receive(t, subscribe(t, transport, 40), 1)[0].(delivery.QueueTeller).Queue()
			assert.Equal(t, c.Name+test.queue, queue)
			assert.Equal(t, test.prefetch, prefetch)
		})
	}
}

// recipientIn is a recipient, with the name's beginning, whose messages go to a shard.
func recipientIn(shard, shards int, name string) string {
	for i := 0; ; i++ {
		if r := fmt.Sprint(name, i); shards < 2 || ShardOf(r, shards) == shard {
			return r
		}
	}
}

// Whatever waits in hand, it leaves room in its queue for what can run.
func TestWhatWaitsLeavesRoomInItsQueue(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		topology  func(string, Version) Topology
		shards    int
		prefetch  int
		waiting   int // how many, as many as the queue's prefetch
		configure func(config *delivery.ConsumerConfig)
		message   func(i int, m *delivery.Message) // changes one of those that wait
		slow      bool                             // whether they take long or fail
	}{
		"a failing recipient in its shard": {
			topology: Quorum, shards: 2, prefetch: 16, waiting: 8,
			configure: func(config *delivery.ConsumerConfig) { config.Ordered = true },
		},
		"a failing recipient in one of many shards": {
			topology: Quorum, shards: 4, prefetch: 4, waiting: 2,
			configure: func(config *delivery.ConsumerConfig) { config.Ordered = true },
		},
		"failing recipients of two priorities in one queue": {
			topology: Classic, shards: 1, prefetch: 8, waiting: 8,
			configure: func(config *delivery.ConsumerConfig) { config.Ordered = true },
			message: func(i int, m *delivery.Message) {
				m.Recipient = fmt.Sprint("bad", i)
				m.Priority = delivery.Urgent - delivery.Priority(i%2)
			},
		},
		"copies of a busy key in their shard": {
			topology: Quorum, shards: 2, prefetch: 16, waiting: 8, slow: true,
			configure: func(config *delivery.ConsumerConfig) {
				config.Idempotency = idempotency.NewMemory(idempotency.MemoryConfig{})
			},
			message: func(_ int, m *delivery.Message) { m.IdempotencyKey = "same" },
		},
		"an open key in its shard": {
			topology: Quorum, shards: 2, prefetch: 16, waiting: 8,
			configure: func(config *delivery.ConsumerConfig) {
				config.KeyBreakers = breaker.NewSet(breaker.SetConfig{})
				config.KeyBreakers.Get("dead").ForceOpen(0)
				config.BreakerKey = func(m delivery.Message) string { return m.Type }
			},
			message: func(_ int, m *delivery.Message) { m.Type = "dead" },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := config(t, shared.AMQP(t))
			c.Topology, c.Shards = test.topology, test.shards
			transport := open(t, c)
			good := make(chan struct{}, 1)
			consumerConfig := delivery.ConsumerConfig{
				Prefetch: test.prefetch, DrainTimeout: time.Second,
				Retry: retry.Exponential{Base: 2 * time.Minute, Max: 10 * time.Minute, MaxRetries: 10},
			}
			test.configure(&consumerConfig)
			consumer, err := delivery.NewConsumer(transport, func(ctx context.Context, m delivery.Message) error {
				switch {
				case m.ID == "good":
					good <- struct{}{}
					return nil
				case test.slow:
					<-ctx.Done()
				}
				return errors.New("fails")
			}, consumerConfig)
			require.NoError(t, err)
			publisher, err := delivery.NewPublisher(transport, delivery.PublisherConfig{})
			require.NoError(t, err)
			bad := recipientIn(0, test.shards, "bad")
			for i := range test.waiting {
				m := delivery.Message{ID: fmt.Sprint(i), Recipient: bad, Priority: delivery.High}
				if test.message != nil {
					test.message(i, &m)
				}
				require.NoError(t, publisher.Publish(t.Context(), m))
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- consumer.Run(ctx) }()
			defer func() {
				cancel()
				assert.NoError(t, <-ended)
			}()
			require.NoError(t, publisher.Publish(t.Context(), delivery.Message{
				ID: "good", Recipient: recipientIn(0, test.shards, "good"), Priority: delivery.High, Type: "alive",
			}))
			select {
			case <-good:
			case <-time.After(20 * time.Second):
				assert.Fail(t, "what could run was not fetched")
			}
		})
	}
}
