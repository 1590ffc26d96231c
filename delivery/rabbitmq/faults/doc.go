// Package faults breaks RabbitMQ, Redis, the message store, the network and the
// process under a running pipeline, and checks with a ledger what became of the
// messages. It holds tests only.
//
// Each row of the fault matrix is a test. It starts real servers and publishes a
// few thousand messages through the whole pipeline: delivery.Publisher, and
// delivery.Consumer with Redis for idempotency, a breaker and dead letters. The
// fault happens meanwhile. Then the servers recover, the queues are drained, and
// the row passes if
//
//   - every message that was published with success had its effect or is a dead
//     letter: lost is 0 in every row;
//   - no effect came more often than the row allows;
//   - no call hung past its deadline;
//   - goroutines and file descriptors are back where they were.
//
// Rows with a message store, in SQLite or PostgreSQL, check as well that every
// record ends delivered, and that nothing is acked before it is recorded.
//
// An effect is one run of the handler's outside action. It is written down with the
// message's ID, in a file where the process is to be killed.
//
// # Sections
//
// The rows of each section of the table have a file of their own:
//
//	broker_rows_test.go         RabbitMQ killed, stopped, short of memory or disk
//	network_rows_test.go        connections reset, cut, stalled, slow
//	cluster_rows_test.go        nodes of a RabbitMQ cluster cut off, or killed
//	redis_rows_test.go          Redis killed, slow, full, failed over, flushed
//	process_rows_test.go        our process killed, paused, terminated
//	handler_rows_test.go        handlers that fail or hang, messages that are malformed
//	queue_rows_test.go          queues full, deleted, out of reach or over a limit
//	access_rows_test.go         permissions, password or virtual host gone
//	store_rows_test.go          dead-letter store and message store down, slow, full
//	store_process_rows_test.go  our process killed or paused, with a message store
//	retry_rows_test.go          retries by a process that dies, or with their ack lost
//	deploy_rows_test.go         consumers replaced one after the other
//
// # Running
//
//	go test ./delivery/rabbitmq/faults                the rows that take seconds
//	go test ./delivery/rabbitmq/faults -timeout 40m -args -faults.all
//	    -faults.out=FILE                              also write the table as Markdown
//	    -faults.soak=20m -faults.seed=1               a random fault every 20 s instead
//
// One row alone: -run 'TestFaults/^15' with -faults.all. The table goes to standard
// output, with a line for each row and a last one with the totals.
//
// # Requirements
//
// rabbitmq-server, redis-server and PostgreSQL. Rows that need root, network
// namespaces, ss -K or a tmpfs are reported as not run where the machine has none,
// never as passed. All traffic stays on the loopback and in namespaces that the
// tests make and remove.
package faults
