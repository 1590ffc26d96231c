package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"
)

// dialect is what differs between the databases.
type dialect struct {
	kind Dialect
	// beginWrite and beginRead begin transactions. See begin.
	beginWrite, beginRead string
	// oneWriter is true when the database has one writer at a time, which then
	// keeps its connection.
	oneWriter bool
	// prepares is true when the driver does not keep prepared statements.
	prepares bool
	// waitsForServer is true when statements wait for a server, which may not answer.
	waitsForServer bool
	// rowLocks ends a SELECT that locks its rows, skipLocked one that leaves out
	// the rows that others have locked.
	rowLocks, skipLocked string
	// arraysAsText is true when the driver takes no slices: arrays are sent as text.
	arraysAsText bool
}

func sqlite() *dialect {
	return &dialect{
		kind:       SQLite,
		beginWrite: "BEGIN IMMEDIATE",
		beginRead:  "BEGIN",
		oneWriter:  true,
		prepares:   true,
	}
}

// begin begins a transaction that writes, and that waits so long for a lock of
// others.
func (d *dialect) begin(lockWait time.Duration) string {
	if d.oneWriter {
		return d.beginWrite
	}
	return fmt.Sprintf("%s; SET LOCAL lock_timeout = %d", d.beginWrite, lockWait.Milliseconds())
}

// ping returns nil when the database answers, and may take writes.
func (d *dialect) ping(ctx context.Context, q querier) error {
	text := "SELECT false"
	if d.kind == PostgreSQL {
		text = "SELECT pg_is_in_recovery()"
	}
	var standby bool
	err := query(ctx, q, func(answer scanner) error { return answer.Scan(&standby) }, text)
	if err == nil && standby {
		err = errStandby
	}
	return err
}

// settings are those of every transaction. They are set for the transaction
// only, because a pooler may give each transaction another connection.
//
// The server ends a transaction whose client is silent for 10 s. Otherwise one
// of a client that is cut off would keep its locks until TCP gives up. Byte
// strings are answered in hexadecimal digits, which pgx always understands.
const settings = "; SET LOCAL idle_in_transaction_session_timeout = 10000; SET LOCAL bytea_output = hex"

// postgreSQL finds rows by key or index only where it writes, and keeps the
// plans for that. By default the server would plan for the tables as they are
// when a statement first runs, which is often empty, and would read whole
// tables until the next ANALYZE. Reads are planned each time, because lists
// have many shapes.
func postgreSQL() *dialect {
	return &dialect{
		kind: PostgreSQL,
		beginWrite: "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL plan_cache_mode = force_generic_plan; " +
			"SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off" + settings,
		beginRead:      "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL plan_cache_mode = force_custom_plan" + settings,
		waitsForServer: true,
		rowLocks:       " FOR UPDATE",
		skipLocked:     " FOR UPDATE SKIP LOCKED",
	}
}

// kind is the type of a column.
type kind int

const (
	blob    kind = iota // any bytes: []byte, or nil for NULL
	text                // UTF-8 without NUL: string, never NULL
	integer             // int64, or nil for NULL
	count               // int64, 0 by default, never NULL
)

// array is PostgreSQL's type for many values of the kind.
func (k kind) array() string {
	return [...]string{blob: "bytea[]", text: "text[]", integer: "bigint[]", count: "bigint[]"}[k]
}

// null stands for NULL among integers that go to PostgreSQL as an array. No
// time in microseconds and no count has this value.
const null = -1 << 63

// param is parameter n of a statement, counted from 1.
func (d *dialect) param(n int) string {
	if d.kind == SQLite {
		return fmt.Sprintf("?%d", n)
	}
	return fmt.Sprintf("$%d", n)
}

// lookup is a query for rows by their keys.
type lookup string

// lookup selects sel from from, for the rows whose column key has one of the
// keys. The rows of the alias locked, unless it is empty, are locked in the
// order of their keys.
func (d *dialect) lookup(sel, from, key, locked string) lookup {
	query := "SELECT " + sel + " FROM " + from + " WHERE " + key
	if d.kind == SQLite {
		return lookup(query + " = ?1")
	}
	query += " = ANY($1)"
	if locked != "" {
		query += " ORDER BY " + key + d.rowLocks + " OF " + locked
	}
	return lookup(query)
}

// scanner is one row of an answer.
type scanner interface{ Scan(dest ...any) error }

// queryByKeys has scan read each row that the lookup finds for the keys.
func (d *dialect) queryByKeys(ctx context.Context, q querier, find lookup, keys [][]byte, scan func(scanner) error) error {
	if d.kind != SQLite {
		return query(ctx, q, scan, string(find), d.blobs(keys))
	}
	for _, key := range keys {
		if err := query(ctx, q, scan, string(find), key); err != nil {
			return err
		}
	}
	return nil
}

// query has scan read each row of the answer.
func query(ctx context.Context, q querier, scan func(scanner) error, text string, args ...any) error {
	answer, err := q.QueryContext(ctx, text, args...)
	if err != nil {
		return err
	}
	defer answer.Close() //nolint:errcheck // Err tells
	for answer.Next() {
		if err := scan(answer); err != nil {
			return err
		}
	}
	return answer.Err()
}

// queryKeys returns the keys that a query answers with.
func queryKeys(ctx context.Context, q querier, text string, args ...any) ([][]byte, error) {
	var keys [][]byte
	err := query(ctx, q, func(answer scanner) error {
		var key intoBytes
		err := answer.Scan(&key)
		keys = append(keys, key)
		return err
	}, text, args...)
	return keys, err
}

// deleteByKeys deletes the rows with the keys.
func (d *dialect) deleteByKeys(ctx context.Context, q querier, table, key string, keys [][]byte) error {
	if d.kind != SQLite {
		_, err := q.ExecContext(ctx, "DELETE FROM "+table+" WHERE "+key+" = ANY($1)", d.blobs(keys))
		return err
	}
	for _, k := range keys {
		if _, err := q.ExecContext(ctx, "DELETE FROM "+table+" WHERE "+key+" = ?1", k); err != nil {
			return err
		}
	}
	return nil
}

// blobs, texts and integers turn slices into arguments for arrays.
func (d *dialect) blobs(values [][]byte) any {
	if !d.arraysAsText {
		return values
	}
	return arrayLiteral(values, func(b *strings.Builder, value []byte) {
		if value == nil {
			b.WriteString("NULL")
			return
		}
		fmt.Fprintf(b, `"\\x%x"`, value)
	})
}

func (d *dialect) texts(values []string) any {
	if !d.arraysAsText {
		return values
	}
	return arrayLiteral(values, func(b *strings.Builder, value string) {
		b.WriteByte('"')
		b.WriteString(strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value))
		b.WriteByte('"')
	})
}

func (d *dialect) integers(values []int64) any {
	if !d.arraysAsText {
		return values
	}
	return arrayLiteral(values, func(b *strings.Builder, value int64) { fmt.Fprint(b, value) })
}

// arrayLiteral is an array as text (PostgreSQL documentation, "Array Input and
// Output Syntax").
func arrayLiteral[V any](values []V, write func(*strings.Builder, V)) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, value := range values {
		if i > 0 {
			b.WriteByte(',')
		}
		write(&b, value)
	}
	b.WriteByte('}')
	return b.String()
}

// affected is how many rows a statement has written.
func affected(result sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}
