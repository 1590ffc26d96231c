package main

import (
	"context"
	"errors"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// consumeRaw is the plainest loop on the bare client: take a message, handle it,
// ack it. It knows no duplicates, no failures and no outages.
func consumeRaw(ctx context.Context, where addresses, n int) (time.Duration, error) {
	return withQueue(where.amqp, func(queue string) (time.Duration, error) {
		if err := fill(where.amqp, queue, n, rawMessages(n)); err != nil {
			return 0, err
		}
		books := newLedger(n)
		err := withChannel(where.amqp, func(channel *amqp.Channel) error {
			if err := channel.Qos(prefetch, 0, false); err != nil {
				return err
			}
			deliveries, err := channel.Consume(queue, "raw", false, false, false, false, nil)
			if err != nil {
				return err
			}
			ended := make(chan error, 1)
			go func() {
				for d := range deliveries {
					books.note(d.MessageId)
					if err := d.Ack(false); err != nil {
						ended <- err
						return
					}
				}
				ended <- amqp.ErrClosed
			}()
			if err := books.wait(ctx, ended); err != nil {
				return err
			}
			if err := channel.Cancel("raw", false); err != nil {
				return err
			}
			if err := <-ended; !errors.Is(err, amqp.ErrClosed) { // the loop is through
				return err
			}
			return channel.Close()
		})
		if err = errors.Join(err, books.check()); err != nil {
			return 0, err
		}
		return books.elapsed(), checkEmpty(where.amqp, queue)
	})
}
