package sqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	_ "modernc.org/sqlite"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/sqlstore"
	"github.com/esh3artech/barid/dlq"
)

func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "barid-example-")
	if err != nil {
		fmt.Println(err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // an example

	db, err := sql.Open("sqlite", sqlstore.SQLiteDSN(filepath.Join(dir, "barid.db")))
	if err != nil {
		fmt.Println(err)
	}
	store, err := sqlstore.Open(ctx, db, sqlstore.Config{}) // creates the tables
	if err != nil {
		fmt.Println(err)
	}
	fmt.Println("answers:", store.Ping(ctx) == nil)
	fmt.Println(store.Close(), db.Close())
	// Output:
	// answers: true
	// <nil> <nil>
}

// openExample opens a store in a folder of its own.
func openExample(ctx context.Context) (db *sql.DB, store *sqlstore.Store, done func()) {
	dir, err := os.MkdirTemp("", "barid-example-")
	if err != nil {
		fmt.Println(err)
	}
	db, err = sql.Open("sqlite", sqlstore.SQLiteDSN(filepath.Join(dir, "barid.db")))
	if err != nil {
		fmt.Println(err)
	}
	store, err = sqlstore.Open(ctx, db, sqlstore.Config{})
	if err != nil {
		fmt.Println(err)
	}
	return db, store, func() {
		if err := errors.Join(store.Close(), db.Close(), os.RemoveAll(dir)); err != nil {
			fmt.Println(err)
		}
	}
}

// A message and the order that it tells of are there together, or not at all.
func ExampleStore_In() {
	ctx := context.Background()
	db, store, done := openExample(ctx)
	defer done()
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
			Progress: delivery.Progress{Queue: "orders", Status: delivery.StatusPending, DueAt: now, UpdatedAt: now},
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

// Dead letters are kept in the database of the records, and outlive the process.
func ExampleStore_DeadLetters() {
	ctx := context.Background()
	_, store, done := openExample(ctx)
	defer done()

	manager := dlq.NewManager(store.DeadLetters(), nil, dlq.Config{})
	err := manager.DeadLetter(ctx, delivery.DeadLetter{
		ID:       "letter-1",
		Envelope: delivery.Envelope{Message: delivery.Message{ID: "message-1", Recipient: "+966500000001", Type: "sms"}},
		Reason:   delivery.ReasonExhausted,
		Error:    "provider is down",
		At:       time.Now(),
	})
	if err != nil {
		fmt.Println(err)
	}
	page, err := manager.List(ctx, dlq.Query{Filter: dlq.Filter{Type: "sms"}})
	if err != nil {
		fmt.Println(err)
	}
	for _, entry := range page.Entries {
		fmt.Println(entry.Envelope.ID, entry.Reason, entry.Error)
	}
	// Output: message-1 exhausted provider is down
}

// Idempotency keys are kept in the database, too: one worker handles a key, and
// the others find it done until its window has passed.
func ExampleStore_Keys() {
	ctx := context.Background()
	_, store, done := openExample(ctx)
	defer done()

	keys := store.Keys()
	for _, token := range []string{"first worker", "second worker"} {
		answer, err := keys.Claim(ctx, "order-17", token, 0, time.Minute)
		if err != nil {
			fmt.Println(err)
		}
		fmt.Println(token, answer.State)
	}
	if _, err := keys.Complete(ctx, "order-17", "first worker", 24*time.Hour); err != nil {
		fmt.Println(err)
	}
	answer, err := keys.Claim(ctx, "order-17", "third worker", 0, time.Minute)
	if err != nil {
		fmt.Println(err)
	}
	fmt.Println("third worker", answer.State)
	// Output:
	// first worker claimed
	// second worker busy
	// third worker done
}
