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

const defaultMaxRecords = 1_000_000

// ErrFull says that a Store holds as many records as its config allows, and
// that the record was not saved. It is a failure of the store: errors that
// match ErrFull match delivery.ErrStoreDown. Purge makes room.
var ErrFull = fmt.Errorf("memory: the store is full: %w", delivery.ErrStoreDown)

// StoreConfig says how much a Store holds. The zero value is ready to use.
type StoreConfig struct {
	// MaxRecords bounds how many records are kept. Each takes about 1 KiB and its
	// body. No record is dropped to make room: Save returns ErrFull for those that
	// don't fit. Default 1,000,000.
	MaxRecords int
}

// Store is a delivery.Store within the process. It is for tests, and for hosts
// that can afford to lose their records when the process ends. Its methods may
// be called by any number of goroutines at once.
//
// A claim, the next due time and the counts cost the same however many records
// there are. List reads the records between its filter's times in the order of
// their age, and releases the lock now and then, so that other calls go on.
type Store struct {
	limit int
	fault error

	mu       sync.RWMutex
	records  *recordIndex
	watchers watchers
}

var (
	_ delivery.Store        = (*Store)(nil)
	_ delivery.StoreWatcher = (*Store)(nil)
	_ delivery.Pinger       = (*Store)(nil)
)

// NewStore returns an empty store. It does not fail: when the config can't be
// used, every method that can fail and Err return what is wrong with it.
func NewStore(config StoreConfig) *Store {
	s := &Store{limit: config.MaxRecords, records: newRecordIndex()}
	switch {
	case s.limit == 0:
		s.limit = defaultMaxRecords
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

// Watch implements delivery.StoreWatcher. Watchers are told of claims and
// renewals as well. due must not call stop.
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
	stored := make([]*storedRecord, len(added))
	for i := range added {
		stored[i] = &storedRecord{record: added[i]}
		isolateRecord(&stored[i].record)
		wholeMicroseconds(&stored[i].record)
	}
	var errs []error
	var due earliest
	s.mu.Lock()
	for i := range stored {
		if err := s.save(stored[i]); err != nil {
			errs = withError(errs, len(stored), i, err)
			continue
		}
		due.add(stored[i].record.DueAt)
	}
	s.mu.Unlock()
	s.watchers.tell(due)
	return errs
}

func (s *Store) save(stored *storedRecord) error {
	switch {
	case stored.record.ID == "":
		return &delivery.InvalidError{Field: "ID", Problem: "is empty"}
	case stored.record.Queue == "":
		return &delivery.InvalidError{Field: "Queue", Problem: "is empty"}
	case !stored.record.Status.Valid():
		return &delivery.InvalidError{Field: "Status", Problem: fmt.Sprintf("is %.32q, want one of the statuses", string(stored.record.Status))}
	case s.records.byID[stored.record.ID] != nil:
		return delivery.ErrExists
	case len(s.records.byID) >= s.limit:
		return fmt.Errorf("%w: it has %d records", ErrFull, s.limit)
	}
	s.records.add(stored)
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
			errs = withError(errs, len(updates), i, err)
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
	stored := s.records.byID[update.ID]
	if stored == nil {
		return delivery.ErrNotFound
	}
	update.At, update.DueAt = microseconds(update.At), microseconds(update.DueAt)
	if update.Failure != nil {
		failure := *update.Failure
		failure.At = microseconds(failure.At)
		update.Failure = &failure
	}
	before := stored.record.DueAt
	err := stored.record.Apply(update)
	*progress = stored.record.Progress
	if err != nil {
		return err
	}
	s.records.reindex(stored)
	if !stored.record.DueAt.Equal(before) {
		due.add(stored.record.DueAt)
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
		if stored := s.records.byID[id]; stored != nil {
			got[i] = stored.record
		} else {
			errs = withError(errs, len(ids), i, delivery.ErrNotFound)
		}
	}
	s.mu.RUnlock()
	for i := range got {
		isolateRecord(&got[i])
	}
	return got, errs
}

// Claim implements delivery.Store. Of records that are due at the same time,
// those that were saved first come first.
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

// maxLocked is how many records are read or changed before the lock is released
// for other calls.
const maxLocked = 1024

// Renew implements delivery.Store.
func (s *Store) Renew(ctx context.Context, queue, token string, until time.Time) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	until = microseconds(until)
	renewed := false
	s.mu.Lock()
	// It goes from the end to the start, because a record that leaves the list
	// while the lock is released is replaced by the last one, which was renewed
	// before.
	for at := len(s.records.claims[token]) - 1; at >= 0; at-- {
		at = min(at, len(s.records.claims[token])-1)
		if at < 0 {
			break
		}
		stored := s.records.claims[token][at]
		if status := stored.record.Status; stored.record.Queue == queue && (status == delivery.StatusPending || status == delivery.StatusQueued) {
			stored.record.DueAt = until
			s.records.reschedule(stored)
			renewed = true
		}
		if at%maxLocked == 0 {
			s.mu.Unlock()
			s.mu.Lock()
		}
	}
	s.mu.Unlock()
	if renewed {
		s.watchers.tell(earliest{until})
	}
	return nil
}

// NextDue implements delivery.Store.
func (s *Store) NextDue(ctx context.Context, queue string, statuses ...delivery.Status) (time.Time, error) {
	if err := s.usable(ctx); err != nil {
		return time.Time{}, err
	}
	var due earliest
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, status := range statuses {
		due.add(s.records.nextDue(queue, status))
	}
	return due.at, nil
}

// Purge implements delivery.Store.
func (s *Store) Purge(ctx context.Context, queue string, before time.Time, limit int) (int, error) {
	if err := s.usable(ctx); err != nil {
		return 0, err
	}
	if queue == "" {
		return 0, &delivery.InvalidError{Field: "queue", Problem: "is empty"}
	}
	purged := 0
	s.mu.Lock()
	defer s.mu.Unlock()
	for purged < limit && s.records.queues[queue] != nil {
		first := s.records.queues[queue].settled.first()
		if first == nil || !first.record.UpdatedAt.Before(before) {
			break
		}
		s.records.remove(first)
		if purged++; purged%maxLocked == 0 {
			s.mu.Unlock()
			s.mu.Lock()
		}
	}
	return purged, nil
}

// Stats implements delivery.Store.
func (s *Store) Stats(ctx context.Context, queue string) (delivery.RecordStats, error) {
	if err := s.usable(ctx); err != nil {
		return delivery.RecordStats{}, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.records.stats(queue), nil
}

// repeat is the errors of a call that failed as a whole.
func repeat(err error, n int) []error {
	if n == 0 {
		return nil
	}
	return slices.Repeat([]error{err}, n)
}

// withError is errs with the error of item i out of n.
func withError(errs []error, n, i int, err error) []error {
	if errs == nil {
		errs = make([]error, n)
	}
	errs[i] = err
	return errs
}

// earliest is the earliest of the times that were added, or zero when there was
// none.
type earliest struct{ at time.Time }

func (e *earliest) add(at time.Time) {
	if !at.IsZero() && (e.at.IsZero() || at.Before(e.at)) {
		e.at = at
	}
}
