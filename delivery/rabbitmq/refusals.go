package rabbitmq

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/esh3artech/barid/delivery"
)

const (
	// refusalRecheck is how often a route that the broker refuses is tried again.
	refusalRecheck = time.Second
	// maxRefusals bounds how many routes are known as refused.
	maxRefusals = 1000
)

// refusals are the routes for which the broker ended a channel, with its words. A
// channel ends with all that is unconfirmed on it, so messages for these routes
// don't share a channel with others: one a second is tried alone, and the others
// fail at once.
type refusals struct {
	count atomic.Int64 // of routes, to spare the lock

	mu     sync.Mutex
	routes map[Route]refusal // an exchange without a key stands for all keys
}

type refusal struct {
	err error
	at  time.Time
}

// young says that it stands for another try.
func (r refusal) young() bool { return time.Since(r.at) < refusalRecheck }

// of returns the refusal of a route, if there is one.
func (r *refusals) of(route Route) (known refusal, found bool) {
	if r.count.Load() == 0 {
		return refusal{}, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, key := range []Route{{Exchange: route.Exchange}, route} {
		if known, found := r.routes[key]; found {
			return known, true
		}
	}
	return refusal{}, false
}

// add makes an error of the broker's reply for a message that was alone in its
// channel, and remembers it.
func (r *refusals) add(route Route, cause error) error {
	sentinel := delivery.ErrRefused
	if isCode(cause, amqp.NotFound) {
		sentinel = delivery.ErrUnroutable
	}
	err := fmt.Errorf("%w: %w", sentinel, cause)
	key := Route{Exchange: route.Exchange}
	switch {
	case !isCode(cause, amqp.NotFound) && !isCode(cause, amqp.AccessRefused):
		return err // it is about the message, not its route
	case aboutKey(cause):
		key = route
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.routes == nil || len(r.routes) >= maxRefusals {
		r.routes = make(map[Route]refusal)
	}
	r.routes[key] = refusal{err: err, at: time.Now()}
	r.count.Store(int64(len(r.routes)))
	return err
}

// remove forgets the refusal of a route that has taken a message.
func (r *refusals) remove(route Route) {
	if r.count.Load() == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.routes, Route{Exchange: route.Exchange})
	delete(r.routes, route)
	r.count.Store(int64(len(r.routes)))
}

// aboutKey says whether the broker forbids a routing key of a topic exchange only
// ("write access to topic 'k' in exchange 'x' ... refused").
func aboutKey(cause error) bool {
	var reply *amqp.Error
	return errors.As(cause, &reply) && strings.Contains(reply.Reason, "access to topic ")
}
