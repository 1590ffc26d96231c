// Package memory is a transport and a message store within one process. They
// need no server and no files, and have no goroutines of their own.
//
// # Transport
//
// Transport keeps the contract of delivery.Transport. It also is a
// delivery.Delayer, Depther, Pinger, Namer, Volatile and DeadLetterer, and its
// subscriptions are delivery.Pausers.
//
//   - Messages last as long as the process. A message is durable when it is in
//     its queue.
//   - There is one queue for each priority. Several subscriptions compete: each
//     message goes to one of them. Receive returns the higher priorities first,
//     and as many messages at once as the prefetch allows.
//   - A message that is nacked, or unsettled when its subscription closes, goes
//     back to its old place: before every message that was sent after it.
//   - A delayed message joins the end of its queue when its time has come. Any
//     delay is possible.
//   - The number of messages is bounded, see Config.MaxMessages. While there is
//     no room, Send waits, and fails only when its context ends. A handler that
//     sends into the queue that it consumes can wait for itself, so give it a
//     context with a deadline.
//   - Dead letters are kept in a list, see Transport.DeadLetters.
//
// Send copies what it is given, bodies and headers included. Each receipt has
// an Envelope of its own. But all receipts of one message share the bytes of
// Body and the contents of Headers and History, which nobody may change.
//
// The first example publishes and consumes. Another returns further transports
// on the same queues, for a test that needs several processes or a restart.
//
// # Errors
//
// Send returns delivery.ErrInvalid for an unknown priority,
// delivery.ErrTooLarge for a body over MaxBodyBytes, delivery.ErrClosed, and
// the context's error, together with delivery.ErrBlocked when there was no room
// before the context ended. A message with an error was not sent. DeadLetter
// returns delivery.ErrRefused when the list is full.
//
// # Store
//
// Store is a delivery.Store: it keeps what has become of each message, for as
// long as the process lives. A restart loses its records. Otherwise it behaves
// like the other stores.
package memory
