package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/memory"
	"github.com/esh3artech/barid/delivery/sqlstore"
	"github.com/esh3artech/barid/retry"
)

// storeBaridPG takes messages through a store in PostgreSQL: saved, sent within
// the process, handled, and noted as delivered.
func storeBaridPG(ctx context.Context, where addresses, n int) (took time.Duration, err error) {
	err = withDatabase(ctx, where.postgres, func(url string) error {
		db, err := sql.Open("pgx", url)
		if err != nil {
			return err
		}
		took, err = storeBarid(ctx, db, n)
		return errors.Join(err, db.Close())
	})
	return took, err
}

// storeBaridSQLite is the same in a file.
func storeBaridSQLite(ctx context.Context, _ addresses, n int) (took time.Duration, err error) {
	err = withFile(func(db *sql.DB) error {
		took, err = storeBarid(ctx, db, n)
		return err
	})
	return took, err
}

// storeInHand is how many messages the consumer may have in hand, and the store
// in a transaction: as many as River may work on.
const storeInHand = 1000

func storeBarid(ctx context.Context, db *sql.DB, n int) (time.Duration, error) {
	stored, err := sqlstore.Open(ctx, db, sqlstore.Config{MaxBatch: storeInHand})
	if err != nil {
		return 0, err
	}
	books, done := newLedger(n), newTally(n)
	store := &counted{Store: stored, delivered: done}
	transport := memory.New(memory.Config{})
	publisher, err := delivery.NewPublisher(transport, delivery.PublisherConfig{Store: store, MaxOutgoing: n})
	if err != nil {
		return 0, err
	}
	handler := func(_ context.Context, m delivery.Message) error {
		books.note(m.ID)
		return nil
	}
	consumer, err := delivery.NewConsumer(transport, handler, delivery.ConsumerConfig{
		Concurrency: workers,
		Prefetch:    storeInHand,
		Retry:       retry.Exponential{Base: 5 * time.Second, Max: 5 * time.Minute, MaxRetries: 5},
		Store:       store,
	})
	if err != nil {
		return 0, err
	}
	// Nothing is left for it to do, but without it nothing would be safe.
	worker, err := delivery.NewRetryWorker(store, transport, delivery.RetryWorkerConfig{})
	if err != nil {
		return 0, err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 2)
	go func() { ended <- consumer.Run(running) }()
	go func() { ended <- worker.Run(running) }()

	ids, body := messageIDs(n), storedBody()
	begin := time.Now()
	publishing := make(chan error, 1)
	go func() {
		publishing <- inBatches(n, func(from, to int) error {
			batch := make([]delivery.Message, 0, to-from)
			for _, id := range ids[from:to] {
				batch = append(batch, delivery.Message{ID: id, Recipient: "recipient", Body: body})
			}
			return publisher.Publish(ctx, batch...)
		})
	}()
	if err := errors.Join(done.wait(ctx), <-publishing); err != nil {
		return 0, err
	}
	stop()
	err = errors.Join(<-ended, <-ended, publisher.Close(ctx), books.check())
	stats, fault := stored.Stats(ctx, "")
	if err = errors.Join(err, fault, stored.Close(), transport.Close()); err != nil {
		return 0, err
	}
	if delivered := stats.Of(delivery.StatusDelivered); delivered != n || stats.Total != n {
		return 0, fmt.Errorf("of %d messages %d are stored, %d as delivered", n, stats.Total, delivered)
	}
	return done.since(begin), nil
}

// counted is a store that counts what was noted as delivered.
type counted struct {
	*sqlstore.Store
	delivered *tally
}

// Update implements delivery.Store.
func (s *counted) Update(ctx context.Context, updates ...delivery.Update) ([]delivery.Progress, []error) {
	progress, errs := s.Store.Update(ctx, updates...)
	for i := range updates {
		if updates[i].Status == delivery.StatusDelivered && (errs == nil || errs[i] == nil) {
			s.delivered.add(1)
		}
	}
	return progress, errs
}
