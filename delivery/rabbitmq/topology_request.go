package rabbitmq

import (
	"errors"
	"slices"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"
)

// topologyRequest declares one part of a topology, or checks that it exists.
type topologyRequest struct {
	kind, name string // as in TopologyError
	// send sends the request over a channel. With noWait it does not wait for the
	// answer, and the broker answers only with an error, which ends the channel.
	send func(channel *amqp.Channel, noWait bool) error
	// excused says which faults are none. Nil means that all are.
	excused func(*TopologyError) bool
}

// requests are all that declare the topology, or check it. Those of a group don't
// depend on each other, but on the groups before.
func (t Topology) requests(passive bool) [][]topologyRequest {
	parts := make([]topologyRequest, 0, len(t.Exchanges)+len(t.Queues))
	var bindings []topologyRequest
	for _, e := range t.Exchanges {
		parts = append(parts, e.request(passive))
	}
	for _, q := range t.Queues {
		parts = append(parts, q.request(passive))
	}
	if !passive {
		for _, b := range t.Bindings {
			bindings = append(bindings, b.request())
		}
	}
	return [][]topologyRequest{parts, bindings}
}

func (e Exchange) request(passive bool) topologyRequest {
	request := topologyRequest{kind: "exchange", name: e.Name}
	if passive {
		request.excused = mayNotLook
	}
	request.send = func(channel *amqp.Channel, noWait bool) error {
		if passive {
			return channel.ExchangeDeclarePassive(e.Name, e.Kind, true, false, false, noWait, nil)
		}
		return channel.ExchangeDeclare(e.Name, e.Kind, true, false, false, noWait, e.Arguments)
	}
	return request
}

func (q Queue) request(passive bool) topologyRequest {
	request := topologyRequest{kind: "queue", name: q.Name, excused: q.leaveLimit}
	if passive {
		request.excused = mayNotLook
	}
	request.send = func(channel *amqp.Channel, noWait bool) error {
		var err error
		if passive {
			_, err = channel.QueueDeclarePassive(q.Name, true, false, false, noWait, nil)
		} else {
			_, err = channel.QueueDeclare(q.Name, true, false, false, noWait, q.Arguments)
		}
		return err
	}
	return request
}

// mayNotLook says that something may be there: from 4.3 on a look at it needs some
// permission for it, which a host that only publishes has not for all.
func mayNotLook(fault *TopologyError) bool { return isCode(fault.Cause, amqp.AccessRefused) }

// leaveLimit says whether the queue may stay as it is although it differs. That
// is so if it only lacks x-delivery-limit, because a broker before 4.0 made it,
// which did not know -1. A policy can lift the limit of such a queue.
func (q Queue) leaveLimit(fault *TopologyError) bool {
	return fault.Argument == deliveryLimit && q.Arguments[deliveryLimit] == int64(-1) &&
		isCode(fault.Cause, amqp.PreconditionFailed) && strings.Contains(fault.Cause.Error(), "current is none")
}

func (b Binding) request() topologyRequest {
	return topologyRequest{kind: "binding", name: b.Destination, send: func(channel *amqp.Channel, noWait bool) error {
		if b.ToExchange {
			return channel.ExchangeBind(b.Destination, b.Key, b.Source, noWait, nil)
		}
		return channel.QueueBind(b.Destination, b.Key, b.Source, noWait, nil)
	}}
}

// makeAll makes the requests over several channels, and waits only for the last
// answer of each. So they take two round trips, one of them to open the channels.
// The broker makes what the channels ask for at the same time, which is quicker,
// because it starts a replicated log for each queue and waits for its disk. If
// there is a fault, makeEach finds out whose it is.
func (c *connection) makeAll(requests []topologyRequest) error {
	channels := min(c.width(), len(requests))
	faults := inParallel(channels, channels, func(first int) error {
		return c.inChannel(func(channel *amqp.Channel) error {
			for i := first; i < len(requests); i += channels {
				if err := requests[i].send(channel, i+channels < len(requests)); err != nil {
					return err
				}
			}
			return nil
		})
	})
	switch {
	case errors.Join(faults...) == nil:
		return nil
	case c.amqp.IsClosed():
		<-c.gone
		return c.cause
	}
	return c.makeEach(requests, c.width())
}

// makeEach makes each request in a channel of its own, so many at a time, and
// returns the first fault, in the order of the requests.
func (c *connection) makeEach(requests []topologyRequest, width int) error {
	faults := inParallel(width, len(requests), func(i int) error {
		request := &requests[i]
		err := c.inChannel(func(channel *amqp.Channel) error { return request.send(channel, false) })
		err = topologyFault(request.kind, request.name, err)
		var fault *TopologyError
		if errors.As(err, &fault) && request.excused != nil && request.excused(fault) {
			return nil
		}
		return err
	})
	if at := slices.IndexFunc(faults, func(err error) bool { return err != nil }); at >= 0 {
		return faults[at]
	}
	return nil
}

// make makes one request.
func (c *connection) make(request topologyRequest) error {
	return c.makeEach([]topologyRequest{request}, 1)
}
