package rabbitmq

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
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
	timeout time.Duration
	logger  *slog.Logger

	renewing chan struct{} // capacity 1: whoever has put something in renews
	expired  atomic.Bool
	missing  atomic.Pointer[map[string]bool] // exchanges that are known not to exist
}

// establish declares or checks the topology over c. A fault of the topology is a
// *TopologyError; a lost connection has its own error.
func (t *declaredTopology) establish(ctx context.Context, c *connection) error {
	return c.within(ctx, t.timeout, func() error {
		if t.passive {
			return t.check(c)
		}
		return t.declare(c)
	})
}

// expire has the next renew look at the broker again.
func (t *declaredTopology) expire() { t.expired.Store(true) }

// renew declares the topology again if it has expired. Where that can't be done,
// it finds out which exchanges are missing. Only a lost connection is an error,
// and ctx's end.
func (t *declaredTopology) renew(ctx context.Context, c *connection) (err error) {
	select {
	case t.renewing <- struct{}{}:
		defer func() { <-t.renewing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if !t.expired.Swap(false) { // what expires from now on is for the next renew
		return nil
	}
	defer func() {
		if err != nil {
			t.expired.Store(true)
		}
	}()
	if !t.passive {
		err := t.establish(ctx, c)
		var fault *TopologyError
		switch {
		case err == nil:
			t.missing.Store(nil)
			return nil
		case errors.As(err, &fault) && permanent(err):
			t.logger.Error("rabbitmq_topology", "error", err)
		default:
			return err
		}
	}
	return c.within(ctx, t.timeout, func() error {
		missing, err := t.missingExchanges(c)
		if err != nil {
			return err
		}
		t.missing.Store(nil)
		if missing != nil {
			t.missing.Store(&missing)
			t.logger.Error("rabbitmq_exchanges_missing", "exchanges", len(missing))
		}
		return nil
	})
}

// incomplete says whether any exchange is known not to exist.
func (t *declaredTopology) incomplete() bool { return t.missing.Load() != nil }

// lacks says whether the exchange is known not to exist.
func (t *declaredTopology) lacks(exchange string) bool {
	missing := t.missing.Load()
	return missing != nil && (*missing)[exchange]
}

// declare declares what is missing. It returns the first fault, at which the
// broker closes the channel.
func (t Topology) declare(c *connection) error {
	channel, err := c.amqp.Channel()
	if err != nil {
		return err
	}
	defer channel.Close() //nolint:errcheck // a fault has closed it already
	for _, e := range t.Exchanges {
		if err := channel.ExchangeDeclare(e.Name, e.Kind, true, false, false, false, e.Arguments); err != nil {
			return newTopologyError("exchange", e.Name, err)
		}
	}
	if err := t.declareQueues(c); err != nil {
		return err
	}
	for _, b := range t.Bindings {
		if b.ToExchange {
			err = channel.ExchangeBind(b.Destination, b.Key, b.Source, false, nil)
		} else {
			err = channel.QueueBind(b.Destination, b.Key, b.Source, false, nil)
		}
		if err != nil {
			return newTopologyError("binding", b.Destination, err)
		}
	}
	return nil
}

// declareQueues declares several queues at a time. The broker has to start a
// replicated log for each, and waits for its disk most of that time.
func (t Topology) declareQueues(c *connection) error {
	const width = 4
	faults := make([]error, len(t.Queues))
	var all sync.WaitGroup
	for first := range width {
		all.Go(func() {
			for i := first; i < len(t.Queues); i += width {
				if faults[i] = t.Queues[i].declare(c); faults[i] != nil {
					return
				}
			}
		})
	}
	all.Wait()
	for _, fault := range faults {
		if fault != nil {
			return fault
		}
	}
	return nil
}

func (q Queue) declare(c *connection) error {
	err := c.inChannel(func(channel *amqp.Channel) error {
		_, err := channel.QueueDeclare(q.Name, true, false, false, false, q.Arguments)
		return err
	})
	if err == nil {
		return nil
	}
	fault := newTopologyError("queue", q.Name, err)
	if q.leaveLimit(fault) {
		return nil
	}
	return fault
}

// leaveLimit says whether the queue may stay as it is although it differs. That
// is so if it only lacks x-delivery-limit, because a broker before 4.0 made it,
// which did not know -1. A policy can lift the limit of such a queue.
func (q Queue) leaveLimit(fault *TopologyError) bool {
	return fault.Argument == deliveryLimit && q.Arguments[deliveryLimit] == int64(-1) &&
		isCode(fault.Cause, amqp.PreconditionFailed) && strings.Contains(fault.Cause.Error(), "current is none")
}

// check returns an error for the first exchange or queue that does not exist.
func (t Topology) check(c *connection) error {
	for _, e := range t.Exchanges {
		if err := e.check(c); err != nil {
			return err
		}
	}
	for _, q := range t.Queues {
		err := c.inChannel(func(channel *amqp.Channel) error {
			_, err := channel.QueueDeclarePassive(q.Name, true, false, false, false, nil)
			return err
		})
		if err != nil {
			return newTopologyError("queue", q.Name, err)
		}
	}
	return nil
}

func (e Exchange) check(c *connection) error {
	err := c.inChannel(func(channel *amqp.Channel) error {
		return channel.ExchangeDeclarePassive(e.Name, e.Kind, true, false, false, false, nil)
	})
	if err != nil {
		return newTopologyError("exchange", e.Name, err)
	}
	return nil
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
	slices.Sort(targets)
	var names map[string]bool
	for _, name := range slices.Compact(targets) {
		if name == "" {
			continue
		}
		err := Exchange{Name: name, Kind: "direct"}.check(c)
		switch {
		case isCode(err, amqp.NotFound):
			if names == nil {
				names = make(map[string]bool)
			}
			names[name] = true
		case err != nil:
			return nil, err
		}
	}
	return names, nil
}
