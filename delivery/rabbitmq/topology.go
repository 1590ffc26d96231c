package rabbitmq

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/esh3artech/barid/delivery"
)

// Topology is all exchanges, queues and bindings that a Transport needs in the
// broker, and how it uses them. It is plain data: print it, change it, declare it
// elsewhere.
type Topology struct {
	// Exchanges, Queues and Bindings are declared in this order. All are
	// durable.
	Exchanges []Exchange
	Queues    []Queue
	Bindings  []Binding
	// Levels says where the messages of each priority are published and fetched.
	// Each of the four priorities has one level. Levels may share a queue.
	Levels []Level
	// Delays are the exchanges of the delay ladder, see Quorum. The first delays
	// for one second, and each doubles the one before. Without any, nothing can be
	// sent with a delay of a second or more.
	Delays []string
	// DeadLetter is where dead letters are published. With an empty Exchange
	// Transport.DeadLetter is delivery.ErrUnsupported.
	DeadLetter Route
	// DeadLetterQueue is where they wait for a Collector. If it is empty, there can
	// be no Collector.
	DeadLetterQueue string
	// UnroutableQueue is where delayed messages wait for a Collector that found no
	// queue when they were due, because somebody had deleted it. It may be empty, and
	// the queue may be missing.
	UnroutableQueue string
	// LostQueue is where they wait when that queue has been deleted, too. It may be
	// empty.
	LostQueue string
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

// Binding carries what arrives at the exchange Source with a matching routing key
// to a queue, or to another exchange.
type Binding struct {
	Source      string
	Key         string // a pattern where Source is a topic exchange
	Destination string // a queue's name, or with ToExchange an exchange's
	ToExchange  bool
}

// Route is where a message is published: an exchange and a routing key.
type Route struct{ Exchange, Key string }

// Level says where the messages of one priority are published and fetched.
type Level struct {
	Priority delivery.Priority
	// Route is where its messages are published.
	Route Route
	// Address is the part of a delayed message's routing key that follows the
	// ladder's digits. It leads to Queue when the delay is over.
	Address string
	// Queue is where its messages are fetched. In a queue that levels share, a
	// message's priority is read from its header barid-priority, or from its AMQP
	// priority if it is no message of ours.
	Queue string
	// MessagePriority is the AMQP priority of its messages, for a queue with
	// x-max-priority. 0 means none.
	MessagePriority uint8
	// DelayedPriority is the AMQP priority of its messages while they are in the
	// ladder. 0 means none. See Classic for what it has to be.
	DelayedPriority uint8
	// Shards are the queues that share the level's messages by recipient, as
	// Topology.Sharded makes them. Where there are any, Route, Address and Queue
	// are not used: they are those of the level before it was split.
	Shards []Shard
}

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

// validate reports every fault of a Topology that the transport could not work
// with.
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
		if count := len(level.Shards); count > maxShards {
			fault("Levels[%d] has %d Shards, want at most %d", i, count, maxShards)
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
	t.checkTexts(fault)
	for _, e := range t.Exchanges {
		checkDeclaration("Exchanges", e.Name, e.Arguments, fault)
	}
	for _, q := range t.Queues {
		checkDeclaration("Queues", q.Name, q.Arguments, fault)
	}
	return errors.Join(faults...)
}

// checkDeclaration reports what the client could not send. It would end the
// connection, which looks as if the broker had gone.
func checkDeclaration(field, name string, arguments map[string]any, fault func(format string, args ...any)) {
	for _, key := range slices.Sorted(maps.Keys(arguments)) {
		switch value := arguments[key].(type) {
		case uint, uint64, uintptr, time.Duration:
			fault("%s %q argument %q is a %T, want int64", field, name, key, value)
		case int:
			if int(int32(value)) != value { // the client sends its lower 32 bits
				fault("%s %q argument %q is %d as an int, want int64", field, name, key, value)
			}
		default:
			if amqp.Table(map[string]any{key: value}).Validate() != nil {
				fault("%s %q argument %q is a %T, which AMQP has not", field, name, key, value)
			}
		}
	}
}
