package sqlstore

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
)

// column is one column of a table.
type column struct {
	name string
	kind kind
}

// row has the values of a table's columns, each as its kind says.
type row []any

func (r row) key() []byte { return r[0].([]byte) } //nolint:errcheck,forcetypeassert // tables begin with a blob

// table is a table, or some of its columns, of which the first is the key, a
// blob.
type table struct {
	dialect        *dialect
	name           string
	columns        []column
	insert, update string
}

func newTable(d *dialect, name string, columns ...column) *table {
	t := &table{dialect: d, name: name, columns: columns}
	names, values, sets := make([]string, len(columns)), make([]string, len(columns)), make([]string, len(columns))
	arrays := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.name
		arrays[i] = fmt.Sprintf("$%d::%s", i+1, c.kind.array())
		switch {
		case d.kind == SQLite:
			values[i] = d.param(i + 1)
		case c.kind == integer:
			values[i] = fmt.Sprintf("NULLIF(i.%s, %d)", c.name, int64(null))
		default:
			values[i] = "i." + c.name
		}
		sets[i] = c.name + " = " + values[i]
	}
	key := names[0]
	if d.kind == SQLite {
		t.insert = fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s) ON CONFLICT (%s) DO NOTHING",
			name, strings.Join(names, ", "), strings.Join(values, ", "), key)
		t.update = fmt.Sprintf("UPDATE %s SET %s WHERE %s = ?1", name, strings.Join(sets[1:], ", "), key)
		return t
	}
	input := fmt.Sprintf("unnest(%s) AS i (%s)", strings.Join(arrays, ", "), strings.Join(names, ", "))
	t.insert = fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM %s ON CONFLICT (%s) DO NOTHING RETURNING %s",
		name, strings.Join(names, ", "), strings.Join(values, ", "), input, key, key)
	t.update = fmt.Sprintf("UPDATE %s AS t SET %s FROM %s WHERE t.%s = i.%s",
		name, strings.Join(sets[1:], ", "), input, key, key)
	return t
}

// add inserts the rows whose keys are not there yet, and says which those were.
// The rows must be sorted by key, and have each key once.
func (t *table) add(ctx context.Context, q querier, rows []row) (added []bool, err error) {
	added = make([]bool, len(rows))
	if len(rows) == 0 {
		return added, nil
	}
	if t.dialect.kind == SQLite {
		for i, r := range rows {
			result, err := q.ExecContext(ctx, t.insert, r...)
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
	var key []byte
	err = query(ctx, q, func(answer scanner) error {
		if err := answer.Scan(&key); err != nil {
			return err
		}
		i, found := slices.BinarySearchFunc(rows, key, func(r row, key []byte) int { return bytes.Compare(r.key(), key) })
		if found {
			added[i] = true
		}
		return nil
	}, t.insert, t.arrays(rows)...)
	return added, err
}

// change sets the columns of the rows with the same keys.
func (t *table) change(ctx context.Context, q querier, rows []row) error {
	if len(rows) == 0 {
		return nil
	}
	if t.dialect.kind == SQLite {
		for _, r := range rows {
			if _, err := q.ExecContext(ctx, t.update, r...); err != nil {
				return err
			}
		}
		return nil
	}
	_, err := q.ExecContext(ctx, t.update, t.arrays(rows)...)
	return err
}

// arrays are the rows as one array for each column.
func (t *table) arrays(rows []row) []any {
	args := make([]any, len(t.columns))
	for i, c := range t.columns {
		switch c.kind {
		case blob:
			values := make([][]byte, len(rows))
			for n, r := range rows {
				values[n], _ = r[i].([]byte)
			}
			args[i] = t.dialect.blobs(values)
		case text:
			values := make([]string, len(rows))
			for n, r := range rows {
				values[n], _ = r[i].(string)
			}
			args[i] = t.dialect.texts(values)
		case integer:
			values := make([]int64, len(rows))
			for n, r := range rows {
				value, set := r[i].(int64)
				if !set {
					value = null
				}
				values[n] = value
			}
			args[i] = t.dialect.integers(values)
		}
	}
	return args
}
