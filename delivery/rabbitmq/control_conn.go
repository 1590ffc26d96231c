package rabbitmq

import (
	"context"
	"errors"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/esh3artech/barid/delivery"
)

// controlConn is the connection over which the broker is asked about itself and
// its queues. It neither publishes, which the broker may block, nor consumes. It
// is made when it is first needed, and used by one caller at a time.
type controlConn struct {
	inUse chan struct{} // capacity 1: whoever has put something in may use conn
	conn  *connection   // nil when there is none
}

// ask runs f with the control connection. A connection that turns out to be dead
// is replaced once.
func (t *Transport) ask(ctx context.Context, f func(*connection) error) error {
	if t == nil || t.life == nil || t.closing.Load() {
		return delivery.ErrClosed
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.life, cancel)()
	select {
	case t.controlConn.inUse <- struct{}{}:
	case <-ctx.Done():
		if t.closing.Load() {
			return delivery.ErrClosed
		}
		return ctx.Err()
	}
	defer func() { <-t.controlConn.inUse }()
	for {
		conn, reused, err := t.controlConn.get(ctx, t.dialer)
		if err == nil {
			err = conn.within(ctx, t.config.DialTimeout, func() error { return f(conn) })
		}
		switch {
		case err == nil:
			return nil
		case t.closing.Load():
			return delivery.ErrClosed
		case ctx.Err() != nil && !errors.Is(err, ctx.Err()):
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case ctx.Err() != nil:
			return err
		case reused && conn.amqp.IsClosed():
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
func (c *controlConn) get(ctx context.Context, d *dialer) (conn *connection, reused bool, err error) {
	if c.conn != nil && !c.conn.amqp.IsClosed() {
		return c.conn, true, nil
	}
	if c.conn != nil {
		c.conn.close()
		c.conn = nil
	}
	c.conn, err = d.dial(ctx, "control")
	return c.conn, false, err
}

// close ends the connection for good. It is called when the transport's life is
// over, which cancels whoever uses the connection.
func (c *controlConn) close() {
	c.inUse <- struct{}{}
	if c.conn != nil {
		c.conn.close()
	}
}

// Ping implements delivery.Pinger. It asks the broker over a connection that
// neither publishes nor consumes, so that a broker that blocks publishers
// answers as well.
func (t *Transport) Ping(ctx context.Context) error {
	return t.ask(ctx, func(conn *connection) error {
		return conn.inChannel(func(*amqp.Channel) error { return nil })
	})
}

// Depth implements delivery.Depther. Delayed messages are not counted until they
// are due, see Waiting, and the age of the oldest is not known. What waits in a queue that
// several priorities share counts for the lowest of them.
func (t *Transport) Depth(ctx context.Context) (map[delivery.Priority]delivery.Depth, error) {
	depths := make(map[delivery.Priority]delivery.Depth)
	err := t.ask(ctx, func(conn *connection) error {
		for _, priority := range delivery.Priorities() {
			depths[priority] = delivery.Depth{} // a failed try may have left something
		}
		for i := range t.sources {
			source := &t.sources[i]
			waiting, err := conn.messagesIn(source.queue)
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
		t.watchUnroutable(conn)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return depths, nil
}

// watchUnroutable logs how many messages wait that found no queue, whenever that
// has changed. They wait for good where no Collector runs.
func (t *Transport) watchUnroutable(conn *connection) {
	queue := t.topology.UnroutableQueue
	if queue == "" {
		return
	}
	count, err := conn.messagesIn(queue)
	if err != nil {
		return // depths are known without it
	}
	if before := t.unroutable.Swap(int64(count)); count > 0 && before != int64(count) {
		t.config.Logger.Warn("rabbitmq_unroutable", "queue", queue, "messages", count)
	}
}

// Waiting is how many messages wait in the broker beside those that Depth counts.
type Waiting struct {
	Delayed     int64 // in the delay ladder, until they are due
	DeadLetters int64 // in the dead-letter queue, for a Collector
	Unroutable  int64 // in Topology.UnroutableQueue, for a Collector
}

// Waiting counts what waits beside the queues that are fetched from. It asks for
// each queue of the delay ladder, so it takes some twenty round trips.
func (t *Transport) Waiting(ctx context.Context) (Waiting, error) {
	var waiting Waiting
	err := t.ask(ctx, func(conn *connection) error {
		waiting = Waiting{} // a failed try may have left something
		return conn.inChannel(func(channel *amqp.Channel) error {
			add := func(count *int64, queue string) error {
				if queue == "" {
					return nil
				}
				state, err := channel.QueueDeclarePassive(queue, true, false, false, false, nil)
				if err != nil && queue == t.topology.UnroutableQueue && isCode(err, amqp.NotFound) {
					return nil
				}
				if err != nil {
					return newTopologyError("queue", queue, err)
				}
				*count += int64(state.Messages)
				return nil
			}
			for _, queue := range t.topology.ladderQueues() {
				if err := add(&waiting.Delayed, queue); err != nil {
					return err
				}
			}
			if err := add(&waiting.DeadLetters, t.topology.DeadLetterQueue); err != nil {
				return err
			}
			return add(&waiting.Unroutable, t.topology.UnroutableQueue)
		})
	})
	if err != nil {
		return Waiting{}, err
	}
	return waiting, nil
}
