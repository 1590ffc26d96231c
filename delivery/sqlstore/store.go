package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"sync/atomic"

	"github.com/esh3artech/barid/delivery"
)

// Store is a delivery.Store in a database. Its methods may be called by any
// number of goroutines at once. Any number of Stores, in this process or
// others, may share a database.
type Store struct {
	db       *sql.DB
	dialect  *dialect
	prefix   string
	config   Config
	closed   atomic.Bool
	writer   *writer
	reader   *batcher[*getCall]
	records  *recordTables
	watchers *watchers
	keys     *keyTable
	letters  *deadLetterTables
	jobs     *jobTable

	save, update, claim, claimRest, renew, purge *operation
}

var (
	_ delivery.Store        = (*Store)(nil)
	_ delivery.StoreWatcher = (*Store)(nil)
	_ delivery.Pinger       = (*Store)(nil)
)

// Open returns a Store on db, which must stay open until the Store is closed.
// It asks the server what it is, checks that it can be used, and brings the
// schema up to date.
//
// It fails with ErrConfig when config or the connection's settings can't be
// used, with ErrMigrationMissing or ErrMigrationNewer when the schema can't,
// and with delivery.ErrStoreDown when the database does not answer.
func Open(ctx context.Context, db *sql.DB, config Config) (*Store, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	if db == nil {
		return nil, fmt.Errorf("%w: db is nil", ErrConfig)
	}
	var d *dialect
	err = withTimeout(ctx, config.Timeout, "asking what the server is", func(ctx context.Context) error {
		d, err = detectDialect(ctx, db, config)
		return err
	})
	if err != nil {
		return nil, err
	}
	migrations, err := Migrations(d.kind, config.TablePrefix)
	if err != nil {
		return nil, err
	}
	m := &migrator{db: db, dialect: d, prefix: config.TablePrefix, timeout: config.Timeout, migrations: migrations}
	if config.Migrate == MigrateAuto {
		err = m.run(ctx)
	} else {
		err = m.check(ctx)
	}
	if err != nil {
		return nil, err
	}
	s := &Store{db: db, dialect: d, prefix: config.TablePrefix, config: config, records: newRecordTables(d, config.TablePrefix), watchers: newWatchers()}
	s.save = newOperation("save", 10, s.runSaves, s.savesCommitted)
	s.update = newOperation("update", 20, s.runUpdates, s.updatesCommitted)
	s.claim = newOperation("claim", 30, s.runClaims, s.claimsCommitted)
	s.claimRest = newOperation("claim", 0, s.runClaims, s.claimsCommitted)
	s.claimRest.alone = true
	s.renew = newOperation("renew", 0, s.runRenewals, s.renewalsCommitted)
	s.renew.alone = true
	s.purge = newOperation("purge", 40, s.runPurges, nil)
	s.keys = newKeyTable(d, config.TablePrefix)
	s.letters = newDeadLetterTables(d, config.TablePrefix)
	s.jobs = newJobTable(d, config.TablePrefix)
	s.writer = newWriter(db, d, config)
	s.reader = newReader(s)
	return s, nil
}

// Close finishes the calls that are under way, and ends the Store's goroutines.
// The database stays open. Later calls fail with delivery.ErrClosed. Closing
// again does nothing.
func (s *Store) Close() error {
	s.closed.Store(true)
	s.writer.close()
	s.reader.close()
	s.watchers.close()
	return nil
}

// Ping implements delivery.Pinger. It returns nil when the database answered.
func (s *Store) Ping(ctx context.Context) error {
	return s.read(ctx, "ping", func(q querier) error {
		return query(ctx, q, func(answer scanner) error { return answer.Scan(new(int)) }, "SELECT 1")
	})
}

// read runs statements that only read. All of them see the same state.
func (s *Store) read(ctx context.Context, doing string, work func(querier) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.closed.Load() {
		return errClosed
	}
	limited := ctx
	if s.dialect.waitsForServer {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, s.config.Timeout)
		defer cancel()
	}
	return asDatabaseError(ctx, doing, asNoAnswer(limited, s.config.Timeout, s.tryRead(limited, work)))
}

func (s *Store) tryRead(ctx context.Context, work func(querier) error) error {
	var err error
	for range maxTries {
		if err = s.readOnce(ctx, work); err == nil || causeOf(err) != connectionLost || ctx.Err() != nil {
			break
		}
	}
	return err
}

func (s *Store) readOnce(ctx context.Context, work func(querier) error) error {
	conn, err := connect(ctx, s.db, s.dialect.prepares)
	if err != nil {
		return err
	}
	err = conn.transaction(ctx, s.dialect.beginRead, work)
	if err != nil && (contextError(ctx) != nil || mayBeBroken(err)) {
		conn.discard()
	} else {
		conn.release()
	}
	return err
}
