package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/esh3artech/barid/delivery"
)

// controlConn is a transport's part in the connection over which the topology is
// declared, and the broker asked about itself and its queues. It neither publishes,
// which the broker may block, nor consumes. All who ask use it at the same time.
type controlConn struct {
	shared  *sharedConn
	looking chan struct{} // capacity 1: whoever has put something in may set conn
	conn    *connection   // nil when there is none

	mu     sync.Mutex
	closed bool
	asking sync.WaitGroup
}

// ask runs f with the control connection, and returns when ctx ends. Then f goes
// on, for DialTimeout at most, because others use the connection as well: what ends
// a call of the client's is the end of its connection.
func ask[T any](ctx context.Context, t *Transport, f func(*connection) (T, error)) (T, error) {
	return await(ctx, t, func() (T, error) {
		var value, none T
		err := t.control(t.connections.config.DialTimeout, func(conn *connection) (err error) {
			value, err = f(conn)
			return err
		})
		if err != nil {
			return none, err // f may go on
		}
		return value, nil
	})
}

// await runs f, which uses the control connection, and returns when ctx ends. Then f
// goes on, and Close waits for it.
func await[T any](ctx context.Context, t *Transport, f func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	var none T
	if t == nil || t.life == nil || t.closing.Load() || !t.controlConn.enter() {
		return none, delivery.ErrClosed
	}
	answers := make(chan answer, 1)
	go func() {
		defer t.controlConn.asking.Done()
		value, err := f()
		answers <- answer{value, err}
	}()
	select {
	case a := <-answers:
		if a.err != nil {
			return none, a.err
		}
		return a.value, nil
	case <-ctx.Done():
		if fault := t.connections.dialer.fault.Load(); fault != nil {
			return none, fmt.Errorf("%w: %w", ctx.Err(), fault)
		}
		return none, ctx.Err()
	}
}

// control runs f with the control connection. One that turns out to be dead is
// replaced once.
func (t *Transport) control(timeout time.Duration, f func(*connection) error) error {
	for first := true; ; first = false {
		conn, reused, err := t.controlConn.get(t.life)
		if err == nil {
			err = conn.within(t.life, timeout, func() error { return f(conn) })
		}
		var named *TopologyError
		var unreachable *ConnectError
		switch {
		case err == nil:
			return nil
		case t.life.Err() != nil:
			return delivery.ErrClosed
		case first && reused && conn.amqp.IsClosed():
			continue
		case errors.As(err, &named), errors.As(err, &unreachable):
			return err
		}
		return &ConnectError{Address: conn.address, Permanent: permanent(err), Cause: err}
	}
}

// get returns the connection, and whether it was there before.
func (c *controlConn) get(ctx context.Context) (conn *connection, reused bool, err error) {
	select {
	case c.looking <- struct{}{}:
		defer func() { <-c.looking }()
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
	if c.conn != nil && !c.conn.amqp.IsClosed() {
		return c.conn, true, nil
	}
	if c.conn != nil {
		c.conn.leave()
		c.conn = nil
	}
	conn, fault := c.shared.joinOnce(ctx)
	if fault != nil {
		return nil, false, fault
	}
	c.conn = conn
	return conn, false, nil
}

// enter counts one who asks. It returns false when the connection is closed for
// good.
func (c *controlConn) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.asking.Add(1)
	}
	return !c.closed
}

// close ends the connection for good. It is called when the transport's life is
// over, which ends what those who ask wait for.
func (c *controlConn) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.asking.Wait()
	if c.conn != nil {
		c.conn.leave()
	}
}

// Ping implements delivery.Pinger. It asks the broker over a connection that
// neither publishes nor consumes, so that a broker that blocks publishers
// answers as well.
func (t *Transport) Ping(ctx context.Context) error {
	_, err := ask(ctx, t, func(conn *connection) (struct{}, error) {
		channel, err := conn.amqp.Channel()
		if err == nil {
			err = channel.Close()
		}
		return struct{}{}, err
	})
	return err
}

// Depth implements delivery.Depther. Delayed messages are not counted until they
// are due, see Waiting, and the age of the oldest is not known. What waits in a queue that
// several priorities share counts for the lowest of them. It asks for sixteen queues
// at a time.
func (t *Transport) Depth(ctx context.Context) (map[delivery.Priority]delivery.Depth, error) {
	return ask(ctx, t, t.depth)
}

func (t *Transport) depth(conn *connection) (map[delivery.Priority]delivery.Depth, error) {
	queues := make([]string, 0, len(t.sources)+len(t.unroutable))
	for i := range t.sources {
		queues = append(queues, t.sources[i].queue)
	}
	queues = append(queues, t.topology.UnroutableQueue, t.topology.LostQueue)
	counts, faults := conn.messagesInEach(queues)
	depths := make(map[delivery.Priority]delivery.Depth)
	for _, priority := range delivery.Priorities() {
		depths[priority] = delivery.Depth{}
	}
	for i := range t.sources {
		source := &t.sources[i]
		if faults[i] != nil && (!source.leftover || !isCode(faults[i], amqp.NotFound)) {
			return nil, topologyFault("queue", source.queue, faults[i])
		}
		depth := depths[source.lowest()]
		depth.Messages += int64(counts[i])
		depths[source.lowest()] = depth
	}
	t.logUnroutable(queues[len(t.sources):], counts[len(t.sources):], faults[len(t.sources):])
	return depths, nil
}

// logUnroutable logs how many messages wait that found no queue, whenever that
// has changed. They wait for good where no Collector runs.
func (t *Transport) logUnroutable(queues []string, counts []int, faults []error) {
	for i, queue := range queues {
		if faults[i] != nil {
			continue // depths are known without it
		}
		count := int64(counts[i])
		if before := t.unroutable[i].Swap(count); count > 0 && before != count {
			t.config.Logger.Warn("unroutable messages found", "queue", queue, "messages", count)
		}
	}
}

// Waiting is how many messages wait in the broker beside those that Depth counts.
type Waiting struct {
	// Delayed is how many are in the delay ladder until they are due. That is for all
	// names of the virtual host, which share the ladder.
	Delayed     int64
	DeadLetters int64 // in the dead-letter queue, for a Collector
	Unroutable  int64 // in Topology.UnroutableQueue, for a Collector
	// Lost is how many are in Topology.LostQueue, of any name: all that is left of a
	// name whose queues somebody has deleted. Nobody fetches them.
	Lost int64
}

// Waiting counts what waits beside the queues that are fetched from.
func (t *Transport) Waiting(ctx context.Context) (Waiting, error) { return ask(ctx, t, t.waiting) }

func (t *Transport) waiting(conn *connection) (Waiting, error) {
	var waiting Waiting
	var queues []string
	var sums []*int64
	count := func(sum *int64, queue string) {
		if queue != "" {
			queues, sums = append(queues, queue), append(sums, sum)
		}
	}
	for _, queue := range slices.Concat(t.topology.ladderQueues(), t.formerLadder) {
		count(&waiting.Delayed, queue)
	}
	count(&waiting.DeadLetters, t.topology.DeadLetterQueue)
	count(&waiting.Unroutable, t.topology.UnroutableQueue)
	count(&waiting.Lost, t.topology.LostQueue)
	counts, faults := conn.messagesInEach(queues)
	for i, queue := range queues {
		if isCode(faults[i], amqp.NotFound) && (queue == t.topology.UnroutableQueue || slices.Contains(t.formerLadder, queue)) {
			continue
		}
		if faults[i] != nil {
			return Waiting{}, topologyFault("queue", queue, faults[i])
		}
		*sums[i] += int64(counts[i])
	}
	return waiting, nil
}
