package deliverytest_test

import (
	"context"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest"
	"github.com/esh3artech/barid/delivery/memory"
)

func openStore(testing.TB) delivery.Store { return memory.NewStore(memory.StoreConfig{}) }

func openShared(tb testing.TB) (one, other delivery.Store) {
	store := openStore(tb)
	return store, store
}

func TestStore(t *testing.T) { deliverytest.TestStore(t, openStore) }

func TestSharedStore(t *testing.T) { deliverytest.TestSharedStore(t, openShared) }

func BenchmarkStore(b *testing.B) { deliverytest.BenchmarkStore(b, openStore) }

// brokenStore is the memory store with one fault.
type brokenStore struct {
	*memory.Store
	fault storeFault
}

// storeFault replaces the methods whose functions are not nil.
type storeFault struct {
	save    func(ctx context.Context, s *memory.Store, records []delivery.Record) []error
	update  func(ctx context.Context, s *memory.Store, updates []delivery.Update) ([]delivery.Progress, []error)
	get     func(ctx context.Context, s *memory.Store, ids []string) ([]delivery.Record, []error)
	list    func(ctx context.Context, s *memory.Store, query delivery.RecordQuery) (delivery.RecordPage, error)
	claim   func(ctx context.Context, s *memory.Store, claim delivery.Claim) ([]delivery.Record, error)
	renew   func(ctx context.Context, s *memory.Store, queue, token string, until time.Time) error
	nextDue func(ctx context.Context, s *memory.Store, queue string, statuses []delivery.Status) (time.Time, error)
	stats   func(*delivery.RecordStats)
	purge   func(ctx context.Context, s *memory.Store, queue string, before time.Time, limit int) (int, error)
	watch   func(s *memory.Store, due func(time.Time)) func()
	ping    func(ctx context.Context, s *memory.Store) error
}

func (b *brokenStore) Save(ctx context.Context, records ...delivery.Record) []error {
	if b.fault.save != nil {
		return b.fault.save(ctx, b.Store, records)
	}
	return b.Store.Save(ctx, records...)
}

func (b *brokenStore) Update(ctx context.Context, updates ...delivery.Update) ([]delivery.Progress, []error) {
	if b.fault.update != nil {
		return b.fault.update(ctx, b.Store, updates)
	}
	return b.Store.Update(ctx, updates...)
}

func (b *brokenStore) Get(ctx context.Context, ids ...string) ([]delivery.Record, []error) {
	if b.fault.get != nil {
		return b.fault.get(ctx, b.Store, ids)
	}
	return b.Store.Get(ctx, ids...)
}

func (b *brokenStore) List(ctx context.Context, query delivery.RecordQuery) (delivery.RecordPage, error) {
	if b.fault.list != nil {
		return b.fault.list(ctx, b.Store, query)
	}
	return b.Store.List(ctx, query)
}

func (b *brokenStore) Claim(ctx context.Context, claim delivery.Claim) ([]delivery.Record, error) {
	if b.fault.claim != nil {
		return b.fault.claim(ctx, b.Store, claim)
	}
	return b.Store.Claim(ctx, claim)
}

func (b *brokenStore) Renew(ctx context.Context, queue, token string, until time.Time) error {
	if b.fault.renew != nil {
		return b.fault.renew(ctx, b.Store, queue, token, until)
	}
	return b.Store.Renew(ctx, queue, token, until)
}

func (b *brokenStore) NextDue(ctx context.Context, queue string, statuses ...delivery.Status) (time.Time, error) {
	if b.fault.nextDue != nil {
		return b.fault.nextDue(ctx, b.Store, queue, statuses)
	}
	return b.Store.NextDue(ctx, queue, statuses...)
}

func (b *brokenStore) Stats(ctx context.Context, queue string) (delivery.RecordStats, error) {
	stats, err := b.Store.Stats(ctx, queue)
	if err == nil && b.fault.stats != nil {
		b.fault.stats(&stats)
	}
	return stats, err
}

func (b *brokenStore) Purge(ctx context.Context, queue string, before time.Time, limit int) (int, error) {
	if b.fault.purge != nil {
		return b.fault.purge(ctx, b.Store, queue, before, limit)
	}
	return b.Store.Purge(ctx, queue, before, limit)
}

func (b *brokenStore) Watch(due func(time.Time)) func() {
	if b.fault.watch != nil {
		return b.fault.watch(b.Store, due)
	}
	return b.Store.Watch(due)
}

func (b *brokenStore) Ping(ctx context.Context) error {
	if b.fault.ping != nil {
		return b.fault.ping(ctx, b.Store)
	}
	return b.Store.Ping(ctx)
}

// saved saves each record with a change.
func saved(change func(*delivery.Record)) storeFault {
	return storeFault{save: func(ctx context.Context, s *memory.Store, records []delivery.Record) []error {
		records = slices.Clone(records)
		for i := range records {
			change(&records[i])
		}
		return s.Save(ctx, records...)
	}}
}

// got returns each record with a change.
func got(change func(*delivery.Record)) storeFault {
	return storeFault{get: func(ctx context.Context, s *memory.Store, ids []string) ([]delivery.Record, []error) {
		records, errs := s.Get(ctx, ids...)
		for i := range records {
			change(&records[i])
		}
		return records, errs
	}}
}

// updated makes each update with a change.
func updated(change func(*delivery.Update)) storeFault {
	return storeFault{update: func(ctx context.Context, s *memory.Store, updates []delivery.Update) ([]delivery.Progress, []error) {
		updates = slices.Clone(updates)
		for i := range updates {
			change(&updates[i])
		}
		return s.Update(ctx, updates...)
	}}
}

// updateTold changes what the caller of Update is told.
func updateTold(change func([]delivery.Progress, []error) ([]delivery.Progress, []error)) storeFault {
	return storeFault{update: func(ctx context.Context, s *memory.Store, updates []delivery.Update) ([]delivery.Progress, []error) {
		return change(s.Update(ctx, updates...))
	}}
}

// claimed changes the claim with ask, and the claimed records with answer.
func claimed(ask func(*delivery.Claim), answer func([]delivery.Record)) storeFault {
	return storeFault{claim: func(ctx context.Context, s *memory.Store, claim delivery.Claim) ([]delivery.Record, error) {
		ask(&claim)
		records, err := s.Claim(ctx, claim)
		answer(records)
		return records, err
	}}
}

// listed changes the query with ask, and the page with answer.
func listed(ask func(*delivery.RecordQuery), answer func(*delivery.RecordPage)) storeFault {
	return storeFault{list: func(ctx context.Context, s *memory.Store, query delivery.RecordQuery) (delivery.RecordPage, error) {
		ask(&query)
		page, err := s.List(ctx, query)
		answer(&page)
		return page, err
	}}
}

func claim(*delivery.Claim)          {}
func records([]delivery.Record)      {}
func query(*delivery.RecordQuery)    {}
func page(*delivery.RecordPage)      {}
func oneError(errs []error) []error  { return errs[:min(1, len(errs))] }
func withoutErrors([]error) []error  { return nil }
func inReverse(errs []error) []error { slices.Reverse(errs); return errs }

// saveTold changes the errors that the caller of Save is told.
func saveTold(change func([]error) []error) storeFault {
	return storeFault{save: func(ctx context.Context, s *memory.Store, records []delivery.Record) []error {
		return change(s.Save(ctx, records...))
	}}
}

func eachRecord(change func(*delivery.Record)) func([]delivery.Record) {
	return func(records []delivery.Record) {
		for i := range records {
			change(&records[i])
		}
	}
}

// limited makes Save fail for more records than limit.
func (f storeFault) limited(limit int) storeFault {
	save := f.save
	f.save = func(ctx context.Context, s *memory.Store, records []delivery.Record) []error {
		if len(records) > limit {
			return slices.Repeat([]error{delivery.ErrStoreDown}, len(records))
		}
		return save(ctx, s, records)
	}
	return f
}

// TestBrokenStore runs the suite on the broken store that the environment
// names, and has to fail then. Otherwise it does nothing.
func TestBrokenStore(t *testing.T) {
	row, ok := storeFaults[os.Getenv(brokenVariable)]
	if !ok {
		return
	}
	// Of a fault by which a watcher is not told, the suite learns by waiting.
	deliverytest.StoreWithin(t, time.Second, func(testing.TB) delivery.Store {
		return &brokenStore{memory.NewStore(memory.StoreConfig{}), row.fault}
	})
}

// TestBrokenSharedStore is TestBrokenStore for two stores on the same data.
func TestBrokenSharedStore(t *testing.T) {
	name := os.Getenv(brokenVariable)
	if name == "" {
		return
	}
	deliverytest.TestSharedStore(t, func(tb testing.TB) (one, other delivery.Store) {
		one, other = openShared(tb)
		switch name {
		case "remembers":
			return &staleStore{one, map[string]delivery.Record{}}, &staleStore{one, map[string]delivery.Record{}}
		case "does not share":
			return one, openStore(tb)
		}
		return one, other
	})
}

func TestSuiteNoticesStoreFaults(t *testing.T) {
	subtests := map[string][]string{}
	for name, row := range storeFaults {
		subtests[name] = row.subtests
	}
	noticesFaults(t, "TestBrokenStore", subtests)
	noticesFaults(t, "TestBrokenSharedStore", map[string][]string{
		"remembers":      {"SeesTheOthers"},
		"does not share": {"SeesTheOthers", "UpdatesAtOnce", "SavesAtOnce", "BatchesCrosswise"},
	})
}
