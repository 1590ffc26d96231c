package rabbitmq

import (
	"context"
	"fmt"
	"sync"
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

	mu   sync.Mutex
	idle []*amqp.Channel // open, for inChannel
}

// maxIdleChannels is how many channels a connection keeps for inChannel, and how
// many requests it makes at the same time.
const maxIdleChannels = 16

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

// inChannel runs f with a channel that nobody else uses. It is kept for the next
// one, unless f fails: then the broker has closed it.
func (c *connection) inChannel(f func(channel *amqp.Channel) error) error {
	channel := c.takeIdle()
	if channel == nil {
		var err error
		if channel, err = c.amqp.Channel(); err != nil {
			return err
		}
	}
	if err := f(channel); err != nil {
		channel.Close() //nolint:errcheck // the failure has closed it already
		return err
	}
	c.mu.Lock()
	keep := len(c.idle) < maxIdleChannels
	if keep {
		c.idle = append(c.idle, channel)
	}
	c.mu.Unlock()
	if keep {
		return nil
	}
	return channel.Close()
}

func (c *connection) takeIdle() *amqp.Channel {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.idle) > 0 {
		last := len(c.idle) - 1
		channel := c.idle[last]
		c.idle = c.idle[:last]
		if !channel.IsClosed() {
			return channel
		}
	}
	return nil
}

// closeIdle closes the channels that inChannel has kept.
func (c *connection) closeIdle() {
	c.mu.Lock()
	idle := c.idle
	c.idle = nil
	c.mu.Unlock()
	inParallel(len(idle), len(idle), func(i int) error { return idle[i].Close() })
}

// width is how many requests to make at the same time, with a channel for each.
func (c *connection) width() int {
	return min(maxIdleChannels, max(1, int(c.amqp.Config.ChannelMax)/2))
}

// inParallel runs f for each number below n, so many at a time, and returns the
// errors by number.
func inParallel(width, n int, f func(i int) error) []error {
	errs := make([]error, n)
	var next atomic.Int64
	var all sync.WaitGroup
	for range min(width, n) {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				errs[i] = f(int(i))
			}
		})
	}
	all.Wait()
	return errs
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

// messagesInEach is how many messages wait in each of the queues, with an error for
// each.
func (c *connection) messagesInEach(queues []string) (counts []int, errs []error) {
	counts = make([]int, len(queues))
	errs = inParallel(c.width(), len(queues), func(i int) (err error) {
		counts[i], err = c.messagesIn(queues[i])
		return err
	})
	return counts, errs
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
