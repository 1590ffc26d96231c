package sqlstore

import (
	"fmt"
	"strings"
)

// Migration is one step of the schema, for hosts that run their migrations
// themselves.
type Migration struct {
	// Version counts from 1.
	Version int64
	// Name is a word or two.
	Name string
	// SQL takes the schema from the version before to this one, and records the
	// version. It has several statements, which are best run in one transaction.
	SQL string
}

// steps are all migrations, oldest first. A released step never changes: the
// schema changes by further steps. {p} stands for the prefix, {bytes} for the
// type of byte strings, and {int} for that of 64-bit integers. {keyed} ends a
// table with small rows that are found by their keys.
//
// Names, texts and IDs are byte strings, because they may hold any byte. Times
// are microseconds since 1970 in UTC.
var steps = []struct { //nolint:gochecknoglobals // a constant
	name       string
	statements []string
}{
	{name: "messages", statements: []string{
		// The columns that never change are apart from those that updates rewrite.
		`CREATE TABLE {p}messages (
			id {bytes} NOT NULL PRIMARY KEY,
			idempotency_key {bytes},
			recipient {bytes},
			subject {bytes},
			type {bytes},
			content_type {bytes},
			headers {bytes},
			priority {int} NOT NULL DEFAULT 0,
			created_at {int} NOT NULL,
			not_before {int},
			expires_at {int},
			require_ack {int} NOT NULL DEFAULT 0,
			body {bytes}
		)`,
		`CREATE INDEX {p}messages_created ON {p}messages (created_at, id)`,
		`CREATE INDEX {p}messages_recipient ON {p}messages (recipient, created_at, id)`,
		`CREATE INDEX {p}messages_key ON {p}messages (idempotency_key) WHERE idempotency_key IS NOT NULL`,
		`CREATE TABLE {p}progress (
			id {bytes} NOT NULL PRIMARY KEY,
			status TEXT NOT NULL,
			generation {int} NOT NULL DEFAULT 0,
			retry_count {int} NOT NULL DEFAULT 0,
			next_retry_at {int},
			last_retry_at {int},
			sent_at {int},
			delivered_at {int},
			read_at {int},
			ack_deadline {int},
			dead_letter_id {bytes},
			due_at {int},
			claimed_by {bytes},
			updated_at {int} NOT NULL,
			history {bytes},
			priority {int} NOT NULL DEFAULT 0,
			created_at {int} NOT NULL
		){keyed}`,
		`CREATE INDEX {p}progress_due ON {p}progress (status, due_at) WHERE due_at IS NOT NULL`,
		`CREATE INDEX {p}progress_claimed ON {p}progress (claimed_by) WHERE claimed_by IS NOT NULL`,
		`CREATE INDEX {p}progress_ended ON {p}progress (updated_at) WHERE status IN ('delivered', 'read', 'failed', 'cancelled')`,
		`CREATE INDEX {p}progress_rare ON {p}progress (status, created_at, id) WHERE status IN (` + rareStatuses + `)`,
	}},
	{name: "keys", statements: []string{
		`CREATE TABLE {p}keys (
			key {bytes} NOT NULL PRIMARY KEY,
			phase {int} NOT NULL,
			token {bytes} NOT NULL,
			attempt {int} NOT NULL,
			expires_at {int} NOT NULL
		){keyed}`,
		`CREATE INDEX {p}keys_expired ON {p}keys (expires_at)`,
	}},
	{name: "dead letters", statements: []string{
		// The columns that filters, counts and claims need are apart from the large ones.
		`CREATE TABLE {p}dead_letters (
			id {bytes} NOT NULL PRIMARY KEY,
			dead_at {int} NOT NULL,
			reason {bytes} NOT NULL,
			recipient {bytes} NOT NULL,
			type {bytes} NOT NULL,
			fingerprint {bytes} NOT NULL,
			source {bytes} NOT NULL,
			claim_token {bytes},
			claimed_until {int} NOT NULL DEFAULT 0,
			replaced {int} NOT NULL DEFAULT 0
		){keyed}`,
		`CREATE INDEX {p}dead_letters_dead ON {p}dead_letters (dead_at, id)`,
		`CREATE INDEX {p}dead_letters_reason ON {p}dead_letters (reason, dead_at, id)`,
		`CREATE INDEX {p}dead_letters_recipient ON {p}dead_letters (recipient, dead_at, id)`,
		`CREATE INDEX {p}dead_letters_type ON {p}dead_letters (type, dead_at, id)`,
		`CREATE INDEX {p}dead_letters_fingerprint ON {p}dead_letters (fingerprint, dead_at, id)`,
		`CREATE INDEX {p}dead_letters_source ON {p}dead_letters (source, dead_at, id)`,
		`CREATE TABLE {p}dead_letter_contents (
			id {bytes} NOT NULL PRIMARY KEY,
			entry {bytes} NOT NULL,
			error {bytes},
			body {bytes},
			raw {bytes}
		)`,
		`CREATE TABLE {p}jobs (
			id {bytes} NOT NULL PRIMARY KEY,
			version {int} NOT NULL,
			job {bytes} NOT NULL
		)`,
	}},
	{"purge duplicates", []string{
		`DROP INDEX {p}progress_ended`,
		`CREATE INDEX {p}progress_ended ON {p}progress (updated_at) WHERE status IN (` + endedStatuses + `)`,
	}},
	{"queues", []string{
		// Records from before there were queues have none, until Open gives them
		// Config.Queue.
		`ALTER TABLE {p}progress ADD COLUMN queue {bytes}`,
		`CREATE INDEX {p}progress_queueless ON {p}progress (id) WHERE queue IS NULL`,
		`DROP INDEX {p}progress_due`,
		`CREATE INDEX {p}progress_due ON {p}progress (queue, status, priority, due_at) WHERE due_at IS NOT NULL`,
	}},
	{"purge by queue", []string{
		`DROP INDEX {p}progress_ended`,
		`CREATE INDEX {p}progress_ended ON {p}progress (queue, updated_at) WHERE status IN (` + endedStatuses + `)`,
	}},
	{"leases", []string{
		`CREATE TABLE {p}leases (
			token {bytes} NOT NULL,
			queue {bytes} NOT NULL,
			until {int} NOT NULL,
			PRIMARY KEY (token, queue)
		){keyed}`,
		`CREATE INDEX {p}leases_until ON {p}leases (queue, until)`,
		`DROP INDEX {p}progress_claimed`,
		`CREATE INDEX {p}progress_claimed ON {p}progress (claimed_by, queue, status, due_at) WHERE claimed_by IS NOT NULL`,
	}},
	{"lists", []string{
		`DROP INDEX {p}progress_rare`,
		`CREATE INDEX {p}progress_listed ON {p}progress (status, created_at, id) WHERE status IN (` + listedStatuses + `)`,
		`CREATE INDEX {p}messages_type ON {p}messages (type, created_at, id) WHERE type IS NOT NULL`,
	}},
}

// These predicates of partial indexes are repeated in queries word by word.
const (
	endedStatuses = "'delivered', 'read', 'failed', 'cancelled', 'duplicate'"
	rareStatuses  = "'retrying', 'failed', 'cancelled'"
	// listedStatuses are all but those that most records are in: of these a list need
	// not look far for a page.
	listedStatuses = "'pending', 'queued', 'retrying', 'sent', 'failed', 'cancelled', 'duplicate'"
)

// Migrations returns the whole schema in steps, oldest first, for tables whose
// names begin with prefix. An empty prefix means the default. A host that opens
// the store with MigrateCheck runs them with its own tool. It fails with
// ErrConfig, which says what is wrong with the arguments.
func Migrations(dialect Dialect, prefix string) ([]Migration, error) {
	if prefix == "" {
		prefix = defaultPrefix
	}
	if err := checkPrefix(prefix); err != nil {
		return nil, err
	}
	words := []string{"{p}", prefix}
	var versions string
	switch dialect {
	case SQLite:
		words = append(words, "{bytes}", "BLOB", "{int}", "INTEGER", "{keyed}", " WITHOUT ROWID")
		versions = `CREATE TABLE IF NOT EXISTS {p}migrations (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	version_id INTEGER NOT NULL,
	is_applied INTEGER NOT NULL,
	tstamp TIMESTAMP DEFAULT (datetime('now'))
)`
	case PostgreSQL:
		words = append(words, "{bytes}", "BYTEA", "{int}", "BIGINT", "{keyed}", "")
		versions = `CREATE TABLE IF NOT EXISTS {p}migrations (
	id integer PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY,
	version_id bigint NOT NULL,
	is_applied boolean NOT NULL,
	tstamp timestamp NOT NULL DEFAULT now()
)`
	default:
		return nil, fmt.Errorf("%w: Dialect is %s, want SQLite or PostgreSQL", ErrConfig, dialect)
	}
	words = append(words, "\n\t\t\t", "\n\t", "\n\t\t)", "\n)")
	replace := strings.NewReplacer(words...)
	migrations := make([]Migration, 0, len(steps))
	for i, step := range steps {
		var script []string
		if i == 0 {
			script = append(script, versions)
		}
		script = append(script, step.statements...)
		script = append(script, fmt.Sprintf("INSERT INTO {p}migrations (version_id, is_applied) VALUES (%d, TRUE)", i+1))
		migrations = append(migrations, Migration{
			Version: int64(i + 1), Name: step.name, SQL: replace.Replace(strings.Join(script, ";\n") + ";\n"),
		})
	}
	return migrations, nil
}
