// Package servers runs private RabbitMQ, Redis and PostgreSQL processes, for
// tests and for commands that need a server for a while.
//
// Each server listens only on free ports of 127.0.0.1, keeps its data in a
// folder of its own, and shares nothing with other servers on the machine: no
// port, no cookie, no epmd. Any number of them run side by side. A server can be
// stopped, killed, paused, and started again on the same data and the same port,
// so that a test can see what a client does then.
//
// A server ends with its test. On Linux it also ends with the process that
// started it, however that process ends. Only the data folder of a process that
// was killed stays in the temporary folder.
//
// # In tests
//
// StartRabbitMQ, StartRedis, StartPostgres and StartPgBouncer start a server for
// one test. A RabbitMQ or a PostgreSQL takes some seconds to start, so the tests
// of a package should share one, and use names of their own (see Unique). The
// example of Shared shows how.
//
// A shared server is started by the first test that asks for it. The variables
// BARID_TEST_AMQP_URL, BARID_TEST_REDIS_URL and BARID_TEST_POSTGRES_URL name
// servers that Shared.AMQP, Shared.RedisURL and Shared.PostgresURL use instead
// of starting one.
//
// BARID_TEST_DISTANCE, 50ms for instance, delays everything by so long each way
// between the tests and the servers whose URLs these methods return. Far does
// so for one test. Tests that wait for many round trips can run in parallel
// then (see Parallel), or wait longer (see Distance).
//
// A test whose server is not installed fails, and says what to install or which
// variable to set. Under go test -short such tests are skipped.
//
// # In commands
//
// NewRabbitMQ, NewRedis, NewPostgres and NewPgBouncer need no test: they return
// errors, and Close ends the server and removes its folder.
//
// # Several versions
//
// The command matrix, below this folder, runs tests on servers of several
// versions.
package servers
