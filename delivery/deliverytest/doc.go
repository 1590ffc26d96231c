// Package deliverytest tests implementations of delivery.Transport and
// delivery.Store. A package that implements one of them calls a suite from a
// test of its own, see the examples of TestTransport and TestStore. Nothing here
// needs more than the standard library's testing.
//
// # Transports
//
// TestTransport is the contract of delivery.Transport as tests. Its subtests
// check that
//
//   - every field of an envelope arrives as it was sent, and errors are told
//     apart within a batch (transport_content.go);
//   - messages of one priority keep their order, higher priorities come first,
//     and the prefetch is exact (transport_order.go, transport_prefetch.go);
//   - each receipt is settled once, and comes again when it is not acked
//     (transport_settle.go);
//   - no message is lost when consumers end, connections break and transports
//     reopen (transport_noloss.go);
//   - delayed messages come when they are due (transport_delay.go);
//   - every call ends with its context, and returns delivery.ErrClosed after
//     Close (transport_context.go, transport_close.go);
//   - no goroutine is left (goroutine_leak.go).
//
// Optional interfaces such as delivery.Delayer and delivery.Pauser are found by
// type assertion, and tested when the transport implements them
// (transport_optional.go).
//
// The suite learns from a Harness how to open the transport, and what the
// transport promises where the contract leaves that open: how late a delayed
// message may come, how large a body may be, how many duplicates there may be.
// BenchmarkTransport measures a transport with the same harness.
// TestTransportInBubbles is for a transport that stays within the process.
//
// # Stores
//
// TestStore is the contract of delivery.Store as tests. Its subtests check that
// records are kept as they were saved, that updates go by delivery.Record.Apply,
// that claims, lists, counts and purges pick the right records, and that
// concurrent calls leave behind what some order of them would. TestSharedStore
// does the last for several stores on the same data, as several processes have
// them. BenchmarkStore measures a store.
//
// # Losses and duplicates
//
// A Ledger says which messages a test has lost, and which were handled twice.
//
// # Servers
//
// The subpackage servers runs private RabbitMQ, Redis and PostgreSQL processes
// for such tests.
package deliverytest
