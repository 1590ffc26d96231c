package rabbitmq

import (
	"maps"

	"github.com/esh3artech/barid/delivery"
)

// Quorum is the default Topology: replicated quorum queues, one for each
// priority.
//
//	<name>                        direct exchange, routing key = priority
//	<name>.urgent|high|normal|low the queues
//	<name>.dlx, <name>.dlq        dead letters, routing key "failed"
//	<name>.unroutable             delayed messages that found no queue when due,
//	                              for a Collector
//	barid.delay.0 ... 19          the delay ladder: level i holds 2^i seconds
//	barid.due                     the end of the ladder: to the queues
//	barid.unroutable              from there to <name>.unroutable
//	barid.lost                    what did not find that either, see Waiting
//
// The delay ladder holds messages until they are due. A delay in whole seconds is
// written as binary digits in front of the routing key, one digit for each level.
// A level whose digit is 1 holds the message for its time, by the queue's
// x-message-ttl, and dead-letters it to the next level; one whose digit is 0
// passes it on at once. So all messages in a queue wait equally long, and none
// waits behind one that is due later. Every step is persistent, replicated and
// confirmed (at-least-once dead lettering, RabbitMQ 3.10: "Quorum Queues").
//
// All names of a virtual host with this topology share one ladder, since the digits are
// followed by the name and the priority: <name>.urgent, and with shards
// <name>.urgent.3. In the name, the characters . * # and % are percent-encoded there,
// and the whole routing key has at most 255 bytes. So a user of the broker needs
// permissions on barid\..* as well as on <name>, and the arguments of the ladder's parts
// are the same for all. When very many messages are due at the same moment, they hold up
// those of other names: 3.10 moves some 3,000 of them a second.
//
// Before, each name had a ladder of its own, <name>.delay.0 to 19. What waits there
// still arrives, and Waiting counts it. When it is empty and no process of that version
// is left, its queues and exchanges can be deleted, and then <name>.due and the exchange
// <name>.unroutable.
//
// Before 4.0 nothing limits how often a message is delivered. From 4.0 on a quorum
// queue has a limit of 20, and -1 lifts it. So x-delivery-limit is -1 there, because
// attempts are counted in the message itself. A queue that an older broker made
// stays as it is and needs a policy, see VERSIONS.md.
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
			Address:  ladderWord(name) + "." + address,
			Queue:    name + "." + address,
		})
	}
	addLadder(&t, name, quorumLadder)
	return t
}

// newTopology is what all topologies have in common. The queues of the levels
// are still to be added.
func newTopology(name string, server Version, deadLetters Queue) Topology {
	deadLetter := Route{Exchange: name + ".dlx", Key: failedKey}
	return Topology{
		Exchanges: []Exchange{
			{Name: name, Kind: "direct"},
			{Name: deadLetter.Exchange, Kind: "direct"},
		},
		Queues: []Queue{
			deadLetters,
			{Name: name + ".unroutable", Arguments: replicated(server)},
		},
		Bindings: []Binding{
			{Source: deadLetter.Exchange, Key: deadLetter.Key, Destination: deadLetters.Name},
		},
		DeadLetter:      deadLetter,
		DeadLetterQueue: deadLetters.Name,
		UnroutableQueue: name + ".unroutable",
	}
}

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

// deadLettering are the arguments of a queue whose dead letters go to <name>.dlx.
func deadLettering(name string) map[string]any {
	return map[string]any{"x-dead-letter-exchange": name + ".dlx", "x-dead-letter-routing-key": failedKey}
}

const (
	failedKey     = "failed"
	deliveryLimit = "x-delivery-limit"
)
