package rabbitmq

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// closeTimeout bounds the orderly close of a connection or channel.
const closeTimeout = 5 * time.Second

// connection is one AMQP connection, from its login to its end. It is never
// repaired: a lost one is replaced by a new connection.
type connection struct {
	amqp    *amqp.Connection
	tcp     *tcpConn
	version Version
	gone    chan struct{} // closed when the connection has ended
	cause   error         // why it ended; to be read after gone
	blocked atomic.Bool   // the broker takes no messages over it for now
}

func newConnection(conn *amqp.Connection, tcp *tcpConn) *connection {
	c := &connection{amqp: conn, tcp: tcp, gone: make(chan struct{})}
	version, _ := conn.Properties["version"].(string)
	c.version = parseVersion(version)
	closed := conn.NotifyClose(make(chan *amqp.Error, 1))
	go func() {
		c.cause = causeOf(<-closed)
		close(c.gone)
	}()
	return c
}

// within runs f, which talks to the broker over c. It kills the connection when
// that takes longer than timeout or ctx, because the client's calls know no
// deadline.
func (c *connection) within(ctx context.Context, timeout time.Duration, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	stop := context.AfterFunc(ctx, c.tcp.kill)
	err := f()
	switch {
	case stop():
		return err
	case err == nil:
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", ctx.Err(), err)
}

// inChannel runs f with a channel of its own, which the broker closes when f
// fails.
func (c *connection) inChannel(f func(channel *amqp.Channel) error) error {
	channel, err := c.amqp.Channel()
	if err != nil {
		return err
	}
	if err := f(channel); err != nil {
		channel.Close() //nolint:errcheck // the failure has closed it already
		return err
	}
	return channel.Close()
}

// messagesIn is how many messages wait in a queue.
func (c *connection) messagesIn(queue string) (count int, err error) {
	err = c.inChannel(func(channel *amqp.Channel) error {
		state, err := channel.QueueDeclarePassive(queue, true, false, false, false, nil)
		count = state.Messages
		return err
	})
	return count, err
}

// close ends the connection, in order if that can be done within closeTimeout,
// and returns when it is gone.
func (c *connection) close() {
	timer := time.AfterFunc(closeTimeout, c.tcp.kill)
	c.amqp.CloseDeadline(time.Now().Add(closeTimeout)) //nolint:errcheck // it is killed below anyway
	timer.Stop()
	<-c.gone
	c.tcp.kill()
	<-c.tcp.ended
}

// causeOf is why a connection or channel was closed, by what its listener
// received.
func causeOf(reply *amqp.Error) error {
	if reply == nil {
		return amqp.ErrClosed
	}
	return reply
}
