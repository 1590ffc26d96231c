// Package servers runs private RabbitMQ, Redis and PostgreSQL processes for tests,
// and for commands that want a server of their own for a while.
//
// Each server listens on free ports of 127.0.0.1 only, keeps its data in a
// folder of its own, and shares nothing with a server that the machine may run
// anyway: no port, no cookie, no epmd. Any number of them run side by side. A
// server can be stopped, killed, paused and started again on the same data and
// the same port, which is how a test finds out what a client does then.
//
// Nothing stays behind: a server ends with its test, and on Linux also with the
// process that started it, however that dies. Only the data folder of a process
// that was killed is left in the temporary folder.
//
// # In tests
//
// StartRabbitMQ, StartRedis and StartPostgres start a server that belongs to one
// test. A RabbitMQ takes some seconds to start, and so does a PostgreSQL, so that
// the tests of a package better share one, and keep apart by names (see Unique):
//
//	var shared servers.Shared
//
//	func TestMain(m *testing.M) { os.Exit(shared.Main(m).Run()) }
//
//	func TestSend(t *testing.T) {
//		url := shared.AMQP(t)
//		...
//	}
//
// A shared server is started by the first test that asks. BARID_TEST_AMQP_URL,
// BARID_TEST_REDIS_URL and BARID_TEST_POSTGRES_URL name servers that Shared.AMQP,
// Shared.RedisURL and Shared.PostgresURL use instead of starting one.
//
// A test whose server is not installed fails, and says what to install or which
// variable to set. Under go test -short such tests are skipped.
//
// # Elsewhere
//
// NewRabbitMQ, NewRedis and NewPostgres do the same without a test: they return errors, and
// Close ends the server and removes its folder.
package servers
