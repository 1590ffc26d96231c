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
// *delivery.TooLargeError. A call is carried out in parts of up to Config.MaxBatch
// records with up to 16 MiB together, or one that is larger, each in one
// transaction; when one fails, those after it are not tried.
func (s *Store) Save(ctx context.Context, records ...delivery.Record) []error {
	next := func(from int) (int, size) {
		return part(from, len(records), s.config.MaxBatch, func(i int) int { return bytesIn(&records[i]) })
	}
	return eachChunk(len(records), next, func(from, to int, many size) ([]error, error) {
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
		err := s.writer.perform(ctx, s.save, many, c)
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

// part is where the part of n things ends that begins at from, by how many bytes
// each has, and how much it is.
func part(from, n, rows int, bytes func(i int) int) (to int, many size) {
	for to = from; to < n && many.rows < rows; to++ {
		with := many.plus(size{rows: 1, bytes: bytes(to)})
		if with.bytes > maxBytes && many.rows > 0 {
			break
		}
		many = with
	}
	return to, many
}

// byCount has the parts of n things be of so many.
func byCount(n, rows int) func(from int) (to int, many size) {
	return func(from int) (int, size) {
		to := min(from+rows, n)
		return to, size{rows: to - from}
	}
}

// eachChunk calls do for parts of n things, and puts their errors together. The
// error that do returns beside is the store's, and ends it. The result is nil
// when there are none.
func eachChunk(n int, next func(from int) (to int, many size), do func(from, to int, many size) ([]error, error)) []error {
	var all []error
	failed := false
	for from := 0; from < n; {
		to, many := next(from)
		errs, err := do(from, to, many)
		from = to
		if all == nil && to == n {
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
