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

// Outbox saves records in a transaction of the host. The records are there if
// the transaction commits, together with its other changes; otherwise they
// never were. A host that publishes this way saves them with a DueAt, and a
// RetryWorker sends them.
//
// Like its transaction, it is for one goroutine at a time.
type Outbox struct {
	store *Store
	tx    *sql.Tx
	due   *time.Time
}

var _ delivery.CommittedSaver = Outbox{}

// In returns an Outbox in tx, which must be a transaction of the Store's
// database.
//
// On SQLite, tx holds the lock that every writer needs: end it before calling
// any other method of the Store that writes, which would wait for it. Begin it
// with the write lock (_txlock=immediate, as in SQLiteDSN). Otherwise Save may
// fail because another connection has written meanwhile.
func (s *Store) In(tx *sql.Tx) Outbox { return Outbox{store: s, tx: tx, due: new(time.Time)} }

// Save adds records as Store.Save does. The transaction stays usable when a
// record exists already (delivery.ErrExists), but may not after a failure of
// the database. A call with many or large records takes several statements.
func (o Outbox) Save(ctx context.Context, records ...delivery.Record) []error {
	errs := make([]error, len(records))
	failed := false
	fail := func(i int, err error) {
		errs[i] = err
		failed = failed || err != nil
	}
	// Every statement locks rows in the order of IDs.
	var order []int
	for i := range records {
		err := checkRecord(&records[i])
		if o.tx == nil {
			err = fmt.Errorf("%w: the outbox has no transaction", ErrConfig)
		} else if fault := o.store.usable(); fault != nil {
			err = fault
		}
		if fail(i, err); err == nil {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return strings.Compare(records[a].ID, records[b].ID) })
	for from := 0; from < len(order); {
		to, _ := chunkBySize(from, len(order), o.store.config.MaxBatch, func(n int) int { return textBytes(&records[order[n]]) })
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

// save saves these records in one statement for each table.
func (o Outbox) save(ctx context.Context, records []delivery.Record, which []int) ([]bool, error) {
	batch := make([]*encodedRecord, len(which))
	for n, i := range which {
		rows, err := encodeRecord(&records[i])
		if err != nil {
			return nil, err
		}
		batch[n] = &rows
	}
	added, err := o.store.records.addRecords(ctx, o.tx, batch)
	return added, asDatabaseError(ctx, "save", err, o.store.fault.Err())
}

// Committed implements delivery.CommittedSaver: it tells the watchers of the
// Store which records of the Outbox have become due. What Publisher.PublishIn
// returns calls it. A host that saves without a publisher calls it after the
// commit. Without it a RetryWorker finds the records at its next scan.
func (o Outbox) Committed() {
	if o.store.usable() == nil {
		o.store.watchers.tell(*o.due)
	}
}
