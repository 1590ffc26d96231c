package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	watermillamqp "github.com/ThreeDotsLabs/watermill-amqp/v3/pkg/amqp"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/sony/gobreaker"
)

// consumeWatermill is a Router on watermill-amqp. A subscription there has one
// message in flight, whatever its prefetch, so the same handler is added as often
// as the other side has workers: each has a consumer and a channel of its own.
func consumeWatermill(ctx context.Context, where addresses, n int) (time.Duration, error) {
	return withQueue(where.amqp, func(queue string) (time.Duration, error) {
		body := make([]byte, bodyBytes)
		err := fill(where.amqp, queue, n, func(i int) amqp.Publishing {
			return amqp.Publishing{
				DeliveryMode: amqp.Persistent, Body: body,
				Headers: amqp.Table{watermillamqp.DefaultMessageUUIDHeaderKey: messageID(i), "recipient": "recipient"},
			}
		})
		if err != nil {
			return 0, err
		}
		poison, err := newWatermillPublisher(where.amqp)
		if err != nil {
			return 0, err
		}
		subscriber, err := watermillamqp.NewSubscriber(watermillConfig(where.amqp), watermill.NopLogger{})
		if err != nil {
			return 0, errors.Join(err, poison.Close())
		}
		books := newLedger(n)
		router, err := newRouter(poison, queue+".poison")
		if err == nil {
			for i := range workers {
				router.AddConsumerHandler(fmt.Sprintf("handler %d", i), queue, subscriber, func(m *message.Message) error {
					books.note(m.UUID)
					return nil
				})
			}
			err = routeAll(ctx, router, books)
		}
		if err = errors.Join(err, subscriber.Close(), poison.Close(), books.check()); err != nil {
			return 0, err
		}
		return books.elapsed(), checkEmpty(where.amqp, queue)
	})
}

// routeAll runs a Router until all is handled, and then closes it.
func routeAll(ctx context.Context, router *message.Router, books *ledger) error {
	ended := make(chan error, 1)
	go func() { ended <- router.Run(ctx) }()
	if err := books.wait(ctx, ended); err != nil {
		return errors.Join(err, router.Close())
	}
	// Close nacks what is handled and whose ack has not been sent yet. Nothing
	// tells when all acks are on their way.
	time.Sleep(time.Second)
	return errors.Join(router.Close(), <-ended)
}

// newRouter puts the middlewares in the order that loses least: the deduplicator
// marks a message before its handler runs, so inside of Retry it would take
// every retry for a duplicate. It goes by the message's UUID; its default, a
// checksum of the body, costs more and takes equal bodies for one message.
func newRouter(poison message.Publisher, poisonTopic string) (*message.Router, error) {
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		return nil, err
	}
	poisonQueue, err := middleware.PoisonQueue(poison, poisonTopic)
	if err != nil {
		return nil, err
	}
	keys, err := middleware.NewMapExpiringKeyRepository(24 * time.Hour)
	if err != nil {
		return nil, err
	}
	deduplicator := &middleware.Deduplicator{
		KeyFactory: func(m *message.Message) (string, error) { return m.UUID, nil },
		Repository: keys,
		Timeout:    time.Minute,
	}
	breaker := middleware.NewCircuitBreaker(gobreaker.Settings{Name: "compare", Timeout: 30 * time.Second})
	retry := middleware.Retry{MaxRetries: 5, InitialInterval: 5 * time.Second, MaxInterval: 5 * time.Minute, Multiplier: 2}
	router.AddMiddleware(poisonQueue, deduplicator.Middleware, breaker.Middleware, retry.Middleware, middleware.Recoverer)
	return router, nil
}
