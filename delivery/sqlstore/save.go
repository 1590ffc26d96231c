package sqlstore

import (
	"context"
	"slices"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// saveCall is one call of Save on its way through the writer.
type saveCall struct {
	rows []encodedRecord
	errs []error
	due  time.Time // the earliest of the added records
}

// Save implements delivery.Store. Fields that stand in an index (ID, Recipient,
// IdempotencyKey, Type, ClaimedBy, Queue) may have 1024 bytes: a longer one is a
// *delivery.TooLargeError. A call is executed in chunks, each in one
// transaction. A chunk has up to Config.MaxBatch records and 16 MiB together,
// or one record that is larger. When a chunk fails, those after it are not
// tried.
func (s *Store) Save(ctx context.Context, records ...delivery.Record) []error {
	if err := s.usable(); err != nil {
		return slices.Repeat([]error{err}, len(records))
	}
	next := func(from int) (int, size) {
		return chunkBySize(from, len(records), s.config.MaxBatch, func(i int) int { return textBytes(&records[i]) })
	}
	return eachChunk(len(records), next, func(from, to int, amount size) ([]error, error) {
		chunk := records[from:to]
		errs := make([]error, len(chunk))
		c := &saveCall{rows: make([]encodedRecord, 0, len(chunk))}
		at := make([]int, 0, len(chunk))
		for i := range chunk {
			rows, err := encodeRecord(&chunk[i])
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
		err := s.writer.execute(ctx, s.save, amount, c)
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

func (t *recordTables) runSaves(ctx context.Context, q querier, calls []*saveCall) error {
	batch := make([]*encodedRecord, 0, len(calls))
	for _, c := range calls {
		for i := range c.rows {
			batch = append(batch, &c.rows[i])
		}
	}
	added, err := t.addRecords(ctx, q, batch)
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

// addRecords inserts the records that are not there yet, and returns which
// those were. Of several with the same ID the first counts.
func (t *recordTables) addRecords(ctx context.Context, q querier, batch []*encodedRecord) ([]bool, error) {
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
	fresh, err := t.messages.add(ctx, q, messages)
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
	_, err = t.progress.add(ctx, q, progress)
	return added, err
}

func (w *watchers) savesCommitted(calls []*saveCall) {
	var due time.Time
	for _, c := range calls {
		due = earliest(due, c.due)
	}
	w.tell(due)
}
