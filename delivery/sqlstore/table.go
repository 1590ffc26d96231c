package sqlstore

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// column is one column of a table.
type column struct {
	name string
	kind kind
}

// row has the values of a table's columns, in the types that their kinds say.
type row []any

// key is the first value: tables begin with a blob.
func (r row) key() []byte { return r[0].([]byte) }

// table is a table, or some of its columns. The first column is the key, a
// blob.
type table struct {
	dialect *dialect
	name    string
	columns []column
	// addLocks makes add lock the rows that are there already, in one order of
	// keys with those that it inserts. It must be set before the table is used.
	addLocks bool

	// inserts and updates are statements by the columns that they give values to.
	inserts, updates sync.Map
}

// columnSet has a bit for each column that has a value in some of the rows. The
// other columns are NULL in all of them, or 0 for counts. Leaving those out of
// a statement saves time, because most columns are empty most of the time.
type columnSet uint64

func (u columnSet) has(i int) bool { return u&(1<<i) != 0 }

func newTable(d *dialect, name string, columns ...column) *table {
	return &table{dialect: d, name: name, columns: columns}
}

// insert is the statement for rows that have values in these columns. The other
// columns get their defaults. SQLite's statement takes one row. PostgreSQL's
// takes arrays, and answers with the keys that were added.
func (t *table) insert(of columnSet) string {
	if text, ok := t.inserts.Load(of); ok {
		return text.(string)
	}
	names, values, input := t.input(of)
	key := t.columns[0].name
	text := fmt.Sprintf("INSERT INTO %s (%s) ", t.name, strings.Join(names, ", "))
	if t.dialect.kind == SQLite {
		text += fmt.Sprintf("VALUES (%s) ON CONFLICT (%s) DO NOTHING", strings.Join(values, ", "), key)
	} else {
		conflict := "NOTHING"
		if t.addLocks {
			// The row is locked although nothing is updated (PostgreSQL documentation,
			// "INSERT").
			conflict = fmt.Sprintf("UPDATE SET %s = excluded.%[1]s WHERE FALSE", t.columns[1].name)
		}
		text += fmt.Sprintf("SELECT %s FROM %s ON CONFLICT (%s) DO %s RETURNING encode(%[3]s, 'hex')", strings.Join(values, ", "), input, key, conflict)
	}
	t.inserts.Store(of, text)
	return text
}

// update is the statement for rows that have values in these columns. The other
// columns are emptied.
func (t *table) update(of columnSet) string {
	if text, ok := t.updates.Load(of); ok {
		return text.(string)
	}
	names, values, input := t.input(of)
	sets := make([]string, 0, len(t.columns))
	for i, name := range names[1:] {
		sets = append(sets, name+" = "+values[i+1])
	}
	for i, c := range t.columns {
		switch {
		case of.has(i):
		case c.kind == count:
			sets = append(sets, c.name+" = 0")
		default:
			sets = append(sets, c.name+" = NULL")
		}
	}
	text := fmt.Sprintf("UPDATE %s AS t SET %s", t.name, strings.Join(sets, ", "))
	if t.dialect.kind == SQLite {
		text += fmt.Sprintf(" WHERE %s = %s", names[0], values[0])
	} else {
		text += fmt.Sprintf(" FROM %s WHERE t.%s = i.%s", input, names[0], names[0])
	}
	t.updates.Store(of, text)
	return text
}

// input returns the columns' names, their values in a row, and for PostgreSQL
// the rows that come as arrays.
func (t *table) input(of columnSet) (names, values []string, input string) {
	var arrays []string
	for i, c := range t.columns {
		if !of.has(i) {
			continue
		}
		names = append(names, c.name)
		param := t.dialect.param(len(names))
		arrays = append(arrays, param+"::"+c.kind.array())
		switch {
		case t.dialect.kind == SQLite:
			values = append(values, param)
		case c.kind == integer:
			values = append(values, fmt.Sprintf("NULLIF(i.%s, %d)", c.name, int64(null)))
		default:
			values = append(values, "i."+c.name)
		}
	}
	return names, values, fmt.Sprintf("unnest(%s) AS i (%s)", strings.Join(arrays, ", "), strings.Join(names, ", "))
}

// columnsUsed are the columns that have a value in some of the rows.
func (t *table) columnsUsed(rows ...row) columnSet {
	of := columnSet(1) // the key
	for i, c := range t.columns[1:] {
		for _, r := range rows {
			if value := r[i+1]; value != nil && (c.kind != count || value != int64(0)) {
				of |= 1 << (i + 1)
				break
			}
		}
	}
	return of
}

// add inserts the rows whose keys are not there yet, and returns which those
// were. The rows must be sorted by key, and have each key once.
func (t *table) add(ctx context.Context, q querier, rows []row) (added []bool, err error) {
	added = make([]bool, len(rows))
	if len(rows) == 0 {
		return added, nil
	}
	if t.dialect.kind == SQLite {
		for i, r := range rows {
			result, err := t.exec(ctx, q, t.insert, r)
			if err != nil {
				return nil, err
			}
			n, err := result.RowsAffected()
			if err != nil {
				return nil, err
			}
			added[i] = n == 1
		}
		return added, nil
	}
	of := t.columnsUsed(rows...)
	// The answer is text: in a transaction of the host's, bytea_output may be
	// anything, and not all drivers understand all of it.
	var encoded string
	err = query(ctx, q, func(answer scanner) error {
		if err := answer.Scan(&encoded); err != nil {
			return err
		}
		key, err := hex.DecodeString(encoded)
		if err != nil {
			return err
		}
		i, found := slices.BinarySearchFunc(rows, key, func(r row, key []byte) int { return bytes.Compare(r.key(), key) })
		if found {
			added[i] = true
		}
		return nil
	}, t.insert(of), t.arrays(of, rows)...)
	return added, err
}

// change sets the columns of the rows with the same keys.
func (t *table) change(ctx context.Context, q querier, rows []row) error {
	if len(rows) == 0 {
		return nil
	}
	if t.dialect.kind == SQLite {
		for _, r := range rows {
			if _, err := t.exec(ctx, q, t.update, r); err != nil {
				return err
			}
		}
		return nil
	}
	of := t.columnsUsed(rows...)
	_, err := q.ExecContext(ctx, t.update(of), t.arrays(of, rows)...)
	return err
}

// exec runs a statement for one row.
func (t *table) exec(ctx context.Context, q querier, statement func(columnSet) string, r row) (sql.Result, error) {
	of := t.columnsUsed(r)
	args := make([]any, 0, len(r))
	for i, value := range r {
		if of.has(i) {
			args = append(args, value)
		}
	}
	return q.ExecContext(ctx, statement(of), args...)
}

// arrays are the columns that have values, as arguments for arrays.
func (t *table) arrays(of columnSet, rows []row) []any {
	args := make([]any, 0, len(t.columns))
	for i, c := range t.columns {
		if !of.has(i) {
			continue
		}
		switch c.kind {
		case blob:
			values := make([][]byte, len(rows))
			for n, r := range rows {
				values[n], _ = r[i].([]byte)
			}
			args = append(args, t.dialect.blobs(values))
		case text:
			values := make([]string, len(rows))
			for n, r := range rows {
				values[n], _ = r[i].(string)
			}
			args = append(args, t.dialect.texts(values))
		case integer, count:
			values := make([]int64, len(rows))
			for n, r := range rows {
				value, set := r[i].(int64)
				if !set {
					value = null
				}
				values[n] = value
			}
			args = append(args, t.dialect.integers(values))
		}
	}
	return args
}
