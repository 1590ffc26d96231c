package main

import (
	"context"
	"errors"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/rabbitmq"
)

// publishBarid is a Publisher on RabbitMQ with its default config: callers
// publish message by message, and each waits until its own is confirmed.
func publishBarid(ctx context.Context, where addresses, n int) (took time.Duration, err error) {
	err = withTransport(ctx, where.amqp, func(transport *rabbitmq.Transport) error {
		publisher, err := delivery.NewPublisher(transport, delivery.PublisherConfig{})
		if err != nil {
			return err
		}
		ids, body := messageIDs(n), make([]byte, bodyBytes)
		took, err = byCallers(n, func(i int) error {
			return publisher.Publish(ctx, delivery.Message{ID: ids[i], Recipient: "recipient", Body: body})
		})
		if err != nil {
			return err
		}
		return drain(ctx, where.amqp, normalQueue(transport), newLedger(n), func(d amqp.Delivery) string { return d.MessageId })
	})
	return took, err
}

// withTransport opens a transport with fresh queues for f, and deletes all of
// them at the end.
func withTransport(ctx context.Context, url string, f func(transport *rabbitmq.Transport) error) error {
	transport, err := rabbitmq.Open(ctx, rabbitmq.Config{URL: url, Name: unique()})
	if err != nil {
		return err
	}
	err = f(transport)
	topology := transport.Topology()
	return errors.Join(err, transport.Close(), withChannel(url, func(channel *amqp.Channel) error {
		for _, queue := range topology.Queues {
			if _, err := channel.QueueDelete(queue.Name, false, false, false); err != nil {
				return err
			}
		}
		for _, exchange := range topology.Exchanges {
			if err := channel.ExchangeDelete(exchange.Name, false, false); err != nil {
				return err
			}
		}
		return nil
	}))
}

// normalQueue is where messages go that name no priority.
func normalQueue(transport *rabbitmq.Transport) string { return transport.Name() + ".normal" }
