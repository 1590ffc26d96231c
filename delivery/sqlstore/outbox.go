package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
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
// may not.
func (o Outbox) Save(ctx context.Context, records ...delivery.Record) []error {
	return eachChunk(len(records), max(len(records), 1), func(int, int) ([]error, error) {
		errs := make([]error, len(records))
		if o.tx == nil {
			err := fmt.Errorf("%w: the outbox has no transaction", ErrConfig)
			for i := range errs {
				errs[i] = err
			}
			return errs, err
		}
		var batch []*encoded
		var at []int
		for i := range records {
			rows, err := encode(&records[i])
			if errs[i] = err; err == nil {
				batch = append(batch, &rows)
				at = append(at, i)
			}
		}
		added, err := o.store.addRecords(ctx, o.tx, batch)
		err = failed(ctx, "save", err)
		for n, i := range at {
			switch {
			case err != nil:
				errs[i] = err
			case !added[n]:
				errs[i] = delivery.ErrExists
			default:
				*o.due = earliest(*o.due, records[i].DueAt)
			}
		}
		return errs, err
	})
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
