package memory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// DefaultMaxRecords is the default of StoreConfig.MaxRecords.
const DefaultMaxRecords = 1_000_000

// ErrFull says that a Store has as many records as its config allows, so that
// the record was not saved. What it says is a failure of the store, too: errors
// that match ErrFull match delivery.ErrStoreDown. Purge makes room.
var ErrFull = fmt.Errorf("memory: the store is full: %w", delivery.ErrStoreDown)

// StoreConfig says how much a Store holds. The zero value is ready to use.
type StoreConfig struct {
	// MaxRecords bounds how many records are kept; each takes about 1 KiB beside
	// its body. Nothing is dropped to make room: Save returns ErrFull for what
	// does not fit. Default DefaultMaxRecords, 1,000,000.
	MaxRecords int
}

// Store is a delivery.Store within the process, for tests and for hosts that can
// bear to lose their records with the process. Its methods may be called by any
// number of goroutines at once.
//
// A claim, the next due time and the counts cost the same whatever is kept. A
// List reads in order of age what lies between its filter's times, and lets
// others in between.
type Store struct {
	limit int
	fault error

	mu       sync.RWMutex
	records  *records
	watchers watchers
}

var (
	_ delivery.Store        = (*Store)(nil)
	_ delivery.StoreWatcher = (*Store)(nil)
	_ delivery.Pinger       = (*Store)(nil)
)

// NewStore returns an empty store. It does not fail: with a config that can't be
// used, every use and Err return what is wrong with it.
func NewStore(config StoreConfig) *Store {
	s := &Store{limit: config.MaxRecords, records: newRecords()}
	switch {
	case s.limit == 0:
		s.limit = DefaultMaxRecords
	case s.limit < 0:
		s.fault = fmt.Errorf("%w: MaxRecords is %d, want 1 or more, or 0 for the default", ErrConfig, s.limit)
	}
	return s
}

// Err is what is wrong with the StoreConfig, or nil. It matches ErrConfig.
func (s *Store) Err() error {
	if s == nil || s.records == nil {
		return fmt.Errorf("%w: the store was not made by NewStore", ErrConfig)
	}
	return s.fault
}

func (s *Store) usable(ctx context.Context) error {
	if err := s.Err(); err != nil {
		return err
	}
	return ctx.Err()
}

// Ping implements delivery.Pinger.
func (s *Store) Ping(ctx context.Context) error { return s.usable(ctx) }

// Watch implements delivery.StoreWatcher. It tells of Claim and Renew, too. due
// must not call stop.
func (s *Store) Watch(due func(at time.Time)) (stop func()) {
	if s.Err() != nil || due == nil {
		return func() {}
	}
	return s.watchers.add(due)
}

// Save implements delivery.Store. Records for which there is no room have
// ErrFull; those before them are saved.
func (s *Store) Save(ctx context.Context, added ...delivery.Record) []error {
	if err := s.usable(ctx); err != nil {
		return repeat(err, len(added))
	}
	rows := make([]*row, len(added))
	for i := range added {
		rows[i] = &row{record: added[i]}
		isolateRecord(&rows[i].record)
		wholeMicroseconds(&rows[i].record)
	}
	var errs []error
	var due earliest
	s.mu.Lock()
	for i := range rows {
		if err := s.save(rows[i]); err != nil {
			errs = note(errs, len(rows), i, err)
			continue
		}
		due.add(rows[i].record.DueAt)
	}
	s.mu.Unlock()
	s.watchers.tell(due)
	return errs
}

func (s *Store) save(row *row) error {
	switch {
	case row.record.ID == "":
		return &delivery.InvalidError{Field: "ID", Problem: "is empty"}
	case !row.record.Status.Valid():
		return &delivery.InvalidError{Field: "Status", Problem: fmt.Sprintf("is %.32q, want one of the statuses", string(row.record.Status))}
	case s.records.byID[row.record.ID] != nil:
		return delivery.ErrExists
	case len(s.records.byID) >= s.limit:
		return fmt.Errorf("%w: it has %d records", ErrFull, s.limit)
	}
	s.records.add(row)
	return nil
}

// Update implements delivery.Store.
func (s *Store) Update(ctx context.Context, updates ...delivery.Update) ([]delivery.Progress, []error) {
	progress := make([]delivery.Progress, len(updates))
	if err := s.usable(ctx); err != nil {
		return progress, repeat(err, len(updates))
	}
	var errs []error
	var due earliest
	s.mu.Lock()
	for i := range updates {
		if err := s.update(updates[i], &progress[i], &due); err != nil {
			errs = note(errs, len(updates), i, err)
		}
	}
	s.mu.Unlock()
	for i := range progress {
		progress[i].History = slices.Clone(progress[i].History)
	}
	s.watchers.tell(due)
	return progress, errs
}

func (s *Store) update(update delivery.Update, progress *delivery.Progress, due *earliest) error {
	if err := update.Validate(); err != nil {
		return err
	}
	row := s.records.byID[update.ID]
	if row == nil {
		return delivery.ErrNotFound
	}
	update.At, update.DueAt = microseconds(update.At), microseconds(update.DueAt)
	if update.Failure != nil {
		failure := *update.Failure
		failure.At = microseconds(failure.At)
		update.Failure = &failure
	}
	before := row.record.DueAt
	err := row.record.Apply(update)
	*progress = row.record.Progress
	if err != nil {
		return err
	}
	s.records.moved(row)
	if !row.record.DueAt.Equal(before) {
		due.add(row.record.DueAt)
	}
	return nil
}

// Get implements delivery.Store.
func (s *Store) Get(ctx context.Context, ids ...string) ([]delivery.Record, []error) {
	got := make([]delivery.Record, len(ids))
	if err := s.usable(ctx); err != nil {
		return got, repeat(err, len(ids))
	}
	var errs []error
	s.mu.RLock()
	for i, id := range ids {
		if row := s.records.byID[id]; row != nil {
			got[i] = row.record
		} else {
			errs = note(errs, len(ids), i, delivery.ErrNotFound)
		}
	}
	s.mu.RUnlock()
	for i := range got {
		isolateRecord(&got[i])
	}
	return got, errs
}

// Claim implements delivery.Store. Of records due at the same time those saved
// first come first.
func (s *Store) Claim(ctx context.Context, claim delivery.Claim) ([]delivery.Record, error) {
	if err := errors.Join(s.usable(ctx), claim.Validate()); err != nil {
		return nil, err
	}
	until := microseconds(claim.Now.Add(claim.Lease))
	s.mu.Lock()
	claimed := s.records.claim(claim, until)
	s.mu.Unlock()
	if len(claimed) == 0 {
		return nil, nil
	}
	for i := range claimed {
		isolateRecord(&claimed[i])
	}
	s.watchers.tell(earliest{until})
	return claimed, nil
}

// bite is how many records are looked at before others are let in.
const bite = 1024

// Renew implements delivery.Store.
func (s *Store) Renew(ctx context.Context, token string, until time.Time) (int, error) {
	if err := s.usable(ctx); err != nil {
		return 0, err
	}
	until = microseconds(until)
	renewed := 0
	s.mu.Lock()
	// From the end on: what leaves the list while others are let in is replaced
	// by its last, which then was renewed before.
	for at := len(s.records.claims[token]) - 1; at >= 0; at-- {
		at = min(at, len(s.records.claims[token])-1)
		if at < 0 {
			break
		}
		row := s.records.claims[token][at]
		if status := row.record.Status; status == delivery.StatusPending || status == delivery.StatusQueued {
			row.record.DueAt = until
			s.records.postponed(row)
			renewed++
		}
		if at%bite == 0 {
			s.mu.Unlock()
			s.mu.Lock()
		}
	}
	s.mu.Unlock()
	if renewed > 0 {
		s.watchers.tell(earliest{until})
	}
	return renewed, nil
}

// NextDue implements delivery.Store.
func (s *Store) NextDue(ctx context.Context, statuses ...delivery.Status) (time.Time, error) {
	if err := s.usable(ctx); err != nil {
		return time.Time{}, err
	}
	var due earliest
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, status := range statuses {
		if first := s.records.due[status].first(); first != nil {
			due.add(first.record.DueAt)
		}
	}
	return due.at, nil
}

// Purge implements delivery.Store.
func (s *Store) Purge(ctx context.Context, before time.Time, limit int) (int, error) {
	if err := s.usable(ctx); err != nil {
		return 0, err
	}
	purged := 0
	s.mu.Lock()
	defer s.mu.Unlock()
	for purged < limit {
		first := s.records.settled.first()
		if first == nil || !first.record.UpdatedAt.Before(before) {
			break
		}
		s.records.remove(first)
		if purged++; purged%bite == 0 {
			s.mu.Unlock()
			s.mu.Lock()
		}
	}
	return purged, nil
}

// Stats implements delivery.Store.
func (s *Store) Stats(ctx context.Context) (delivery.RecordStats, error) {
	if err := s.usable(ctx); err != nil {
		return delivery.RecordStats{}, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.records.stats(), nil
}

// repeat is the errors of a call that failed as a whole.
func repeat(err error, n int) []error {
	if n == 0 {
		return nil
	}
	return slices.Repeat([]error{err}, n)
}

// note is errs with the error of the i-th of n.
func note(errs []error, n, i int, err error) []error {
	if errs == nil {
		errs = make([]error, n)
	}
	errs[i] = err
	return errs
}

// earliest is the earliest of the times added, zero when there was none.
type earliest struct{ at time.Time }

func (e *earliest) add(at time.Time) {
	if !at.IsZero() && (e.at.IsZero() || at.Before(e.at)) {
		e.at = at
	}
}
