package faults

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver pgx
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite" // the driver sqlite

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/delivery/sqlstore"
	"github.com/esh3artech/barid/retry"
)

// database is where records and keys are: a SQLite file, or tables of a
// PostgreSQL.
type database struct {
	Driver, DSN, Prefix string
}

// sqlite is a file in a folder of the row.
func (r *rig) sqlite() database { return sqliteIn(r.TempDir()) }

func sqliteIn(dir string) database {
	return database{Driver: "sqlite", DSN: sqlstore.SQLiteDSN(filepath.Join(dir, "barid.db")), Prefix: "barid_"}
}

// postgres is tables of the row's own in a PostgreSQL.
func (r *rig) postgres(server *servers.Postgres) database {
	name := servers.Unique(r.T)
	return database{Driver: "pgx", DSN: server.URL(), Prefix: "f" + name[strings.LastIndexByte(name, '-')+1:] + "_"}
}

// records is an open database.
type records struct {
	*sqlstore.Store
	db *sql.DB
}

func (d database) open(ctx context.Context, logger *slog.Logger) (*records, error) {
	db, err := sql.Open(d.Driver, d.DSN)
	if err != nil {
		return nil, err
	}
	store, err := sqlstore.Open(ctx, db, sqlstore.Config{TablePrefix: d.Prefix, Logger: logger})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &records{Store: store, db: db}, nil
}

func (s *records) Close() error { return errors.Join(s.Store.Close(), s.db.Close()) }

// records opens the database until the row's end.
func (r *rig) records(d database) *records {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	defer cancel()
	opened, err := d.open(ctx, nil)
	require.NoError(r, err)
	r.later(func() { assert.NoError(r, opened.Close()) })
	return opened
}

// nearer has the times in a column be so much sooner, as if all clocks had
// jumped ahead, or so much time had passed. It returns how many there were.
func (r *rig) nearer(s *records, d database, table, column string, by time.Duration) int64 {
	r.Helper()
	statement := fmt.Sprintf("UPDATE %[1]s SET %[2]s = %[2]s - %[3]d WHERE %[2]s IS NOT NULL", d.Prefix+table, column, by.Microseconds())
	var moved int64
	var err error
	r.eventually(func() bool { // also when PostgreSQL ends it in favour of an update of the pipeline's
		var result sql.Result
		if result, err = s.db.ExecContext(r.ctx, statement); err == nil {
			moved, err = result.RowsAffected()
		}
		return err == nil
	}, "times can't be changed")
	require.NoError(r, err)
	return moved
}

// allDelivered waits until every record is delivered, of so many at least.
func (r *rig) allDelivered(store delivery.Store, atLeast int) {
	r.Helper()
	var stats delivery.RecordStats
	var err error
	defer func() {
		if r.Failed() {
			r.Logf("the records: %+v, %v", stats, err)
		}
	}()
	r.eventually(func() bool {
		stats, err = store.Stats(r.ctx)
		return err == nil && stats.Total >= atLeast && stats.Of(delivery.StatusDelivered) == stats.Total
	}, "records that are not delivered")
}

// scheduled makes n messages whose time comes later, so that retry workers send
// them.
func (p *pipeline) scheduled(name string, n int, in time.Duration) []delivery.Message {
	batch := p.messages(name, n)
	for i := range batch {
		batch[i].NotBefore = time.Now().Add(in)
	}
	return batch
}

// workLease is the lease of the rows' retry workers.
const workLease = 2 * time.Second

func workerConfig(logger *slog.Logger) delivery.RetryWorkerConfig {
	return delivery.RetryWorkerConfig{
		ScanInterval: 500 * time.Millisecond, BatchSize: 50, Lease: workLease,
		Retry: retry.Exponential{Base: time.Second, MaxRetries: 3}, Logger: logger,
	}
}

// work runs a RetryWorker over the store until the row's end.
func (p *pipeline) work(store delivery.Store) {
	p.Helper()
	config := workerConfig(p.log.logger())
	config.DeadLetters, config.Metrics = p.letters, p.metrics
	worker, err := delivery.NewRetryWorker(store, p.transport, config)
	require.NoError(p, err)
	ctx, cancel := context.WithCancel(context.Background())
	worked := make(chan error, 1)
	go func() { worked <- worker.Run(ctx) }()
	p.later(func() {
		cancel()
		p.ends("RetryWorker.Run", func() error { return <-worked })
	})
}
