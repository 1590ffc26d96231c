// Package delivery is a pipeline around a function that delivers messages and
// sometimes fails. With the transport of package memory it needs no server:
//
//	transport := memory.New(memory.Config{})
//	publisher, err := delivery.NewPublisher(transport, delivery.PublisherConfig{})
//	consumer, err := delivery.NewConsumer(transport, handler, delivery.ConsumerConfig{
//		Retry:       retry.Exponential{Base: 5 * time.Second, MaxRetries: 5},
//		Idempotency: idempotency.NewMemory(idempotency.MemoryConfig{}),
//	})
//	err = publisher.Publish(ctx, delivery.Message{Recipient: "+966500000001", Body: []byte("hello")})
//	err = consumer.Run(ctx) // calls handler, until ctx ends
//
// A Publisher makes a Message durable in a Transport. A Consumer takes it from
// there, in any process, and runs the host's Handler on it:
//
//	publish -> transport -> idempotency -> breaker -> handler -> settle
//	                                                     |-- ok ------> delivered
//	                                                     |-- failed --> retry now | retry later | dead letter
//
// JSON makes a Handler of a function that takes the decoded body, and NewJSONMessage
// the message for it; Mux makes one Handler of several, by Message.Type.
//
// Package rabbitmq is a transport on RabbitMQ, package sqlstore a message store
// on SQLite or PostgreSQL.
//
// # What happens to a message
//
// The order of the stages is fixed:
//
//  1. Decode. What can't be decoded, is too large or has expired becomes a dead
//     letter.
//  2. Claim the idempotency key, for this consumer and generation. A message
//     that was handled before is acked and counted as a duplicate. One that is
//     being handled elsewhere waits in hand. While the idempotency store is
//     down the consumer pauses.
//  3. Count the start of a message that was delivered before and came to no end. One
//     that seems to end the process becomes a dead letter, see
//     ConsumerConfig.MaxCrashes.
//  4. Ask the breaker. While it is open the consumer pauses. With a breaker for
//     each key, the message is postponed.
//  5. Run the handler, within HandlerTimeout. Transient errors are tried again
//     at once, a few times.
//  6. Success: the key is completed, the message acked.
//  7. Failure: permanent errors, and the last allowed attempt's, make a dead
//     letter. Other messages are sent again, with the attempt counted, to come
//     back after the policy's delay.
//
// # Not now
//
// A handler that finds that it is not the time (the phone is off, it is night where
// the recipient is) returns a retry.Later error. The message is put off for as long as
// that says, from 1 s to a year, and nothing is counted: no attempt, no failure for the
// breaker, no start for MaxCrashes. So it may be put off any number of times. What ends
// that is Message.ExpiresAt: the message comes back then at the latest, and becomes a
// dead letter with ReasonExpired.
//
// It waits as a retry does: in the store where a RetryWorker sends what is due, else in
// a transport that is a Delayer. Where there is neither, and for 1 s, it waits in hand,
// unacked. So it does in ordered mode, where its recipient's others wait behind it, for
// MaxHold at most: a longer wait is for OnHoldExceeded to decide, at once. If the
// process dies before the ack, the message comes again at once, beside what waits.
//
// RetryWorker.Wake makes due now what waits in the store, for one recipient, of one type,
// or all. What waits elsewhere can't be woken. So give the consumer a Store where a wait
// of hours should end as soon as the phone is on again.
//
// # With a message store
//
// A Store keeps a Record of every message, so that it can be asked what became
// of it, and gives messages a life beyond the transport:
//
//	pending -> queued -> sent -> delivered -> read
//	   |          \-> retrying -> queued
//	   |          \-> failed, a dead letter
//	   |          \-> duplicate of another message
//	   \-> cancelled
//
// Publish returns when a message is saved, as pending, and sends it in the
// background. PublishIn saves it within a transaction of the host. To publish an
// ID again that has a record adds nothing, and is ErrConflict if it is another
// message. A Consumer records what became of the message before it acks. Retries and
// scheduled messages wait in the store, and not in the transport, until a RetryWorker
// sends them, which any number of processes may run. Give publishers, consumers and
// workers the same Store. Where nobody runs a RetryWorker, make it one of RecordsOnly:
// then the store keeps records, and what waits does so in the transport.
//
// A message that a publisher or worker is about to send is claimed by it until a
// time: a publisher's claim lasts for PublisherConfig.PendingGrace, a worker's for
// RetryWorkerConfig.Lease. These times are compared with the clock of the process
// that wants to take over. Where the clocks of two processes differ by more than
// a quarter of them, or one jumps, messages may go out early, late or twice; none
// is lost.
//
// A message with RequireAck is not done when its handler is. It is sent, and
// waits for the end user's acknowledgment for ConsumerConfig.AckTimeout, after
// which the attempt counts as failed. An Acknowledger takes acknowledgments,
// however late or early.
//
// A record is kept for RetryWorkerConfig.RecordRetention after its message ended, 30
// days by default. Then the RetryWorker deletes it, and the ID is unknown: a message
// that is published again is sent again, and an acknowledgment is ErrNotFound. What
// waits for something is never deleted. Dead letters are kept for ever unless
// DeadLetterRetention says otherwise. Idempotency keys need no purge: they end with
// their window, in every store.
//
// Updates of a record can arrive out of order, from several processes.
// Record.Apply says which of them change it. One that is late changes nothing.
//
// At the end stop what publishes and close the Publisher, then end the consumers,
// then the retry worker, then close transport and store. In any other order, and
// after a crash, some messages are delivered later, or twice.
//
// # What is promised
//
// Nothing is acked before its next home is durable: the dead letter stored, the
// retry confirmed by the transport or saved in the store, the success recorded.
// If the process dies in between, the message comes again. So a handler's effect
// happens at least once. With an idempotency store it happens once, unless the
// process dies between the effect and the completion of the key, which costs one
// more run. A lease keeps other consumers away, not the world outside: give
// Message.ID to the provider as its own idempotency key.
//
// A breaker that is open, a store that is down, a busy key, a shutdown and a
// lost lease never count an attempt. When something can't be made durable, the
// message stays in hand, unacked, and it is tried again until it works or the
// consumer stops; then the message is redelivered.
//
// At most ConsumerConfig.Prefetch messages of each priority are in hand.
// Priorities are strict, but for StarvationLimit.
//
// With ConsumerConfig.Ordered the messages of one recipient run one after another
// in the order in which they came. One that fails holds up its own recipient, in
// hand, for MaxHold at most. Without it messages run in any order.
//
// # Errors
//
// Publish tells what became of each message by a *ResultsError, which errors.Is
// and errors.As look through. A handler's error is sorted by retry.Classifier;
// wrap it with retry.Permanent, retry.After or retry.Later to decide yourself. Configs are
// checked as a whole and every fault is named. A context's own errors are
// passed on bare.
//
// Attempts are counted from 1 in errors, logs and histories.
//
// In JSON, names are in snake case, times that are zero are left out, and errors are
// their texts. Config structs are not meant for it: see Settings.
//
// # Watching
//
// Everything takes a *slog.Logger and a metrics.Recorder and is silent without.
// Neither bodies nor recipients are logged.
//
// The name of an event is a short phrase in lower case that never changes: a thing
// and what became of it, as in "dead letter stored". What is special about one event
// is in its attributes, whose names are in snake case: message_id, error. What is to
// be done about a warning is in the attribute want. These are the events of each
// message:
//
//	message queued         Info   the transport has confirmed it
//	message delivered      Info   its handler is done, or, with RequireAck, it is sent
//	message acknowledged   Info   by the end user
//	retry scheduled        Warn   an attempt failed, there will be another
//	message postponed      Info   its handler put it off, by retry.Later
//	acknowledgment timeout Warn   that is a failed attempt
//	message dead-lettered  Error  it is given up
//
// # Adapters
//
// A transport has the three methods of Transport, and says what else it can by
// having the methods of Delayer, Depther, Pinger, Namer, DeadLetterer or
// Volatile; its subscriptions may be Pausers, and its incomings QueueTellers and
// StaleTellers. deliverytest.TestTransport is the contract as a suite, which the
// transports of this module pass.
//
// A message store implements Store, with Record.Apply as the state machine that
// all stores share, and may be a StoreWatcher and a Pinger. Its suite is
// deliverytest.TestStore. Dead letters go to any DeadLetterer, which may be a
// Resolver and a Purger; dlq.Manager is both. Idempotency stores are described by package
// idempotency, metrics by package metrics.
//
// What is made by a constructor that returns no error is a FaultReporter: it can
// stand in a config literal, and the constructor that it is given to reports what
// is wrong with it.
package delivery
