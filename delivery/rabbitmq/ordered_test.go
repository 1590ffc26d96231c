package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/retry"
)

// TestOrderedAcrossConsumers has three consumers with many workers share the
// shards of a queue. Handlers fail now and then, and one consumer dies in the
// middle. Each recipient's messages must have their effects in the order in
// which they were published, and nobody's twice at once.
func TestOrderedAcrossConsumers(t *testing.T) {
	const recipients, each = 40, 50
	url, name := shared.AMQP(t), servers.Unique(t)
	store := idempotency.NewMemory(idempotency.MemoryConfig{}) // one for all, as Redis is
	var (
		mu      sync.Mutex
		runs    = map[string]int{}
		running = map[string]int{}
		effects = map[string][]int{} // by recipient
		total   int
		half    = make(chan struct{})
		all     = make(chan struct{})
	)
	handler := func(ctx context.Context, m delivery.Message) error {
		number, err := strconv.Atoi(m.Subject)
		if err != nil {
			return retry.Permanent(err)
		}
		mu.Lock()
		runs[m.ID]++
		run := runs[m.ID]
		running[m.Recipient]++
		assert.Equal(t, 1, running[m.Recipient], "two at once for %s", m.Recipient)
		mu.Unlock()
		<-time.After(time.Duration(number%3) * time.Millisecond)
		mu.Lock()
		defer mu.Unlock()
		running[m.Recipient]--
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if number%17 == 5 && run <= 2 {
			return errors.New("fails twice")
		}
		effects[m.Recipient] = append(effects[m.Recipient], number)
		switch total++; total {
		case recipients * each / 2:
			close(half)
		case recipients * each:
			close(all)
		}
		return nil
	}

	type instance struct {
		transport *networkedTransport
		cancel    context.CancelFunc
		ended     chan error
	}
	start := func() instance {
		n := newNetwork(t, url)
		in := instance{
			transport: &networkedTransport{network: n, Transport: open(t, Config{URL: n.url, Name: name, Shards: 4, MaxReconnectDelay: 100 * time.Millisecond})},
			ended:     make(chan error, 1),
		}
		consumer, err := delivery.NewConsumer(in.transport.Transport, handler, delivery.ConsumerConfig{
			Ordered:     true,
			Concurrency: 8,
			// Half of a shard's prefetch is as much as can stand behind failing messages.
			// With less, one that fails would be given up as soon as that fills.
			Prefetch:         2 * recipients * each,
			Retry:            retry.Exponential{Base: 20 * time.Millisecond, MaxRetries: 5},
			Idempotency:      store,
			IdempotencyLease: 2 * time.Second,
			DrainTimeout:     5 * time.Second,
		})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(context.Background())
		in.cancel = cancel
		go func() { in.ended <- consumer.Run(ctx) }()
		return in
	}
	instances := []instance{start(), start(), start()}
	publisher, err := delivery.NewPublisher(open(t, Config{URL: url, Name: name, Shards: 4}), delivery.PublisherConfig{})
	require.NoError(t, err)
	for number := range each {
		batch := make([]delivery.Message, recipients)
		for r := range batch {
			batch[r] = delivery.Message{ID: fmt.Sprint(r, "/", number), Recipient: fmt.Sprint("r", r), Subject: strconv.Itoa(number)}
		}
		require.NoError(t, publisher.Publish(t.Context(), batch...))
	}

	await := func(what <-chan struct{}, name string) {
		select {
		case <-what:
		case <-time.After(time.Minute):
			mu.Lock()
			defer mu.Unlock()
			t.Fatalf("%s: only %d effects after a minute", name, total)
		}
	}
	await(half, "half")
	instances[0].transport.network.close() // its connections are gone, nothing more gets through
	await(all, "all")
	for _, in := range instances {
		in.cancel()
		require.NoError(t, <-in.ended)
	}

	mu.Lock()
	defer mu.Unlock()
	for r := range recipients {
		got := effects[fmt.Sprint("r", r)]
		require.Len(t, got, each, "each once")
		for number := range got {
			require.Equal(t, number, got[number], "recipient %d: %v", r, got)
		}
	}
}
