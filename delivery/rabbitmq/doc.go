// Package rabbitmq is a delivery.Transport on RabbitMQ, from version 3.10 on. It
// is tested on 3.10; what it does differently for 4.x, it does by RabbitMQ's
// documentation.
//
//	transport, err := rabbitmq.Open(ctx, rabbitmq.Config{URL: url, Name: "orders"})
//	publisher, err := delivery.NewPublisher(transport, delivery.PublisherConfig{})
//	err = publisher.Publish(ctx, delivery.Message{Recipient: "+966500000001", Body: body})
//
// # What it promises
//
// A message that Send accepted is on the disks of a majority of the broker's
// nodes: queues are quorum queues (unless the topology is Classic), messages are
// persistent and mandatory, and Send waits for the broker's confirm. A message
// without a queue is delivery.ErrUnroutable although the broker confirms it, and
// a queue that refuses it is delivery.ErrRefused.
//
// A lost connection is mended for as long as the Transport is open. What was in
// flight is sent again with the same message ID while its caller still waits;
// at the caller's deadline it is delivery.ErrOutcomeUnknown, never a success
// and never a plain failure. So a crash of the broker may lead to duplicates, as
// many as there were unconfirmed and unacked messages, and to no loss.
//
// A broker that is short of memory or disk blocks publishers: Send waits, and
// its deadline makes it delivery.ErrBlocked. Consumers and questions (Ping,
// Depth) have connections of their own and go on.
//
// An Incoming belongs to the channel that it came by. After a reconnect, Ack and
// Nack of an older one are delivery.ErrStale and touch nothing.
//
// # How it works
//
// Publishing. There are a few connections for it (Config.Lanes), the next one
// for when the one before is busy. Those who call Send write by themselves, one
// after another, and await the confirms of their own messages, so that callers
// share the window and none waits for another's round trip. Writes are buffered
// and sent by a goroutine of the connection: they go out together, and a peer
// that stops reading blocks nobody.
//
// Fetching. A Subscription has one connection with a channel for each queue,
// each with a prefetch of its own. Acks go out together where they can, one
// frame for all up to a message, some milliseconds late at most; a message that
// somebody is slow with does not hold back the acks of those after it.
//
// Delays pass in the broker, in a ladder of queues (see Quorum), without a
// plugin. A redelivery or a lost consumer does not disturb them.
//
// Dead letters go to a queue of their own (see DeadLetter), so that a consumer
// needs no other store for them. What the broker itself gives up comes there,
// too: rejected, expired, over a queue's delivery limit or length. A Collector
// moves all of it into a store, where it can be looked at and requeued:
//
//	collector, err := rabbitmq.NewCollector(transport, manager, rabbitmq.CollectorConfig{})
//	err = collector.Run(ctx)
//
// The broker's own way there is not as safe as ours: by default it moves what it
// gives up without a confirm, and a node that crashes just then may lose it. A
// quorum queue with x-dead-letter-strategy at-least-once and x-overflow
// reject-publish does not.
//
// # Topologies
//
// What is declared is data, a Topology. There are two: Quorum, with a quorum
// queue for each priority, and Classic, with three classic queues with message
// priorities. A queue that exists with other arguments is a *TopologyError that
// names both; nothing is ever deleted or changed.
//
// # Shards
//
// Config.Shards splits each queue by recipient, see Topology.Sharded and ShardOf.
// Of each shard one process fetches at a time, and another takes over when it is
// gone; so with ordered consumers a recipient's messages of one priority are
// handled in order, whatever the number of processes. They have to be sent in
// order for that, one call of Send after another. A process that loses its
// connection may still be busy with what others get again by then: those are
// duplicates, for the idempotency store to tell.
//
// A priority's prefetch is divided among its shards, at least one message each.
// A Subscription with shards is no delivery.Pauser: if it paused, others would
// overtake what it has in hand.
//
// Another number of shards sends nearly every recipient elsewhere. What waits in
// the queues of the number before stays there, and is fetched as well: Open looks
// for such queues, logs each as rabbitmq_leftover_queue, and Depth counts them.
// Nothing is lost so, but there is no order between what a recipient has in the
// old queue and in the new one, nor while processes with different numbers send.
// Who needs it stops the publishers, waits until Depth is 0 and nothing is
// delayed, and changes the number everywhere. A queue that is left behind can be
// deleted as soon as it is empty and no process uses its number. With
// Config.Passive nothing is looked for. Numbers are looked for until the first
// that is missing, for which the broker's log has an error, not_found, each time.
//
// # Errors
//
// Open fails at once, with ErrConfig, a *ConnectError or a *TopologyError, when
// trying again is of no use: a wrong password, a missing virtual host, TLS, a
// queue that exists with other arguments. No error or log holds the password, a
// recipient, or a body.
//
// # Logs
//
// One event each, as the message: rabbitmq_connected, rabbitmq_connect_failed,
// rabbitmq_disconnected, rabbitmq_blocked, rabbitmq_topology,
// rabbitmq_exchanges_missing, rabbitmq_body_limit, rabbitmq_delivery_missed,
// rabbitmq_leftover_queue, rabbitmq_collect_failed.
//
// # Limits
//
// A message's body is at most Config.MaxBodyBytes, its headers 119 KiB in all.
// A broker with a lower max_message_size is found out with the first message
// that is too large. A handler that holds a message for longer than the
// broker's consumer_timeout (30 minutes by default) loses it to a redelivery,
// with what else is in hand of its priority.
package rabbitmq
