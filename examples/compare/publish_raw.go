package main

import (
	"context"
	"errors"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// publishRaw is the bare client: one connection, one channel, confirms deferred
// so that no caller waits for another's. It knows no outages: with the connection
// go the messages in flight.
func publishRaw(ctx context.Context, where addresses, n int) (time.Duration, error) {
	return withQueue(where.amqp, func(queue string) (took time.Duration, err error) {
		messages := rawMessages(n)
		err = withChannel(where.amqp, func(channel *amqp.Channel) (err error) {
			if err := channel.Confirm(false); err != nil {
				return err
			}
			// A message without a queue is returned before it is confirmed.
			returns := channel.NotifyReturn(make(chan amqp.Return, callers))
			took, err = byCallers(n, func(i int) error {
				confirm, err := channel.PublishWithDeferredConfirm("", queue, true, false, messages(i))
				switch {
				case err != nil:
					return err
				case !confirm.Wait():
					return errors.New("a message was not confirmed")
				case len(returns) > 0:
					return errors.New("a message was returned")
				}
				return nil
			})
			return err
		})
		if err != nil {
			return 0, err
		}
		return took, drain(ctx, where.amqp, queue, newLedger(n), func(d amqp.Delivery) string { return d.MessageId })
	})
}

// rawMessages carry what the other side's do.
func rawMessages(n int) func(i int) amqp.Publishing {
	ids, body := messageIDs(n), make([]byte, bodyBytes)
	return func(i int) amqp.Publishing {
		return amqp.Publishing{
			MessageId:    ids[i],
			DeliveryMode: amqp.Persistent,
			Timestamp:    time.Now(),
			Headers:      amqp.Table{"recipient": "recipient"},
			Body:         body,
		}
	}
}
