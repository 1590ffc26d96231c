package rabbitmq

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// recheck is how often a missing exchange is looked for again.
const recheck = 5 * time.Second

// lane keeps a publishing connection: it opens session after session.
type lane struct {
	number  int
	session atomic.Pointer[session] // nil while there is none
}

// session is a lane's connection, with its channel, for as long as it lives.
// Those who publish do so themselves, one after another, and each waits for the
// confirms of its own messages. What a session leaves unconfirmed at its end is
// lost to it: whoever waits sends it again with the next one.
type session struct {
	link    *link
	channel *amqp.Channel
	slots   chan struct{} // the window: as many as are sent and not confirmed
	gone    chan struct{} // closed when the channel is no more
	cause   error         // why; to be read after gone
	failed  atomic.Bool   // a publish failed: gone follows
	blocked atomic.Bool   // the broker takes nothing for now

	sending sync.Mutex // one publish at a time

	// The broker returns what it can't route, and confirms it thereafter. The
	// client puts a return into the channel before it resolves the confirm, so
	// that who sees the confirm finds the return. There are never more than
	// there are slots.
	returns  chan amqp.Return
	mu       sync.Mutex
	returned map[returnKey]int
}

// returnKey tells a returned message from others, as far as their fate differs.
type returnKey struct {
	id    string
	route Route
}

// run keeps the lane open until ctx ends. It begins with the link if there is
// one.
func (l *lane) run(ctx context.Context, t *Transport, link *link) {
	pause := newPause(t.config.MaxReconnectDelay)
	for {
		if link == nil {
			var err error
			if link, err = t.dialer.connect(ctx, "publish", pause, true); err != nil {
				return
			}
		}
		opened := time.Now()
		cause := l.serve(ctx, t, link)
		link.close()
		link = nil
		if ctx.Err() != nil {
			return
		}
		t.stale.Store(true)
		pause.lived(opened)
		delay := pause.next(isCode(cause, amqp.AccessRefused))
		t.logLost(ctx, "publish", cause, delay)
		wait(ctx.Done(), delay)
	}
}

// serve offers a session over link until it is gone or ctx ends, and returns
// why.
func (l *lane) serve(ctx context.Context, t *Transport, link *link) error {
	if err := t.mend(ctx, link); err != nil {
		return err
	}
	s, closed, err := t.openSession(ctx, link)
	if err != nil {
		return err
	}
	blocked := link.conn.NotifyBlocked(make(chan amqp.Blocking, 16))
	t.config.Logger.Info("rabbitmq_connected", "purpose", "publish", "lane", l.number, "address", t.dialer.address)
	l.session.Store(s)
	t.lanesChanged.ring()
	defer func() {
		l.session.Store(nil)
		close(s.gone)
		t.lanesChanged.ring()
	}()
	ticker := time.NewTicker(recheck)
	defer ticker.Stop()
	for {
		select {
		case reply := <-closed:
			s.cause = causeOf(reply)
			return s.cause
		case blocking, ok := <-blocked:
			if !ok {
				blocked = nil // closed follows
				continue
			}
			s.blocked.Store(blocking.Active)
			t.lanesChanged.ring()
			level := slog.LevelInfo
			if blocking.Active {
				level = slog.LevelWarn
			}
			t.config.Logger.Log(ctx, level, "rabbitmq_blocked", "lane", l.number, "blocked", blocking.Active, "reason", blocking.Reason)
		case <-ticker.C:
			if t.missing.Load() != nil {
				t.stale.Store(true)
				if err := t.mend(ctx, link); err != nil {
					s.cause = err
					return err
				}
			}
		case <-ctx.Done():
			s.cause = ctx.Err()
			return s.cause
		}
	}
}

// openSession opens a channel in confirm mode.
func (t *Transport) openSession(ctx context.Context, link *link) (*session, <-chan *amqp.Error, error) {
	s := &session{
		link:     link,
		slots:    make(chan struct{}, t.config.Window),
		gone:     make(chan struct{}),
		returned: make(map[returnKey]int),
	}
	var closed chan *amqp.Error
	err := link.within(ctx, t.config.DialTimeout, func() error {
		channel, err := link.conn.Channel()
		if err != nil {
			return err
		}
		s.channel = channel
		s.returns = channel.NotifyReturn(make(chan amqp.Return, t.config.Window))
		closed = channel.NotifyClose(make(chan *amqp.Error, 1))
		return channel.Confirm(false)
	})
	return s, closed, err
}

// over says that the session is of no more use. What the client resolves as not
// confirmed while it is not over was refused by the broker: the client marks a
// channel as closed before it gives its confirms up.
func (s *session) over() bool {
	select {
	case <-s.gone:
		return true
	default:
		return s.failed.Load() || s.channel.IsClosed()
	}
}

// publish writes one message. It never blocks for long, because the wire does
// not. When it can't, the message has not gone out, and the session ends.
func (s *session) publish(route Route, p *amqp.Publishing) (confirm *amqp.DeferredConfirmation, ok bool) {
	s.sending.Lock()
	defer s.sending.Unlock()
	confirm, err := s.channel.PublishWithDeferredConfirm(route.Exchange, route.Key, true, false, *p)
	if err != nil {
		s.failed.Store(true)
		s.link.wire.kill()
	}
	return confirm, err == nil
}

// wasReturned says whether the broker found no queue for a message that it
// confirmed. It answers once for each return.
func (s *session) wasReturned(key returnKey) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.returns) > 0 {
		r := <-s.returns
		s.returned[returnKey{id: r.MessageId, route: Route{Exchange: r.Exchange, Key: r.RoutingKey}}]++
	}
	count := s.returned[key]
	switch count {
	case 0:
		return false
	case 1:
		delete(s.returned, key)
	default:
		s.returned[key] = count - 1
	}
	return true
}
