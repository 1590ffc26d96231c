package rabbitmq

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/retry"
)

// missingExchangeRecheck is how often a missing exchange is looked for again.
const missingExchangeRecheck = 5 * time.Second

// publishConn keeps to one connection for publishing, with a channel that the
// transport's messages share, and, when it is needed, a second one for a single message
// at a time. Each time that one of these is made, it is offered.
type publishConn struct {
	shared  *sharedConn                    // the connection, which other transports may use as well
	channel atomic.Pointer[publishChannel] // nil while there is none
	alone   atomic.Pointer[publishChannel] // nil while there is none
	wanted  chan struct{}                  // capacity 1: somebody waits for alone
	missing chan int64                     // capacity 1: the topology is to be renewed, unless it has been since that round
}

func newPublishConn(shared *sharedConn) *publishConn {
	return &publishConn{shared: shared, wanted: make(chan struct{}, 1), missing: make(chan int64, 1)}
}

// run keeps to a connection until ctx ends. It begins with conn, unless that is nil.
func (p *publishConn) run(ctx context.Context, t *Transport, conn *connection) {
	delay := newReconnectDelay(t.connections.config.MaxReconnectDelay)
	for {
		if conn == nil {
			var err error
			if conn, err = p.shared.join(ctx, delay, true); err != nil {
				return
			}
		}
		opened := time.Now()
		cause := p.serve(ctx, t, conn)
		awake, lost := t.connections.dialer.back.listen(), conn.amqp.IsClosed()
		conn.leave()
		conn = nil
		if ctx.Err() != nil {
			return
		}
		t.topology.expire()
		delay.endedAfter(opened)
		wait := delay.next(isCode(cause, amqp.AccessRefused))
		t.publishConns.fault.Store(&cause)
		if !lost {
			t.logLost(ctx, "publish", cause, wait)
		}
		if t.connections.dialer.wait(ctx, wait, awake) {
			delay.reset()
		}
	}
}

// serve offers channels over conn until that is gone or ctx ends, and returns the
// cause.
func (p *publishConn) serve(ctx context.Context, t *Transport, conn *connection) error {
	if err := conn.checkNegotiated(minChannels); err != nil {
		return err
	}
	t.learnFrame(conn)
	ctx, stop := context.WithCancelCause(ctx)
	shared := &channelOffer{conn: p, transport: t, slot: &p.channel, window: t.config.Window}
	alone := &channelOffer{conn: p, transport: t, slot: &p.alone, window: 1, alone: true}
	var second sync.WaitGroup
	defer second.Wait()
	defer stop(nil)
	second.Go(func() {
		for ctx.Err() == nil {
			changed := conn.changed.listen()
			t.publishConns.changed.notify()
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	})
	second.Go(func() {
		delay := newReconnectDelay(t.connections.config.MaxReconnectDelay)
		for {
			select {
			case <-p.wanted:
				cause := alone.keep(ctx, conn)
				if errors.Is(cause, errFull) {
					stop(cause)
				}
				if retry.Wait(ctx.Done(), delay.next(permanent(cause))) {
					t.publishConns.changed.notify() // whoever still wants it says so again
				}
			case <-ctx.Done():
				return
			}
		}
	})
	cause := shared.keep(ctx, conn)
	if err := context.Cause(ctx); errors.Is(err, errFull) {
		return err // for the channel for single messages
	}
	return cause
}

// wantAlone asks for the channel for single messages.
func (p *publishConn) wantAlone() {
	select {
	case p.wanted <- struct{}{}:
	default:
	}
}

// lacks says that the topology lacks a part, as seen after so many rounds of the
// mender's.
func (p *publishConn) lacks(round int64) {
	select {
	case p.missing <- round:
	default: // another one has said so
	}
}

// publishConns are the connections that publish.
type publishConns struct {
	all     []*publishConn
	fault   atomic.Pointer[error] // why a connection was lost last; nil since there is one
	changed broadcast             // a channel has come, gone, or been blocked or unblocked
}

// await returns a channel to publish with, as soon as there is one: for a message
// alone, or for all.
func (p *publishConns) await(ctx context.Context, closing *atomic.Bool, alone bool) (*publishChannel, error) {
	for {
		changed := p.changed.listen()
		if channel := p.pick(alone); channel != nil {
			return channel, nil
		}
		if closing.Load() {
			return nil, delivery.ErrClosed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// pick chooses among the channels that can be used now: the first that has half
// of its window free, or else the one with most room. Messages that share a
// connection go out in fewer, larger writes, so the next connection is used only
// when there is more to do, or when the first one stalls.
func (p *publishConns) pick(alone bool) *publishChannel {
	var emptiest *publishChannel
	for _, conn := range p.all {
		channel := conn.channel.Load()
		if alone {
			if channel = conn.alone.Load(); channel == nil {
				conn.wantAlone()
			}
		}
		if channel == nil || channel.ended() || channel.conn.blocked.Load() {
			continue
		}
		if len(channel.window) <= cap(channel.window)/2 {
			return channel
		}
		if emptiest == nil || len(channel.window) < len(emptiest.window) {
			emptiest = channel
		}
	}
	return emptiest
}

// blocked says whether the broker blocks any of the connections.
func (p *publishConns) blocked() bool {
	for _, conn := range p.all {
		if channel := conn.channel.Load(); channel != nil && channel.conn.blocked.Load() {
			return true
		}
	}
	return false
}
