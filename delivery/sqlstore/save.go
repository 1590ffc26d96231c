package sqlstore

import (
	"context"
	"slices"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// saveCall is one call of Save on its way.
type saveCall struct {
	rows []encoded
	errs []error
	due  time.Time // the earliest of what was added
}

// Save implements delivery.Store. Fields that stand in an index (ID, Recipient,
// IdempotencyKey, ClaimedBy) may have 1024 bytes: more is a
// *delivery.TooLargeError.
func (s *Store) Save(ctx context.Context, records ...delivery.Record) []error {
	return eachChunk(len(records), s.config.MaxBatch, func(from, to int) ([]error, error) {
		chunk := records[from:to]
		errs := make([]error, len(chunk))
		c := &saveCall{rows: make([]encoded, 0, len(chunk))}
		at := make([]int, 0, len(chunk))
		for i := range chunk {
			rows, err := encode(&chunk[i])
			if err != nil {
				errs[i] = err
				continue
			}
			c.rows = append(c.rows, rows)
			at = append(at, i)
		}
		if len(c.rows) == 0 {
			return errs, nil
		}
		err := s.writer.perform(ctx, s.save, len(c.rows), c)
		for n, i := range at {
			if err != nil {
				errs[i] = err
			} else {
				errs[i] = c.errs[n]
			}
		}
		return errs, err
	})
}

// eachChunk calls do for chunks of n things, and puts their errors together. The
// error that do returns beside is the store's, and ends it. The result is nil
// when there are none.
func eachChunk(n, size int, do func(from, to int) ([]error, error)) []error {
	var all []error
	failed := false
	for from := 0; from < n; from += size {
		errs, err := do(from, min(from+size, n))
		if all == nil && n <= size {
			all = errs
		} else {
			all = append(all, errs...)
		}
		for _, err := range errs {
			failed = failed || err != nil
		}
		if err != nil {
			for len(all) < n {
				all = append(all, err)
			}
			break
		}
	}
	if !failed {
		return nil
	}
	return all
}

func (s *Store) runSaves(ctx context.Context, q querier, calls []*saveCall) error {
	batch := make([]*encoded, 0, len(calls))
	for _, c := range calls {
		for i := range c.rows {
			batch = append(batch, &c.rows[i])
		}
	}
	added, err := s.addRecords(ctx, q, batch)
	if err != nil {
		return err
	}
	for _, c := range calls {
		c.errs, c.due = make([]error, len(c.rows)), time.Time{}
		for i := range c.errs {
			if added[0] {
				c.due = earliest(c.due, c.rows[i].due)
			} else {
				c.errs[i] = delivery.ErrExists
			}
			added = added[1:]
		}
	}
	return nil
}

// addRecords inserts the records that are not there yet, and says which those
// were. Of several with the same ID the first counts.
func (s *Store) addRecords(ctx context.Context, q querier, batch []*encoded) ([]bool, error) {
	order := make([]int, len(batch))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return compareKeys(batch[a], batch[b]) })
	order = slices.CompactFunc(order, func(a, b int) bool { return compareKeys(batch[a], batch[b]) == 0 })
	messages := make([]row, len(order))
	for n, i := range order {
		messages[n] = batch[i].message
	}
	fresh, err := s.records.messages.add(ctx, q, messages)
	if err != nil {
		return nil, err
	}
	added := make([]bool, len(batch))
	progress := messages[:0]
	for n, i := range order {
		if fresh[n] {
			added[i] = true
			progress = append(progress, batch[i].progress)
		}
	}
	_, err = s.records.progress.add(ctx, q, progress)
	return added, err
}

func (s *Store) savesCommitted(calls []*saveCall) {
	var due time.Time
	for _, c := range calls {
		due = earliest(due, c.due)
	}
	s.watches.tell(due)
}

// earliest is the earlier of two times, of which a zero one is none.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
