package sqlstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/sqlstore"
)

func exampleFile() (path string, remove func()) {
	dir, err := os.MkdirTemp("", "barid-example-")
	if err != nil {
		fmt.Println(err)
	}
	return filepath.Join(dir, "barid.db"), func() { _ = os.RemoveAll(dir) }
}

// A message and the order that it tells of are there together, or not at all.
func ExampleStore_In() {
	ctx := context.Background()
	path, remove := exampleFile()
	defer remove()
	db, err := sql.Open("sqlite", sqlstore.SQLiteDSN(path))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close() //nolint:errcheck // an example
	store, err := sqlstore.Open(ctx, db, sqlstore.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close() //nolint:errcheck // it never fails
	if _, err := db.ExecContext(ctx, "CREATE TABLE orders (id INTEGER)"); err != nil {
		fmt.Println(err)
		return
	}

	place := func(order int, paid bool) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback() //nolint:errcheck // after a commit it does nothing
		if _, err := tx.ExecContext(ctx, "INSERT INTO orders VALUES (?)", order); err != nil {
			return err
		}
		now := time.Now()
		outbox := store.In(tx)
		for _, err := range outbox.Save(ctx, delivery.Record{
			Message:  delivery.Message{ID: fmt.Sprint("order-", order), Recipient: "someone@example.org", CreatedAt: now},
			Progress: delivery.Progress{Status: delivery.StatusPending, DueAt: now, UpdatedAt: now},
		}) {
			return err
		}
		if !paid {
			return fmt.Errorf("order %d is not paid", order)
		}
		if err := tx.Commit(); err != nil {
			return err
		}
		outbox.Committed()
		return nil
	}
	fmt.Println(place(1, true))
	fmt.Println(place(2, false))
	_, errs := store.Get(ctx, "order-1", "order-2")
	fmt.Println(errs[0])
	fmt.Println(errs[1])
	// Output:
	// <nil>
	// order 2 is not paid
	// <nil>
	// delivery: no such message
}
