package rabbitmq

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/retry"
)

// missingExchangeRecheck is how often a missing exchange is looked for again.
const missingExchangeRecheck = 5 * time.Second

// publishConn keeps one connection for publishing open. Each time that it is
// made, it offers a new publishChannel.
type publishConn struct {
	number  int                            // in the log
	channel atomic.Pointer[publishChannel] // nil while there is none
}

// run keeps the connection open until ctx ends. It begins with conn, unless that
// is nil.
func (p *publishConn) run(ctx context.Context, t *Transport, conn *connection) {
	delay := newReconnectDelay(t.config.MaxReconnectDelay)
	for {
		if conn == nil {
			var err error
			if conn, err = t.dialer.connect(ctx, "publish", delay, true); err != nil {
				return
			}
		}
		opened := time.Now()
		cause := p.serve(ctx, t, conn)
		conn.close()
		conn = nil
		if ctx.Err() != nil {
			return
		}
		t.topology.expire()
		delay.endedAfter(opened)
		wait := delay.next(isCode(cause, amqp.AccessRefused))
		t.logLost(ctx, "publish", cause, wait)
		retry.Wait(ctx.Done(), wait)
	}
}

// serve offers a channel over conn until that is gone or ctx ends, and returns
// the cause.
func (p *publishConn) serve(ctx context.Context, t *Transport, conn *connection) error {
	if err := t.topology.renew(ctx, conn); err != nil {
		return err
	}
	channel, closed, err := t.openPublishChannel(ctx, conn)
	if err != nil {
		return err
	}
	blocked := conn.amqp.NotifyBlocked(make(chan amqp.Blocking, 16))
	t.config.Logger.Info("rabbitmq_connected", "purpose", "publish", "connection", p.number, "address", t.dialer.address)
	p.channel.Store(channel)
	t.publishConns.changed.notify()
	defer func() {
		p.channel.Store(nil)
		close(channel.gone)
		t.publishConns.changed.notify()
	}()
	channel.cause = p.watch(ctx, t, conn, channel, closed, blocked)
	return channel.cause
}

// watch follows what becomes of a channel, until its end, and returns the cause.
func (p *publishConn) watch(ctx context.Context, t *Transport, conn *connection, channel *publishChannel,
	closed <-chan *amqp.Error, blocked <-chan amqp.Blocking,
) error {
	recheck := time.NewTicker(missingExchangeRecheck)
	defer recheck.Stop()
	for {
		select {
		case reply := <-closed:
			return causeOf(reply)
		case blocking, ok := <-blocked:
			if !ok {
				blocked = nil // closed follows
				continue
			}
			channel.blocked.Store(blocking.Active)
			t.publishConns.changed.notify()
			p.logBlocked(ctx, t, blocking)
		case <-recheck.C:
			if t.topology.incomplete() {
				t.topology.expire()
				if err := t.topology.renew(ctx, conn); err != nil {
					return err
				}
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p *publishConn) logBlocked(ctx context.Context, t *Transport, blocking amqp.Blocking) {
	level := slog.LevelInfo
	if blocking.Active {
		level = slog.LevelWarn
	}
	t.config.Logger.Log(ctx, level, "rabbitmq_blocked",
		"connection", p.number, "blocked", blocking.Active, "reason", blocking.Reason)
}

// publishConns are the connections that publish.
type publishConns struct {
	all     []*publishConn
	changed broadcast // a channel has come, gone, or been blocked or unblocked
}

// await returns a channel to publish with, as soon as there is one.
func (p *publishConns) await(ctx context.Context, closing *atomic.Bool) (*publishChannel, error) {
	for {
		changed := p.changed.listen()
		if channel := p.pick(); channel != nil {
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
func (p *publishConns) pick() *publishChannel {
	var emptiest *publishChannel
	for _, conn := range p.all {
		channel := conn.channel.Load()
		if channel == nil || channel.ended() || channel.blocked.Load() {
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
		if channel := conn.channel.Load(); channel != nil && channel.blocked.Load() {
			return true
		}
	}
	return false
}
