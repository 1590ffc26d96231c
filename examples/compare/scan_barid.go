package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/sqlstore"
)

// scanDue is how many records are due in the stores of scan-scale, all of which
// a claim takes.
const scanDue = 1000

// scanQueue is the queue of all records.
const scanQueue = "compare"

// storedFew is how many records the smaller store has.
const storedFew = 10 * scanDue

// scanStart is when what is due is due at first. Claims tell their own time.
var scanStart = time.Unix(1_700_000_000, 0).UTC() //nolint:gochecknoglobals // a constant

// claimOfMany claims n records of a large store.
func claimOfMany(ctx context.Context, where addresses, n int) (time.Duration, error) {
	return claim(ctx, where, where.stored, n)
}

// claimOfFew is the same of a small one.
func claimOfFew(ctx context.Context, where addresses, n int) (time.Duration, error) {
	return claim(ctx, where, storedFew, n)
}

// claim claims n records, 1000 a call, in a store in which 1000 are due at any
// time: what is claimed comes due again with the next call's time. The last call
// of an n that is no multiple of that counts in part.
func claim(ctx context.Context, where addresses, stored, n int) (took time.Duration, err error) {
	db, err := sql.Open("pgx", where.postgres)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	store, err := sqlstore.Open(ctx, db, sqlstore.Config{TablePrefix: fmt.Sprintf("scan_%d_", stored), MaxBatch: scanDue})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := fillStore(ctx, db, store, stored); err != nil {
		return 0, fmt.Errorf("filling: %w", err)
	}
	// By sides before this one the records were put off, all by as much.
	now, err := store.NextDue(ctx, scanQueue, delivery.StatusRetrying)
	claims := (n + scanDue - 1) / scanDue
	for range claims {
		if err != nil {
			return 0, err
		}
		var claimed []delivery.Record
		begin := time.Now()
		claimed, err = store.Claim(ctx, delivery.Claim{
			Queue: scanQueue, Status: delivery.StatusRetrying, Token: "compare", Now: now, Lease: time.Second, Limit: 2 * scanDue,
		})
		took += time.Since(begin)
		if len(claimed) != scanDue && err == nil {
			err = fmt.Errorf("claimed %d records, want %d", len(claimed), scanDue)
		}
		now = now.Add(time.Second)
	}
	return took * time.Duration(n) / time.Duration(claims*scanDue), err
}

// fillStore saves what is stored, unless a side before has done it.
func fillStore(ctx context.Context, db *sql.DB, store *sqlstore.Store, stored int) error {
	last := recordOf(stored-1, stored)
	if _, errs := store.Get(ctx, last.ID); errs == nil {
		return nil
	}
	err := inBatches(stored, func(from, to int) error {
		records := make([]delivery.Record, 0, to-from)
		for i := from; i < to; i++ {
			records = append(records, recordOf(i, stored))
		}
		return errors.Join(store.Save(ctx, records...)...)
	})
	// What is left to do afterwards shall not fall into what is measured.
	for _, statement := range []string{"VACUUM (ANALYZE)", "CHECKPOINT"} {
		if err == nil {
			_, err = db.ExecContext(ctx, statement)
		}
	}
	return err
}

// recordOf is the i-th of so many records: one that is due, one that will be due
// in years, or, mostly, one that is delivered. However many there are, what is
// due is every tenth of the newest ones.
func recordOf(i, stored int) delivery.Record {
	at := scanStart.Add(time.Duration(i) * time.Millisecond)
	later := at.AddDate(10, 0, 0)
	record := delivery.Record{
		Message:  delivery.Message{ID: messageID(i), Recipient: strconv.Itoa(i % 1000), Body: make([]byte, 100), CreatedAt: at},
		Progress: delivery.Progress{Queue: scanQueue, Status: delivery.StatusDelivered, DeliveredAt: at, UpdatedAt: at},
	}
	switch {
	case i%10 == 0 && i >= stored-10*scanDue:
		record.Progress = delivery.Progress{Queue: scanQueue, Status: delivery.StatusRetrying, DueAt: scanStart, NextRetryAt: scanStart, UpdatedAt: at}
	case i%10 == 1:
		record.Progress = delivery.Progress{Queue: scanQueue, Status: delivery.StatusRetrying, DueAt: later, NextRetryAt: later, UpdatedAt: at}
	case i%10 == 2:
		record.Progress = delivery.Progress{Queue: scanQueue, Status: delivery.StatusPending, DueAt: later, UpdatedAt: at}
	}
	return record
}
