package sqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	_ "modernc.org/sqlite"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/sqlstore"
	"github.com/esh3artech/barid/dlq"
)

// openExample opens a store in a folder of its own.
func openExample(ctx context.Context) (store *sqlstore.Store, done func()) {
	path, remove := exampleFile()
	db, err := sql.Open("sqlite", sqlstore.SQLiteDSN(path))
	if err != nil {
		fmt.Println(err)
	}
	store, err = sqlstore.Open(ctx, db, sqlstore.Config{})
	if err != nil {
		fmt.Println(err)
	}
	return store, func() {
		if err := errors.Join(store.Close(), db.Close()); err != nil {
			fmt.Println(err)
		}
		remove()
	}
}

// The dead letters lie in the database of the records, and outlive the process.
func ExampleStore_DeadLetters() {
	ctx := context.Background()
	store, done := openExample(ctx)
	defer done()

	manager := dlq.NewManager(store.DeadLetters(), nil, dlq.Config{})
	err := manager.DeadLetter(ctx, delivery.DeadLetter{
		ID:       "letter-1",
		Envelope: delivery.Envelope{Message: delivery.Message{ID: "message-1", Recipient: "+966500000001", Type: "sms"}},
		Reason:   delivery.ReasonExhausted,
		Error:    "provider is away",
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
	// Output: message-1 exhausted provider is away
}

// The keys of what has been handled lie there, too: one key is handled once,
// whoever asks, until its window has passed.
func ExampleStore_Keys() {
	ctx := context.Background()
	store, done := openExample(ctx)
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
