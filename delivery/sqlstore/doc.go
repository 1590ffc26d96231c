// Package sqlstore keeps the records of messages in a SQL database, and with
// them idempotency keys and dead letters. SQLite serves one machine, PostgreSQL
// any number of them. The first example opens a store.
//
// The package works over database/sql, and imports no driver. It is tested with
// modernc.org/sqlite and github.com/jackc/pgx/v5/stdlib. Other drivers of these
// databases should do, if a statement without arguments may hold several
// commands, as PostgreSQL's simple query protocol allows. The causes of errors are
// known of github.com/ncruces/go-sqlite3 and github.com/mattn/go-sqlite3, too.
//
// # What is promised
//
// What a call has acknowledged is committed. On SQLite it survives a power cut
// with synchronous=FULL, which SQLiteDSN sets. On PostgreSQL it does with
// synchronous_commit=on, the default. A call that failed may have been executed
// nevertheless, if the connection broke at its commit. It can be repeated.
//
// # Batches
//
// A sync to the disk costs as much for one record as for a hundred. So calls
// that write, from any number of goroutines, are collected while a transaction
// is under way, and the next transaction executes them together. SQLite has one
// writer. On PostgreSQL, Config.InFlight transactions are open at once, and each
// has one statement for all records of a kind. No call waits for a batch to
// fill. If the database refuses the values of one caller, the calls of the batch
// are tried one by one. Transient failures (deadlocks, lost connections) are
// tried again a few times, some milliseconds apart.
//
// The columns of a record that never change are in one table, and those that
// updates rewrite in another. IDs, names and texts are byte strings (BYTEA,
// BLOB), because messages may hold any bytes. Times are microseconds since 1970.
// On PostgreSQL, convert_from(recipient, 'UTF8') makes a recipient readable.
//
// # Locks of others
//
// On PostgreSQL somebody else may keep rows locked: an operator, a host whose
// transaction has saved a record and is still open, or a store that was cut off.
// Calls that need these rows are set aside, and tried again until they succeed,
// their ctx ends, or they have waited for Config.Timeout (ErrLocked). All other
// calls go on. Claim and Renew leave locked records out. Every try that fails is
// an error in the server's log: "canceling statement due to lock timeout".
//
// The store's own transactions are ended by the server when their client is
// silent for 10 s (idle_in_transaction_session_timeout). A client that is cut off
// while an answer is under way to it keeps its locks until TCP gives up, which
// takes a quarter of an hour by default. With pgx these settings in the data
// source name make it 15 s; a pooler needs them in its own configuration:
//
//	tcp_user_timeout=15000&tcp_keepalives_idle=5&tcp_keepalives_interval=5&tcp_keepalives_count=2
//
// SQLite has one lock for the whole file. Whoever holds it stops all who write,
// and busy_timeout says for how long.
//
// # Settings of the database
//
// SQLite needs a write-ahead log (journal_mode=WAL) and a busy_timeout: Open
// fails otherwise. The store's writer keeps one connection, so the pool needs
// two or more. On PostgreSQL, let the pool keep at least twice Config.InFlight
// idle connections (SetMaxIdleConns), for writing and reading. Otherwise
// connections are made and closed again under load. Calls that wait for locks of
// others use up to Config.InFlight and one more now and then.
//
// # Keys and dead letters
//
// Store.Keys is an idempotency.Store. Store.DeadLetters is a dlq.Store that also
// keeps the jobs of bulk replays. They share the database, the transactions and
// the life of the Store: the completion of a message's key and the update of its
// record cost one commit together. Expired keys are deleted in small parts by
// the transactions that write keys: they need no purge, and while nobody writes keys
// those that have expired take up room and nothing else. Records are deleted by
// Purge, which a delivery.RetryWorker calls, dead letters by dlq.Manager.Purge.
//
// Times come from the callers, and for keys from the clock of the process.
// Processes that share a database should have clocks that agree within a
// fraction of a lease.
//
// # Schema
//
// Open migrates the schema in one transaction, and several processes may do so
// at once. It looks for the tables in all schemas of PostgreSQL's search path, and
// then goes by the one that has them, whatever is ahead of it later. With
// MigrateCheck it only checks the version: Migrations returns the SQL for hosts
// that migrate by themselves. A schema of a version that the code does not know
// is refused (ErrMigrationMissing, ErrMigrationNewer).
//
// # The host's transactions
//
// Store.In saves records inside a transaction of the host, together with its
// other changes. So a message is sent if and only if the order that it tells of
// is committed. See Outbox.
//
// # Errors
//
// Failures of the database are *DatabaseError. They match delivery.ErrStoreDown,
// have the driver's error in their chain, and match ErrReadOnly, ErrDiskFull,
// ErrDenied or ErrLocked when the database reported one of these. The error of a call
// whose ctx ends is ctx's. Where the store knows of locks that the call waits for, or
// of a failure that no transaction has succeeded after, a *DatabaseError with that is
// in its chain, too. After Close, the error is delivery.ErrClosed.
package sqlstore
