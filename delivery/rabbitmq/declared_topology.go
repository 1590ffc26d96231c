package rabbitmq

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// declaredTopology is the topology of an open transport, with what is known of
// its state in the broker. An outage may cost the broker a part of it. So it
// expires with each lost connection, and whoever connects next renews it.
type declaredTopology struct {
	Topology
	passive bool
	logger  *slog.Logger
	// oneByOne says that the last try ended its connection, and the broker's reply
	// need not tell why. So the next one makes one request at a time.
	oneByOne atomic.Bool

	renewing chan struct{} // capacity 1: whoever has put something in renews
	expired  atomic.Bool
	missing  atomic.Pointer[map[string]bool] // exchanges that are known not to exist
}

const (
	// topologyTimeout bounds the first declarations. They take a few round trips, and
	// whatever the broker needs to make the queues.
	topologyTimeout = 30 * time.Second
	// renewTimeout bounds later ones, which find nearly everything there. A node that
	// is cut off from the others answers none, and meanwhile nobody else has a turn.
	renewTimeout = 10 * time.Second
)

// establish declares or checks the topology over c. A fault of the topology is a
// *TopologyError; a lost connection has its own error.
func (t *declaredTopology) establish(c *connection) error {
	var err error
	for _, requests := range t.requests(t.passive) {
		if t.oneByOne.Load() {
			err = c.makeEach(requests, 1)
		} else {
			err = c.makeAll(requests)
		}
		if err != nil {
			break
		}
	}
	var reply *amqp.Error
	t.oneByOne.Store(c.amqp.IsClosed() && errors.As(err, &reply) && reply.Server)
	return err
}

// expire has the next renew look at the broker again.
func (t *declaredTopology) expire() { t.expired.Store(true) }

// renew declares the topology again if it has expired, over the connection that over
// provides. Where that can't be done, it finds out which exchanges are missing. After an
// error it stays expired.
func (t *declaredTopology) renew(ctx context.Context, over func(func(*connection) error) error) error {
	select {
	case t.renewing <- struct{}{}:
		defer func() { <-t.renewing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if !t.expired.Swap(false) { // what expires from now on is for the next renew
		return nil
	}
	err := over(func(c *connection) error {
		if !t.passive {
			err := t.establish(c)
			var fault *TopologyError
			switch {
			case err == nil:
				t.missing.Store(nil)
				return nil
			case errors.As(err, &fault) && permanent(err):
				t.logger.Error("topology not declared", "error", err)
			default:
				return err
			}
		}
		missing, err := t.missingExchanges(c)
		if err != nil {
			return err
		}
		t.missing.Store(nil)
		if missing != nil {
			t.missing.Store(&missing)
			t.logger.Error("exchanges missing", "exchanges", len(missing))
		}
		return nil
	})
	if err != nil {
		t.expire()
	}
	return err
}

// incomplete says whether any exchange is known not to exist.
func (t *declaredTopology) incomplete() bool { return t.missing.Load() != nil }

// lacks says whether the exchange is known not to exist.
func (t *declaredTopology) lacks(exchange string) bool {
	missing := t.missing.Load()
	return missing != nil && (*missing)[exchange]
}

// missingExchanges returns the exchanges that messages are published to and that
// do not exist, or nil.
func (t Topology) missingExchanges(c *connection) (map[string]bool, error) {
	targets := slices.Clone(t.Delays)
	for i := range t.Levels {
		for _, shard := range t.Levels[i].shards() {
			targets = append(targets, shard.Route.Exchange)
		}
	}
	targets = append(targets, t.DeadLetter.Exchange)
	targets = slices.DeleteFunc(targets, func(name string) bool { return name == "" })
	slices.Sort(targets)
	targets = slices.Compact(targets)
	faults := inParallel(c.width(), len(targets), func(i int) error {
		return c.inChannel(func(channel *amqp.Channel) error {
			return channel.ExchangeDeclarePassive(targets[i], "direct", true, false, false, false, nil)
		})
	})
	var names map[string]bool
	for i, err := range faults {
		switch {
		case isCode(err, amqp.NotFound):
			if names == nil {
				names = make(map[string]bool)
			}
			names[targets[i]] = true
		case isCode(err, amqp.AccessRefused): // it may be there; whoever publishes to it is told
		case err != nil:
			return nil, err
		}
	}
	return names, nil
}
