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

// strandedCheck is how often a subscription looks whether its queues know of their
// consumers. A queue that was deleted and at once declared again may not (seen with 3.10
// on a machine that was overloaded): then nothing comes, and the broker tells nobody.
const (
	strandedCheck   = 30 * time.Second
	strandedTimeout = 5 * time.Second
)

var errStranded = errors.New("rabbitmq: the queue does not know of its consumer any longer")

// errCancelled is how a consumer ends that the broker cancelled.
var errCancelled = errors.New("rabbitmq: consumer cancelled by the broker: the queue was deleted or moved, " +
	"or a message was in hand for longer than consumer_timeout (from 4.3 on)")

// maxPrefetch is the limit of AMQP's prefetch count, 16 bits.
const maxPrefetch = 65535

// subscription fetches from its sources over a connection that others may use as well,
// with a channel for each of them. It reconnects for as long as it is open.
type subscription struct {
	transport *Transport
	sources   []source
	prefetch  int // of a level
	ready     readyQueue
	pausing   pauseState

	cancel  context.CancelFunc
	done    chan struct{} // closed when the subscription is to end
	ended   chan struct{} // closed when it has ended
	endOnce sync.Once
}

// Subscribe implements delivery.Transport. The prefetch is for each priority,
// and at most 65535. Where a queue has a single active consumer, as with shards, the
// subscription is no delivery.Pauser.
func (t *Transport) Subscribe(ctx context.Context, config delivery.SubscribeConfig) (delivery.Subscription, error) {
	if t == nil || t.life == nil || t.closing.Load() {
		return nil, delivery.ErrClosed
	}
	defaultTo(&config.Prefetch, 100)
	if config.Prefetch < 1 || config.Prefetch > maxPrefetch {
		return nil, fmt.Errorf("%w: SubscribeConfig.Prefetch is %d, want 1 to %d", ErrConfig, config.Prefetch, maxPrefetch)
	}
	s, err := t.subscribe(ctx, t.sources, config.Prefetch)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(t.sources, func(s source) bool { return s.single }) {
		return unpausable{s}, nil
	}
	return s, nil
}

// unpausable is a subscription that is no delivery.Pauser. If a single active
// consumer paused, another process would take over and overtake what is in hand here.
type unpausable struct{ subscription *subscription }

func (u unpausable) Receive(ctx context.Context) ([]delivery.Incoming, error) {
	return u.subscription.Receive(ctx)
}

func (u unpausable) Close() error { return u.subscription.Close() }

// subscribe fetches from the sources until the subscription is closed.
func (t *Transport) subscribe(ctx context.Context, sources []source, prefetch int) (*subscription, error) {
	life, cancel := context.WithCancel(context.Background())
	s := &subscription{
		transport: t,
		sources:   sources,
		prefetch:  prefetch,
		ready:     newReadyQueue(),
		pausing:   newPauseState(),
		cancel:    cancel,
		done:      make(chan struct{}),
		ended:     make(chan struct{}),
	}
	conn, channels, err := s.open(ctx)
	if err != nil {
		cancel()
		if t.closing.Load() {
			err = delivery.ErrClosed
		}
		return nil, err
	}
	t.mu.Lock()
	closed := t.subscriptions == nil
	if !closed {
		t.subscriptions[s] = struct{}{}
	}
	t.mu.Unlock()
	for i, c := range channels {
		if c != nil {
			s.pausing.opened(&s.sources[i])
		}
	}
	go s.run(life, conn, channels)
	if closed {
		s.end()
		return nil, delivery.ErrClosed
	}
	return s, nil
}

// open makes the first connection, with its channels.
func (s *subscription) open(ctx context.Context) (conn *connection, channels []*consumerChannel, err error) {
	t := s.transport
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(t.life, stop)()
	conn, err = t.connect(ctx, t.connections.consume, func(conn *connection) (err error) {
		channels, err = s.openChannels(ctx, conn)
		if isCode(err, amqp.NotFound) && !t.topology.passive {
			// The queue was there when the transport was opened.
			t.topology.expire()
			channels, err = s.openChannels(ctx, conn)
		}
		return err
	})
	return conn, channels, err
}

// openChannels opens a channel for each source, or fails and leaves none. A leftover
// that is gone has nil. It opens those of a level together, the highest level first, so
// that what is urgent comes first.
func (s *subscription) openChannels(ctx context.Context, conn *connection) ([]*consumerChannel, error) {
	if err := conn.checkNegotiated(len(s.sources)); err != nil {
		return nil, err
	}
	channels := make([]*consumerChannel, len(s.sources))
	for first, end := 0, 0; first < len(s.sources); first = end {
		for end < len(s.sources) && (end == first || s.sources[end].sameLevel(&s.sources[first])) {
			end++
		}
		faults := inParallel(conn.width(), end-first, func(i int) (err error) {
			source := &s.sources[first+i]
			channels[first+i], err = s.reopen(ctx, conn, source)
			if source.leftover && isCode(err, amqp.NotFound) {
				return nil
			}
			return err
		})
		if err := firstOf(faults); err != nil {
			inParallel(len(channels), len(channels), func(i int) error {
				if channels[i] != nil {
					channels[i].close(ctx, conn)
				}
				return nil
			})
			return nil, err
		}
	}
	return channels, nil
}

// reopen opens a channel after an outage, which may have cost the queue.
func (s *subscription) reopen(ctx context.Context, conn *connection, source *source) (*consumerChannel, error) {
	s.transport.renew(ctx, false)
	return askFor(ctx, conn, s.transport.connections.config.DialTimeout, func() (*consumerChannel, error) {
		return s.openChannel(conn, source, s.pausing.wanted())
	}, func(c *consumerChannel) {
		c.markStale()
		c.amqp.Close() //nolint:errcheck // it is closed
	})
}

// run keeps to a connection, with a channel for each source, until ctx ends.
func (s *subscription) run(ctx context.Context, conn *connection, channels []*consumerChannel) {
	defer close(s.ended)
	t := s.transport
	delay := newReconnectDelay(t.connections.config.MaxReconnectDelay)
	for {
		if conn == nil {
			var err error
			if conn, err = t.connections.consume.join(ctx, delay, true); err != nil {
				return
			}
		}
		opened := time.Now()
		using, stopUsing := context.WithCancelCause(ctx)
		var serving sync.WaitGroup
		for i := range s.sources {
			c := channels[i]
			serving.Go(func() {
				if err := s.serve(using, conn, &s.sources[i], c); elsewhere(err) {
					stopUsing(err)
				}
			})
		}
		clear(channels)
		serving.Wait()
		cause := context.Cause(using)
		stopUsing(nil)
		awake := t.connections.dialer.back.listen()
		if conn.amqp.IsClosed() {
			<-conn.gone
			cause = conn.cause
		}
		conn.leave()
		conn = nil
		if ctx.Err() != nil {
			return
		}
		t.topology.expire()
		delay.endedAfter(opened)
		wait := delay.next(permanent(cause))
		if elsewhere(cause) {
			t.logLost(ctx, "consume", cause, wait)
		}
		if t.connections.dialer.wait(ctx, wait, awake) {
			delay.reset()
		}
	}
}

// serve keeps a channel for the source over conn, until the connection is gone or is no
// longer the one for it, or ctx ends, and returns the cause. It begins with c, unless
// that is nil. A leftover that is gone is not waited for.
func (s *subscription) serve(ctx context.Context, conn *connection, source *source, c *consumerChannel) error {
	t := s.transport
	delay := newReconnectDelay(t.connections.config.MaxReconnectDelay)
	for {
		opened := time.Now()
		cause := s.follow(ctx, conn, source, c)
		c = nil
		if ctx.Err() != nil || conn.amqp.IsClosed() || elsewhere(cause) ||
			source.leftover && isCode(cause, amqp.NotFound) {
			return cause
		}
		t.topology.expire()
		delay.endedAfter(opened)
		wait := delay.next(isCode(cause, amqp.AccessRefused))
		t.logLost(ctx, "consume "+source.queue, cause, wait)
		waiting, stop := context.WithTimeout(ctx, wait)
		select {
		case <-waiting.Done():
		case <-conn.gone:
		}
		stop()
	}
}

// follow opens a channel if there is none, pauses and resumes it as wanted, and
// returns its end's cause.
func (s *subscription) follow(ctx context.Context, conn *connection, source *source, c *consumerChannel) error {
	if c == nil {
		var err error
		if c, err = s.reopen(ctx, conn, source); err != nil {
			return err
		}
	}
	defer c.markStale()
	s.pausing.opened(source)
	defer s.pausing.closed(source)
	look := time.NewTicker(strandedCheck)
	defer look.Stop()
	for {
		changed := s.pausing.changed.listen()
		if paused := s.pausing.wanted(); paused != (c.consumerEnded == nil) {
			if err := c.setPaused(ctx, conn, paused); err != nil {
				return err
			}
			continue
		}
		s.pausing.applied(source, c.consumerEnded == nil)
		select {
		case <-changed:
		case reply := <-c.closed:
			return causeOf(reply)
		case <-c.consumerEnded:
			if c.amqp.IsClosed() {
				return causeOf(<-c.closed)
			}
			// The channel lives: the broker has cancelled the consumer.
			c.close(context.WithoutCancel(ctx), conn)
			return errCancelled
		case <-look.C:
			if c.consumerEnded != nil && s.stranded(ctx, source) {
				c.close(context.WithoutCancel(ctx), conn)
				return errStranded
			}
		case <-ctx.Done():
			c.close(context.WithoutCancel(ctx), conn)
			return ctx.Err()
		}
	}
}

// stranded says whether the queue has no consumer, although there is one of ours. It
// asks over the control connection: a queue that does not answer is no reason to end
// the one with all that is in hand.
func (s *subscription) stranded(ctx context.Context, source *source) bool {
	ctx, cancel := context.WithTimeout(ctx, strandedTimeout)
	defer cancel()
	consumers, err := ask(ctx, s.transport, func(conn *connection) (consumers int, err error) {
		err = conn.inChannel(func(channel *amqp.Channel) error {
			state, err := channel.QueueDeclarePassive(source.queue, true, false, false, false, nil)
			consumers = state.Consumers
			return err
		})
		return consumers, err
	})
	return err == nil && consumers == 0
}

// Receive implements delivery.Subscription. It returns all that is ready, the
// highest priority first.
func (s *subscription) Receive(ctx context.Context) ([]delivery.Incoming, error) {
	if s == nil || s.cancel == nil {
		return nil, delivery.ErrClosed
	}
	for {
		select {
		case <-s.done:
			return nil, delivery.ErrClosed
		default:
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if batch := s.ready.take(); len(batch) > 0 {
			return batch, nil
		}
		select {
		case <-s.ready.arrived:
		case <-s.done:
		case <-ctx.Done():
		}
	}
}

// Pause implements delivery.Pauser. While there is no connection, it takes
// effect when there is one.
func (s *subscription) Pause(ctx context.Context) error { return s.setPaused(ctx, true) }

// Resume implements delivery.Pauser.
func (s *subscription) Resume(ctx context.Context) error { return s.setPaused(ctx, false) }

func (s *subscription) setPaused(ctx context.Context, paused bool) error {
	if s == nil || s.cancel == nil {
		return delivery.ErrClosed
	}
	return s.pausing.set(ctx, s.done, paused)
}

// Close implements delivery.Subscription. It takes some seconds at most.
func (s *subscription) Close() error {
	if s == nil || s.cancel == nil {
		return nil
	}
	t := s.transport
	t.mu.Lock()
	delete(t.subscriptions, s)
	t.mu.Unlock()
	s.end()
	return nil
}

func (s *subscription) end() {
	s.endOnce.Do(func() {
		close(s.done)
		s.cancel()
	})
	<-s.ended
}
