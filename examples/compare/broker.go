package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// unique is a name for the queues of one side.
func unique() string { return "compare-" + strings.ToLower(rand.Text()[:10]) }

// quorum is what makes a queue replicated, on both sides.
func quorum() amqp.Table { return amqp.Table{"x-queue-type": "quorum"} }

// withChannel connects, runs f with a channel, and closes the connection.
func withChannel(url string, f func(channel *amqp.Channel) error) error {
	connection, err := amqp.Dial(url)
	if err != nil {
		return err
	}
	channel, err := connection.Channel()
	if err == nil {
		err = f(channel)
	}
	return errors.Join(err, connection.Close())
}

// withQueue declares a fresh quorum queue for f and deletes it at the end.
func withQueue(url string, f func(queue string) (time.Duration, error)) (took time.Duration, err error) {
	queue := unique()
	err = withChannel(url, func(channel *amqp.Channel) error {
		_, err := channel.QueueDeclare(queue, true, false, false, false, quorum())
		return err
	})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, deleteQueues(url, queue)) }()
	return f(queue)
}

func deleteQueues(url string, queues ...string) error {
	return withChannel(url, func(channel *amqp.Channel) error {
		for _, queue := range queues {
			if _, err := channel.QueueDelete(queue, false, false, false); err != nil {
				return err
			}
		}
		return nil
	})
}

// fill stores n messages in a queue, each made by publishing.
func fill(url, queue string, n int, publishing func(i int) amqp.Publishing) error {
	const window = 500
	return withChannel(url, func(channel *amqp.Channel) error {
		if err := channel.Confirm(false); err != nil {
			return err
		}
		pending := make(chan *amqp.DeferredConfirmation, window)
		faults := make(chan error, 1)
		var confirming sync.WaitGroup
		confirming.Go(func() {
			var fault error
			for confirm := range pending {
				if !confirm.Wait() {
					fault = errors.New("the broker did not take a message")
				}
			}
			faults <- fault
		})
		var err error
		for i := 0; i < n && err == nil; i++ {
			var confirm *amqp.DeferredConfirmation
			if confirm, err = channel.PublishWithDeferredConfirm("", queue, true, false, publishing(i)); err == nil {
				pending <- confirm
			}
		}
		close(pending)
		confirming.Wait()
		return errors.Join(err, <-faults)
	})
}

// drain takes everything out of a queue and notes it, to see that all that was
// confirmed is there.
func drain(ctx context.Context, url, queue string, books *ledger, id func(amqp.Delivery) string) error {
	const group = 500
	return withChannel(url, func(channel *amqp.Channel) error {
		if err := channel.Qos(2*group, 0, false); err != nil {
			return err
		}
		deliveries, err := channel.Consume(queue, "", false, false, false, false, nil)
		if err != nil {
			return err
		}
		ended := make(chan error, 1)
		go func() {
			taken := 0
			for d := range deliveries {
				books.note(id(d))
				if taken++; taken%group == 0 || taken == len(books.handled) {
					if err := d.Ack(true); err != nil {
						ended <- err
						return
					}
				}
			}
			ended <- amqp.ErrClosed
		}()
		if err := books.wait(ctx, ended); err != nil {
			return err
		}
		return errors.Join(books.check(), channel.Cancel("", false))
	})
}

// checkEmpty fails unless the queue has nothing left. Its consumers must be gone,
// so that what they left unacked is back.
func checkEmpty(url, queue string) error {
	return withChannel(url, func(channel *amqp.Channel) error {
		var left int
		// A quorum queue applies acks and the end of a consumer a moment later.
		for deadline := time.Now().Add(10 * time.Second); ; {
			state, err := channel.QueueDeclarePassive(queue, true, false, false, false, quorum())
			if err != nil {
				return err
			}
			left = state.Messages + state.Consumers
			if left == 0 {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%d messages were not acked, %d consumers are left", state.Messages, state.Consumers)
			}
			time.Sleep(20 * time.Millisecond)
		}
		// What a consumer that just left had unacked counts from here on.
		if _, found, err := channel.Get(queue, false); err != nil || found {
			return errors.Join(err, errors.New("a message was not acked"))
		}
		return nil
	})
}
