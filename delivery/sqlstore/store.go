package sqlstore

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/esh3artech/barid/delivery"
)

// Store is a delivery.Store in a database. Its methods may be called by any
// number of goroutines at once. Any number of Stores, in this process or
// others, may share a database.
type Store struct {
	dialect  *dialect
	fault    *lastFault
	prefix   string
	config   Config
	writer   *writer
	reader   *reader
	gets     *batcher[*getCall]
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
// used, or records have no queue and Config.Queue is empty, with
// ErrMigrationMissing or ErrMigrationNewer when the schema can't, and with
// delivery.ErrStoreDown when the database does not answer or, which is
// ErrReadOnly too, PostgreSQL is a standby.
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
	tables, err := migrate(ctx, db, d, config)
	if err != nil {
		return nil, err
	}
	if err := adopt(ctx, db, d, tables, config); err != nil {
		return nil, err
	}
	s := &Store{dialect: d, fault: new(lastFault), prefix: config.TablePrefix, config: config, records: newRecordTables(d, tables), watchers: newWatchers()}
	s.save = newOperation("save", 10, s.records.runSaves, s.watchers.savesCommitted)
	s.update = newOperation("update", 20, s.records.runUpdates, s.watchers.updatesCommitted)
	s.claim = newOperation("claim", 30, s.records.runClaims, s.watchers.claimsCommitted)
	s.claimRest = newOperation("claim", 0, s.records.runClaims, s.watchers.claimsCommitted)
	s.claimRest.alone = true
	s.claimRest.ifLocked = newOperation("claim", 0, s.records.runFreeClaims, s.watchers.claimsCommitted)
	s.renew = newOperation("renew", 0, s.records.runRenewals, s.watchers.renewalsCommitted)
	s.renew.alone = true
	s.renew.ifLocked = newOperation("renew", 0, s.records.runFreeRenewals, s.watchers.renewalsCommitted)
	s.purge = newOperation("purge", 40, s.records.runPurges, nil)
	s.keys = newKeyTable(d, tables)
	s.letters = newDeadLetterTables(d, tables)
	s.jobs = newJobTable(d, tables)
	s.writer = newWriter(db, d, config, s.fault)
	s.reader = &reader{db: db, dialect: d, timeout: config.Timeout, fault: s.fault}
	s.gets = newGetBatcher(s)
	return s, nil
}

// usable is nil, or says that the Store is none of Open's.
func (s *Store) usable() error {
	if s == nil || s.writer == nil {
		return fmt.Errorf("%w: Store is empty, want one from Open", ErrConfig)
	}
	return nil
}

// Close finishes the calls that are under way, and ends the Store's goroutines.
// The database stays open. Later calls fail with delivery.ErrClosed. Closing
// again does nothing.
func (s *Store) Close() error {
	if s.usable() == nil {
		s.reader.close()
		s.writer.close()
		s.gets.close()
		s.watchers.close()
	}
	return nil
}

// Ping implements delivery.Pinger. It returns nil when the database answered.
// PostgreSQL must not be a standby, which is ErrReadOnly.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.usable(); err != nil {
		return err
	}
	return s.reader.read(ctx, "ping", func(q querier) error { return s.dialect.ping(ctx, q) })
}
