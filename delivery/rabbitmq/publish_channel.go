package rabbitmq

import (
	"sync"
	"sync/atomic"

	amqp "github.com/rabbitmq/amqp091-go"
)

// publishChannel is an AMQP channel in confirm mode. It is never repaired: when it
// has ended, whatever it left unconfirmed is sent again over the next one by the
// caller that waits for it.
//
// Callers of Send write by themselves, one after another, and each awaits the
// confirms of its own messages.
type publishChannel struct {
	owner  *publishConn
	conn   *connection
	amqp   *amqp.Channel
	alone  bool          // it is for a single message at a time
	window chan struct{} // holds one for each message that is sent and not confirmed
	gone   chan struct{} // closed when the channel has ended
	cause  error         // why it ended; this and exception are to be read after gone

	exception exception   // what that says of its messages
	failed    atomic.Bool // a publish failed: gone follows

	publishing sync.Mutex // one publish at a time

	// The broker returns what it can't route, and confirms it afterwards. The
	// client puts a return into the Go channel before it resolves the confirm, so
	// whoever has seen the confirm finds the return. There are never more of them
	// than the window holds.
	returns  chan amqp.Return
	mu       sync.Mutex
	returned map[returnKey]int
}

// returnKey is what a returned message is known by. Messages with the same key
// are returned or routed alike.
type returnKey struct {
	id    string
	route Route
}

// ended says that the channel is of no more use. A confirm that the client
// resolves as negative while this is false was refused by the broker: the client
// marks a channel as closed before it resolves what the channel left.
func (c *publishChannel) ended() bool {
	select {
	case <-c.gone:
		return true
	default:
		return c.failed.Load() || c.amqp.IsClosed()
	}
}

// publish writes one message. It does not block, because tcpConn does not. When
// it returns false, the message has not gone out, and the channel ends.
func (c *publishChannel) publish(route Route, p *amqp.Publishing) (confirm *amqp.DeferredConfirmation, ok bool) {
	c.publishing.Lock()
	defer c.publishing.Unlock()
	confirm, err := c.amqp.PublishWithDeferredConfirm(route.Exchange, route.Key, true, false, *p)
	if err != nil {
		c.failed.Store(true)
		if !c.amqp.IsClosed() { // by the broker, which leaves the connection to others
			c.conn.tcp.kill()
		}
	}
	return confirm, err == nil
}

// wasReturned says whether the broker found no queue for a message that it has
// confirmed. It answers yes once for each return.
func (c *publishChannel) wasReturned(key returnKey) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.returns) > 0 {
		r := <-c.returns
		c.returned[returnKey{id: r.MessageId, route: Route{Exchange: r.Exchange, Key: r.RoutingKey}}]++
	}
	count := c.returned[key]
	switch count {
	case 0:
		return false
	case 1:
		delete(c.returned, key)
	default:
		c.returned[key] = count - 1
	}
	return true
}

// abandon frees the places in the window of messages that nobody waits for any
// longer, each when its confirm comes.
func (c *publishChannel) abandon(messages []unconfirmed) {
	if len(messages) == 0 {
		return
	}
	go func() {
		for _, m := range messages {
			select {
			case <-m.confirm.Done():
				c.wasReturned(m.key)
				<-c.window
			case <-c.gone:
				return
			}
		}
	}()
}
