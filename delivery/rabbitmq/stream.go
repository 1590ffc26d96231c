package rabbitmq

import (
	"context"
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/esh3artech/barid/delivery"
)

const (
	// ackDelay is how long an ack waits for others to go with it.
	ackDelay = 3 * time.Millisecond
	// ackPassage is how long the last acks before the end of a channel get at least
	// to pass through it, and cancelPassages how many times what the end of the
	// consumer took.
	ackPassage     = 100 * time.Millisecond
	cancelPassages = 4
	// maxHold bounds how long a message is held back because it is not due: what
	// the ladder leaves is less than a second, more is a difference of clocks.
	maxHold = time.Second
)

// stream is the fetching from one source over one AMQP channel. It is never mended:
// when the channel is gone, the stream is stale with all that came by it, and
// another one follows.
type stream struct {
	subscription *Subscription
	source       *source
	limits       limits
	channel      *amqp.Channel

	closed   chan *amqp.Error // tells why the channel was closed, is closed with it
	consumed int              // consumers so far; each has a tag of its own
	pumped   chan struct{}    // closed when the present consumer has ended; nil while paused
	passage  time.Duration    // how long acks may be on their way, as far as known

	mu      sync.Mutex
	acks    *acks
	acked   ackTimer
	lastTag uint64
	stale   bool
	timer   *time.Timer // sends acks that wait
	armed   bool
}

// openStream opens a channel for a source, and consumes unless paused.
func (s *Subscription) openStream(link *link, source *source, paused bool) (*stream, error) {
	prefetch := source.prefetch(s.prefetch)
	channel, err := link.conn.Channel()
	if err != nil {
		return nil, err
	}
	st := &stream{
		subscription: s,
		source:       source,
		limits:       s.transport.limits(),
		channel:      channel,
		closed:       channel.NotifyClose(make(chan *amqp.Error, 1)),
		acked:        ackTimer{Channel: channel},
	}
	st.acks = newAcks(&st.acked, prefetch)
	// A message is malformed by our own bound, not by what the broker now takes.
	st.limits.body = s.transport.config.MaxBodyBytes
	st.timer = time.AfterFunc(time.Hour, st.tick)
	st.timer.Stop()
	if err := channel.Qos(prefetch, 0, false); err != nil {
		return nil, err
	}
	if !paused {
		if err := st.consume(); err != nil {
			return nil, err
		}
	}
	return st, nil
}

// consume starts a consumer. The one before it must have ended: acks rely on the
// order of the tags.
func (st *stream) consume() error {
	st.consumed++
	deliveries, err := st.channel.Consume(st.source.queue, st.consumerTag(), false, false, false, false, nil)
	if err != nil {
		return newTopologyError("queue", st.source.queue, err)
	}
	pumped := make(chan struct{})
	st.pumped = pumped
	go func() {
		defer close(pumped)
		for d := range deliveries {
			st.take(d)
		}
	}()
	return nil
}

func (st *stream) consumerTag() string { return fmt.Sprintf("%.200s-%d", st.source.label, st.consumed) }

// pause ends the consumer and returns when all that it fetched is taken.
func (st *stream) pause() error {
	begin := time.Now()
	if err := st.channel.Cancel(st.consumerTag(), false); err != nil {
		return err
	}
	<-st.pumped
	st.pumped = nil
	st.passage = max(ackPassage, cancelPassages*time.Since(begin))
	return nil
}

// take hands a delivery over, when it is due.
func (st *stream) take(d amqp.Delivery) {
	in := &incoming{receipt: receipt{tag: d.DeliveryTag}, stream: st, delivery: d, priority: st.source.priorityOf(&d)}
	st.mu.Lock()
	if st.stale {
		st.mu.Unlock()
		return
	}
	if d.DeliveryTag != st.lastTag+1 {
		// The next ack of several would ack what we have not seen.
		st.stale = true
		st.mu.Unlock()
		st.subscription.transport.config.Logger.Error("rabbitmq_delivery_missed",
			"queue", st.source.queue, "tag", d.DeliveryTag, "last", st.lastTag)
		go st.channel.Close() //nolint:errcheck // ends this pump; what comes next is another stream
		return
	}
	st.lastTag = d.DeliveryTag
	st.acks.delivered(&in.receipt)
	st.mu.Unlock()
	if due := dueOf(&d); !due.IsZero() {
		if left := time.Until(due); left > 0 {
			time.AfterFunc(min(left, maxHold), func() {
				if !st.isStale() {
					st.subscription.offer(in)
				}
			})
			return
		}
	}
	st.subscription.offer(in)
}

func (st *stream) isStale() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.stale
}

// ack settles a receipt; its frame may follow a little later.
func (st *stream) ack(r *receipt) error {
	return st.settle(r, func() error {
		err := st.acks.ack(r)
		if st.acks.unsent > 0 && !st.armed && err == nil {
			st.armed = true
			st.timer.Reset(ackDelay)
		}
		return err
	})
}

// nack gives a receipt back.
func (st *stream) nack(r *receipt) error {
	return st.settle(r, func() error { return st.acks.nack(r) })
}

func (st *stream) settle(r *receipt, how func() error) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if r.state != inHand {
		return delivery.ErrSettled
	}
	if st.stale || st.channel.IsClosed() {
		r.state = gone
		return delivery.ErrStale
	}
	if how() != nil {
		return delivery.ErrStale
	}
	return nil
}

func (st *stream) tick() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.armed = false
	if st.stale {
		return
	}
	if more, err := st.acks.tick(); more && err == nil {
		st.armed = true
		st.timer.Reset(ackDelay)
	}
}

// retire makes everything that came by the stream stale.
func (st *stream) retire() {
	st.mu.Lock()
	st.stale = true
	st.timer.Stop()
	st.acks.open = nil
	st.mu.Unlock()
	st.subscription.forget(st)
}

// finish sends all acks and closes the channel, which gives back the rest.
//
// While the log of a quorum queue is busy, RabbitMQ's channel keeps acks back, and
// forgets them when it is closed; a bare client that closes just after its last
// ack gets up to hundreds of messages again (seen with 3.10). The end of a consumer
// waits for the log, and takes the acks along. Where the consumer has ended
// before, nothing can be asked for, and the acks get the time that its end took,
// some times over.
func (st *stream) finish(link *link) {
	st.mu.Lock()
	if !st.stale {
		st.acks.flush() //nolint:errcheck // a lost ack leads to a redelivery
	}
	last := st.acked.last
	st.mu.Unlock()
	st.retire()
	//nolint:errcheck // closed is what is wanted
	link.within(context.Background(), closeTimeout, func() error {
		if st.pumped != nil {
			st.pause() //nolint:errcheck // it is gone then
		} else {
			wait(link.gone, time.Until(last.Add(st.passage)))
		}
		return st.channel.Close()
	})
}

// ackTimer is a channel that knows when it was last given an ack.
type ackTimer struct {
	*amqp.Channel
	last time.Time
}

func (a *ackTimer) Ack(tag uint64, multiple bool) error {
	a.last = time.Now()
	return a.Channel.Ack(tag, multiple)
}

// causeOf is why a channel is closed, by what its listener got.
func causeOf(reply *amqp.Error) error {
	if reply == nil {
		return amqp.ErrClosed
	}
	return reply
}

// serve keeps a stream of the source over link until the link is gone or the
// subscription ends. It begins with st if there is one. A leftover that is gone
// is not waited for.
func (s *Subscription) serve(ctx context.Context, link *link, source *source, st *stream) {
	t := s.transport
	pause := newPause(t.config.MaxReconnectDelay)
	for {
		opened := time.Now()
		cause := s.follow(ctx, link, source, st)
		st = nil
		if ctx.Err() != nil || link.conn.IsClosed() || source.leftover && isCode(cause, amqp.NotFound) {
			return
		}
		t.stale.Store(true)
		pause.lived(opened)
		delay := pause.next(isCode(cause, amqp.AccessRefused))
		t.logLost(ctx, "consume "+source.queue, cause, delay)
		waiting, stop := context.WithTimeout(ctx, delay)
		select {
		case <-waiting.Done():
		case <-link.gone:
		}
		stop()
	}
}

// follow opens a stream if there is none and runs it to its end, which it
// explains.
func (s *Subscription) follow(ctx context.Context, link *link, source *source, st *stream) error {
	if st == nil {
		var err error
		if st, err = s.reopen(ctx, link, source); err != nil {
			return err
		}
	}
	defer st.retire()
	s.attend(source, true)
	defer s.attend(source, false)
	for {
		changed := s.changed.listen()
		if paused := s.wantPaused(); paused != (st.pumped == nil) {
			if err := st.setPaused(ctx, link, paused); err != nil {
				return err
			}
			continue
		}
		s.applied(source, st.pumped == nil)
		select {
		case <-changed:
		case reply := <-st.closed:
			return causeOf(reply)
		case <-st.pumped:
			if st.channel.IsClosed() {
				return causeOf(<-st.closed)
			}
			// The channel lives: the broker has cancelled the consumer, because
			// its queue was deleted or moved.
			st.finish(link)
			return errCancelled
		case <-ctx.Done():
			st.finish(link)
			return ctx.Err()
		}
	}
}

// reopen opens a stream after an outage, which may have cost the queue.
func (s *Subscription) reopen(ctx context.Context, link *link, source *source) (*stream, error) {
	if err := s.transport.mend(ctx, link); err != nil {
		return nil, err
	}
	var st *stream
	err := link.within(ctx, s.transport.config.DialTimeout, func() (err error) {
		st, err = s.openStream(link, source, s.wantPaused())
		return err
	})
	return st, err
}

// setPaused ends or starts the consumer. When ctx ends meanwhile, it is not given
// up at once: acks are on their way over the same connection.
func (st *stream) setPaused(ctx context.Context, link *link, paused bool) error {
	patient, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(closeTimeout, cancel) })()
	return link.within(patient, st.subscription.transport.config.DialTimeout, func() error {
		if paused {
			return st.pause()
		}
		return st.consume()
	})
}
