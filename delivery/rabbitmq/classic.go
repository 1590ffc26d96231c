package rabbitmq

import (
	"maps"

	"github.com/esh3artech/barid/delivery"
)

// Classic is a Topology of three classic queues with message priorities. It is for
// hosts that share the queues with other software, or have them already.
//
//	<name>.high    x-max-priority 10: urgent at AMQP priority 10, high at 5
//	<name>.normal  x-max-priority 5: normal at 5
//	<name>.low     x-max-priority 1: low at 1
//	<name>         direct exchange, routing key high, normal or low
//	<name>.dlx     direct exchange: dead letters, routing key "failed"
//	<name>.dlq     their queue, classic, with x-message-ttl 86400000
//
// Beside these it has <name>.unroutable and a delay ladder, as Quorum does. The names
// with this topology share a ladder of their own: its parts begin with barid.classic.
//
// Know two things before you choose it. A classic queue is on one node and is as
// durable as that node: 4.0 has no mirrored queues any more. And the broker deletes
// dead letters that wait for more than a day in <name>.dlq, so run a Collector.
//
// Urgent and high messages wait in one queue. So they share a subscription's
// prefetch, and Transport.Depth counts both as high.
//
// A delayed message has an AMQP priority in the ladder as well, so that it comes
// out of the ladder with the priority it went in. But it must not wait there behind
// a later one of a higher priority. The ladder's queues are quorum queues. These
// ignore priorities before 4.0. From 4.0 on they have two classes, 0 to 4 and the
// rest, and look for what is due only at the head, so no priority in the ladder is
// below 5. From 4.3 on they have more classes, and look at the head of each. A queue
// treats a priority above its x-max-priority as that one.
func Classic(name string, server Version) Topology {
	t := newTopology(name, server, Queue{Name: name + ".dlq", Arguments: map[string]any{"x-message-ttl": int64(86_400_000)}})
	for _, queue := range []struct {
		address     string
		maxPriority int64
	}{{"high", 10}, {"normal", 5}, {"low", 1}} {
		arguments := map[string]any{"x-max-priority": queue.maxPriority}
		maps.Copy(arguments, deadLettering(name))
		t.addQueue(name, queue.address, arguments)
	}
	for _, level := range []struct {
		priority        delivery.Priority
		address         string
		messagePriority uint8
	}{
		{delivery.Urgent, "high", 10},
		{delivery.High, "high", 5},
		{delivery.Normal, "normal", 5},
		{delivery.Low, "low", 1},
	} {
		const sameClass = 5
		t.Levels = append(t.Levels, Level{
			Priority:        level.priority,
			Route:           Route{Exchange: name, Key: level.address},
			Address:         ladderWord(name) + "." + level.address,
			Queue:           name + "." + level.address,
			MessagePriority: level.messagePriority,
			DelayedPriority: max(level.messagePriority, sameClass),
		})
	}
	addLadder(&t, name, classicLadder)
	return t
}
