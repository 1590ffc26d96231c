// Package memory is the transport within one process: no server, no files, no
// goroutines of its own.
//
// # Semantics
//
// It keeps the contract of delivery.Transport, and beside it is a
// delivery.Delayer, Depther, Pinger, Namer and DeadLetterer; its subscriptions
// are delivery.Pausers.
//
//   - Messages last as long as the process. "Durable" means here: in the queue.
//   - There is one queue for each priority. Several subscriptions compete: each
//     message goes to one of them. Receive hands over the higher priorities
//     first, as many messages at once as the prefetch allows.
//   - What is nacked, or left unsettled when its subscription closes, goes back
//     to its old place: before everything that was sent after it.
//   - Delayed messages wait aside, for one timer, and join the end of their
//     queue when their time has come. Any delay is possible.
//   - Each queueing is bounded, see Config.MaxMessages: Send waits for room. That
//     is backpressure, not an error, until the context ends. A handler that
//     sends into the full queue which it has to empty waits for itself, so give
//     it a context with a deadline.
//   - Dead letters are kept in a list, see DeadLetters.
//
// Send copies what it is given, bodies and headers too. Each receipt has an
// Envelope of its own, but all receipts of one message share the bytes of Body
// and the contents of Headers and History, which nobody may change.
//
// # Errors
//
// Send reports delivery.ErrInvalid for an unknown priority,
// delivery.ErrTooLarge for a body over MaxBodyBytes, delivery.ErrClosed, the
// context's error, and delivery.ErrBlocked together with the context's error
// when there was no room before its end. A message with an error was not sent.
// DeadLetter reports delivery.ErrRefused when the list is full.
//
// # Usage
//
//	transport := memory.New(memory.Config{})
//	defer transport.Close()
//	publisher := delivery.NewPublisher(transport, delivery.PublisherConfig{})
//
// A test that plays a restart, or several processes, gets further transports on
// the same queues from Another.
//
// # Records
//
// Store is a delivery.Store beside the transport: what has become of each
// message, for as long as the process lives. It is of no use for a restart, but
// behaves as the others do.
package memory
