package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/esh3artech/barid/delivery"
)

// Topology is everything that a Transport needs to exist in the broker, and how
// it uses it. It is plain data: print it, change it, declare it elsewhere.
type Topology struct {
	// Exchanges, Queues and Bindings are declared in this order. All are
	// durable.
	Exchanges []Exchange
	Queues    []Queue
	Bindings  []Binding
	// Levels says where each priority goes and where it is fetched. Each of the
	// four priorities has one level. Levels may share a queue.
	Levels []Level
	// Delays are the exchanges of the delay ladder, that of one second first,
	// each doubling the one before. Empty when there is none: then nothing can
	// be sent delayed for a second or more.
	Delays []string
	// DeadLetter is where dead letters go. An empty Exchange means nowhere.
	DeadLetter Route
	// DeadLetterQueue is where they wait, for a Collector. Empty means that there
	// is nothing to collect.
	DeadLetterQueue string
}

// Exchange is a durable exchange.
type Exchange struct {
	Name      string
	Kind      string // "direct", "fanout", "topic"
	Arguments map[string]any
}

// Queue is a durable queue. Integer arguments are int64.
type Queue struct {
	Name      string
	Arguments map[string]any
}

// Binding carries what arrives at Source with a matching Key to a queue, or to
// another exchange.
type Binding struct {
	Source      string
	Key         string
	Destination string
	ToExchange  bool
}

// Route is where something is published.
type Route struct{ Exchange, Key string }

// Level is one priority's way through the broker.
type Level struct {
	Priority delivery.Priority
	// Route is where its messages are published.
	Route Route
	// Address is what follows the ladder's digits in the routing key of a
	// delayed message of this level.
	Address string
	// Queue is where they are fetched. In a queue that levels share, a message's
	// level is told by a header of its own, or by its AMQP priority if it has
	// none.
	Queue string
	// MessagePriority is the AMQP priority that its messages have, for a queue
	// with x-max-priority. 0 means none.
	MessagePriority uint8
	// DelayedPriority is the AMQP priority of those that go through the ladder.
	// 0 means none. See Classic for what to watch out for.
	DelayedPriority uint8
	// Shards are the queues that share the level's messages, by recipient, as
	// Sharded makes them. Where there are any, Route, Address and Queue are those
	// of the level before it was split, and are not used.
	Shards []Shard
}

// Quorum is the default Topology: replicated quorum queues, one for each
// priority.
//
//	<name>                        direct exchange, routing key = priority
//	<name>.urgent|high|normal|low the queues
//	<name>.dlx, <name>.dlq        what was given up, routing key "failed"
//	<name>.delay.0 ... .delay.19  the ladder: level i holds 2^i seconds
//	<name>.due                    where the ladder ends: back to the queues
//	<name>.unroutable             what found no queue at the ladder's end
//
// A delay is written as binary digits in front of the routing key. Each level
// of the ladder either holds a message for its whole time or passes it on at
// once, so that one time to live per queue is enough and nothing waits behind
// what is due later. Every hop is persistent, replicated and confirmed
// (at-least-once dead lettering, RabbitMQ 3.10: "Quorum Queues").
//
// Until 3.13 nothing limits how often a message is delivered. From 4.0 on, by
// RabbitMQ's documentation, a quorum queue has a limit of 20 and -1 lifts it;
// so x-delivery-limit is -1 there, because attempts are counted in the message
// itself.
func Quorum(name string, server Version) Topology {
	t := newTopology(name, server, Queue{Name: name + ".dlq", Arguments: replicated(server)})
	for _, priority := range delivery.Priorities() {
		address := priority.String()
		arguments := replicated(server)
		maps.Copy(arguments, deadLettering(name))
		t.addQueue(name, address, arguments)
		t.Levels = append(t.Levels, Level{
			Priority: priority,
			Route:    Route{Exchange: name, Key: address},
			Address:  address,
			Queue:    name + "." + address,
		})
	}
	addLadder(&t, name)
	return t
}

// newTopology is what all topologies have, with no queue to work on yet.
func newTopology(name string, server Version, deadLetters Queue) Topology {
	dead := Route{Exchange: name + ".dlx", Key: failedKey}
	return Topology{
		Exchanges: []Exchange{
			{Name: name, Kind: "direct"},
			{Name: dead.Exchange, Kind: "direct"},
			{Name: unroutable(name), Kind: "fanout"},
		},
		Queues: []Queue{
			deadLetters,
			{Name: unroutable(name), Arguments: replicated(server)},
		},
		Bindings: []Binding{
			{Source: dead.Exchange, Key: dead.Key, Destination: deadLetters.Name},
			{Source: unroutable(name), Destination: unroutable(name)},
		},
		DeadLetter:      dead,
		DeadLetterQueue: deadLetters.Name,
	}
}

func unroutable(name string) string { return name + ".unroutable" }

// addQueue adds the queue <name>.<address>, bound to the exchange <name>.
func (t *Topology) addQueue(name, address string, arguments map[string]any) {
	queue := name + "." + address
	t.Queues = append(t.Queues, Queue{Name: queue, Arguments: arguments})
	t.Bindings = append(t.Bindings, Binding{Source: name, Key: address, Destination: queue})
}

// replicated are the arguments of a quorum queue.
func replicated(server Version) map[string]any {
	arguments := map[string]any{"x-queue-type": "quorum"}
	if server.AtLeast(4, 0) {
		arguments[deliveryLimit] = int64(-1)
	}
	return arguments
}

// deadLettering are the arguments of a queue that gives up to <name>.dlx.
func deadLettering(name string) map[string]any {
	return map[string]any{"x-dead-letter-exchange": name + ".dlx", "x-dead-letter-routing-key": failedKey}
}

const (
	failedKey     = "failed"
	deliveryLimit = "x-delivery-limit"
)

// String lists the topology, a line for each exchange, queue and binding.
func (t Topology) String() string {
	var text strings.Builder
	arguments := func(table map[string]any) {
		for _, key := range slices.Sorted(maps.Keys(table)) {
			fmt.Fprintf(&text, " %s=%v", key, table[key])
		}
		text.WriteByte('\n')
	}
	for _, e := range t.Exchanges {
		fmt.Fprintf(&text, "exchange %s %s", e.Name, e.Kind)
		arguments(e.Arguments)
	}
	for _, q := range t.Queues {
		fmt.Fprintf(&text, "queue %s", q.Name)
		arguments(q.Arguments)
	}
	for _, b := range t.Bindings {
		fmt.Fprintf(&text, "binding %s -> %s key=%q\n", b.Source, b.Destination, b.Key)
	}
	return text.String()
}

// validate checks what the transport relies on.
func (t Topology) validate() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("%w: Topology."+format, append([]any{ErrConfig}, args...)...))
	}
	for _, priority := range delivery.Priorities() {
		levels := 0
		for _, level := range t.Levels {
			if level.Priority == priority {
				levels++
			}
		}
		if levels != 1 {
			fault("Levels has %d levels for the priority %s, want 1", levels, priority)
		}
	}
	for i := range t.Levels {
		level := &t.Levels[i]
		if count := len(level.Shards); count > MaxShards {
			fault("Levels[%d] has %d Shards, want at most %d", i, count, MaxShards)
		}
		for _, shard := range level.shards() {
			if shard.Queue == "" {
				fault("Levels[%d].Queue is empty, want a queue's name", i)
			}
			if size := len(ladderKey(0, len(t.Delays), shard.Address)); size > maxShortBytes {
				fault("Levels[%d].Address makes a routing key of %d bytes, want at most %d", i, size, maxShortBytes)
			}
		}
	}
	if len(t.Delays) > maxLadderLevels {
		fault("Delays has %d levels, want at most %d", len(t.Delays), maxLadderLevels)
	}
	return errors.Join(faults...)
}

// declare makes what is missing, over a channel of its own, because the broker
// closes the channel at the first fault.
func (t Topology) declare(l *link) error {
	channel, err := l.conn.Channel()
	if err != nil {
		return err
	}
	defer channel.Close() //nolint:errcheck // a fault has closed it already
	for _, e := range t.Exchanges {
		if err := channel.ExchangeDeclare(e.Name, e.Kind, true, false, false, false, e.Arguments); err != nil {
			return newTopologyError("exchange", e.Name, err)
		}
	}
	if err := t.declareQueues(l); err != nil {
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

// declareQueues declares several queues at once: the broker has to start a
// replicated log for each, and mostly waits for its disk meanwhile.
func (t Topology) declareQueues(l *link) error {
	const width = 4
	faults := make([]error, len(t.Queues))
	var all sync.WaitGroup
	for first := range width {
		all.Go(func() {
			for i := first; i < len(t.Queues); i += width {
				if faults[i] = t.Queues[i].declare(l); faults[i] != nil {
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

func (q Queue) declare(l *link) error {
	err := inChannel(l, func(channel *amqp.Channel) error {
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

// leaveLimit says that the queue may stay as it is: it only lacks the lifted
// delivery limit, because a broker before 4.0 made it, which knew none. A policy
// can lift the limit of such a queue.
func (q Queue) leaveLimit(fault *TopologyError) bool {
	return fault.Argument == deliveryLimit && q.Arguments[deliveryLimit] == int64(-1) &&
		isCode(fault.Cause, amqp.PreconditionFailed) && strings.Contains(fault.Cause.Error(), "current is none")
}

// check returns an error for the first exchange or queue that does not exist.
func (t Topology) check(l *link) error {
	for _, e := range t.Exchanges {
		if err := e.check(l); err != nil {
			return err
		}
	}
	for _, q := range t.Queues {
		err := inChannel(l, func(channel *amqp.Channel) error {
			_, err := channel.QueueDeclarePassive(q.Name, true, false, false, false, nil)
			return err
		})
		if err != nil {
			return newTopologyError("queue", q.Name, err)
		}
	}
	return nil
}

func (e Exchange) check(l *link) error {
	err := inChannel(l, func(channel *amqp.Channel) error {
		return channel.ExchangeDeclarePassive(e.Name, e.Kind, true, false, false, false, nil)
	})
	if err != nil {
		return newTopologyError("exchange", e.Name, err)
	}
	return nil
}

// missing returns the exchanges that are published to and do not exist.
func (t Topology) missing(l *link) (map[string]bool, error) {
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
		err := Exchange{Name: name, Kind: "direct"}.check(l)
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

// inChannel runs f with a channel of its own.
func inChannel(l *link, f func(channel *amqp.Channel) error) error {
	channel, err := l.conn.Channel()
	if err != nil {
		return err
	}
	if err := f(channel); err != nil {
		channel.Close() //nolint:errcheck // the fault has closed it already
		return err
	}
	return channel.Close()
}

// establish declares or checks the topology over l. A fault of the topology is
// returned as a *TopologyError, a lost connection as what it is.
func (t Topology) establish(ctx context.Context, l *link, config Config) error {
	return l.within(ctx, config.DialTimeout, func() error {
		if config.Passive {
			return t.check(l)
		}
		return t.declare(l)
	})
}
