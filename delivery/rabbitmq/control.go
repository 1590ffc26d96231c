package rabbitmq

import (
	"context"
	"errors"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/esh3artech/barid/delivery"
)

// control is a connection for questions. It is neither a publishing one, which
// the broker may block, nor a consuming one. It is made when first used.
type control struct {
	turn chan struct{} // capacity 1: who has put something in may use link
	link *link
}

// ask runs f with the control connection. A connection that turns out to be dead
// is replaced once.
func (t *Transport) ask(ctx context.Context, f func(*link) error) error {
	if t == nil || t.life == nil || t.closing.Load() {
		return delivery.ErrClosed
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.life, cancel)()
	select {
	case t.control.turn <- struct{}{}:
	case <-ctx.Done():
		if t.closing.Load() {
			return delivery.ErrClosed
		}
		return ctx.Err()
	}
	defer func() { <-t.control.turn }()
	for {
		link, known, err := t.control.get(ctx, t)
		if err == nil {
			err = link.within(ctx, t.config.DialTimeout, func() error { return f(link) })
		}
		switch {
		case err == nil:
			return nil
		case t.closing.Load():
			return delivery.ErrClosed
		case ctx.Err() != nil:
			return ctx.Err()
		case known && link.conn.IsClosed():
			continue
		}
		var fault *TopologyError
		if errors.As(err, &fault) {
			return err
		}
		return &ConnectError{Address: t.dialer.address, Permanent: permanent(err), Cause: err}
	}
}

// get returns the connection, and whether it was there before.
func (c *control) get(ctx context.Context, t *Transport) (link *link, known bool, err error) {
	if c.link != nil && !c.link.conn.IsClosed() {
		return c.link, true, nil
	}
	if c.link != nil {
		c.link.close()
		c.link = nil
	}
	c.link, err = t.dialer.dial(ctx, "control")
	return c.link, false, err
}

// close ends the connection for good. The transport's life is over, so nobody
// holds the turn for long.
func (c *control) close() {
	c.turn <- struct{}{}
	if c.link != nil {
		c.link.close()
	}
}

// Ping implements delivery.Pinger. It asks the broker over a connection that
// neither publishes nor consumes, so that a blocked broker answers, too.
func (t *Transport) Ping(ctx context.Context) error {
	return t.ask(ctx, func(link *link) error {
		return inChannel(link, func(*amqp.Channel) error { return nil })
	})
}

// Depth implements delivery.Depther. Delayed messages are not counted until they
// are due, and the age of the oldest is not known. What waits in a queue that
// priorities share counts for the lowest of them.
func (t *Transport) Depth(ctx context.Context) (map[delivery.Priority]delivery.Depth, error) {
	depths := make(map[delivery.Priority]delivery.Depth)
	err := t.ask(ctx, func(link *link) error {
		for _, priority := range delivery.Priorities() {
			depths[priority] = delivery.Depth{} // also after a try that failed
		}
		for i := range t.sources {
			source := &t.sources[i]
			waiting, err := messagesIn(link, source.queue)
			if source.leftover && isCode(err, amqp.NotFound) {
				continue
			}
			if err != nil {
				return newTopologyError("queue", source.queue, err)
			}
			depth := depths[source.lowest()]
			depth.Messages += int64(waiting)
			depths[source.lowest()] = depth
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return depths, nil
}

// messagesIn is how many messages wait in a queue.
func messagesIn(link *link, queue string) (count int, err error) {
	err = inChannel(link, func(channel *amqp.Channel) error {
		state, err := channel.QueueDeclarePassive(queue, true, false, false, false, nil)
		count = state.Messages
		return err
	})
	return count, err
}
