package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
)

// What River was fastest with, on two cores. Fewer workers or connections leave
// it waiting, more of them cost time.
const (
	riverWorkers     = 1000
	riverConnections = 8
	// riverPause is the least that River allows between two fetches.
	riverPause = time.Millisecond
)

// job is a message as River's arguments.
type job struct {
	ID   string `json:"id"`
	Body string `json:"body"`
}

// Kind implements river.JobArgs.
func (job) Kind() string { return "compare" }

// storeRiverPG inserts, works and completes jobs in PostgreSQL.
func storeRiverPG(ctx context.Context, where addresses, n int) (took time.Duration, err error) {
	err = withDatabase(ctx, where.postgres, func(url string) error {
		config, err := pgxpool.ParseConfig(url)
		if err != nil {
			return err
		}
		config.MaxConns = riverConnections
		pool, err := pgxpool.NewWithConfig(ctx, config)
		if err != nil {
			return err
		}
		defer pool.Close()
		took, err = storeRiver(ctx, riverpgxv5.New(pool), n, func(query string, answer *int) error {
			return pool.QueryRow(ctx, query).Scan(answer)
		})
		return err
	})
	return took, err
}

// storeRiverSQLite is the same in a file. With more than one connection it waits
// for its own locks, and is half as fast.
func storeRiverSQLite(ctx context.Context, _ addresses, n int) (took time.Duration, err error) {
	err = withFile(func(db *sql.DB) error {
		db.SetMaxOpenConns(1)
		took, err = storeRiver(ctx, riversqlite.New(db), n, func(query string, answer *int) error {
			return db.QueryRowContext(ctx, query).Scan(answer)
		})
		return err
	})
	return took, err
}

// storeRiver has every job completed by its first try. ask runs a query that
// answers a number.
func storeRiver[TTx any](
	ctx context.Context, driver riverdriver.Driver[TTx], n int, ask func(query string, answer *int) error,
) (time.Duration, error) {
	migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return 0, err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return 0, err
	}
	books, done := newLedger(n), newTally(n)
	registered := river.NewWorkers()
	river.AddWorker(registered, river.WorkFunc(func(_ context.Context, j *river.Job[job]) error {
		books.note(j.Args.ID)
		return nil
	}))
	client, err := river.NewClient(driver, &river.Config{
		FetchCooldown:     riverPause,
		FetchPollInterval: riverPause,
		JobTimeout:        -1,
		Logger:            slog.New(slog.DiscardHandler),
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: riverWorkers}},
		Workers:           registered,
	})
	if err != nil {
		return 0, err
	}
	events, cancel := client.SubscribeConfig(&river.SubscribeConfig{
		ChanSize: n, Kinds: []river.EventKind{river.EventKindJobCompleted},
	})
	defer cancel()
	go func() {
		for range events {
			done.add(1)
		}
	}()
	if err := client.Start(ctx); err != nil {
		return 0, err
	}
	ids, body := messageIDs(n), string(storedBody())
	begin := time.Now()
	publishing := make(chan error, 1)
	go func() {
		publishing <- inBatches(n, func(from, to int) error {
			jobs := make([]river.InsertManyParams, 0, to-from)
			for _, id := range ids[from:to] {
				jobs = append(jobs, river.InsertManyParams{Args: job{ID: id, Body: body}})
			}
			_, err := client.InsertManyFast(ctx, jobs)
			return err
		})
	}()
	err = errors.Join(done.wait(ctx), <-publishing, client.Stop(ctx))
	if err = errors.Join(err, books.check()); err != nil {
		return 0, err
	}
	var completed, tries int
	err = errors.Join(
		ask("SELECT count(*) FROM river_job WHERE state = 'completed'", &completed),
		ask("SELECT sum(attempt) FROM river_job", &tries))
	if err == nil && (completed != n || tries != n) {
		err = fmt.Errorf("of %d jobs %d were completed, by %d tries", n, completed, tries)
	}
	return done.since(begin), err
}
