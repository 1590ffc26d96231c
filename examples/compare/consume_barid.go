package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/rabbitmq"
	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/idempotency/redisstore"
	"github.com/esh3artech/barid/metrics"
	"github.com/esh3artech/barid/retry"
)

// consumeBarid is a Consumer with everything on, and duplicates known by memory.
func consumeBarid(ctx context.Context, where addresses, n int) (time.Duration, error) {
	return consumeFromRabbitMQ(ctx, where, n, idempotency.NewMemory(idempotency.MemoryConfig{}))
}

// consumeBaridRedis is consumeBarid with duplicates known by Redis.
func consumeBaridRedis(ctx context.Context, where addresses, n int) (took time.Duration, err error) {
	client, err := redisstore.NewClient(where.redis)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	prefix := unique() + ":"
	store := redisstore.New(client, redisstore.Config{Prefix: prefix})
	took, err = consumeFromRabbitMQ(ctx, where, n, store)
	known, fault := forget(context.WithoutCancel(ctx), client, prefix)
	if err = errors.Join(err, store.Close(), fault); err != nil {
		return 0, err
	}
	if known != n {
		return 0, fmt.Errorf("of %[2]d messages Redis knows %[1]d", known, n)
	}
	return took, nil
}

// forget deletes all keys with a prefix, which would burden the next side, and
// tells how many there were.
func forget(ctx context.Context, client *redis.Client, prefix string) (keys int, err error) {
	for cursor := uint64(0); ; {
		var found []string
		if found, cursor, err = client.Scan(ctx, cursor, prefix+"*", 1000).Result(); err != nil {
			return keys, err
		}
		if len(found) > 0 {
			removed, err := client.Unlink(ctx, found...).Result()
			if keys += int(removed); err != nil {
				return keys, err
			}
		}
		if cursor == 0 {
			return keys, nil
		}
	}
}

func consumeFromRabbitMQ(ctx context.Context, where addresses, n int, store idempotency.Store) (took time.Duration, err error) {
	err = withTransport(ctx, where.amqp, func(transport *rabbitmq.Transport) error {
		if err := fillTransport(ctx, transport, n); err != nil {
			return err
		}
		books := newLedger(n)
		consumer, collector, err := newConsumer(transport, books, store)
		if err != nil {
			return err
		}
		if err := consumeAll(ctx, consumer, books); err != nil {
			return err
		}
		took = books.elapsed()
		return errors.Join(checkDelivered(collector, n), checkEmpty(where.amqp, normalQueue(transport)))
	})
	return took, err
}

// newConsumer is the consumer of all rows. Whatever is not named here has its
// default: leases of a minute, keys remembered for a day, a handler timeout of
// 30 s.
func newConsumer(transport delivery.Transport, books *ledger, store idempotency.Store) (*delivery.Consumer, *metrics.Collector, error) {
	collector := metrics.NewCollector(metrics.CollectorConfig{})
	handler := func(_ context.Context, m delivery.Message) error {
		books.note(m.ID)
		return nil
	}
	consumer, err := delivery.NewConsumer(transport, handler, delivery.ConsumerConfig{
		Concurrency: workers,
		Prefetch:    prefetch,
		Retry:       retry.Exponential{Base: 5 * time.Second, Max: 5 * time.Minute, MaxRetries: 5},
		Idempotency: store,
		Breaker:     breaker.New(breaker.Config{Name: "compare"}),
		Metrics:     collector,
	})
	return consumer, collector, err
}

// consumeAll runs a consumer until all is handled, and then drains it.
func consumeAll(ctx context.Context, consumer *delivery.Consumer, books *ledger) error {
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- consumer.Run(running) }()
	if err := books.wait(ctx, ended); err != nil {
		return err
	}
	stop()
	return errors.Join(<-ended, books.check())
}

// checkDelivered fails unless the consumer settled every message as delivered.
func checkDelivered(collector *metrics.Collector, n int) error {
	processed := collector.Snapshot().Processed
	if processed[metrics.OutcomeDelivered] != int64(n) {
		return fmt.Errorf("of %d messages: %v", n, processed)
	}
	return nil
}

// fillTransport publishes n messages.
func fillTransport(ctx context.Context, transport delivery.Transport, n int) error {
	publisher, err := delivery.NewPublisher(transport, delivery.PublisherConfig{})
	if err != nil {
		return err
	}
	const size = 500
	body := make([]byte, bodyBytes)
	for i := 0; i < n; i += size {
		batch := make([]delivery.Message, min(size, n-i))
		for k := range batch {
			batch[k] = delivery.Message{ID: messageID(i + k), Recipient: "recipient", Body: body}
		}
		if err := publisher.Publish(ctx, batch...); err != nil {
			return err
		}
	}
	return nil
}
