package rabbitmq

import (
	"context"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/esh3artech/barid/retry"
)

// channelOffer keeps one channel of a publishConn open, and offers it.
type channelOffer struct {
	conn      *publishConn
	transport *Transport
	slot      *atomic.Pointer[publishChannel] // where it is offered
	window    int
	alone     bool // it is for a single message at a time
}

// keep offers a channel over conn until that is gone or ctx ends, and returns the
// cause. It leaves no channel behind. A channel that the broker has ended because of a
// message is replaced at once: only its senders have to do with that.
func (o *channelOffer) keep(ctx context.Context, conn *connection) error {
	t := o.transport
	for last := exceptionNone; ; {
		t.renew(ctx, last == exceptionMissing)
		channel, closed, err := o.open(ctx, conn)
		if err != nil {
			return err
		}
		o.slot.Store(channel)
		t.publishConns.fault.Store(nil)
		t.publishConns.changed.notify()
		cause := o.watch(ctx, closed)
		last = t.exception(conn, cause)
		o.slot.Store(nil)
		channel.cause, channel.exception = cause, last
		close(channel.gone)
		t.publishConns.changed.notify()
		if last == exceptionNone || ctx.Err() != nil {
			//nolint:errcheck // it has ended, or does
			askFor(context.WithoutCancel(ctx), conn, closeTimeout, func() (none struct{}, err error) {
				return none, channel.amqp.Close()
			}, func(struct{}) {})
			return cause
		}
		t.logLost(ctx, "publish channel", cause, 0)
	}
}

// open opens a channel in confirm mode. closed tells its end.
func (o *channelOffer) open(ctx context.Context, conn *connection) (_ *publishChannel, closed <-chan *amqp.Error, err error) {
	channel, err := askFor(ctx, conn, o.transport.connections.config.DialTimeout, func() (*amqp.Channel, error) {
		channel, err := conn.openChannel()
		if err != nil {
			return nil, err
		}
		return channel, channel.Confirm(false)
	}, func(late *amqp.Channel) {
		late.Close() //nolint:errcheck // it is closed
	})
	if err != nil {
		return nil, nil, err
	}
	return &publishChannel{
		owner:    o.conn,
		conn:     conn,
		amqp:     channel,
		alone:    o.alone,
		window:   make(chan struct{}, o.window),
		gone:     make(chan struct{}),
		returns:  channel.NotifyReturn(make(chan amqp.Return, o.window)),
		returned: make(map[returnKey]int),
	}, channel.NotifyClose(make(chan *amqp.Error, 1)), nil
}

// watch follows what becomes of a channel, until its end, and returns the cause. The
// one that messages share renews the topology meanwhile.
func (o *channelOffer) watch(ctx context.Context, closed <-chan *amqp.Error) error {
	t := o.transport
	recheck := time.NewTicker(missingExchangeRecheck)
	defer recheck.Stop()
	missing := o.conn.missing
	if o.alone {
		recheck.Stop()
		missing = nil
	}
	for {
		select {
		case reply := <-closed:
			return causeOf(reply)
		case round := <-missing:
			if round < t.mender.rounds.Load() {
				continue
			}
			if !retry.Wait(ctx.Done(), mendDelay) {
				return ctx.Err()
			}
		case <-recheck.C:
			if !t.topology.incomplete() && !t.topology.expired.Load() {
				continue
			}
		case <-ctx.Done():
			return ctx.Err()
		}
		t.renew(ctx, true)
	}
}

// exception is what the end of a channel says of the messages on it.
type exception int

const (
	exceptionNone    exception = iota // nothing
	exceptionMissing                  // one of them was for an exchange that does not exist
	exceptionMessage                  // the broker refuses one of them
	exceptionSize                     // one of them is over the broker's limit, which is known now
)

// exception reads the cause of a channel's end. It says nothing where the whole
// connection has ended.
func (t *Transport) exception(conn *connection, cause error) exception {
	switch {
	case conn.amqp.IsClosed():
		return exceptionNone
	case isCode(cause, amqp.NotFound):
		return exceptionMissing
	case t.learnLimit(cause):
		return exceptionSize
	case t.causedBySender(cause):
		return exceptionMessage
	}
	return exceptionNone
}
