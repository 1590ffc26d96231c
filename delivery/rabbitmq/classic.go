package rabbitmq

import (
	"maps"

	"github.com/esh3artech/barid/delivery"
)

// Classic is a Topology of three classic queues with message priorities, for
// hosts that share them with other software or come from such a setup.
//
//	<name>.high    x-max-priority 10: urgent at AMQP priority 10, high at 5
//	<name>.normal  x-max-priority 5: normal at 5
//	<name>.low     x-max-priority 1: low at 1
//	<name>         direct exchange, routing key high, normal or low
//	<name>.dlx     direct exchange: what was given up, routing key "failed"
//	<name>.dlq     its queue, classic, with x-message-ttl 86400000
//
// Beside these stand the ladder and <name>.unroutable, as Quorum has them.
//
// Two things to know before choosing it. A classic queue lives on one node and
// is as durable as that: mirrored ones are gone with 4.0. And dead letters that
// wait for longer than a day in <name>.dlq are deleted by the broker: have a
// Collector run.
//
// Urgent and high messages wait in one queue, so they share a Subscription's
// prefetch, and Transport.Depth counts both as high.
//
// What comes out of the ladder keeps its place: it has an AMQP priority there
// as well. All that is in the ladder has to be alike for the broker, or else
// something later would be held in front of something due. So that priority is
// never below 5: quorum queues, of which the ladder is made, ignore it until
// 3.13, and tell 0 to 4 from the rest from 4.0 on. From 4.3 on, which tells more
// of them apart, it is 5 for all, and urgent messages come back among the high
// ones. (Of 4.x this is by RabbitMQ's documentation.) A queue takes a priority
// above its x-max-priority for that one.
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
		const alike = 5
		delayed := max(level.messagePriority, alike)
		if server.AtLeast(4, 3) {
			delayed = alike
		}
		t.Levels = append(t.Levels, Level{
			Priority:        level.priority,
			Route:           Route{Exchange: name, Key: level.address},
			Address:         level.address,
			Queue:           name + "." + level.address,
			MessagePriority: level.messagePriority,
			DelayedPriority: delayed,
		})
	}
	addLadder(&t, name)
	return t
}
