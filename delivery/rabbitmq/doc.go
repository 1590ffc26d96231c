// Package rabbitmq is a delivery.Transport on RabbitMQ, from version 3.10 on. It
// is tested on 3.10, and by make matrix on 4.0 and 4.3; VERSIONS.md says what they do
// differently, and what to know when a broker is upgraded.
//
//	transport, err := rabbitmq.Open(ctx, rabbitmq.Config{URL: url, Name: "orders"})
//	publisher, err := delivery.NewPublisher(transport, delivery.PublisherConfig{})
//	err = publisher.Publish(ctx, delivery.Message{Recipient: "+966500000001", Body: body})
//
// # Guarantees
//
// A message that Send accepted is on the disks of a majority of the broker's
// nodes. Its queue is a quorum queue (unless the topology is Classic), it was
// published persistent and mandatory, and Send has waited for the broker's
// confirm. A message for which there is no queue is delivery.ErrUnroutable,
// although the broker confirms it, and one that a queue refuses is
// delivery.ErrRefused.
//
// A queue, exchange or binding that somebody deletes is declared again (unless the
// transport is Passive), as soon as a consumer or a message misses it; the message
// is then sent once more. A queue of the delay ladder that delayed messages miss on
// their way is declared again when the next message is published to it, or with the
// next connection; they wait until then, and some three minutes more.
//
// A message that the broker forbids, for instance because the user may not write to
// its exchange, fails with the broker's words (delivery.ErrRefused, or
// ErrUnroutable for an exchange that does not exist). Its channel ends with it, so the
// others that were unconfirmed on it are sent again, each alone, until it is known
// which one it was. For a second after that, what has the same way fails at once.
//
// A lost connection is made again for as long as the Transport is open. The wait
// between two tries doubles, but as soon as one connection can be made again, all that
// wait are. A message that was unconfirmed is sent again with the same message ID while
// its caller still waits. At the caller's deadline it is delivery.ErrOutcomeUnknown: it may
// have been stored or not, so it is neither a success nor a plain failure. A crash
// of the broker may thus lead to duplicates, as many as there were unconfirmed and
// unacked messages, and to no loss.
//
// A broker that is short of memory or disk blocks publishers: Send waits, and
// fails with delivery.ErrBlocked at its deadline. Consuming, Ping and Depth have other
// connections and go on.
//
// Only the channel that a delivery.Incoming came by can settle it. After a
// reconnect, Ack and Nack of an older one return delivery.ErrStale and do nothing. A
// consumer does not begin with an older one (delivery.StaleTeller).
//
// # Connections
//
// A transport has three connections: one publishes, one consumes, with a channel for
// each queue of each subscription, and one declares the topology and asks the broker.
// Transports of one process can share theirs:
//
//	connections, err := rabbitmq.NewConnections(rabbitmq.ConnectionsConfig{URL: url})
//	sms, err := rabbitmq.Open(ctx, rabbitmq.Config{Connections: connections, Name: "sms"})
//	mail, err := rabbitmq.Open(ctx, rabbitmq.Config{Connections: connections, Name: "mail"})
//
// # Publishing
//
// Where more than one connection publishes (PublishConnections), the next one is used
// when the one before has half of its window unconfirmed. The goroutines that call Send
// write by themselves, one after another, and each awaits the confirms of its own
// messages. So callers share the window, and none waits for another's round trip.
// Writes are buffered, and a goroutine of each connection sends them: several
// messages go out in one system call, and a peer that stops reading blocks nobody.
//
// # Consuming
//
// Each queue's channel has a prefetch of its own. Acks wait for some milliseconds at most, so
// that one frame can ack many messages. A message that its handler is slow with
// does not hold up the acks of those after it.
//
// # Delays
//
// Delays pass in the broker, in the delay ladder: a row of queues that each hold
// messages for a fixed time, see Quorum. All names of a virtual host share it. It needs
// no plugin, and neither a redelivery nor a lost consumer disturbs it. When a node
// crashes, what was on its way between two of these queues may come three minutes late:
// so long the broker waits for its own confirm
// (dead_letter_worker_publisher_confirm_timeout in advanced.config, 180 s by default).
//
// # Dead letters
//
// Dead letters go to a queue of their own, see Transport.DeadLetter, so that a
// consumer needs no other store for them. The broker's own dead letters go there
// as well: what was rejected, has expired, or exceeded a queue's delivery limit or
// length. A Collector moves all of them into a store, where they can be looked at
// and requeued. It also takes delayed messages that found no queue when they were
// due, because somebody had deleted it: until then they wait in <name>.unroutable.
// Where that is gone as well, they wait in barid.lost, which no name's Collector takes
// from; an administrator can move them. Transport.Waiting counts both, and Depth logs
// them.
//
//	collector, err := rabbitmq.NewCollector(transport, manager, rabbitmq.CollectorConfig{})
//	err = collector.Run(ctx)
//
// A delivery limit that a host sets on a queue does not count what this package
// gives back, from 4.3 on: there the broker counts rejects and lost channels, and no
// nacks. Before, it counts all three.
//
// The broker dead-letters less safely than this package does: by default without a
// confirm, so that a node that crashes at that moment may lose the message. A
// quorum queue with x-dead-letter-strategy at-least-once and x-overflow
// reject-publish is safe.
//
// # Topologies
//
// The exchanges, queues and bindings are data, a Topology. There are two: Quorum
// has a quorum queue for each priority, and Classic has three classic queues with
// message priorities. A queue that exists with other arguments is a *TopologyError
// that names the queue and the argument. Nothing is ever deleted or changed.
//
// # Shards
//
// Config.Shards splits each queue by recipient, see Topology.Sharded and ShardOf.
// One process at a time fetches from a shard, and another takes over when it is
// gone: one that ends in order hands over all that it has not settled, before
// anything that comes later. So ordered consumers handle a recipient's messages of one priority in
// order, however many processes there are. To be in order, the messages must be
// sent one call of Send after another. A process that loses its connection may
// still work on messages that another process has by then; the idempotency store
// recognises such duplicates.
//
// A priority's prefetch is divided among its shards, with at least two messages for
// each unless it is 1. Consumers leave half of what each shard may have in hand to
// what can run (delivery.QueueTeller), so that a failing recipient of ordered mode
// does not hold up its whole shard. A subscription with shards is no
// delivery.Pauser: if it paused, another process would overtake what it has in hand.
// The same holds for any queue with x-single-active-consumer.
//
// Another number of shards sends nearly every recipient to another queue. What
// waits in the old queues stays there, and is still fetched: Open looks for such
// queues and logs each as "leftover queue found", and Depth counts them. So
// nothing is lost. One with other arguments than the topology's is logged as an error
// and not fetched, because it may be somebody else's. But there is no order between a
// recipient's messages in the old and in the new queue, nor while processes with
// different numbers send. To keep the order, stop the publishers, wait until Depth is 0
// and nothing is delayed, and change the number in all processes. An old queue can be
// deleted when it is empty and no process uses its number any longer, the highest
// number first: a queue beyond a number that is missing is not found. What is still
// delayed for it by then waits in <name>.unroutable, and becomes a dead letter.
//
// Open does not look for old queues with Config.Passive. Otherwise it tries the first
// number, then the next two, the next four and so on, until it finds none; for each
// queue that does not exist the broker logs an error, not_found.
//
// # Errors
//
// Open fails at once, with ErrConfig, a *ConnectError or a *TopologyError, where
// trying again is of no use: a wrong password, a missing virtual host, TLS, a
// queue that exists with other arguments. No error and no log holds the password, a
// recipient or a body.
//
// # Logs
//
// An event's name is the message of its log line: "broker connected", "broker connect
// failed", "broker connection lost", "broker channel lost", "publishing blocked" and
// "unblocked", "topology not declared", "exchanges missing", "body limit learned",
// "delivery missed", "leftover queue found", "dead letters not collected",
// "unroutable messages found". The attribute purpose says what a connection or channel
// is for: publish, consume or control.
//
// # Limits
//
// A message's body has at most Config.MaxBodyBytes, its headers at most 119 KiB in
// all. Attempt and Generation are at most 2^31-1, and times are within the 64 bits
// of Unix nanoseconds, those of the history as well. A received message that goes
// beyond is malformed; what any received message holds can be sent again and stored
// as a dead letter. A max_message_size of the broker's that is lower becomes known with the
// first message that exceeds it. A handler that takes longer than the broker's
// consumer_timeout (30 minutes by default) loses its message to a redelivery, and
// with it all messages of its priority that are in hand. From 4.3 on classic queues
// have no such timeout.
package rabbitmq
