package main

import (
	"context"
	"errors"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	watermillamqp "github.com/ThreeDotsLabs/watermill-amqp/v3/pkg/amqp"
	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"
)

// poolSize is how many channels Watermill's publisher shares among callers. A
// caller keeps its channel until its message is confirmed, so this is also how
// many messages are in flight; a channel for each caller is faster still.
const poolSize = 16

// publishWatermill is watermill-amqp's publisher, with confirms and a pool of
// channels, which by default it opens and closes for every message. Its messages
// are persistent by default. It can't tell an unroutable message, with or
// without the mandatory flag.
func publishWatermill(ctx context.Context, where addresses, n int) (time.Duration, error) {
	return withQueue(where.amqp, func(queue string) (time.Duration, error) {
		publisher, err := newWatermillPublisher(where.amqp)
		if err != nil {
			return 0, err
		}
		ids, body := messageIDs(n), make([]byte, bodyBytes)
		took, err := byCallers(n, func(i int) error {
			m := message.NewMessage(ids[i], body)
			m.Metadata["recipient"] = "recipient"
			return publisher.Publish(queue, m)
		})
		if err = errors.Join(err, publisher.Close()); err != nil {
			return 0, err
		}
		return took, drain(ctx, where.amqp, queue, newLedger(n), watermillID)
	})
}

func newWatermillPublisher(url string) (*watermillamqp.Publisher, error) {
	config := watermillConfig(url)
	config.Publish.ConfirmDelivery = true
	config.Publish.ChannelPoolSize = poolSize
	return watermillamqp.NewPublisher(config, watermill.NopLogger{})
}

// watermillConfig is a durable quorum queue that has the topic's name.
func watermillConfig(url string) watermillamqp.Config {
	config := watermillamqp.NewDurableQueueConfig(url)
	config.Queue.Arguments = quorum()
	config.Consume.Qos.PrefetchCount = prefetch
	return config
}

func watermillID(d amqp.Delivery) string {
	id, _ := d.Headers[watermillamqp.DefaultMessageUUIDHeaderKey].(string)
	return id
}
