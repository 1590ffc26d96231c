package rabbitmq

import (
	"context"
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/retry"
)

const (
	// ackDelay is how long an ack waits for others, to go with them.
	ackDelay = 3 * time.Millisecond
	// minAckLatency is how long the last acks before the close of a paused channel
	// are given at least. Where the cancel of its consumer was slow, they are given
	// cancelAckLatency times as long as that took.
	minAckLatency    = 100 * time.Millisecond
	cancelAckLatency = 4
	// maxHold bounds how long a message is held because it is not due. The delay
	// ladder leaves less than a second; more is a difference of clocks.
	maxHold = time.Second
)

// consumerChannel is an AMQP channel that consumes from one source. It is never
// repaired: when it has ended it is stale, with all that came by it, and another
// one replaces it.
type consumerChannel struct {
	subscription *subscription
	source       *source
	limits       limits
	amqp         *amqp.Channel

	closed        chan *amqp.Error // receives why the channel was closed, and is closed then
	consumers     int              // how many there were; each has a tag of its own
	consumerEnded chan struct{}    // closed when the present consumer has ended; nil while paused
	ackLatency    time.Duration    // how long acks may be under way, as far as known

	mu         sync.Mutex
	acks       *acks
	ackWriter  ackWriter
	lastTag    uint64
	stale      bool
	flushTimer *time.Timer // sends the acks that wait
	flushArmed bool
}

// openChannel opens a channel for a source, and consumes unless paused.
func (s *subscription) openChannel(conn *connection, source *source, paused bool) (c *consumerChannel, err error) {
	prefetch := source.prefetch(s.prefetch)
	channel, err := conn.openChannel()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			channel.Close() //nolint:errcheck // the failure may have closed it already
		}
	}()
	c = &consumerChannel{
		subscription: s,
		source:       source,
		limits:       s.transport.limits(),
		amqp:         channel,
		closed:       channel.NotifyClose(make(chan *amqp.Error, 1)),
		ackWriter:    ackWriter{Channel: channel},
	}
	c.acks = newAcks(&c.ackWriter, prefetch)
	// A message is malformed by our own bound, not by what the broker takes now.
	c.limits.body = s.transport.config.MaxBodyBytes
	c.flushTimer = time.AfterFunc(time.Hour, c.flushDue)
	c.flushTimer.Stop()
	if err := channel.Qos(prefetch, 0, false); err != nil {
		return nil, err
	}
	if !paused {
		if err := c.consume(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// consume starts a consumer. The one before it must have ended, because acks
// rely on the order of the tags.
func (c *consumerChannel) consume() error {
	c.consumers++
	deliveries, err := c.amqp.Consume(c.source.queue, c.consumerTag(), false, false, false, false, nil)
	if err != nil {
		return newTopologyError("queue", c.source.queue, err)
	}
	ended := make(chan struct{})
	c.consumerEnded = ended
	go func() {
		defer close(ended)
		for d := range deliveries {
			c.receive(d)
		}
	}()
	return nil
}

func (c *consumerChannel) consumerTag() string {
	return fmt.Sprintf("%.200s-%d", c.source.label, c.consumers)
}

// pause ends the consumer and returns when all that it fetched has been received.
func (c *consumerChannel) pause() error {
	begin := time.Now()
	if err := c.amqp.Cancel(c.consumerTag(), false); err != nil {
		return err
	}
	<-c.consumerEnded
	c.consumerEnded = nil
	c.ackLatency = max(minAckLatency, cancelAckLatency*time.Since(begin))
	return nil
}

// awaitAcks waits for the log of a queue with a single active consumer, so that it
// has the acks. A second consumer does that by beginning and ending; it stands by, so
// it gets nothing, and the first one stays the active one.
func (c *consumerChannel) awaitAcks() error {
	c.consumers++
	if _, err := c.amqp.Consume(c.source.queue, c.consumerTag(), false, false, false, false, nil); err != nil {
		return err
	}
	return c.amqp.Cancel(c.consumerTag(), false)
}

// setPaused ends or starts the consumer. When ctx ends meanwhile, that is not given up
// at once, because acks are under way over the channel.
func (c *consumerChannel) setPaused(ctx context.Context, conn *connection, paused bool) error {
	patient, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(closeTimeout, cancel) })()
	_, err := askFor(patient, conn, c.subscription.transport.connections.config.DialTimeout, func() (none struct{}, err error) {
		if paused {
			return none, c.pause()
		}
		return none, c.consume()
	}, func(struct{}) {
		c.amqp.Close() //nolint:errcheck // it is closed
	})
	return err
}

// receive makes a delivery ready, as soon as it is due.
func (c *consumerChannel) receive(d amqp.Delivery) {
	in := &incoming{receipt: receipt{tag: d.DeliveryTag}, channel: c, delivery: d, priority: c.source.priorityOf(&d)}
	if !c.register(in) {
		return
	}
	if due := dueOf(&d); !due.IsZero() {
		if left := time.Until(due); left > 0 {
			time.AfterFunc(min(left, maxHold), func() {
				if !c.isStale() {
					c.subscription.ready.add(in)
				}
			})
			return
		}
	}
	c.subscription.ready.add(in)
}

// register has the delivery await its ack. It returns false if the channel is of
// no more use. A gap in the tags is the end of the channel: an ack that covers
// several messages would cover the one that never came here.
func (c *consumerChannel) register(in *incoming) bool {
	c.mu.Lock()
	last, stale := c.lastTag, c.stale
	missed := !stale && in.tag != last+1
	switch {
	case stale:
	case missed:
		c.stale = true
	default:
		c.lastTag = in.tag
		c.acks.add(&in.receipt)
	}
	c.mu.Unlock()
	if missed {
		c.subscription.transport.config.Logger.Error("delivery missed",
			"queue", c.source.queue, "tag", in.tag, "last", last)
		go c.amqp.Close() //nolint:errcheck // another channel follows
	}
	return !stale && !missed
}

func (c *consumerChannel) isStale() bool {
	if c.amqp.IsClosed() {
		return true // markStale follows
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stale
}

// ack acks a receipt. The frame may follow up to some milliseconds later.
func (c *consumerChannel) ack(r *receipt) error {
	return c.settle(r, func() error {
		err := c.acks.ack(r)
		if c.acks.unsent > 0 && !c.flushArmed && err == nil {
			c.flushArmed = true
			c.flushTimer.Reset(ackDelay)
		}
		return err
	})
}

// nack has the broker deliver the message again.
func (c *consumerChannel) nack(r *receipt) error {
	return c.settle(r, func() error { return c.acks.nack(r) })
}

// settle settles a receipt once, if the channel can still do it.
func (c *consumerChannel) settle(r *receipt, how func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.state != inHand {
		return delivery.ErrSettled
	}
	if c.stale || c.amqp.IsClosed() {
		r.state = settled
		return delivery.ErrStale
	}
	if how() != nil {
		return delivery.ErrStale
	}
	return nil
}

// flushDue sends the acks that have waited long enough.
func (c *consumerChannel) flushDue() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flushArmed = false
	if c.stale {
		return
	}
	if more, err := c.acks.tick(); more && err == nil {
		c.flushArmed = true
		c.flushTimer.Reset(ackDelay)
	}
}

// markStale makes all that came by the channel stale.
func (c *consumerChannel) markStale() {
	c.mu.Lock()
	c.stale = true
	c.flushTimer.Stop()
	c.acks.open = nil
	c.mu.Unlock()
	c.subscription.ready.drop(c)
}

// close sends all acks and closes the channel. The broker takes back what is not
// acked.
//
// While the log of a quorum queue is busy, RabbitMQ's channel keeps acks, and
// forgets them when it is closed: a bare client that closes right after its last
// ack gets up to hundreds of messages again (seen with 3.10). To cancel the
// consumer first is the remedy, because the cancel waits for the log and takes
// the acks along. A consumer that has ended before can't be cancelled; then the
// acks are given some multiple of the time that its cancel took.
//
// A single active consumer is not cancelled: the broker would make the next one
// active at once, which then gets later messages before those that are in hand here.
// All of them go back together with the channel.
//
// When ctx ends, the rest goes on in the background.
func (c *consumerChannel) close(ctx context.Context, conn *connection) {
	c.mu.Lock()
	if !c.stale {
		c.acks.flush() //nolint:errcheck // a lost ack leads to a redelivery
	}
	lastAck := c.ackWriter.lastAck
	c.mu.Unlock()
	c.markStale()
	//nolint:errcheck // if it fails, the connection is gone, and the channel with it; or it goes on
	askFor(ctx, conn, closeTimeout, func() (none struct{}, err error) {
		switch {
		case c.consumerEnded == nil:
			retry.Wait(conn.gone, time.Until(lastAck.Add(c.ackLatency)))
		case c.source.single && lastAck.IsZero():
		case c.source.single:
			c.awaitAcks() //nolint:errcheck // the channel is closed in any case
		default:
			c.pause() //nolint:errcheck // the channel is closed in any case
		}
		return none, c.amqp.Close()
	}, func(struct{}) {})
}

// ackWriter is a channel that remembers when it last wrote an ack.
type ackWriter struct {
	*amqp.Channel
	lastAck time.Time
}

func (w *ackWriter) Ack(tag uint64, multiple bool) error {
	w.lastAck = time.Now()
	return w.Channel.Ack(tag, multiple)
}
