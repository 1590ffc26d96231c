// Package sqlstore keeps the records of messages, and with them idempotency keys
// and dead letters, in a SQL database: SQLite for one machine, PostgreSQL for
// many.
//
//	db, err := sql.Open("sqlite", sqlstore.SQLiteDSN("/var/lib/app/barid.db"))
//	store, err := sqlstore.Open(ctx, db, sqlstore.Config{})
//	defer store.Close()
//
// It works over database/sql and imports no driver. modernc.org/sqlite and
// github.com/jackc/pgx/v5/stdlib are the ones it is tested with; other drivers
// of the same databases should do, as long as a statement without arguments may
// hold several commands, as PostgreSQL's simple query protocol allows.
//
// # What is promised
//
// What a call has acknowledged is committed. On SQLite that survives a power cut
// with synchronous=FULL, which SQLiteDSN sets, and on PostgreSQL with
// synchronous_commit on, its default. A call that failed may have been carried
// out all the same if the connection broke at its commit; it can be repeated.
//
// # How calls become fast together
//
// A sync to the disk costs as much for one record as for a hundred. Calls that
// write, by however many goroutines, are collected while a transaction is under
// way, and the next one carries them out together: SQLite has one writer, and on
// PostgreSQL Config.InFlight transactions are open at once, each with one
// statement for all records of a kind. Nobody waits for a batch to fill. If the
// database refuses the values of one caller, each of the batch is tried by itself.
// Passing failures (locks, deadlocks, lost connections) are tried again a few
// times, with some milliseconds between.
//
// What never changes of a record lies in one table, and what updates rewrite in
// another. IDs, names and texts are byte strings (BYTEA, BLOB), because messages
// may hold any bytes; times are microseconds since 1970. On PostgreSQL
// convert_from(recipient, 'UTF8') makes a recipient readable.
//
// # Settings of the database
//
// SQLite has to use a write-ahead log (journal_mode=WAL) and have a busy_timeout;
// Open refuses it otherwise. The store's writer keeps one connection, so that the
// pool needs two or more. On PostgreSQL let the pool keep at least twice
// Config.InFlight idle connections (SetMaxIdleConns), for writing and reading, or
// connections are made and thrown away under load.
//
// # Keys and dead letters
//
// Store.Keys is an idempotency.Store, and Store.DeadLetters a dlq.Store that keeps
// the jobs of bulk replays, too. They share the database, the transactions and the
// life of the Store: the mark of a message and its record cost one commit
// together. Expired keys are deleted in small parts by whoever writes.
//
// Times come from the callers, and for keys from the clock of the process.
// Processes that share a database should have clocks that agree within a
// fraction of a lease.
//
// # Schema
//
// Open migrates the schema, which several processes may do at once, or with
// MigrateCheck only looks; Migrations returns the SQL for hosts that run their
// own. A schema that the code does not know is refused (ErrMigrationMissing,
// ErrMigrationNewer).
//
// # With the host's own transaction
//
// Store.In saves records inside a transaction of the host, together with what
// else that changes, so that a message is sent if and only if the order that it
// tells of is there. See Outbox.
//
// # Errors
//
// Failures of the database are *DatabaseError, which is delivery.ErrStoreDown,
// has the driver's error in its chain, and also is ErrReadOnly or ErrDiskFull
// where the database said so. After Close it is delivery.ErrClosed.
package sqlstore
