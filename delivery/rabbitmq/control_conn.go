package rabbitmq

import (
	"context"
	"errors"

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
		case ctx.Err() != nil:
			return ctx.Err()
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
// are due, and the age of the oldest is not known. What waits in a queue that
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
		return nil
	})
	if err != nil {
		return nil, err
	}
	return depths, nil
}
