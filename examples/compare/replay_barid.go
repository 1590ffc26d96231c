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
	"github.com/esh3artech/barid/dlq"
)

// replayByJob sends n dead letters again by one bulk job.
func replayByJob(ctx context.Context, _ addresses, n int) (time.Duration, error) {
	return replay(ctx, n, func(manager *dlq.Manager, _ []string) error {
		running, stop := context.WithCancel(ctx)
		defer stop()
		ended := make(chan error, 1)
		go func() { ended <- manager.RunJobs(running) }()
		job, err := manager.StartReplay(ctx, dlq.Filter{}, dlq.ReplayConfig{})
		for err == nil && !job.Finished() {
			select {
			case <-time.After(5 * time.Millisecond):
				job, err = manager.Job(ctx, job.ID)
			case err = <-ended:
				return err
			}
		}
		stop()
		err = errors.Join(err, <-ended)
		if job.Requeued != n && err == nil {
			err = fmt.Errorf("the job requeued %d of %d: %s", job.Requeued, n, job.LastError)
		}
		return err
	})
}

// replayOneByOne is the same by a call for each.
func replayOneByOne(ctx context.Context, _ addresses, n int) (time.Duration, error) {
	return replay(ctx, n, func(manager *dlq.Manager, ids []string) error {
		for _, id := range ids {
			if _, err := manager.Requeue(ctx, id); err != nil {
				return err
			}
		}
		return nil
	})
}

// replay has requeue send n dead letters in a SQLite file to a transport within
// the process, and tells how long that took.
func replay(ctx context.Context, n int, requeue func(manager *dlq.Manager, ids []string) error) (took time.Duration, err error) {
	err = withFile(func(db *sql.DB) error {
		store, err := sqlstore.Open(ctx, db, sqlstore.Config{})
		if err != nil {
			return err
		}
		transport := memory.New(memory.Config{MaxMessages: n})
		publisher, err := delivery.NewPublisher(transport, delivery.PublisherConfig{})
		if err != nil {
			return err
		}
		manager := dlq.NewManager(store.DeadLetters(), publisher, dlq.Config{})
		ids, body := messageIDs(n), storedBody()
		err = inBatches(n, func(from, to int) error {
			letters := make([]delivery.DeadLetter, 0, to-from)
			for _, id := range ids[from:to] {
				envelope := delivery.Envelope{Message: delivery.Message{ID: id, Recipient: "recipient", Body: body, CreatedAt: time.Now()}}
				letters = append(letters, delivery.DeadLetter{ID: id, Envelope: envelope, Reason: delivery.ReasonExhausted, Error: "no", At: time.Now()})
			}
			return manager.DeadLetter(ctx, letters...)
		})
		if err != nil {
			return err
		}
		begin := time.Now()
		if err := requeue(manager, ids); err != nil {
			return err
		}
		took = time.Since(begin)
		left, err := store.DeadLetters().Count(ctx, dlq.Filter{})
		depths, fault := transport.Depth(ctx)
		if err = errors.Join(err, fault, store.Close(), transport.Close()); err != nil {
			return err
		}
		if sent := depths[delivery.Normal].Messages; left != 0 || sent != int64(n) {
			return fmt.Errorf("of %d dead letters %d were sent and %d are left", n, sent, left)
		}
		return nil
	})
	return took, err
}
