package rabbitmq

import (
	"context"
	"errors"
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
	address string        // host:port
	gone    chan struct{} // closed when the connection has ended
	cause   error         // why it ended; to be read after gone
	ordered bool          // it ended because it was closed; to be read after gone
	blocked atomic.Bool   // the broker takes no messages over it for now
	changed broadcast     // blocked has changed

	requests chan struct{} // holds one for each channel that inChannel uses

	mu   sync.Mutex
	idle []*amqp.Channel // open, for inChannel

	home  *sharedConn
	users int // how many share it; guarded by home.mu
}

// maxRequests is how many requests a connection makes at the same time, and how many
// channels it keeps for that.
const maxRequests = 16

func newConnection(conn *amqp.Connection, tcp *tcpConn, address string) *connection {
	c := &connection{amqp: conn, tcp: tcp, address: address, gone: make(chan struct{})}
	c.requests = make(chan struct{}, min(maxRequests, max(1, int(conn.Config.ChannelMax)/2)))
	version, _ := conn.Properties["version"].(string)
	c.version = parseVersion(version)
	closed := conn.NotifyClose(make(chan *amqp.Error, 1))
	go func() {
		reply := <-closed
		c.cause, c.ordered = causeOf(reply), reply == nil
		close(c.gone)
	}()
	return c
}

// leave gives the connection back, see sharedConn.
func (c *connection) leave() { c.home.leave(c) }

// killIfAlone kills the connection, which ends all calls over it, unless there are
// others that use it.
func (c *connection) killIfAlone() bool {
	c.home.mu.Lock()
	defer c.home.mu.Unlock()
	if c.users > 1 {
		return false
	}
	if c.home.conn == c {
		c.home.conn = nil // it may take its time to end
	}
	c.tcp.kill()
	return true
}

// within runs f, which asks the broker for something over c, and returns when ctx ends.
// It kills the connection when f takes longer than timeout, because the client's calls
// know no deadline. The end of ctx is no reason to end what others use as well: then f
// goes on in the background.
func (c *connection) within(ctx context.Context, timeout time.Duration, f func() error) error {
	answers := make(chan error, 1)
	go func() {
		killer := time.AfterFunc(timeout, c.tcp.kill)
		err := f()
		if !killer.Stop() {
			err = endedBy(context.DeadlineExceeded, err)
		}
		answers <- err
	}()
	select {
	case err := <-answers:
		return err
	case <-ctx.Done():
	}
	if !c.killIfAlone() {
		return ctx.Err()
	}
	return endedBy(ctx.Err(), <-answers)
}

// endedBy is the error of what came to err, if it did, because it was ended.
func endedBy(cause, err error) error {
	if err == nil {
		return cause
	}
	return fmt.Errorf("%w: %w", cause, err)
}

// errUnanswered is the error of askFor while others use the connection.
var errUnanswered = errors.New("rabbitmq: no answer over a connection that others use")

// errFull is the error of openChannel on a connection that others have filled.
var errFull = errors.New("rabbitmq: the connection has no channel left")

// elsewhere says whether what failed is to be tried over another connection.
func elsewhere(err error) bool { return errors.Is(err, errUnanswered) || errors.Is(err, errFull) }

// openChannel opens a channel. Nobody joins the connection any longer when it has none
// left (channel_max).
func (c *connection) openChannel() (*amqp.Channel, error) {
	channel, err := c.amqp.Channel()
	if errors.Is(err, amqp.ErrChannelMax) {
		c.home.retire(c)
		return nil, errFull
	}
	return channel, err
}

// askFor runs f, which asks for something over c, until ctx ends or for as long as
// timeout. A queue that has lost its majority may not answer, and a broker that takes no
// messages for now answers nobody who publishes. That is no reason to end what others use
// as well. Then f goes on in the background, and what comes of it too late is given to
// discard. Nobody joins such a connection any longer.
func askFor[T any](ctx context.Context, c *connection, timeout time.Duration, f func() (T, error), discard func(T)) (T, error) {
	ended := ctx.Done()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		value, err := f()
		answers <- answer{value, err}
	}()
	select {
	case a := <-answers:
		return a.value, a.err
	case <-ctx.Done():
	}
	var none T
	select {
	case <-ended:
	default:
		c.home.retire(c)
	}
	if c.killIfAlone() {
		a := <-answers
		return none, endedBy(ctx.Err(), a.err)
	}
	go func() {
		if a := <-answers; a.err == nil {
			discard(a.value)
		}
	}()
	return none, fmt.Errorf("%w: %w", errUnanswered, ctx.Err())
}

// inChannel runs f with a channel that nobody else uses. It is kept for the next
// one, unless f fails: then the broker has closed it.
func (c *connection) inChannel(f func(channel *amqp.Channel) error) error {
	select {
	case c.requests <- struct{}{}:
		defer func() { <-c.requests }()
	case <-c.gone:
		return c.cause
	}
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
	defer c.mu.Unlock()
	c.idle = append(c.idle, channel)
	return nil
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

// width is how many requests to make at the same time, with a channel for each.
func (c *connection) width() int { return cap(c.requests) }

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

// firstOf is the first error that is one, or nil.
func firstOf(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
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
// each. Where there is no name there are none.
func (c *connection) messagesInEach(queues []string) (counts []int, errs []error) {
	counts = make([]int, len(queues))
	errs = inParallel(c.width(), len(queues), func(i int) (err error) {
		if queues[i] != "" {
			counts[i], err = c.messagesIn(queues[i])
		}
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
