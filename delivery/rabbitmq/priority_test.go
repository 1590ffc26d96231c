package rabbitmq

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

// receiptCounter is a transport that counts what its subscriptions return.
type receiptCounter struct {
	*Transport
	received atomic.Int64
}

func (c *receiptCounter) Subscribe(ctx context.Context, config delivery.SubscribeConfig) (delivery.Subscription, error) {
	s, err := c.Transport.Subscribe(ctx, config)
	return countedSubscription{s, c}, err
}

type countedSubscription struct {
	delivery.Subscription
	counter *receiptCounter
}

func (s countedSubscription) Receive(ctx context.Context) ([]delivery.Incoming, error) {
	incomings, err := s.Subscription.Receive(ctx)
	s.counter.received.Add(int64(len(incomings)))
	return incomings, err
}

// TestPriorityAcrossQueues lets thousands wait at every priority, until all are in
// hand, and looks at the order in which they are handled: the higher first, but
// none of the lower ones passed over for longer than the starvation limit.
func TestPriorityAcrossQueues(t *testing.T) {
	const each, limit, workers = 1000, 20, 4
	for name, topology := range map[string]func(string, Version) Topology{"quorum": Quorum, "classic": Classic} {
		t.Run(name, func(t *testing.T) {
			transport := &receiptCounter{Transport: open(t, Config{URL: shared.AMQP(t), Name: servers.Unique(t), Topology: topology})}
			publisher, err := delivery.NewPublisher(transport, delivery.PublisherConfig{})
			require.NoError(t, err)
			for i, priority := range []delivery.Priority{delivery.Low, delivery.Normal, delivery.High, delivery.Urgent} {
				batch := make([]delivery.Message, each)
				for k := range batch {
					batch[k] = delivery.Message{ID: strconv.Itoa(i*each + k), Recipient: "r", Priority: priority}
				}
				require.NoError(t, publisher.Publish(t.Context(), batch...))
			}

			var mu sync.Mutex
			var order []delivery.Priority
			gate, done := make(chan struct{}), make(chan struct{})
			consumer, err := delivery.NewConsumer(transport, func(_ context.Context, m delivery.Message) error {
				<-gate
				mu.Lock()
				defer mu.Unlock()
				if order = append(order, m.Priority); len(order) == 4*each {
					close(done)
				}
				return nil
			}, delivery.ConsumerConfig{Concurrency: workers, Prefetch: 2 * each, StarvationLimit: limit})
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- consumer.Run(ctx) }()
			require.Eventually(t, func() bool { return transport.received.Load() == 4*each }, time.Minute, time.Millisecond)
			close(gate)
			select {
			case <-done:
			case <-time.After(time.Minute):
				t.Fatal("not all were handled within a minute")
			}
			cancel()
			require.NoError(t, <-ended)

			// What the workers had taken before all was there is at the beginning; and
			// they finish side by side. One in limit goes to each of three lower levels.
			const loose = 2*workers + 2*each/limit
			seen := map[delivery.Priority]int{}
			for i, priority := range order {
				seen[priority]++
				switch i + 1 {
				case each:
					assert.GreaterOrEqual(t, seen[delivery.Urgent], each-3*each/limit-2*workers, "urgent ones among the first quarter")
					assert.GreaterOrEqual(t, seen[delivery.Low], each/limit-2*workers, "the low ones do not starve")
				case 2 * each:
					assert.GreaterOrEqual(t, seen[delivery.Urgent]+seen[delivery.High], 2*each-3*loose, "high ones come second")
				case 3 * each:
					assert.LessOrEqual(t, seen[delivery.Low], 3*each/limit+3*loose, "low ones come last")
				}
			}
			assert.Equal(t, map[delivery.Priority]int{delivery.Low: each, delivery.Normal: each, delivery.High: each, delivery.Urgent: each}, seen)
		})
	}
}
