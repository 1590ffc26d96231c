// Package delivery is a pipeline around a function that delivers messages and
// sometimes fails.
//
//	publish -> transport -> idempotency -> breaker -> handler -> settle
//	                                                     |-- ok ------> delivered
//	                                                     |-- failed --> retry now | retry later | dead letter
//
// A Publisher makes a Message durable in a Transport. A Consumer takes it from
// there, in any process, and runs the host's Handler on it. Package memory is
// a transport inside the process, package rabbitmq one on RabbitMQ; a host may
// bring its own, which deliverytest.TestTransport checks.
//
// # What happens to a message
//
// The order of the stages is fixed:
//
//  1. Decode. What can't be decoded, is too large or has expired becomes a dead
//     letter.
//  2. Claim the idempotency key, for this consumer and generation. A message
//     that was handled before is acked and counted as a duplicate. One that is
//     being handled elsewhere waits in hand. While the store is down the
//     consumer pauses. Quick handlers on a store that is a round trip away have
//     keys claimed ahead of their turn; after a crash those messages, too, wait
//     for IdempotencyLease to end.
//  3. Ask the breaker. While it is open the consumer pauses, or with a breaker
//     for each key, the message is put off.
//  4. Run the handler, within HandlerTimeout. Transient errors are tried again
//     at once, a few times.
//  5. Success: the key is marked as done, the message acked.
//  6. Failure: permanent errors, and the last allowed attempt's, make a dead
//     letter. Others are sent again, with the attempt counted, to come back after
//     the policy's delay.
//
// # With a message store
//
// A Store keeps a Record of every message, so that it can be asked what became
// of it, and gives messages a life beyond the transport:
//
//	pending -> queued -> sent -> delivered -> read
//	   |          \-> retrying -> queued
//	   |          \-> failed, a dead letter
//	   \-> cancelled
//
// Publish returns when a message is saved, as pending, and sends it in the
// background; PublishIn saves it within a transaction of the host. Whoever
// publishes an ID again that has a record adds nothing. A Consumer
// records what became of the message before it acks. Retries and scheduled
// messages wait in the store, and not in the transport, until a RetryWorker
// sends them, which any number of processes may run. Give publishers,
// consumers and workers the same Store; with one of RecordsOnly they keep records
// and leave the waiting to the transport.
//
// Whoever sees to a message has a claim on it that ends at a time: a publisher
// for PublisherConfig.PendingGrace, a worker for RetryWorkerConfig.Lease. Ends
// are compared with the clock of whoever wants to go on. Where the clocks of two
// processes differ by more than a quarter of these, or one jumps, messages may go
// out early, late or twice; none is lost.
//
// A message with RequireAck is not done when its handler is: it is sent, and
// waits for the end user's acknowledgment for ConsumerConfig.AckTimeout, after
// which the attempt counts as failed. An Acknowledger takes acknowledgments,
// however late or early.
//
// Updates can arrive out of order, from several processes. Record.Apply says which
// are news; what is late changes nothing.
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
// happens at least once; with an idempotency store it happens once, unless the
// process dies between the effect and the mark, which costs one more run. A lease fences the consumers, not the world
// outside: give Message.ID to the provider as its own idempotency key.
//
// A breaker that is open, a store that is down, a busy key, a shutdown and a
// lost lease never count an attempt. When something can't be made durable, the
// message stays in hand, unacked, and it is tried again until it works or the
// consumer stops; then the message is redelivered.
//
// In hand are at most ConsumerConfig.Prefetch messages of each priority.
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
// wrap it with retry.Permanent or retry.After to decide yourself. Configs are
// checked as a whole and every fault is named. A context's own errors are
// passed on bare.
//
// # Watching
//
// Everything takes a *slog.Logger and a metrics.Recorder and is silent without.
// Neither bodies nor recipients are logged.
package delivery
