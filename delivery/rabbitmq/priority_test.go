package rabbitmq

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

// TestPriorityAcrossQueues lets thousands wait at every priority, and looks at
// the order in which a consumer takes them: the higher first, as far as what is
// in hand allows, and none of the lower ones passed over for longer than the
// starvation limit.
func TestPriorityAcrossQueues(t *testing.T) {
	const each, limit, prefetch, workers = 1000, 20, 100, 4
	for name, topology := range map[string]func(string, Version) Topology{"quorum": Quorum, "classic": Classic} {
		t.Run(name, func(t *testing.T) {
			transport := open(t, Config{URL: shared.AMQP(t), Name: servers.Unique(t), Topology: topology})
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
			done := make(chan struct{})
			consumer, err := delivery.NewConsumer(transport, func(_ context.Context, m delivery.Message) error {
				// A worker never idles: a handler faster than the broker refills what is in
				// hand takes lower ones meanwhile.
				<-time.After(2 * time.Millisecond)
				mu.Lock()
				defer mu.Unlock()
				if order = append(order, m.Priority); len(order) == 4*each {
					close(done)
				}
				return nil
			}, delivery.ConsumerConfig{Concurrency: workers, Prefetch: prefetch, StarvationLimit: limit})
			require.NoError(t, err)
			consumer.Pause()
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- consumer.Run(ctx) }()
			consumer.Resume()
			select {
			case <-done:
			case <-time.After(time.Minute):
				t.Fatal("not all were handled within a minute")
			}
			cancel()
			require.NoError(t, <-ended)

			last, before := map[delivery.Priority]int{}, map[delivery.Priority]int{}
			gap, waited := 0, 0
			for i, priority := range order {
				if priority == delivery.Low {
					gap = 0
				} else if gap++; before[delivery.Low] < each {
					waited = max(waited, gap)
				}
				last[priority] = i
				before[priority]++
			}
			// Of the lowest, one in limit goes beside the higher ones. What else comes
			// early came because nothing higher was in hand just then.
			early := 0
			for _, priority := range order[:2*each] {
				if priority == delivery.Low {
					early++
				}
			}
			assert.LessOrEqual(t, early, 2*each/limit+2*each/10, "low ones among the first half")
			assert.Less(t, last[delivery.Urgent], last[delivery.Normal], "all urgent ones were gone before the normal ones")
			assert.Less(t, last[delivery.High], last[delivery.Low])
			assert.LessOrEqual(t, waited, 4*limit+4*prefetch, "the longest that the low ones had to wait")
		})
	}
}
