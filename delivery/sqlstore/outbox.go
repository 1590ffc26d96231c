package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// Outbox saves records in a transaction of the host's own: they are there if it
// commits, together with what else it changes, and otherwise never were. Who
// publishes that way saves them with a DueAt, and a RetryWorker sends them.
//
// Like its transaction it is for one goroutine at a time.
type Outbox struct {
	store *Store
	tx    *sql.Tx
	due   *time.Time
}

var _ delivery.CommittedSaver = Outbox{}

// In returns an Outbox in tx, which must be one of the Store's database.
//
// On SQLite tx holds the lock that every writer needs: end it before any other
// method of the Store that writes is called, which would wait for it. There
// begin it with the write lock (_txlock=immediate, as SQLiteDSN has it), or else
// Save may fail because somebody else has written meanwhile.
func (s *Store) In(tx *sql.Tx) Outbox { return Outbox{store: s, tx: tx, due: new(time.Time)} }

// Save adds records as Store.Save does. That there is one with the ID
// (delivery.ErrExists) leaves the transaction usable; a failure of the database
// may not. Many or large records take several statements.
func (o Outbox) Save(ctx context.Context, records ...delivery.Record) []error {
	errs := make([]error, len(records))
	failed := false
	fail := func(i int, err error) {
		errs[i] = err
		failed = failed || err != nil
	}
	// Rows are locked in the order of IDs, whatever the statement.
	var order []int
	for i := range records {
		err := checkRecord(&records[i])
		if o.tx == nil {
			err = fmt.Errorf("%w: the outbox has no transaction", ErrConfig)
		}
		if fail(i, err); err == nil {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return strings.Compare(records[a].ID, records[b].ID) })
	for from := 0; from < len(order); {
		to, _ := part(from, len(order), o.store.config.MaxBatch, func(n int) int { return bytesIn(&records[order[n]]) })
		added, err := o.save(ctx, records, order[from:to])
		for n, i := range order[from:] {
			switch {
			case err != nil:
				fail(i, err)
			case n >= to-from:
			case !added[n]:
				fail(i, delivery.ErrExists)
			default:
				*o.due = earliest(*o.due, records[i].DueAt)
			}
		}
		if err != nil {
			break
		}
		from = to
	}
	if !failed {
		return nil
	}
	return errs
}

// save saves those records in one statement for each table.
func (o Outbox) save(ctx context.Context, records []delivery.Record, which []int) ([]bool, error) {
	batch := make([]*encoded, len(which))
	for n, i := range which {
		rows, err := encode(&records[i])
		if err != nil {
			return nil, err
		}
		batch[n] = &rows
	}
	added, err := o.store.addRecords(ctx, o.tx, batch)
	return added, failed(ctx, "save", err)
}

// Committed implements delivery.CommittedSaver: it tells those who watch the Store
// what has become due by the Outbox. What Publisher.PublishIn returns calls it; who
// saves without a publisher calls it after the commit. Without it they find that
// at their next scan.
func (o Outbox) Committed() {
	if o.store != nil {
		o.store.watches.tell(*o.due)
	}
}
