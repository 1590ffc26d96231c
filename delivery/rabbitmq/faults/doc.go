// Package faults breaks RabbitMQ, Redis, the message store, the network and the
// process under a running pipeline, and keeps the books meanwhile. It holds
// tests only.
//
// Each row of the fault matrix is a test. It starts real servers, publishes a
// few thousand messages through the whole pipeline (delivery.Publisher,
// delivery.Consumer with Redis for idempotency, a breaker and dead letters)
// while the fault happens, lets things heal, drains, and settles the ledger:
//
//   - what was published with success had its effect or is a dead letter: lost
//     is 0 in every row;
//   - no effect came more often than the row allows;
//   - nobody hung past its deadline;
//   - goroutines and file descriptors are back where they were.
//
// Rows with a message store, which is in SQLite or PostgreSQL, check beside that
// every record ends delivered, and that nothing is acked before it is recorded.
//
// An effect is one run of the handler's outside action, written down with the
// message's ID; where the process dies, in a file.
//
// # Running
//
//	go test ./delivery/rabbitmq/faults                the rows that take seconds
//	go test ./delivery/rabbitmq/faults -timeout 40m -args -faults.all
//	    -faults.out=FILE                              also write the table as Markdown
//	    -faults.soak=20m -faults.seed=1               a random fault every 20 s instead
//
// One row alone: -run 'TestFaults/^15' with -faults.all. A table with a line a
// row and a last line with the totals goes to standard output.
//
// # What it needs
//
// rabbitmq-server, redis-server and PostgreSQL. Rows that need root, network
// namespaces, ss -K or a tmpfs are reported as not run where the machine has none,
// never as passed.
// All traffic stays on the loopback and in namespaces that the tests make and
// remove.
package faults
