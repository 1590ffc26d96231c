package sqlstore

import (
	"context"
	"slices"
	"time"
)

// keyTable is the table that keys are kept in.
type keyTable struct {
	*table
	operation *operation
	find      lookup

	expiry expiry
}

var keyColumns = []column{ //nolint:gochecknoglobals // a constant
	{"key", blob}, {"phase", integer}, {"token", blob}, {"attempt", integer}, {"expires_at", integer},
}

func newKeyTable(d *dialect, prefix string) *keyTable {
	k := &keyTable{table: newTable(d, prefix+"keys", keyColumns...)}
	k.addLocks = true
	k.find = d.lookup(named("k", keyColumns), k.name+" AS k", "k.key", "")
	k.operation = newOperation("idempotency", 50, k.run, nil)
	k.expiry = expiry{table: k.name, key: "key", every: expiryInterval}
	return k
}

// keyRow is a key in the course of a transaction.
type keyRow struct {
	before, now keyState
	fresh       keyState // what the calls make of it if it is absent
	inserted    bool
}

// run executes calls in the order in which they came.
//
// One statement inserts absent keys and locks those that are there, in the
// order of keys, so that transactions never deadlock.
func (k *keyTable) run(ctx context.Context, q querier, calls []*keyCall) error {
	now := time.Now().UnixMicro()
	rows := make(map[string]*keyRow, len(calls))
	names := make([]string, 0, len(calls))
	for _, call := range calls {
		r := rows[call.key]
		if r == nil {
			r = new(keyRow)
			rows[call.key] = r
			names = append(names, call.key)
		}
		r.fresh = r.fresh.apply(call, now)
	}
	slices.Sort(names)
	if err := k.insert(ctx, q, names, rows); err != nil {
		return err
	}
	if err := k.read(ctx, q, names, rows); err != nil {
		return err
	}
	for _, call := range calls {
		if r := rows[call.key]; !r.inserted {
			r.now = r.now.apply(call, now)
		}
	}
	if err := k.write(ctx, q, names, rows); err != nil {
		return err
	}
	// Expired keys are locked in another order than that of keys. So this comes
	// last: the transaction waits for no lock after it.
	return k.expiry.deleteExpired(ctx, q, k.dialect, now, len(calls))
}

func (k *keyTable) insert(ctx context.Context, q querier, names []string, rows map[string]*keyRow) error {
	fresh := make([]row, len(names))
	for i, name := range names {
		fresh[i] = rows[name].fresh.encode(name)
	}
	added, err := k.add(ctx, q, fresh)
	for i := range added {
		r := rows[names[i]]
		if r.inserted = added[i]; r.inserted {
			r.before, r.now = r.fresh, r.fresh
		}
	}
	return err
}

// read reads the keys that were there, and are locked now.
func (k *keyTable) read(ctx context.Context, q querier, names []string, rows map[string]*keyRow) error {
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return rows[name].inserted })
	if len(names) == 0 {
		return nil
	}
	return k.dialect.queryByKeys(ctx, q, k.find, keysOf(names), func(answer scanner) error {
		var name, token intoBytes
		var phase, attempt, expires int64
		if err := answer.Scan(&name, &phase, &token, &attempt, &expires); err != nil {
			return err
		}
		r := rows[string(name)]
		r.before = keyState{phase: keyPhase(phase), token: string(token), attempt: int(attempt), expires: expires}
		r.now = r.before
		return nil
	})
}

// write stores what the calls have made of the keys.
func (k *keyTable) write(ctx context.Context, q querier, names []string, rows map[string]*keyRow) error {
	var change []row
	var remove [][]byte
	for _, name := range names {
		switch r := rows[name]; {
		case r.now.phase == keyAbsent:
			remove = append(remove, []byte(name))
		case r.now != r.before:
			change = append(change, r.now.encode(name))
		}
	}
	if len(remove) > 0 {
		if err := k.dialect.deleteByKeys(ctx, q, k.name, "key", remove); err != nil {
			return err
		}
	}
	return k.change(ctx, q, change)
}

func (k keyState) encode(name string) row {
	return row{[]byte(name), int64(k.phase), []byte(k.token), int64(k.attempt), k.expires}
}
